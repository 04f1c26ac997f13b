"""Exactly once: killed anywhere, stopped, or torn between writing and committing, then run again."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardstream.pipelines.job.options import parse_options
from shardstream.pipelines.job.planning import make_plan
from shardstream.pipelines.verify import main as verify_main
from shardstream.shard_format import naming
from shardstream.shard_format.commit_log import Commit, read_commits
from shardstream.shard_format.manifest import find_manifest
from shardstream.shard_format.storage import open_directory
from shardstream.transforms.stream import publish as stream_publish
from shardstream.transforms.stream import read as stream_read
from shardstream.transforms.stream.log import StreamLog
from tests.pipeline_runs import build, needs_prism, parquet_flags, read_documents

SMALL = ["--mode", "stream", "--buffer_documents", "300", "--partition_mb", "1", "--block_kb", "16"]
# One thread of the slowest engine: the job takes long enough to be hit in the middle.
SLOW = ["--threads", "1", "--tokenizer_engine", "transformers", "--no-progress"]
KILLS = int(os.environ.get("KILLS", "3"))


class _Killed(BaseException):
    """Stands for a kill between two lines."""


def _start(output: Path, *flags: str, runner: str = "FnApiRunner") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "shardstream.pipelines.preprocess", *flags, *SMALL, *SLOW]
    command += ["--output", str(output), f"--runner={runner}"]
    # A group of its own, so that Prism's binary dies with the process that started it.
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def _check_log(output: Path) -> list[Commit]:
    """What a follower sees must be whole at any moment: every committed file, with its content."""
    directory = open_directory(output)
    commits = list(read_commits(directory))
    for commit in commits:
        for entry in commit.shards:
            assert directory.size(entry.shard.file) == entry.shard.bytes
            assert directory.exists(naming.provenance_name(entry.shard.file))
    return commits


@pytest.mark.parametrize("runner", ["FnApiRunner", pytest.param("PrismRunner", marks=needs_prism)])
def test_killed_at_any_moment_and_run_again_holds_every_document_once(
    tmp_path: Path, sample_files: list[str], tokenizer_directory: str, runner: str
) -> None:
    flags = parquet_flags(sample_files, tokenizer_directory)
    out = tmp_path / "out"
    rng = random.Random(os.environ.get("KILL_SEED", "0"))
    before: list[Commit] = []
    hit = 0
    for _ in range(KILLS):
        process = _start(out, *flags, runner=runner)
        while process.poll() is None and len(_check_log(out)) == len(before):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.7))
        hit += process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        after = _check_log(out)
        assert after[: len(before)] == before  # what was committed stays as it was
        before = after
    assert hit > 0
    process = _start(out, *flags, runner=runner)
    text, _ = process.communicate()
    assert process.returncode == 0, text
    build(tmp_path / "batch", *flags)
    assert read_documents(out) == read_documents(tmp_path / "batch")
    assert verify_main([str(out)]) == 0
    assert _check_log(out)[: len(before)] == before
    assert sorted(path.name for path in out.glob("*.array_record")) == sorted(
        entry.shard.file for commit in _check_log(out) for entry in commit.shards
    )
    assert not list(out.rglob(".*.private"))


@pytest.mark.parametrize("moment", ["before the commit", "after the commit"])
@pytest.mark.parametrize("at", [0, 3, 7])
def test_killed_around_a_commit(
    tmp_path: Path,
    sample_files: list[str],
    tokenizer_directory: str,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    at: int,
) -> None:
    """The shard's file is there in both cases; only where its commit is may it count."""
    flags = [*parquet_flags(sample_files[:2], tokenizer_directory), *SMALL]
    commit = StreamLog.commit
    calls: list[int] = []

    def interrupted(log: StreamLog, *args: object, **kwargs: object) -> None:
        calls.append(0)
        if len(calls) == at + 1 and moment == "before the commit":
            raise _Killed
        commit(log, *args, **kwargs)
        if len(calls) == at + 1 and moment == "after the commit":
            raise _Killed

    monkeypatch.setattr(StreamLog, "commit", interrupted)
    with pytest.raises((_Killed, RuntimeError)):
        build(tmp_path / "out", *flags)
    num_files = len(list((tmp_path / "out").glob("*.array_record")))
    num_commits = len(_check_log(tmp_path / "out"))
    assert (num_files, num_commits) == (at + 1, at + (moment == "after the commit"))
    monkeypatch.undo()
    build(tmp_path / "out", *flags)
    build(tmp_path / "batch", *parquet_flags(sample_files[:2], tokenizer_directory))
    assert read_documents(tmp_path / "out") == read_documents(tmp_path / "batch")
    assert verify_main([str(tmp_path / "out")]) == 0


