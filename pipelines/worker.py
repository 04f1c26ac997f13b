"""The program that an engine starts for each Python worker: `--environment_type=PROCESS`.

Beam's containers have a boot program; a Flink or Spark machine without containers needs one too.
The engine calls it with a worker id and an address; that address tells the rest, which Beam's
worker wants in its environment. `pip install` puts it on PATH as `shardstream-worker`:

    --environment_type=PROCESS --environment_config='{"command": "/venv/bin/shardstream-worker"}'

The machine must have the same shardstream installed as the one that submits: nothing is staged.
"""

import argparse
from collections.abc import Sequence

from shardstream.pipelines.process import set_up_process


def main(argv: Sequence[str] | None = None) -> None:
    """Works for the engine until it closes the connection."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--id", required=True)
    parser.add_argument("--provision_endpoint", required=True)
    flags, _ = parser.parse_known_args(argv)
    set_up_process()
    from shardstream.pipelines.job.harness import work

    work(flags.id, flags.provision_endpoint)


if __name__ == "__main__":
    main()
