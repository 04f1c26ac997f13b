"""Checks a dataset directory against its own manifest: content, sums, order, provenance.

Memory stays that of one shard. No global table is needed to prove that no document is in the
dataset twice: the bucket of a document is a function of its identity, so it is enough that each
shard holds only documents of its own bucket, and none of them twice. The shards of a stream may
hold any document; verify_stream.py checks those.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from shardstream.shard_format import keys, naming
from shardstream.shard_format.checksums import checksums_of
from shardstream.shard_format.manifest import Manifest, Shard, read_manifest
from shardstream.shard_format.provenance import read_provenance
from shardstream.shard_format.record import decode_records
from shardstream.shard_format.shard_file import ShardFile, digest_of
from shardstream.shard_format.storage import Directory
from shardstream.shard_format.verify_stream import verify_stream

_BLOCK_RECORDS = 4096


def verify(directory: Directory) -> Iterator[str]:
    """Yields one line a problem found, nothing for a whole dataset.

    Raises:
        FileNotFoundError: there is no manifest.
        ValueError: the manifest is damaged or incomplete.
    """
    manifest = read_manifest(directory)
    tokens = records = 0
    for shard in manifest.shards:
        problems = list(verify_shard(directory, manifest, shard))
        yield from (f"{shard.file}: {problem}" for problem in problems)
        tokens += shard.tokens
        records += shard.records
    if manifest.mode == "stream":
        yield from verify_stream(directory, manifest)
    totals = manifest.totals
    yield from _compare("tokens of all shards", tokens, totals["tokens_written"])
    yield from _compare("records of all shards", records, totals["records"])
    yield from _compare(
        "tokens written and truncated",
        totals["tokens_written"] + totals["tokens_truncated"],
        totals["tokens_in"],
    )
    yield from _compare(
        "documents written, dropped and dead",
        totals["documents_written"] + totals["documents_dropped"] + totals["dead_letters"],
        totals["documents_read"],
    )


def verify_shard(directory: Directory, manifest: Manifest, shard: Shard) -> Iterator[str]:
    """Yields one line a problem of one shard."""
    if not directory.exists(shard.file):
        yield "the file is missing"
        return
    with directory.fetching(shard.file) as path:
        yield from _verify_file(path, directory, manifest, shard)


def _verify_file(
    path: Path, directory: Directory, manifest: Manifest, shard: Shard
) -> Iterator[str]:
    digest = digest_of(path)
    if (digest.bytes, digest.sha256) != (shard.bytes, shard.sha256):
        yield (
            f"{digest.bytes} bytes, sha256 {digest.sha256}; expected {shard.bytes}, {shard.sha256}"
        )
        return
    layout = manifest.layout(shard)
    lengths = np.zeros((shard.records, shard.max_segments), np.int64)
    limit = manifest.tokenizer.get("vocab_size", 2**32)
    file = ShardFile(path, record_bytes=layout.record_bytes, num_records=shard.records)
    checksums = np.empty(shard.records, np.uint64)
    try:
        for begin in range(0, shard.records, _BLOCK_RECORDS):
            end = min(begin + _BLOCK_RECORDS, shard.records)
            records = file.read(begin, end)
            checksums[begin:end] = checksums_of(records, len(records))
            tokens, lengths[begin:end] = decode_records(records, layout)
            if tokens.size and int(tokens.max()) >= limit:
                yield f"holds token id {int(tokens.max())}, the vocabulary has {limit}"
    finally:
        file.close()
    yield from _compare("tokens", int(lengths.sum()), shard.tokens)
    overfull = np.flatnonzero(lengths.sum(axis=1) > manifest.sequence_length)
    if len(overfull):
        yield f"record {overfull[0]} has lengths of more than {manifest.sequence_length} tokens"
    kept = directory.find(naming.checksums_name(shard.file))
    if kept is not None and kept != checksums.tobytes():
        yield (
            f"{naming.checksums_name(shard.file)} doesn't match the records, which are right: "
            "remove it, or loaders read them the slow way"
        )
    yield from _verify_provenance(directory, manifest, shard, lengths)


def _verify_provenance(
    directory: Directory, manifest: Manifest, shard: Shard, lengths: np.ndarray
) -> Iterator[str]:
    table = read_provenance(directory, shard.file)
    column = {name: table[name].to_numpy() for name in table.column_names}
    record, segment = np.nonzero(lengths)
    same_place = np.array_equal(column["record"], record) and np.array_equal(
        column["segment"], segment
    )
    if not same_place or not np.array_equal(column["tokens"], lengths[record, segment]):
        yield "provenance doesn't match the lengths in the records"
        return
    if manifest.mode == "batch":
        options = manifest.options
        buckets = keys.assign_buckets(
            column["partition"],
            column["row"],
            seed=manifest.seed,
            num_shards=options["num_shards"],
            num_validation_shards=options["num_validation_shards"],
            validation_fraction=options["validation_fraction"],
        )
        own = shard.index + (0 if shard.split == "train" else options["num_shards"])
        strangers = np.flatnonzero(buckets != own)
        if len(strangers):
            first = strangers[0]
            yield (
                f"holds document {column['row'][first]} of file {column['partition'][first]}, "
                f"which belongs to bucket {buckets[first]}, not {own}"
            )
    order = np.lexsort((column["start"], column["row"], column["partition"]))
    file_index, row, start, tokens = (
        column[name][order] for name in ("partition", "row", "start", "tokens")
    )
    follows = (file_index[1:] == file_index[:-1]) & (row[1:] == row[:-1])
    expected_start = np.where(follows, start[:-1] + tokens[:-1], 0)
    broken = np.flatnonzero(start[1:] != expected_start)
    if len(start) and (start[0] != 0 or len(broken)):
        first = 0 if start[0] != 0 else broken[0] + 1
        yield (
            f"document {row[first]} of file {file_index[first]} is twice here or has a gap "
            f"before its token {start[first]}"
        )


def _compare(name: str, found: int, expected: int) -> Iterator[str]:
    if found != expected:
        yield f"{name}: {found}, expected {expected}"
