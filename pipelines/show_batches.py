"""`shardstream show DIRECTORY`: the first batches, as a trainer would get them."""

import sys
from collections.abc import Sequence

from shardstream.pipelines.job.failures import guarded, planning
from shardstream.pipelines.job.flags import FlagParser, HelpFormatter
from shardstream.pipelines.process import set_up_process

_TEXT_CHARACTERS = 160
_FIELDS = ("tokens", "segment_ids", "positions", "loss_mask")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, or 2 where there is no dataset."""
    set_up_process()
    words = sys.argv[1:] if argv is None else argv
    return guarded("shardstream show", lambda: _run(words))


def _run(argv: Sequence[str]) -> int:
    parser = FlagParser(
        prog="shardstream show",
        description="Prints the first batches of a dataset: shapes, dtypes, decoded text.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("directory", help="the --output of a build")
    parser.add_argument("--num_batches", type=int, default=3, metavar="N", help="batches to print")
    parser.add_argument("--batch_size", type=int, default=4, metavar="N", help="rows of a batch")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the order")
    flags = parser.parse_args(argv)

    from transformers import AutoTokenizer

    from shardstream.loaders import Loader
    from shardstream.shard_format import naming
    from shardstream.shard_format.storage import open_directory

    with planning():
        loader = Loader(
            flags.directory, batch_size=flags.batch_size, seed=flags.seed, fields=_FIELDS
        )
    with open_directory(flags.directory).fetching(naming.TOKENIZER_DIRECTORY) as folder:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    with loader:
        for step, batch in zip(range(flags.num_batches), loader, strict=False):
            fields = ", ".join(f"{k} jnp.{v.dtype}{list(v.shape)}" for k, v in batch.items())
            print(f"step {step}: {fields}")
            for tokens, segments in zip(batch["tokens"], batch["segment_ids"], strict=True):
                text = tokenizer.decode(tokens[segments > 0].tolist())
                print(f"  {int(segments.max()):3d} documents: {text[:_TEXT_CHARACTERS]!r} ...")
    return 0


if __name__ == "__main__":
    sys.exit(main())
