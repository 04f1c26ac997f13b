"""The shard of one bucket: built once, found again by every later attempt of the same plan."""

import contextlib
import json
from concurrent.futures import Executor
from typing import Any

from shardstream.shard_format.storage import Directory
from shardstream.transforms.batch.spill import SPILL, SPILLED
from shardstream.transforms.plan import BuildPlan
from shardstream.transforms.shard_documents import (
    BufferPool,
    FileRange,
    ShardDocuments,
    SpillJobError,
    reading,
)
from shardstream.transforms.threads import shared_executor
from shardstream.transforms.write_shard import write_shard

_FETCHES_AT_ONCE = 16  # a store's answers take long to come, and come side by side


def build_shard(
    bucket: int,
    documents: contextlib.AbstractContextManager[ShardDocuments],
    plan: BuildPlan,
    directory: Directory,
) -> dict[str, Any]:
    """Publishes a bucket's shard and provenance; returns its entry and report, as JSON values.

    A shard that an earlier attempt of the same plan has finished is kept as it is. The attempt
    that finishes a shard may release what it was made from (`spill.py`). So an attempt looks again
    when it has read: if the shard was not finished then, all that it read was there.

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
                read,
                plan,
                directory,
                split=split,
                index=index,
                name=name,
                permutation_id=bucket,
            )
    except SpillJobError:
        if done := _finished(directory, sidecar):
            return done
        raise
    result = {"bucket": bucket} | written
    directory.write(sidecar, json.dumps(result).encode())
    return result


def build_from_pieces(
    bucket: int, pieces: list[bytes | FileRange], plan: BuildPlan, buffers: BufferPool
) -> dict[str, Any]:
    """Builds a bucket's shard from where its documents wait, then gives back the room they took.

    Args:
        bucket: of the plan.
        pieces: Arrow IPC messages, or the ranges of spill files that hold them.
        plan: of the build.
        buffers: lends the memory.
    """
    directory = plan.directory
    documents = reading(pieces, directory, buffers, fetching(directory))
    result = build_shard(bucket, documents, plan, directory)
    for piece in pieces:
        if not isinstance(piece, bytes):
            directory.release_range(*piece)
    return result


def fetching(directory: Directory) -> Executor | None:
    """Returns what reads pieces side by side where they wait on a store, None on a local disk."""
    if directory.local_path("") is not None:
        return None
    return shared_executor("fetch-spill", _FETCHES_AT_ONCE)


def forget_lost_shards(plan: BuildPlan) -> list[str]:
    """Has everything read again where a finished shard is gone: its spilled documents are too.

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


def _sidecar(plan: BuildPlan, bucket: int) -> str:
    return plan.work_name("shards", f"{bucket:06d}.json")


def _finished(directory: Directory, sidecar: str) -> dict[str, Any] | None:
    content = directory.find(sidecar)
    if content is None:
        return None
    result = json.loads(content)
    shard = result["shard"]
    return result if directory.size(shard["file"]) == shard["bytes"] else None
