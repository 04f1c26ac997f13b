"""What a dataset directory holds, finished or not, from its manifest and what lies beside it.

The manifest of a finished dataset has it all. A stream that goes on has it in its commit log, and a
batch build that is under way or was interrupted has it in the marks in its work folder. What those
cannot tell yet is left out, never guessed.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from shardstream.shard_format import naming
from shardstream.shard_format.commit_log import read_commits
from shardstream.shard_format.manifest import STATUSES, Manifest, Shard, read_manifest
from shardstream.shard_format.storage import Directory
from shardstream.tokens.packing.report import PackingReport

# Folders of a batch build's work, see transforms.batch.
_SPILLED, _BUILT = "spilled", "shards"
_DEAD = "dead_letters/"  # of a count, followed by the reason


@dataclasses.dataclass(frozen=True, kw_only=True)
class Account:
    """What a dataset directory holds.

    Attributes:
        manifest: dataset.json, with status "complete", "following" or "incomplete".
        shards: finished, in order.
        totals: counts known so far: documents_read, documents_written, documents_dropped,
            dead_letters, tokens_in, tokens_written, tokens_truncated; a missing one isn't known.
        dead_letters: documents by reason.
        report: packing of the finished shards and of the documents set aside.
        expected_shards: that there will be, None where that isn't known before the end.
    """

    manifest: Manifest
    shards: tuple[Shard, ...]
    totals: Mapping[str, int]
    dead_letters: Mapping[str, int]
    report: PackingReport
    expected_shards: int | None


def account_of(directory: Directory) -> Account:
    """Returns the account of a dataset directory.

    Raises:
        FileNotFoundError: there is no manifest.
        ValueError: the manifest or the log is damaged.
    """
    manifest = read_manifest(directory, allow=STATUSES)
    if manifest.status == "complete":
        return Account(
            manifest=manifest,
            shards=manifest.shards,
            totals=manifest.totals,
            dead_letters=manifest.dead_letters,
            report=PackingReport.from_dict(dict(manifest.report)),
            expected_shards=len(manifest.shards),
        )
    if manifest.mode == "stream":
        return _of_log(directory, manifest)
    return _of_work(directory, manifest)


def _of_log(directory: Directory, manifest: Manifest) -> Account:
    commits = list(read_commits(directory))
    committed = [entry for commit in commits for entry in commit.shards]
    partitions = {read.name: read for commit in commits for read in commit.partitions}
    packed = _sum_reports(entry.report for entry in committed)
    aside = _sum_reports(read.set_aside for read in partitions.values())
    dead = Counter[str]()
    for read in partitions.values():
        dead.update(read.dead_letters)
    shards = tuple(entry.shard for entry in committed)
    totals = {
        "documents_read": sum(read.documents for read in partitions.values()),
        "documents_written": sum(shard.documents for shard in shards) + aside.empty_documents,
        "documents_dropped": aside.dropped_documents,
    }
    return Account(
        manifest=manifest,
        shards=shards,
        totals=totals | _of_shards(shards, dead, packed + aside),
        dead_letters=dict(dead),
        report=packed + aside,
        expected_shards=None,
    )


def _of_work(directory: Directory, manifest: Manifest) -> Account:
    folder = f"{naming.WORK_DIRECTORY}/{manifest.plan_fingerprint[:16]}"
    built = sorted(
        (json.loads(directory.read(name)) for name in directory.list(f"{folder}/{_BUILT}")),
        key=lambda result: result["bucket"],
    )
    counts = Counter[str]()
    for name in directory.list(f"{folder}/{_SPILLED}"):
        counts.update(json.loads(directory.read(name))["counts"])
    shards = tuple(Shard(**result["shard"]) for result in built)
    dead = {
        name.removeprefix(_DEAD): number
        for name, number in sorted(counts.items())
        if name.startswith(_DEAD)
    }
    report = _sum_reports(result["report"] for result in built)
    options = manifest.options
    dropped = sum(result["dropped_documents"] for result in built)
    totals = {name: counts[name] for name in ("documents_read", "tokens_in") if counts[name]}
    totals["documents_written"] = sum(shard.documents for shard in shards) - dropped
    totals["documents_dropped"] = dropped
    return Account(
        manifest=manifest,
        shards=shards,
        totals=_of_shards(shards, dead, report) | totals,
        dead_letters=dead,
        report=report,
        expected_shards=options["num_shards"] + options["num_validation_shards"],
    )


def _of_shards(
    shards: tuple[Shard, ...], dead: Mapping[str, int], report: PackingReport
) -> dict[str, int]:
    return {
        "dead_letters": sum(dead.values()),
        "tokens_in": report.input_tokens,
        "tokens_written": sum(shard.tokens for shard in shards),
        "tokens_truncated": report.truncated_tokens,
        "records": sum(shard.records for shard in shards),
        "bytes": sum(shard.bytes for shard in shards),
    }


def _sum_reports(reports: Iterable[Mapping[str, Any]]) -> PackingReport:
    return sum((PackingReport.from_dict(dict(report)) for report in reports), PackingReport())
