"""Spark's job server, a local master: same bytes."""

from pathlib import Path

import pytest

from shardstream.shard_format.manifest import read_manifest
from shardstream.shard_format.storage import open_directory
from tests.pipeline_runs import build, parquet_flags
from tests.runners.engines import Run, needs_java, process_flags, write_worker
from tools.fetch_runners import fetch_job_server


@needs_java
@pytest.mark.engines
def test_spark_gives_the_bytes_that_fnapirunner_gives(
    tmp_path: Path, sample_files: list[str], tokenizer_directory: str
) -> None:
    flags = [*parquet_flags(sample_files[:2], tokenizer_directory), "--num_shards", 3]
    expected = build(tmp_path / "expected", *flags)
    spark = [
        "--spark_master_url=local[2]",
        f"--spark_job_server_jar={fetch_job_server('spark')}",
        *process_flags(write_worker(tmp_path)),
        "--sdk_worker_parallelism=2",
    ]
    run = Run(tmp_path / "found", [*flags, *spark, "--runner=SparkRunner"])  # its JVM ends with it
    assert run.finish() == 0, run.text
    found = read_manifest(open_directory(tmp_path / "found"))
    assert found.fingerprint == expected.fingerprint
    assert (found.run["runner"], found.run["shuffle_via"]) == ("SparkRunner", "engine")
