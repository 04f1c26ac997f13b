"""From documents drawn to a shard that readers see: write, hash, publish, commit, in this order.

A shard's name is a hash of the documents it holds, and its bytes are a function of them. Two
attempts at one set of documents give one file; attempts at different sets give different files, of
which those without a commit are orphans. Nothing here depends on bundles, attempts, workers or
time.
"""

import fnmatch
import hashlib
from collections.abc import Iterable
from concurrent.futures import Executor

import numpy as np
import pyarrow as pa

from shardstream.shard_format import naming
from shardstream.shard_format.commit_log import PartitionRead, ShardCommit
from shardstream.shard_format.manifest import Shard
from shardstream.transforms.scatter import document_ids
from shardstream.transforms.shard_documents import ShardDocuments
from shardstream.transforms.stream.log import StreamLog
from shardstream.transforms.stream.plan import StreamPlan
from shardstream.transforms.write_shard import write_shard

# Folder of the files that stand beside each shard → what names them.
_BESIDE_SHARDS = {
    naming.PROVENANCE_DIRECTORY: naming.provenance_name,
    naming.CHECKSUMS_DIRECTORY: naming.checksums_name,
}


def publish(
    drawn: Iterable[tuple[str, pa.RecordBatch]],
    partitions: Iterable[PartitionRead],
    plan: StreamPlan,
    log: StreamLog,
    executor: Executor,
) -> tuple[ShardCommit, ...]:
    """Writes a shard for each (split, documents) and commits them together; returns them.

    Args:
        drawn: written side by side.
        partitions: whose ends go into the same commit.
        plan: of the stream.
        log: appended to.
        executor: writes.
    """
    writes = [executor.submit(write_stream_shard, *each, plan) for each in drawn]
    shards = tuple(write.result() for write in writes)
    log.commit(shards, partitions)
    return shards


def write_stream_shard(split: str, documents: pa.RecordBatch, plan: StreamPlan) -> ShardCommit:
    """Publishes one shard's files; no reader looks at them before they are committed."""
    shard_id = hash_documents(documents, plan)
    written = write_shard(
        ShardDocuments.of(documents),
        plan,
        plan.directory,
        split=split,
        index=0,  # the commit gives it its place
        name=naming.stream_shard_name(split, shard_id),
        permutation_id=int(shard_id, 16),
    )
    return ShardCommit(shard=Shard(**written["shard"]), report=written["report"])


def hash_documents(documents: pa.RecordBatch, plan: StreamPlan) -> str:
    """Returns 16 hex digits that name a set of documents, whatever their order."""
    file_index, row = document_ids(documents)
    order = np.lexsort((row, file_index))
    state = hashlib.sha256(plan.fingerprint.encode())
    state.update(np.ascontiguousarray(file_index[order], "<i4").tobytes())
    state.update(np.ascontiguousarray(row[order], "<i8").tobytes())
    return state.hexdigest()[:16]


def remove_orphans(plan: StreamPlan, log: StreamLog) -> list[str]:
    """Removes shards that no commit lists, while no writer is at work; returns their names."""
    directory = plan.directory
    committed = {entry.shard.file for entry in log.shards}
    orphans = [
        name
        for name in directory.list(recursive=False)
        if fnmatch.fnmatch(name, "*-stream-*.array_record") and name not in committed
    ]
    for name in orphans:
        directory.remove(name)
    beside = {name_of(name) for name in committed for name_of in _BESIDE_SHARDS.values()}
    for folder in _BESIDE_SHARDS:
        for name in directory.list(folder):
            if name not in beside:
                directory.remove(name)
    return orphans
