"""Turns the documents of one bucket into one published shard: sort, pack, permute, write.

Plain functions, Beam-free: the batch graph calls `build_shard` for every group of its GroupByKey,
the stream `write_shard` for every draw from its buffer. The result is a pure function of the
documents and the plan, in whatever pieces and order the documents arrive, so attempts may race or
repeat: each publishes the same bytes under the same name.
"""

import contextlib
import json
from typing import Any

import numpy as np
import pyarrow as pa

from shard_format import keys
from shard_format.manifest import Shard
from shard_format.provenance import write_provenance
from shard_format.publish_records import publish_records
from shard_format.record import RecordLayout, encode_records
from shard_format.storage import Directory
from tokens.packing import Assembly, Pieces, pack, permute_sequences, report
from transforms.plan import BuildPlan
from transforms.shard_documents import ShardDocuments, SpillJobError
from transforms.spill import SPILL, SPILLED

# Records are assembled and encoded this many bytes at a time: a shard isn't in memory once more,
# and blocks of this size stay in the cache and in memory the allocator has at hand (fresh pages
# cost more than bytes).
_WRITE_BLOCK_BYTES = 1 << 20


def build_shard(
    bucket: int,
    documents: contextlib.AbstractContextManager[ShardDocuments],
    plan: BuildPlan,
    directory: Directory,
) -> dict[str, Any]:
    """Publishes a bucket's shard and provenance; returns its entry and report, as JSON values.

    A shard that an earlier attempt of the same plan has finished is kept as it is. Whoever finishes
    a shard may release what it was made from (`transforms.spill`), so an attempt looks again once
    it has read: if nobody had finished then, all of what it read was there.

    Args:
        bucket: of the plan.
        documents: all that are in the bucket; entered once, unless the shard is there.
        plan: of the build.
        directory: of the dataset.
    """
    sidecar = _sidecar(plan, bucket)
    if done := _finished(directory, sidecar):
        return done
    split, index, name = plan.shard_of(bucket)
    try:
        with documents as read:
            if done := _finished(directory, sidecar):
                return done
            written = write_shard(
                read, plan, directory, split=split, index=index, name=name, stream=bucket
            )
    except SpillJobError:
        if done := _finished(directory, sidecar):
            return done
        raise
    result = {"bucket": bucket} | written
    directory.write(sidecar, json.dumps(result).encode())
    return result


def forget_lost_shards(plan: BuildPlan) -> list[str]:
    """Has everything read again where a finished shard is gone, as its spilled documents are.

    Call it before a build goes on. Returns the names of the files that are missing or not whole.
    A store releases nothing, and asking it about every shard would take a while: there a lost shard
    is made from what is spilled.
    """
    directory = plan.directory
    if directory.local_path("") is None:
        return []
    lost = [
        (bucket, plan.shard_of(bucket)[2])
        for bucket in range(plan.num_buckets)
        if directory.exists(_sidecar(plan, bucket))
        and _finished(directory, _sidecar(plan, bucket)) is None
    ]
    for bucket, _ in lost:
        directory.remove(_sidecar(plan, bucket))
    if lost:
        for folder in (SPILLED, SPILL):
            directory.remove(plan.work_name(folder))
    return [name for _, name in lost]


def write_shard(
    documents: ShardDocuments,
    plan: BuildPlan,
    directory: Directory,
    *,
    split: str,
    index: int,
    name: str,
    stream: int,
) -> dict[str, Any]:
    """Publishes documents as the shard `name`; returns its entry and report, as JSON values.

    Args:
        documents: of the shard.
        plan: of the build.
        directory: of the dataset.
        split: "train" or "validation".
        index: place of the shard in its split.
        name: of the file.
        stream: numbers the permutation of the shard's sequences, apart from other shards'.
    """
    order = key_order(documents, plan.seed)
    itemsize = np.dtype(plan.tokenizer_facts.token_dtype).itemsize
    lengths = ((documents.tokens.end - documents.tokens.begin) // itemsize)[order]
    pieces = pack(lengths, plan.packing)
    pieces = permute_sequences(pieces, keys.permutation(pieces.num_sequences, plan.seed, stream))
    # Packing planned for documents in key order; the documents themselves are moved only once,
    # straight from where they arrived to where they are written.
    pieces = pieces._replace(document=order[pieces.document])
    assembly = Assembly(
        documents.tokens,
        pieces,
        token_dtype=plan.tokenizer_facts.token_dtype,
        options=plan.packing,
        pad_id=plan.tokenizer_facts.pad_id,
        eos_id=plan.tokenizer_facts.eos_id,
    )
    layout = RecordLayout(
        sequence_length=plan.packing.sequence_length,
        token_dtype=plan.tokenizer_facts.token_dtype,
        max_segments=assembly.lengths.shape[1],
    )
    blocks = assembly.blocks(max(1, _WRITE_BLOCK_BYTES // layout.record_bytes))
    records = (encode_records(tokens, lengths, layout) for tokens, lengths in blocks)
    digest = publish_records(directory, name, records, plan.shard_options)
    write_provenance(directory, name, provenance_table(documents, pieces))
    shard = Shard(
        file=name,
        split=split,
        index=index,
        records=pieces.num_sequences,
        documents=len(lengths),
        tokens=int(pieces.tokens.sum()),
        truncated_tokens=pieces.truncated_tokens,
        max_segments=layout.max_segments,
        bytes=digest.bytes,
        sha256=digest.sha256,
    )
    return {
        "shard": vars(shard),
        "dropped_documents": pieces.dropped_documents,
        "report": report(pieces, lengths, plan.packing).to_dict(),
    }


def key_order(documents: ShardDocuments, seed: int) -> np.ndarray:
    """Returns int64[n], the permutation into key order (ties, one in 2**64, by identity)."""
    partition, row = documents.partition, documents.row
    return np.lexsort((row, partition, keys.document_keys(seed, partition, row)))


def provenance_table(documents: ShardDocuments, pieces: Pieces) -> pa.Table:
    """Returns the shard's provenance, one row a segment in the order of records."""
    first_of_sequence = np.searchsorted(pieces.sequence, pieces.sequence)
    return pa.table(
        {
            "record": pieces.sequence,
            "segment": (np.arange(len(pieces.sequence)) - first_of_sequence).astype(np.int32),
            "partition": documents.partition[pieces.document],
            "row": documents.row[pieces.document],
            "start": pieces.start,
            "tokens": pieces.tokens.astype(np.int32),
        }
    )


def _sidecar(plan: BuildPlan, bucket: int) -> str:
    return plan.work_name("shards", f"{bucket:06d}.json")


def _finished(directory: Directory, sidecar: str) -> dict[str, Any] | None:
    content = directory.find(sidecar)
    if content is None:
        return None
    result = json.loads(content)
    shard = result["shard"]
    return result if directory.size(shard["file"]) == shard["bytes"] else None
