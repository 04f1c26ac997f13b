"""The same work done by the classic recipe: `load_dataset`, `shuffle`, `map(tokenize)`, parquet.

`Dataset.shuffle` permutes row numbers over the whole dataset, so the result is globally shuffled;
`map` then reads rows in that order. Starts from an empty cache each time, as a new dataset would.
Prints one line of JSON as `benchmarks.datatrove_peer` does.

Run it: `python -m benchmarks.hf_map_peer --tokenizer DIR FILES...`.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.datatrove_peer import ProcessTreeMeter, report

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NUM_SHARDS = 8


def tokenize(
    texts: list[str], *, tokenizer: "PreTrainedTokenizerBase"
) -> dict[str, list[list[int]]]:
    """Ids of each text with end-of-text after it, as the recipe's users write it."""
    ids = tokenizer(texts, return_attention_mask=False)["input_ids"]
    return {"input_ids": [[*text_ids, tokenizer.eos_token_id] for text_ids in ids]}


def run_recipe(
    files: Sequence[Path], tokenizer: Path, *, num_proc: int, seed: int, text_key: str, work: Path
) -> int:
    """Writes `work/train-*.parquet` of shuffled, tokenized documents; returns their tokens."""
    import pyarrow.parquet as pq
    from datasets import load_dataset
    from transformers import AutoTokenizer

    documents = load_dataset(
        "parquet",
        data_files=[str(file) for file in files],
        split="train",
        cache_dir=str(work / "cache"),
    )
    tokenized = documents.shuffle(seed=seed).map(
        partial(tokenize, tokenizer=AutoTokenizer.from_pretrained(tokenizer)),
        input_columns=[text_key],
        batched=True,
        batch_size=1000,
        num_proc=num_proc,
        remove_columns=documents.column_names,
    )
    tokens = 0
    for index in range(NUM_SHARDS):
        path = work / f"train-{index:05d}-of-{NUM_SHARDS:05d}.parquet"
        tokenized.shard(NUM_SHARDS, index, contiguous=True).to_parquet(path)
        metadata = pq.ParquetFile(path).metadata  # one column: its values are the tokens
        tokens += sum(
            metadata.row_group(group).column(0).num_values
            for group in range(metadata.num_row_groups)
        )
    return tokens


def main() -> None:
    """Tokenizes and shuffles parquet files with datasets.map and prints one line of JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="parquet files")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a transformers folder")
    parser.add_argument("--num-proc", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--text-key", default="text")
    parser.add_argument("--work-root", type=Path, help="where the temporary output goes")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.work_root, prefix="hf-map-peer-") as work:
        os.environ |= {
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": f"{work}/home",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "TRANSFORMERS_VERBOSITY": "error",
        }
        import datasets  # noqa: F401  (imports are no part of the time)
        import transformers  # noqa: F401

        start = time.perf_counter()
        with ProcessTreeMeter() as meter:
            tokens = run_recipe(
                args.files,
                args.tokenizer,
                num_proc=args.num_proc,
                seed=args.seed,
                text_key=args.text_key,
                work=Path(work),
            )
        seconds = time.perf_counter() - start
    print(report("hf_map", meter, tokens=tokens, seconds=seconds))


if __name__ == "__main__":
    main()
