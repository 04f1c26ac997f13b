"""Datasets for the loader's benchmarks: small, real, and made to look large."""

import dataclasses
import os
import site
from pathlib import Path

import numpy as np

from shardstream.shard_format import naming
from shardstream.shard_format.manifest import Manifest, Shard
from shardstream.shard_format.publish_records import publish_records
from shardstream.shard_format.record import RecordLayout, encode_records
from shardstream.shard_format.shard_file import ShardOptions
from shardstream.shard_format.storage import Directory, open_directory


def random_sequences(num_sequences: int, length: int) -> np.ndarray:
    """Returns uint16[N, L] of GPT-2's ids, uniform: reading raw records doesn't depend on them."""
    return np.random.default_rng(0).integers(0, 50_257, (num_sequences, length), dtype=np.uint16)


def real_sequences(num_sequences: int, length: int) -> np.ndarray:
    """Returns uint16[N, L] of the Python files installed here, words numbered as they appear.

    Ids of real text in real order, so that compression has to do with what it will meet.
    """
    vocabulary: dict[str, int] = {}
    parts, found = [], 0
    for directory in (Path(os.__file__).parent, *map(Path, site.getsitepackages())):
        for path in sorted(directory.rglob("*.py")):
            if found >= num_sequences * length:
                break
            words = path.read_text(errors="replace").split(" ")
            ids = [vocabulary.setdefault(word, len(vocabulary)) for word in words]
            parts.append(np.minimum(ids, 50_256).astype(np.uint16))
            found += len(ids)
    together = np.concatenate(parts)
    needed = min(num_sequences, len(together) // length)
    return together[: needed * length].reshape(needed, length)


def write_dataset(
    sequences: np.ndarray, root: Path, num_shards: int, options: ShardOptions | None = None
) -> Manifest:
    """Writes a dataset directory, two documents a sequence, and returns its manifest."""
    directory = open_directory(root)
    root.mkdir(parents=True)
    length = sequences.shape[1]
    layout = RecordLayout(sequence_length=length, token_dtype="uint16", max_segments=8)
    shards = []
    for index, rows in enumerate(np.array_split(sequences, num_shards)):
        name = naming.shard_name("train", index, num_shards)
        lengths = np.zeros((len(rows), 8), np.int64)
        lengths[:, 0], lengths[:, 1] = length // 2, length - length // 2
        blocks = [encode_records(rows, lengths, layout)]
        digest = publish_records(directory, name, blocks, options or ShardOptions())
        shards.append(
            Shard(
                file=name,
                split="train",
                index=index,
                records=len(rows),
                documents=2 * len(rows),
                tokens=rows.size,
                truncated_tokens=0,
                max_segments=8,
                bytes=digest.bytes,
                sha256=digest.sha256,
            )
        )
    return _write_manifest(directory, shards, length)


def link_records(source: Path, manifest: Manifest, target: Path, num_records: int) -> None:
    """Makes a dataset of about num_records out of links to a small one's shards."""
    target.mkdir()
    count = -(-num_records // manifest.shards[0].records)
    shards = []
    for index in range(count):
        shard = manifest.shards[index % len(manifest.shards)]
        name = naming.shard_name("train", index, count)
        os.link(source / shard.file, target / name)
        shards.append(dataclasses.replace(shard, file=name, index=index))
    _write_manifest(open_directory(target), shards, manifest.sequence_length)


def list_shards(manifest: Manifest, target: Path, num_shards: int) -> None:
    """Makes a dataset directory whose manifest lists num_shards shards, none of them there."""
    shards = [
        dataclasses.replace(
            manifest.shards[0], file=naming.shard_name("train", i, num_shards), index=i
        )
        for i in range(num_shards)
    ]
    _write_manifest(open_directory(target), shards, manifest.sequence_length)


def _write_manifest(directory: Directory, shards: list[Shard], length: int) -> Manifest:
    manifest = Manifest(
        status="complete",
        sequence_length=length,
        token_dtype="uint16",
        pad_id=0,
        packing={"name": "concat"},
        tokenizer={"name": "benchmark"},
        source={},
        seed=0,
        options={},
        shards=tuple(shards),
        plan_fingerprint="benchmark",
    )
    directory.write(naming.MANIFEST, manifest.to_json())
    return manifest
