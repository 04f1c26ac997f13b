"""Flink in one JVM, with two Python worker processes: the bytes of batch mode; a stream's end."""

from pathlib import Path

import pytest

from shardstream.pipelines.verify import main as verify_main
from shardstream.shard_format.manifest import read_manifest
from shardstream.shard_format.storage import open_directory
from tests.pipeline_runs import build, parquet_flags, read_documents
from tests.runners.engines import Run, needs_java, process_flags, write_worker
from tools.fetch_runners import fetch_job_server

pytestmark = [needs_java, pytest.mark.engines]


def _flink(folder: Path) -> list[str]:
    """The flags of an engine that is brought along; its JVM ends with the command."""
    jar = f"--flink_job_server_jar={fetch_job_server('flink')}"
    two = ["--parallelism=2", "--sdk_worker_parallelism=2"]
    engine = ["--runner=FlinkRunner", "--flink_master=[local]", jar, *two]
    return [*engine, *process_flags(write_worker(folder))]


def test_flink_gives_the_bytes_that_fnapirunner_gives(
    tmp_path: Path, sample_files: list[str], tokenizer_directory: str
) -> None:
    flags = [*parquet_flags(sample_files, tokenizer_directory), "--num_shards", 3]
    flags += ["--validation_fraction", 0.1]
    expected = build(tmp_path / "expected", *flags)
    run = Run(tmp_path / "found", [*flags, *_flink(tmp_path)])
    assert run.finish() == 0, run.text
    found = read_manifest(open_directory(tmp_path / "found"))
    assert found.fingerprint == expected.fingerprint
    assert [s.sha256 for s in found.shards] == [s.sha256 for s in expected.shards]
    ran = {name: found.run[name] for name in ("runner", "shuffle_via", "threads")}
    assert ran == {"runner": "FlinkRunner", "shuffle_via": "engine", "threads": 1}
    assert verify_main([str(tmp_path / "found")]) == 0


def test_stream_of_a_bounded_source_ends_complete_with_the_flags_that_we_add(
    tmp_path: Path, twelve_documents: list[str], tokenizer_directory: str
) -> None:
    flags = [*parquet_flags(twelve_documents, tokenizer_directory), "--sequence_length", 64]
    out = tmp_path / "out"
    run = Run(out, [*flags, "--mode", "stream", "--shard_records", 2, *_flink(tmp_path)])
    assert run.finish() == 0, run.text
    found = read_manifest(open_directory(out))
    assert (found.status, found.totals["documents_written"]) == ("complete", 12)
    assert len(found.shards) > 1
    build(tmp_path / "batch", *flags)
    assert read_documents(out) == read_documents(tmp_path / "batch")
    assert verify_main([str(out)]) == 0
