"""`python -m pipelines.show_batches DIRECTORY`: the first batches, as a trainer would get them."""

import argparse
import sys
from collections.abc import Sequence

from shardstream.loaders import Loader
from shardstream.shard_format import naming
from shardstream.shard_format.storage import open_directory

_TEXT_CHARACTERS = 160


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, or 2 where there is no dataset."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.show_batches",
        description="Prints the first batches of a dataset: shapes, dtypes, decoded text.",
    )
    parser.add_argument("directory", help="the --output of pipelines.preprocess")
    parser.add_argument("--num_batches", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args(argv)
    try:
        loader = Loader(
            flags.directory,
            batch_size=flags.batch_size,
            seed=flags.seed,
            fields=("tokens", "segment_ids", "positions", "loss_mask"),
        )
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    from transformers import AutoTokenizer

    directory = open_directory(flags.directory)
    with directory.fetching(naming.TOKENIZER_DIRECTORY) as folder:
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
