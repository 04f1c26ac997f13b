"""Turns the documents of one bucket into one published shard: sort, pack, permute, write.

Plain functions, Beam-free: the batch graph calls `build_shard` for every group of its GroupByKey,
the stream `write_shard` for every draw from its buffer. The result is
a pure function of the documents and the plan, in whatever pieces and order the documents arrive, so
attempts may race or repeat: each publishes the same bytes under the same name.
"""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from shard_format import keys
from shard_format.manifest import Shard
from shard_format.provenance import write_provenance
from shard_format.record import RecordLayout, encode_records
from shard_format.shard_file import write_records
from shard_format.storage import Directory
from tokens.packing import Pieces, assemble, pack, permute_sequences, report
from transforms.plan import BuildPlan
from transforms.scatter import document_ids
from transforms.token_blocks import SCHEMA

# Records are encoded this many bytes at a time: a shard isn't copied whole once more, and blocks of
# this size stay in the cache and in memory the allocator has at hand (fresh pages cost more than
# bytes).
_WRITE_BLOCK_BYTES = 1 << 20


def build_shard(
    bucket: int, blocks: Iterable[pa.RecordBatch], plan: BuildPlan, directory: Directory
) -> dict[str, Any]:
    """Publishes a bucket's shard and provenance; returns its entry and report, as JSON values.

    A shard that an earlier attempt of the same plan has finished is kept as it is.
    """
    sidecar = plan.work_name("shards", f"{bucket:06d}.json")
    done = _finished(directory, sidecar)
    if done is not None:
        return done
    split, index, name = plan.shard_of(bucket)
    written = write_shard(
        join_blocks(blocks), plan, directory, split=split, index=index, name=name, stream=bucket
    )
    result = {"bucket": bucket} | written
    directory.write(sidecar, json.dumps(result).encode())
    return result


def write_shard(
    documents: pa.RecordBatch,
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
        documents: of the shard, in any order, with token_blocks.SCHEMA.
        plan: of the build.
        directory: of the dataset.
        split: "train" or "validation".
        index: place of the shard in its split.
        name: of the file.
        stream: numbers the permutation of the shard's sequences, apart from other shards'.
    """
    order = key_order(documents, plan.seed)
    lengths = document_lengths(documents["tokens"], plan)[order]
    pieces = pack(lengths, plan.packing)
    pieces = permute_sequences(pieces, keys.permutation(pieces.num_sequences, plan.seed, stream))
    # Packing planned for documents in key order; the documents themselves are moved only once, by
    # assemble, straight from where they arrived to where they are written.
    pieces = pieces._replace(document=order[pieces.document])
    tokens, segment_lengths = assemble(
        documents["tokens"],
        pieces,
        token_dtype=plan.tokenizer_facts.token_dtype,
        options=plan.packing,
        pad_id=plan.tokenizer_facts.pad_id,
        eos_id=plan.tokenizer_facts.eos_id,
    )
    layout = RecordLayout(
        sequence_length=plan.packing.sequence_length,
        token_dtype=plan.tokenizer_facts.token_dtype,
        max_segments=segment_lengths.shape[1],
    )
    rows = max(1, _WRITE_BLOCK_BYTES // layout.record_bytes)
    records = (
        encode_records(tokens[i : i + rows], segment_lengths[i : i + rows], layout)
        for i in range(0, len(tokens), rows)
    )
    with directory.publishing(name) as private:
        digest = write_records(private, records, plan.shard_options)
    write_provenance(directory, name, provenance_table(documents, pieces))
    shard = Shard(
        file=name,
        split=split,
        index=index,
        records=len(tokens),
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


def join_blocks(blocks: Iterable[pa.RecordBatch]) -> pa.RecordBatch:
    """Returns all documents of the blocks in one batch, in the order they came."""
    batches = list(blocks)
    return pa.concat_batches(batches) if batches else pa.RecordBatch.from_pylist([], SCHEMA)


def key_order(documents: pa.RecordBatch, seed: int) -> np.ndarray:
    """Returns int64[n], the permutation into key order (ties, one in 2**64, by identity)."""
    partition, row = document_ids(documents)
    return np.lexsort((row, partition, keys.document_keys(seed, partition, row)))


def document_lengths(tokens: pa.LargeBinaryArray, plan: BuildPlan) -> np.ndarray:
    """Returns int64[n], the tokens of each document."""
    if len(tokens) == 0:
        return np.zeros(0, np.int64)
    offsets = np.frombuffer(tokens.buffers()[1], np.int64)[tokens.offset :][: len(tokens) + 1]
    return np.diff(offsets) // np.dtype(plan.tokenizer_facts.token_dtype).itemsize


def provenance_table(documents: pa.RecordBatch, pieces: Pieces) -> pa.Table:
    """Returns the shard's provenance, one row a segment in the order of records."""
    partition, row = document_ids(documents)
    first_of_sequence = np.searchsorted(pieces.sequence, pieces.sequence)
    return pa.table(
        {
            "record": pieces.sequence,
            "segment": (np.arange(len(pieces.sequence)) - first_of_sequence).astype(np.int32),
            "partition": partition[pieces.document],
            "row": row[pieces.document],
            "start": pieces.start,
            "tokens": pieces.tokens.astype(np.int32),
        }
    )


def _finished(directory: Directory, sidecar: str) -> dict[str, Any] | None:
    content = directory.find(sidecar)
    if content is None:
        return None
    result = json.loads(content)
    shard = result["shard"]
    return result if directory.size(shard["file"]) == shard["bytes"] else None
