"""Checks that nothing was lost, then completes dataset.json: the last write of a build."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import AsList, AsSingleton

from shardstream.shard_format import naming
from shardstream.shard_format.manifest import Manifest, Shard
from shardstream.tokens.packing.pack import PackingReport
from shardstream.transforms.dead_letters import dead_letter_counts
from shardstream.transforms.errors import JobError
from shardstream.transforms.plan import BuildPlan


class CommitDataset(beam.PTransform):
    """Completes the manifest once every shard and every dead letter is published.

    Input: PCollection[dict], the results of WriteShards.
    Output: PCollection of one str, the dataset's fingerprint.
    Guarantees: runs after all inputs; publishes a whole manifest or none.

    Args:
        plan: of the build.
        counts: PCollection of one dict[str, int], summed over partitions.
        dead_letter_files: PCollection[(file name, number of dead letters)].
    """

    def __init__(
        self,
        plan: BuildPlan,
        counts: beam.PCollection[dict[str, int]],
        dead_letter_files: beam.PCollection[tuple[str, int]],
    ) -> None:
        super().__init__()
        self._plan = plan
        self._counts = counts
        self._dead_letter_files = dead_letter_files

    def expand(self, shards: beam.PCollection[dict[str, Any]]) -> beam.PCollection[str]:
        """Wires the side inputs."""
        return (
            shards.pipeline
            | "Once" >> beam.Impulse()  # bytes, one
            | "Commit"
            >> beam.ParDo(
                _Commit(self._plan),
                AsList(shards),
                AsSingleton(self._counts),
                AsList(self._dead_letter_files),
            )  # fingerprint
        )


class _Commit(beam.DoFn):
    def __init__(self, plan: BuildPlan) -> None:
        self._plan = plan

    def process(
        self,
        _: bytes,
        results: Iterable[dict[str, Any]],
        counts: dict[str, int],
        dead_letter_files: Iterable[tuple[str, int]],
    ) -> Iterator[str]:
        manifest = complete_manifest(self._plan, list(results), counts, dict(dead_letter_files))
        self._plan.directory.write(naming.MANIFEST, manifest.to_json())
        yield manifest.fingerprint


def complete_manifest(
    plan: BuildPlan,
    results: list[dict[str, Any]],
    counts: dict[str, int],
    dead_letter_files: dict[str, int],
) -> Manifest:
    """Returns the complete manifest.

    Raises:
        JobError: documents or tokens don't add up.
    """
    # The write step may be retried: a bucket's results are equal then, and one of them counts.
    by_bucket = {result["bucket"]: result for result in results}
    ordered = [by_bucket[bucket] for bucket in sorted(by_bucket)]
    shards = tuple(Shard(**result["shard"]) for result in ordered)
    report = sum((PackingReport.from_dict(r["report"]) for r in ordered), PackingReport())
    dead_letters = dead_letter_counts(counts)
    dropped = sum(result["dropped_documents"] for result in ordered)
    totals = {
        "documents_read": counts["documents_read"],
        "documents_written": sum(shard.documents for shard in shards) - dropped,
        "documents_dropped": dropped,
        "dead_letters": sum(dead_letters.values()),
        "text_bytes": counts.get("text_bytes", 0),
        "tokens_in": counts.get("tokens_in", 0),
        "tokens_written": sum(shard.tokens for shard in shards),
        "tokens_truncated": sum(shard.truncated_tokens for shard in shards),
        "records": sum(shard.records for shard in shards),
        "bytes": sum(shard.bytes for shard in shards),
    }
    check_sums(totals, num_shards=(len(shards), plan.num_buckets), lines=dead_letter_files)
    return plan.manifest(
        status="complete",
        shards=shards,
        totals=totals,
        dead_letters=dead_letters,
        report=report.to_dict(),
        run=engine_record(counts),
    )


# Of documents, by the way they were tokenized; how, but not what came out, may differ by run.
_ENGINE_COUNTS = (
    "reference_documents",
    "uncertified_documents",
    "literal_documents",
    "audited_documents",
    "audit_differences",
    "special_text_documents",
)


def engine_record(counts: dict[str, int]) -> dict[str, Any]:
    """Returns the manifest's account of the tokenizer engine: counts, and what the audit found."""
    prefix = "audit_difference/"
    differing = sorted(name.removeprefix(prefix) for name in counts if name.startswith(prefix))
    return {
        **{name: counts.get(name, 0) for name in _ENGINE_COUNTS},
        "audit_difference_documents": differing,  # file index:row
    }


def check_sums(totals: dict[str, int], num_shards: tuple[int, int], lines: dict[str, int]) -> None:
    """Holds the job to its promise: nothing lost, nothing twice.

    Raises:
        JobError: naming the sum that doesn't hold.
    """
    documents = totals["documents_written"] + totals["documents_dropped"] + totals["dead_letters"]
    tokens = totals["tokens_written"] + totals["tokens_truncated"]
    for name, found, expected in (
        ("shards", *num_shards),
        ("documents written, dropped and dead", documents, totals["documents_read"]),
        ("tokens written and truncated", tokens, totals["tokens_in"]),
        ("dead letters on file", sum(lines.values()), totals["dead_letters"]),
    ):
        if found != expected:
            raise JobError(
                f"the sums don't hold: {name}: {found}, expected {expected}. This is a bug in "
                f"shardstream; please report it with these totals: {json.dumps(totals)}"
            )
