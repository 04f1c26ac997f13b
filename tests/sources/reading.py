"""Reads a source to its end, as the pipeline does, and as `load_dataset` does."""

from collections.abc import Iterator
from typing import Any

import datasets

from shardstream.sources.options import SourceOptions
from shardstream.sources.partitions import list_partitions, split_partition
from shardstream.sources.read import TextBlock, read_blocks
from shardstream.sources.resolve import resolve


def read_source(
    options: SourceOptions, partition_bytes: int = 1 << 20, block_bytes: int = 1 << 20
) -> Iterator[TextBlock]:
    """Yields the blocks of a source in order."""
    source = resolve(options)
    spec = source.read_spec
    coarse = list_partitions(
        source.files,
        spec,
        skip_documents=options.skip_documents,
        max_documents=options.max_documents,
    )
    for item in coarse:
        for partition in split_partition(item, spec, partition_bytes):
            yield from read_blocks(partition, spec, block_bytes=block_bytes)


def outcomes(options: SourceOptions, **how: int) -> dict[tuple[int, int], tuple[str, str]]:
    """Returns ("text", it) or ("dead", reason) of each row, by (file, row); checks the sums."""
    found: dict[tuple[int, int], tuple[str, str]] = {}
    for block in read_source(options, **how):
        before = len(found)
        for row, text in zip(block.rows.tolist(), block.texts.to_pylist(), strict=True):
            found[block.file_index, row] = ("text", text)
        for letter in block.dead_letters:
            for row in range(letter.row, letter.row + letter.num_rows):
                found[block.file_index, row] = ("dead", letter.reason)
        assert len(found) - before == block.num_read
    return found


def texts_of(options: SourceOptions, **how: int) -> list[str | None]:
    """Returns the texts of all rows in order, None for dead ones."""
    found = sorted(outcomes(options, **how).items())
    return [text if kind == "text" else None for _, (kind, text) in found]


def rows_of_load_dataset(*args: Any, **options: Any) -> list[dict[str, Any]] | None:
    """Returns the rows that row-wise `load_dataset` streams, None where it fails."""
    try:
        return list(datasets.load_dataset(*args, split="train", streaming=True, **options))
    except Exception:
        return None
