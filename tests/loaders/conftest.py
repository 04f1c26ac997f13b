"""Small real datasets, written by shard_format's own writer."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from shardstream.shard_format import naming
from shardstream.shard_format.manifest import Manifest, Shard
from shardstream.shard_format.provenance import SCHEMA, write_provenance
from shardstream.shard_format.publish_records import publish_records
from shardstream.shard_format.record import RecordLayout, encode_records
from shardstream.shard_format.shard_file import ShardOptions
from shardstream.shard_format.storage import open_directory

PAD_ID = 3


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset on disk and what it holds: tokens int64[N, L], lengths int64[N, S]."""

    path: Path
    manifest: Manifest
    tokens: np.ndarray
    lengths: np.ndarray


def build_dataset(
    path: Path,
    records: tuple[int, ...] = (40, 25, 35),
    *,
    sequence_length: int = 16,
    token_dtype: str = "uint16",
    pad_side: str = "right",
    shard_options: ShardOptions | None = None,
    status: str = "complete",
    seed: int = 0,
    first: int = 0,
) -> Dataset:
    """Writes a dataset whose record n starts with token first + n, documents of random lengths.

    `records` are those of each shard of "train"; shard i has 2 * (i % 2) + 4 length slots.
    """
    rng = np.random.default_rng((17, seed))
    directory = open_directory(path)
    num_records, slots = sum(records), 6
    tokens = rng.integers(0, 60_000, (num_records, sequence_length))
    shards, all_lengths, begin = [], np.zeros((num_records, slots), np.int64), 0
    for index, count in enumerate(records):
        rows = slice(begin, begin + count)
        max_segments = 4 + 2 * (index % 2)
        lengths = np.zeros((count, max_segments), np.int64)
        for record in range(count):
            filled = rng.integers(1, sequence_length + 1)
            parts = int(min(filled, rng.integers(1, max_segments + 1)))
            cuts = np.sort(rng.permutation(filled - 1)[: parts - 1] + 1)
            lengths[record, :parts] = np.diff([0, *cuts, filled])
            padding = (
                slice(filled, None) if pad_side == "right" else slice(sequence_length - filled)
            )
            tokens[begin + record, padding] = PAD_ID
        start = np.where(pad_side == "right", 0, sequence_length - lengths.sum(1))
        numbers = np.arange(begin, begin + count)
        tokens[numbers, start] = first + numbers
        all_lengths[rows, :max_segments] = lengths
        layout = RecordLayout(
            sequence_length=sequence_length, token_dtype=token_dtype, max_segments=max_segments
        )
        name = naming.shard_name("train", index, len(records))
        directory.root.mkdir(parents=True, exist_ok=True)
        blocks = [encode_records(tokens[rows], lengths, layout)]
        digest = publish_records(directory, name, blocks, shard_options or ShardOptions())
        record, segment = np.nonzero(lengths)
        columns = [record, segment, np.full(len(record), index), record * 10 + segment]
        columns += [np.zeros(len(record), np.int64), lengths[record, segment]]
        write_provenance(directory, name, pa.table(dict(zip(SCHEMA.names, columns, strict=True))))
        shards.append(
            Shard(
                file=name,
                split="train",
                index=index,
                records=count,
                documents=len(record),
                tokens=int(lengths.sum()),
                truncated_tokens=0,
                max_segments=max_segments,
                bytes=digest.bytes,
                sha256=digest.sha256,
            )
        )
        begin += count
    manifest = Manifest(
        status=status,
        sequence_length=sequence_length,
        token_dtype=token_dtype,
        pad_id=PAD_ID,
        packing={"name": "concat", "pad_side": pad_side},
        tokenizer={"name": "test", "vocab_size": 60_000},
        source={"dataset": "test"},
        seed=seed,
        options={"first": first},
        shards=tuple(shards),
        plan_fingerprint=f"test-{seed}",
    )
    directory.write(naming.MANIFEST, manifest.to_json())
    return Dataset(path, manifest, tokens, all_lengths)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """100 sequences of 16 tokens in three shards."""
    return build_dataset(tmp_path_factory.mktemp("dataset") / "small")


@pytest.fixture(scope="session")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """1,203 sequences of 8 tokens in five shards: several rounds of a small buffer."""
    path = tmp_path_factory.mktemp("dataset") / "larger"
    return build_dataset(path, (300, 17, 400, 186, 300), sequence_length=8)


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Dataset]:
    """Builds a dataset in a directory of the test."""
    return lambda *args, **options: build_dataset(tmp_path / "dataset", *args, **options)
