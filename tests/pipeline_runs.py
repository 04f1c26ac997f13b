"""Runs the pipeline as its command does, and reads back what it wrote."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from shardstream.pipelines.job.options import parse_options
from shardstream.pipelines.job.runners import find_prism
from shardstream.pipelines.preprocess import preprocess
from shardstream.shard_format.manifest import Manifest, Shard, read_manifest
from shardstream.shard_format.provenance import read_provenance
from shardstream.shard_format.record import decode_records
from shardstream.shard_format.shard_file import ShardFile
from shardstream.shard_format.storage import open_directory

needs_prism = pytest.mark.skipif(
    find_prism() is None,
    reason="Prism isn't built: go install github.com/apache/beam/sdks/v2/go/cmd/prism@v2.77.0",
)


def build(output: Path | str, *flags: object, runner: str = "FnApiRunner") -> Manifest:
    """Builds a dataset in this process; returns its manifest."""
    argv = ["--output", str(output), "--runner", runner, "--no-progress", *map(str, flags)]
    return preprocess(parse_options(argv))


def parquet_flags(files: Sequence[str], tokenizer: str) -> list[str]:
    """Returns the flags that name local parquet files and a tokenizer."""
    return ["--dataset", "parquet", "--data_files", *files, "--tokenizer", tokenizer]


def read_records(output: Path, shard: Shard) -> tuple[np.ndarray, np.ndarray]:
    """Returns all tokens [N, L] and lengths [N, S] of a shard."""
    directory = open_directory(output)
    layout = read_manifest(directory).layout(shard)
    file = ShardFile(
        directory.path(shard.file), record_bytes=layout.record_bytes, num_records=shard.records
    )
    try:
        return decode_records(file.read(0, shard.records), layout)
    finally:
        file.close()


def read_documents(output: Path) -> dict[tuple[int, int], list[int]]:
    """Returns the ids of every document in a dataset, by (partition, row), through provenance."""
    directory = open_directory(output)
    pieces: dict[tuple[int, int], list[tuple[int, list[int]]]] = {}
    for shard in read_manifest(directory).shards:
        tokens, lengths = read_records(output, shard)
        begins = np.cumsum(lengths, axis=1) - lengths
        for piece in read_provenance(directory, shard.file).to_pylist():
            begin = int(begins[piece["record"], piece["segment"]])
            ids = tokens[piece["record"], begin : begin + piece["tokens"]].tolist()
            key = piece["partition"], piece["row"]
            pieces.setdefault(key, []).append((piece["start"], ids))
    return {
        key: [token for _, ids in sorted(found) for token in ids] for key, found in pieces.items()
    }


def read_order(output: Path) -> list[tuple[int, int]]:
    """Returns (partition, row) of each document in the order in which it is first met on disk."""
    directory = open_directory(output)
    order: dict[tuple[int, int], None] = {}
    for shard in read_manifest(directory).shards:
        table = read_provenance(directory, shard.file)
        pairs = zip(table["partition"].to_pylist(), table["row"].to_pylist(), strict=True)
        order.update(dict.fromkeys(pairs))
    return list(order)
