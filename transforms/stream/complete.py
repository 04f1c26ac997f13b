"""The end of a bounded stream: checks by the log that nothing was lost, completes dataset.json."""

import json
from collections import Counter
from typing import Any

from shardstream.shard_format import naming
from shardstream.shard_format.manifest import Manifest
from shardstream.shard_format.storage import Directory
from shardstream.tokens.packing.pack import PackingReport
from shardstream.transforms.commit_dataset import check_sums
from shardstream.transforms.dead_letters import check_dead_letters
from shardstream.transforms.errors import JobError
from shardstream.transforms.stream.log import StreamLog
from shardstream.transforms.stream.plan import StreamPlan
from shardstream.transforms.stream.publish import remove_orphans


def complete_stream(plan: StreamPlan, num_partitions: int) -> Manifest:
    """Completes the manifest of a stream that was read to its end; returns it.

    Args:
        plan: of the stream.
        num_partitions: of the source, over all epochs; each must have been read.

    Raises:
        JobError: documents, tokens or partitions don't add up, or too many documents are dead.
    """
    log = StreamLog(plan.directory, documents=False)
    manifest = complete_manifest(plan, log, num_partitions)
    remove_orphans(plan, log)  # all that any writer holds is committed now
    plan.directory.write(naming.MANIFEST, manifest.to_json())
    return manifest


def complete_manifest(plan: StreamPlan, log: StreamLog, num_partitions: int) -> Manifest:
    """Returns the complete manifest of what the log holds.

    Raises:
        JobError: see complete_stream.
    """
    shards = tuple(entry.shard for entry in log.shards)
    set_aside = PackingReport()
    for read in log.partitions.values():
        set_aside += PackingReport.from_dict(read.set_aside)
    packed = sum((PackingReport.from_dict(e.report) for e in log.shards), PackingReport())
    counts = count_source(log)
    check_dead_letters(counts, plan=plan)
    dead_letters = {k.split("/", 1)[1]: n for k, n in sorted(counts.items()) if "/" in k}
    lines = {name: count_lines(plan, name) for name in log.partitions}
    totals = {
        "documents_read": counts["documents_read"],
        "documents_written": sum(s.documents for s in shards) + set_aside.empty_documents,
        "documents_dropped": set_aside.dropped_documents,
        "dead_letters": sum(dead_letters.values()),
        "text_bytes": sum(read.text_bytes for read in log.partitions.values()),
        "tokens_in": packed.input_tokens + set_aside.input_tokens,
        "tokens_written": sum(s.tokens for s in shards),
        "tokens_truncated": sum(s.truncated_tokens for s in shards) + set_aside.truncated_tokens,
        "records": sum(s.records for s in shards),
        "bytes": sum(s.bytes for s in shards),
    }
    if len(log.partitions) != num_partitions:
        raise JobError(
            f"{len(log.partitions)} partitions were read to their end, expected {num_partitions}. "
            "This is a bug in shardstream; please report it with the files of commits/."
        )
    check_sums(totals, num_shards=(len(shards), len(shards)), lines=lines)
    return plan.manifest(
        status="complete",
        shards=shards,
        totals=totals,
        dead_letters=dead_letters,
        report=(packed + set_aside).to_dict(),
    )


def count_source(log: StreamLog) -> dict[str, int]:
    """Returns documents_read and dead_letters/REASON over all partitions read to their end."""
    counts: Counter[str] = Counter(documents_read=0)
    for read in log.partitions.values():
        counts["documents_read"] += read.documents
        for reason, n in read.dead_letters.items():
            counts[f"dead_letters/{reason}"] += n
    return dict(counts)


def count_lines(plan: StreamPlan, partition: str) -> int:
    """Returns the dead letters on file of a partition."""
    lines = (plan.directory.find(naming.dead_letters_name(partition)) or b"").splitlines()
    return sum(json.loads(line).get("num_rows", 1) for line in lines)


def describe_following(directory: Directory) -> dict[str, Any]:
    """Returns what a stream that goes on has committed so far."""
    log = StreamLog(directory, documents=False)
    shards = [entry.shard for entry in log.shards]
    return {
        "shards": len(shards),
        "documents": sum(shard.documents for shard in shards),
        "tokens": sum(shard.tokens for shard in shards),
        "partitions": len(log.partitions),
        "files": len(log.files),
    }
