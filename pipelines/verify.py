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


def make_parser() -> FlagParser:
    """Returns the parser of the command's words."""
    parser = FlagParser(
        prog="shardstream verify",
        description="Checks a dataset directory: every shard's sha256, every record, every "
        "document once, every sum; and, if asked, the ids against the source.",
    )
    parser.add_argument("directory", help="the --output of a finished build")
    parser.add_argument(
        "--against_source",
        metavar="N",
        help="read the source again and compare the ids of N documents, or of all",
    )
    parser.add_argument("--dataset", help="of the build, where the source isn't on the hub")
    parser.add_argument("--data_files", nargs="+", default=[], metavar="FILE", help="of the build")
    return parser


def _run(argv: Sequence[str]) -> int:
    flags = make_parser().parse_args(argv)

    from shardstream.pipelines.job.failures import planning
    from shardstream.pipelines.job.summary import describe_dataset
    from shardstream.shard_format.manifest import read_manifest
    from shardstream.shard_format.storage import open_directory
    from shardstream.shard_format.verify import verify

    compared = None
    with planning():
        directory = open_directory(flags.directory)
        problems = list(verify(directory))
        if not problems and flags.against_source is not None:
            from shardstream.pipelines.job.against_source import compare_with_source, sample_size

            compared = compare_with_source(
                directory,
                sample=sample_size(flags.against_source),
                dataset=flags.dataset,
                data_files=flags.data_files,
            )
            problems += compared.problems
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
