"""`python -m pipelines.verify DIRECTORY`: is this dataset whole, and does everything add up?"""

import argparse
import sys
from collections.abc import Sequence

from shardstream.pipelines.job.against_source import add_flags, check_flags
from shardstream.pipelines.job.summary import describe_dataset
from shardstream.shard_format.manifest import read_manifest
from shardstream.shard_format.storage import open_directory
from shardstream.shard_format.verify import verify


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0 for a whole dataset, 1 for a damaged one, 2 for none."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.verify", description=(__doc__ or "").split(": ", 1)[1]
    )
    parser.add_argument("directory", help="the --output of pipelines.preprocess")
    add_flags(parser)
    flags = parser.parse_args(argv)
    try:
        directory = open_directory(flags.directory)
        problems = list(verify(directory))
        compared = None if problems else check_flags(directory, flags)
        problems += compared.problems if compared else ()
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for problem in problems:
        print(f"damaged: {problem}")
    if problems:
        return 1
    print(describe_dataset(read_manifest(directory), flags.directory))
    print("verified: every shard's sha256, every record, every document once, every sum")
    if compared:
        print(f"{compared.documents:,} documents have the ids of their source's texts")
    return 0


if __name__ == "__main__":
    sys.exit(main())
