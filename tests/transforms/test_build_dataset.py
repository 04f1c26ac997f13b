"""The graph itself: metrics, what an interrupted run keeps, sums that must hold."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.metrics import MetricsFilter

from shardstream.pipelines.job.options import parse_options
from shardstream.pipelines.job.output_state import prepare_output
from shardstream.pipelines.job.planning import make_plan
from shardstream.pipelines.preprocess import preprocess
from shardstream.shard_format import naming
from shardstream.shard_format.manifest import find_manifest
from shardstream.shard_format.storage import Directory, open_directory
from shardstream.transforms import read_partition
from shardstream.transforms import write_shard as write_shard_module
from shardstream.transforms.batch.build_dataset import BuildDataset
from shardstream.transforms.batch.build_shard import build_shard
from shardstream.transforms.commit_dataset import check_sums
from shardstream.transforms.errors import JobError, job_error_message
from shardstream.transforms.shard_documents import ShardDocuments, SpillJobError
from shardstream.transforms.token_blocks import join_blocks
from tests.pipeline_runs import build, parquet_flags


def test_metrics_are_those_of_the_manifest(
    tmp_path: Path, twelve_documents: list[str], tokenizer_directory: str
) -> None:
    flags = parquet_flags(twelve_documents, tokenizer_directory)
    plan = make_plan(parse_options([*flags, "--output", str(tmp_path / "out")]))
    prepare_output(plan, overwrite=False)
    pipeline = beam.Pipeline("FnApiRunner")
    _ = pipeline | BuildDataset(plan)
    result = pipeline.run()
    result.wait_until_finish()
    counters = result.metrics().query(MetricsFilter().with_namespace("shardstream"))["counters"]
    found = {counter.key.metric.name: counter.committed for counter in counters}
    manifest = find_manifest(open_directory(tmp_path / "out"))
    assert found["documents_read"] == 12
    assert found["tokens_in"] == manifest.totals["tokens_in"]
    assert found["tokens_written"] == manifest.totals["tokens_written"]
    assert found["records"] == manifest.totals["records"]
    assert found["shards"] == len(manifest.shards)


def test_rerun_reads_nothing_again_and_keeps_finished_shards(
    tmp_path: Path,
    sample_files: list[str],
    tokenizer_directory: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = [*parquet_flags(sample_files, tokenizer_directory), "--num_shards", 4]
    expected = build(tmp_path / "whole", *flags).fingerprint
    out = tmp_path / "out"
    original = write_shard_module.publish_records

    def fail_on_the_third(directory: Directory, name: str, *args: Any) -> Any:
        if "train-00002" in name:
            raise OSError("disk full")
        return original(directory, name, *args)

    monkeypatch.setattr(write_shard_module, "publish_records", fail_on_the_third)
    with pytest.raises(Exception, match="disk full"):
        build(out, *flags, "--threads", 1)
    assert find_manifest(open_directory(out)).status == "incomplete"
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*.array_record")}
    assert kept

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a finished partition was read again")

    monkeypatch.setattr(write_shard_module, "publish_records", original)
    monkeypatch.setattr(read_partition, "read_blocks", refuse)
    assert build(out, *flags).fingerprint == expected
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_lost_spill_file_is_made_again(
    tmp_path: Path,
    sample_files: list[str],
    tokenizer_directory: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = [*parquet_flags(sample_files, tokenizer_directory), "--num_shards", 4]
    expected = build(tmp_path / "whole", *flags).fingerprint
    out = tmp_path / "out"

    def fail(*_: Any) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(write_shard_module, "publish_records", fail)
        with pytest.raises(Exception, match="killed"):
            build(out, *flags)
    spilled = sorted((out / naming.WORK_DIRECTORY).rglob("*.arrow"))
    spilled[0].unlink()
    spilled[1].write_bytes(spilled[1].read_bytes()[:-100])
    assert build(out, *flags).fingerprint == expected


def test_lost_shard_whose_documents_were_released_is_made_again(
    tmp_path: Path,
    sample_files: list[str],
    tokenizer_directory: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    flags = [*parquet_flags(sample_files, tokenizer_directory), "--num_shards", 4, "--threads", 1]
    expected = build(tmp_path / "whole", *flags).fingerprint
    out = tmp_path / "out"

    def fail(*_: Any) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("shardstream.transforms.commit_dataset.complete_manifest", fail)
        with pytest.raises(Exception, match="killed"):
            build(out, *flags)
    first, second = sorted(out.glob("*.array_record"))[:2]
    first.unlink()
    second.write_bytes(second.read_bytes()[:-100])
    assert build(out, *flags).fingerprint == expected
    assert "2 shards that were finished are missing or not whole (train-00000-of" in (
        capsys.readouterr().out
    )


def test_attempt_that_comes_second_keeps_the_shard_of_the_first(
    tmp_path: Path, sample_files: list[str], tokenizer_directory: str
) -> None:
    """Its documents were released while it read them, or are there still: either way."""
    flags = [*parquet_flags(sample_files, tokenizer_directory), "--num_shards", "1"]
    plan = make_plan(parse_options([*flags, "--output", str(tmp_path / "out")]))
    nothing = ShardDocuments.of(join_blocks([]))
    first = build_shard(0, contextlib.nullcontext(nothing), plan, plan.directory)
    sidecar = plan.work_name("shards", "000000.json")
    shard, done = (plan.directory.read(name) for name in (first["shard"]["file"], sidecar))

    @contextlib.contextmanager
    def overtaken(error: Exception | None) -> Iterator[ShardDocuments]:
        plan.directory.write(sidecar, done)
        if error:
            raise error
        yield nothing

    for error in (None, SpillJobError("zeros")):
        plan.directory.remove(sidecar)
        assert build_shard(0, overtaken(error), plan, plan.directory) == first
        assert plan.directory.read(first["shard"]["file"]) == shard


def test_job_error_is_found_inside_what_runners_raise(
    tmp_path: Path,
    twelve_documents: list[str],
    tokenizer_directory: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = RuntimeError(
        "Pipeline failed in state FAILED: Traceback\\n"
        "shardstream.transforms.errors.JobError: 2 of 4 documents are dead letters. [while running 'X']"
    )
    assert job_error_message(error) == "2 of 4 documents are dead letters."
    assert job_error_message(RuntimeError("something else")) is None
    # The source changes between planning and the job: the worker notices.
    options = parse_options(
        [
            *parquet_flags(twelve_documents, tokenizer_directory),
            *("--output", str(tmp_path / "o"), "--runner", "FnApiRunner", "--no-progress"),
        ]
    )
    plan = make_plan(options)
    changed = plan.source_identity | {"commit": "0" * 40}
    monkeypatch.setattr(
        "shardstream.pipelines.job.build.make_plan",
        lambda _: type(plan)(**(vars(plan) | {"source_identity": changed})),
    )
    with pytest.raises(Exception, match="source changed while the job ran") as raised:
        preprocess(options)
    assert job_error_message(raised.value).startswith("the source changed while the job ran")


TOTALS = {
    "documents_read": 10,
    "documents_written": 7,
    "documents_dropped": 1,
    "dead_letters": 2,
    "tokens_in": 100,
    "tokens_written": 90,
    "tokens_truncated": 10,
}


@pytest.mark.parametrize(
    ("change", "num_shards", "lines", "message"),
    [
        (
            {"documents_written": 6},
            (4, 4),
            2,
            "documents written, dropped and dead: 9, expected 10",
        ),
        ({"tokens_written": 91}, (4, 4), 2, "tokens written and truncated: 101, expected 100"),
        ({}, (3, 4), 2, "shards: 3, expected 4"),
        ({}, (4, 4), 1, "dead letters on file: 1, expected 2"),
    ],
)
def test_check_sums_names_the_sum_that_fails(
    change: dict, num_shards: tuple[int, int], lines: int, message: str
) -> None:
    check_sums(TOTALS, (4, 4), {"file": 2})
    with pytest.raises(JobError, match=message):
        check_sums(TOTALS | change, num_shards, {"file": lines})
