"""A real Flink cluster: two task managers, killed, saved and resumed; every document once."""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardstream.pipelines.verify import main as verify_main
from shardstream.shard_format.commit_log import read_commits
from shardstream.shard_format.manifest import read_manifest
from shardstream.shard_format.storage import open_directory
from tests.pipeline_runs import build, parquet_flags, read_documents
from tests.pipelines.stream_runs import documents_by_file, expect, put, texts
from tests.runners.engines import Run, needs_java, process_flags, write_worker
from tools.flink_cluster import FlinkCluster

pytestmark = [needs_java, pytest.mark.engines]

STREAM = ["--mode", "stream", "--lanes", 2, "--buffer_documents", 1000, "--partition_mb", 1]
STREAM += ["--block_kb", 16, "--checkpointing_interval=500", "--max_bundle_time_mills=100"]
STREAM += ["--max_bundle_size=2"]
# Takes long enough for several checkpoints.
SLOW = ["--threads", 1, "--tokenizer_engine", "transformers"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlinkCluster]:
    with FlinkCluster(folder=tmp_path_factory.mktemp("flink")) as running:
        yield running


@pytest.fixture(scope="module")
def flink(cluster: FlinkCluster, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [*cluster.beam_args, *process_flags(write_worker(tmp_path_factory.mktemp("worker")))]


def _many(files: list[str], folder: Path, times: int) -> list[str]:
    """The files several times over, under names of their own."""
    folder.mkdir()
    links = []
    for copy in range(times):
        for file in files:
            link = folder / f"{copy}-{Path(file).name}"
            link.symlink_to(file)
            links.append(str(link))
    return links


def _latest_job(cluster: FlinkCluster) -> str:
    return list(cluster.jobs())[-1]


def test_batch_over_two_task_managers_gives_the_bytes_that_fnapirunner_gives(
    tmp_path: Path, sample_files: list[str], tokenizer_directory: str, flink: list[str]
) -> None:
    flags = [*parquet_flags(sample_files, tokenizer_directory), "--num_shards", 3]
    expected = build(tmp_path / "expected", *flags)
    run = Run(tmp_path / "found", [*flags, *flink])
    assert run.finish() == 0, run.text
    found = read_manifest(open_directory(tmp_path / "found"))
    assert found.fingerprint == expected.fingerprint
    assert found.run["shuffle_via"] == "engine"


def test_job_that_must_stop_says_why_in_one_line(
    tmp_path: Path, tokenizer_directory: str, flink: list[str]
) -> None:
    source = tmp_path / "nulls.parquet"
    put(source, [text if i % 2 else None for i, text in enumerate(texts("x", 20))])
    run = Run(tmp_path / "out", [*parquet_flags([str(source)], tokenizer_directory), *flink])
    assert run.finish() == 1, run.text
    lines = run.text.strip().splitlines()
    assert lines[-1].startswith("error: 10 of 20 documents"), run.text
    assert "Traceback" not in run.text


def test_stream_whose_task_manager_is_killed_holds_every_document_once(
    tmp_path: Path,
    sample_files: list[str],
    tokenizer_directory: str,
    cluster: FlinkCluster,
    flink: list[str],
) -> None:
    files = _many(sample_files, tmp_path / "in", 6)
    flags = parquet_flags(files, tokenizer_directory)
    out = tmp_path / "out"
    run = Run(out, [*flags, *STREAM, *SLOW, *flink, "--shutdown_sources_after_idle_ms=2000"])
    run.wait_for(lambda: run.num_commits >= 3)
    job = _latest_job(cluster)
    run.wait_for(lambda: cluster.checkpoints(job) >= 1)
    saved = run.num_commits
    run.wait_for(lambda: run.num_commits > saved)  # commits behind which the job will go back
    rng = random.Random(os.environ.get("KILL_SEED", "0"))
    time.sleep(rng.uniform(0, 4))
    victim = rng.choice(cluster.task_managers)
    victim.kill()
    cluster.task_managers.remove(victim)
    before = list(read_commits(open_directory(out)))
    cluster.start_task_manager()
    assert run.finish() == 0, run.text
    assert cluster.restores(job) >= 1
    # The end never came before the last shards, which costs a restart.
    assert not [log for log in cluster.logs() if "the sums don't hold" in log]
    assert list(read_commits(open_directory(out)))[: len(before)] == before
    assert read_manifest(open_directory(out)).status == "complete"
    assert verify_main([str(out)]) == 0
    build(tmp_path / "batch", *flags)
    assert read_documents(out) == read_documents(tmp_path / "batch")


def test_stream_goes_on_from_a_savepoint_behind_its_commits(
    tmp_path: Path, tokenizer_directory: str, cluster: FlinkCluster, flink: list[str]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    put(folder / "a.parquet", texts("a"))
    flags = ["--dataset", folder, "--tokenizer", tokenizer_directory, *STREAM, *flink]
    flags += ["--follow_source", "--poll_secs", 1, "--max_shard_latency_secs", 2]
    run = Run(out, flags)
    run.wait_for(lambda: documents_by_file(out) == expect("a.parquet"))
    job = _latest_job(cluster)
    savepoint = cluster.savepoint(job, cancel=False)
    put(folder / "b.parquet", texts("b"))
    run.wait_for(lambda: documents_by_file(out) == expect("a.parquet", "b.parquet"))
    before = list(read_commits(open_directory(out)))
    cluster.cancel(job)
    run.kill()
    # The savepoint knows nothing of b, which is committed.
    again = Run(out, [*flags, f"--savepoint_path={savepoint}"])
    put(folder / "c.parquet", texts("c"))
    again.wait_for(lambda: documents_by_file(out) == expect("a.parquet", "b.parquet", "c.parquet"))
    assert list(read_commits(open_directory(out)))[: len(before)] == before
    cluster.cancel(_latest_job(cluster))
    again.kill()
    assert documents_by_file(out) == expect("a.parquet", "b.parquet", "c.parquet")
