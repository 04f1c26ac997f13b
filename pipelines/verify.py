"""`shardstream verify DIRECTORY`: is this dataset whole, and does everything add up?"""

import sys
from collections.abc import Sequence

from shardstream.pipelines.job.failures import guarded
from shardstream.pipelines.job.flags import FlagParser
from shardstream.pipelines.process import set_up_process


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0 for a whole dataset, 1 for a damaged one, 2 for none."""
    set_up_process()
    words = sys.argv[1:] if argv is None else argv
    return guarded("shardstream verify", lambda: _run(words))


def _run(argv: Sequence[str]) -> int:
    parser = FlagParser(
        prog="shardstream verify",
        description="Checks a dataset directory: every shard's sha256, every record, every "
        "document once, every sum.",
    )
    parser.add_argument("directory", help="the --output of a finished build")
    where = parser.parse_args(argv).directory

    from shardstream.pipelines.job.failures import planning
    from shardstream.pipelines.job.summary import describe_dataset
    from shardstream.shard_format.manifest import read_manifest
    from shardstream.shard_format.storage import open_directory
    from shardstream.shard_format.verify import verify

    with planning():
        directory = open_directory(where)
        problems = list(verify(directory))
    for problem in problems:
        print(f"damaged: {problem}")
    if problems:
        return 1
    print(describe_dataset(read_manifest(directory), where))
    print("verified: every shard's sha256, every record, every document once, every sum")
    return 0


if __name__ == "__main__":
    sys.exit(main())
