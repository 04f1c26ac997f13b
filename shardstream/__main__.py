"""`python -m shardstream`: the `shardstream` command."""

import sys

from shardstream.pipelines.command import main

if __name__ == "__main__":
    sys.exit(main())
