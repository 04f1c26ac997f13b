"""Turns documents into one published shard: sort, pack, permute, write.

Plain functions, Beam-free: the batch graph writes a shard for every bucket, in
`batch/build_shard.py`, and the stream graph one for every draw from its buffer. The result is a
pure function of the documents and the plan, in whatever pieces and order the documents arrive, so
attempts may race or repeat: each publishes the same bytes under the same name.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from shardstream.shard_format import keys
from shardstream.shard_format.manifest import Shard
from shardstream.shard_format.provenance import write_provenance
from shardstream.shard_format.publish_records import publish_records
from shardstream.shard_format.record import RecordLayout, encode_records
from shardstream.shard_format.storage import Directory
from shardstream.tokens.packing.pack import Assembly, Pieces, pack, permute_sequences, report
from shardstream.transforms.plan import BuildPlan
from shardstream.transforms.shard_documents import ShardDocuments

# Records are assembled and encoded this many bytes at a time: a shard isn't in memory once more,
# and blocks of this size stay in the cache and in memory the allocator has at hand (fresh pages
# cost more than bytes).
_WRITE_BLOCK_BYTES = 1 << 20


def write_shard(
    documents: ShardDocuments,
    plan: BuildPlan,
    directory: Directory,
    *,
    split: str,
    index: int,
    name: str,
    permutation_id: int,
) -> dict[str, Any]:
    """Publishes documents as the shard `name`; returns its entry and report, as JSON values.

    Args:
        documents: of the shard.
        plan: of the build.
        directory: of the dataset.
        split: "train" or "validation".
        index: place of the shard in its split.
        name: of the file.
        permutation_id: numbers the permutation of the shard's sequences; each shard has another.
    """
    order = key_order(documents, plan.seed)
    itemsize = np.dtype(plan.tokenizer_facts.token_dtype).itemsize
    lengths = ((documents.tokens.end - documents.tokens.begin) // itemsize)[order]
    pieces = pack(lengths, plan.packing)
    permutation = keys.permutation(pieces.num_sequences, plan.seed, permutation_id)
    pieces = permute_sequences(pieces, permutation)
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
    file_index, row = documents.file_index, documents.row
    return np.lexsort((row, file_index, keys.document_keys(seed, file_index, row)))


def provenance_table(documents: ShardDocuments, pieces: Pieces) -> pa.Table:
    """Returns the shard's provenance, one row a segment in the order of records."""
    first_of_sequence = np.searchsorted(pieces.sequence, pieces.sequence)
    return pa.table(
        {
            "record": pieces.sequence,
            "segment": (np.arange(len(pieces.sequence)) - first_of_sequence).astype(np.int32),
            "partition": documents.file_index[pieces.document],
            "row": documents.row[pieces.document],
            "start": pieces.start,
            "tokens": pieces.tokens.astype(np.int32),
        }
    )