def test_rerun_opens_no_partition_that_is_done_and_tokenizes_nothing_committed(
    tmp_path: Path,
    sample_files: list[str],
    tokenizer_directory: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = [*parquet_flags(sample_files, tokenizer_directory), *SMALL, "--epochs", "2"]
    build(tmp_path, *flags)
    commits = list(read_commits(open_directory(tmp_path)))
    # As if killed just before the manifest was completed, and before the last commits but two.
    for commit in commits[-3:]:
        (tmp_path / naming.commit_name(commit.sequence)).unlink()
    manifest = find_manifest(open_directory(tmp_path))
    assert manifest is not None
    opened: list[str] = []
    tokenized: list[int] = []
    read_blocks, see_tokens = stream_read.read_blocks, stream_read.PartitionTally.see_tokens

    def read(partition: object, *args: object, **kwargs: object) -> Iterator:
        opened.append(partition.name)
        return read_blocks(partition, *args, **kwargs)

    def see(tally: object, block: object, plan: object) -> object:
        tokenized.append(block.batch.num_rows)
        return see_tokens(tally, block, plan)

    monkeypatch.setattr(stream_read, "read_blocks", read)
    monkeypatch.setattr(stream_read.PartitionTally, "see_tokens", see)
    _write_following(tmp_path, flags)
    again = build(tmp_path, *flags)
    missing = sum(e.shard.documents for commit in commits[-3:] for e in commit.shards)
    assert sum(tokenized) == missing
    names = sorted({read.name for commit in commits for read in commit.partitions})
    assert sorted(opened) == [name for name in names if int(name[:6]) >= 4]  # the second epoch's
    for name in (
        "documents_read",
        "documents_written",
        "tokens_in",
        "tokens_written",
        "text_bytes",
    ):
        assert again.totals[name] == manifest.totals[name]
    assert verify_main([str(tmp_path)]) == 0


def _write_following(output: Path, flags: list[str]) -> None:
    plan = make_plan(parse_options(["--output", str(output), "--runner", "FnApiRunner", *flags]))
    plan.directory.write(naming.MANIFEST, plan.manifest().to_json())


def test_orphans_are_removed_and_never_read(
    tmp_path: Path,
    sample_files: list[str],
    tokenizer_directory: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = [*parquet_flags(sample_files[:1], tokenizer_directory), *SMALL]
    publish = stream_publish.write_stream_shard

    def killed(*args: object) -> object:
        publish(*args)
        raise _Killed

    monkeypatch.setattr(stream_publish, "write_stream_shard", killed)
    with pytest.raises((_Killed, RuntimeError)):
        build(tmp_path, *flags)
    (orphan,) = tmp_path.glob("*.array_record")
    monkeypatch.undo()
    orphan.rename(orphan.with_name("train-stream-00000000deadbeef.array_record"))
    manifest = build(tmp_path, *flags)
    assert "train-stream-00000000deadbeef.array_record" not in {s.file for s in manifest.shards}
    assert not (tmp_path / "train-stream-00000000deadbeef.array_record").exists()
    directory = open_directory(tmp_path)
    for folder, name_of in [
        (naming.PROVENANCE_DIRECTORY, naming.provenance_name),
        (naming.CHECKSUMS_DIRECTORY, naming.checksums_name),
    ]:
        expected = sorted(name_of(shard.file) for shard in manifest.shards)
        assert directory.list(folder) == expected
