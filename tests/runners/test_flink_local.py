"""Flink in one JVM, with two Python worker processes: an engine's own shuffle, same bytes."""

from pathlib import Path

import pytest

from pipelines.verify import main as verify_main
from shard_format.manifest import read_manifest
from shard_format.storage import Directory
from tests.pipeline_runs import build, parquet_flags
from tests.runners.engines import Run, needs_java, process_flags, write_worker
from tools.fetch_runners import fetch_job_server


@needs_java
@pytest.mark.engines
def test_flink_gives_the_bytes_that_fnapirunner_gives(
    tmp_path: Path, sample_files: list[str], tokenizer_directory: str
) -> None:
    flags = [*parquet_flags(sample_files, tokenizer_directory), "--num_shards", 3]
    flags += ["--validation_fraction", 0.1]
    expected = build(tmp_path / "expected", *flags)
    flink = [
        "--flink_master=[local]",
        f"--flink_job_server_jar={fetch_job_server('flink')}",
        *process_flags(write_worker(tmp_path)),
        "--parallelism=2",
        "--sdk_worker_parallelism=2",
    ]
    run = Run(tmp_path / "found", [*flags, *flink, "--runner=FlinkRunner"])  # its JVM ends with it
    assert run.finish() == 0, run.text
    found = read_manifest(Directory(tmp_path / "found"))
    assert found.fingerprint == expected.fingerprint
    assert [s.sha256 for s in found.shards] == [s.sha256 for s in expected.shards]
    ran = {name: found.run[name] for name in ("runner", "shuffle_via", "threads")}
    assert ran == {"runner": "FlinkRunner", "shuffle_via": "engine", "threads": 1}
    assert verify_main([str(tmp_path / "found")]) == 0
