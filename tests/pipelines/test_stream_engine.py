"""The buffer in an engine's keyed state: the same promises, on the runners that are here."""

from collections.abc import Callable
from pathlib import Path

import pytest

from shardstream.pipelines.verify import main as verify_main
from shardstream.shard_format import naming
from shardstream.shard_format.commit_log import read_commits
from shardstream.shard_format.storage import open_directory
from shardstream.transforms.stream import engine as stream_engine
from shardstream.transforms.stream import read as stream_read
from shardstream.transforms.stream.buffer import drain, draw
from shardstream.transforms.stream.log import StreamLog
from tests.pipeline_runs import build, needs_prism, parquet_flags, read_documents
from tests.pipelines.stream_runs import FollowRun, documents_by_file, expect, put, texts

ENGINE = ["--mode", "stream", "--shuffle_via", "engine", "--lanes", 2]
ENGINE += ["--buffer_documents", 400, "--partition_mb", 1, "--block_kb", 64]


@pytest.mark.parametrize("runner", ["FnApiRunner", pytest.param("PrismRunner", marks=needs_prism)])
def test_engine_holds_the_documents_that_batch_mode_holds(
    tmp_path: Path, sample_files: list[str], tokenizer_directory: str, runner: str
) -> None:
    flags = [*parquet_flags(sample_files[:2], tokenizer_directory), "--validation_fraction", "0.1"]
    manifest = build(tmp_path / "stream", *flags, *ENGINE, runner=runner)
    assert (manifest.run["runner"], manifest.status) == (runner, "complete")
    build(tmp_path / "batch", *flags)
    assert read_documents(tmp_path / "stream") == read_documents(tmp_path / "batch")
    assert verify_main([str(tmp_path / "stream")]) == 0


def test_engine_that_lost_its_state_goes_on_from_the_log(
    tmp_path: Path,
    sample_files: list[str],
    tokenizer_directory: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = parquet_flags(sample_files[:2], tokenizer_directory)
    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed here"):
        _fail_at(4, patch)
        build(out, *flags, *ENGINE)
    before = list(read_commits(open_directory(out)))
    assert len(before) == 3
    build(out, *flags, *ENGINE)
    assert list(read_commits(open_directory(out)))[:3] == before
    build(tmp_path / "batch", *flags)
    assert read_documents(out) == read_documents(tmp_path / "batch")
    assert verify_main([str(out)]) == 0
    listed = {e.shard.file for c in read_commits(open_directory(out)) for e in c.shards}
    assert {path.name for path in out.glob("*.array_record")} == listed


def _fail_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the commit of this number fail."""
    commit = StreamLog.commit
    calls: list[int] = []

    def fail_late(log: StreamLog, *args: object, **kwargs: object) -> None:
        calls.append(0)
        if len(calls) == number:
            raise RuntimeError("killed here")
        commit(log, *args, **kwargs)

    monkeypatch.setattr(StreamLog, "commit", fail_late)


def _forget_when_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Brings documents to the buffer that are committed, as state from before the commit does."""
    monkeypatch.setattr(stream_engine.StreamLog, "is_done", lambda log, name: False)
    monkeypatch.setattr(stream_read, "_missing", lambda block, log: block)


def test_engine_that_went_back_behind_commits_leaves_out_what_they_hold(
    tmp_path: Path,
    sample_files: list[str],
    tokenizer_directory: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = parquet_flags(sample_files[:2], tokenizer_directory)
    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed here"):
        _fail_at(4, patch)
        build(out, *flags, *ENGINE)
    before = list(read_commits(open_directory(out)))
    with monkeypatch.context() as patch:
        _forget_when_reading(patch)
        # Another seed for the draws: shards that hold committed documents beside others.
        patch.setattr(stream_engine, "draw", lambda held, plan, *at: draw(held, plan, *at, 7))
        patch.setattr(stream_engine, "drain", lambda held, plan, *at: drain(held, plan, *at, 7))
        build(out, *flags, *ENGINE)
    assert list(read_commits(open_directory(out)))[:3] == before
    build(tmp_path / "batch", *flags)
    assert read_documents(out) == read_documents(tmp_path / "batch")
    assert verify_main([str(out)]) == 0


def test_commit_refuses_documents_that_another_attempt_has_committed(
    tmp_path: Path,
    sample_files: list[str],
    tokenizer_directory: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = parquet_flags(sample_files[:2], tokenizer_directory)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed here"):
        _fail_at(4, patch)
        build(tmp_path, *flags, *ENGINE)
    before = list(read_commits(open_directory(tmp_path)))
    with (
        monkeypatch.context() as patch,
        pytest.raises(
            Exception, match=r"documents of train-stream-\w+\.array_record are in commit"
        ),
    ):
        _forget_when_reading(patch)
        patch.setattr(stream_engine, "draw", lambda held, plan, *at: draw(held, plan, *at, 7))
        patch.setattr(stream_engine._Buffer, "setup", _with_empty_log)
        build(tmp_path, *flags, *ENGINE)
    assert list(read_commits(open_directory(tmp_path))) == before


def _with_empty_log(buffer: stream_engine._Buffer) -> None:
    buffer._log = StreamLog(open_directory(f"{buffer._plan.output}/nothing"))


@needs_prism
def test_engine_follows_a_growing_folder_on_prism_streaming(
    tmp_path: Path, tokenizer_directory: str, follow: Callable[..., FollowRun]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    put(folder / "b.parquet", texts("b"))
    flags = ["--dataset", folder, "--tokenizer", tokenizer_directory, "--shuffle_via", "engine"]
    flags += ["--runner=PrismRunner", "--streaming"]
    run = follow(out, *flags)
    run.wait_for(lambda: documents_by_file(out) == expect("b.parquet"))  # by the latency timer
    put(folder / "a.parquet", texts("a"))
    run.wait_for(lambda: documents_by_file(out) == expect("a.parquet", "b.parquet"))
    put(folder / "c.parquet", texts("c"))
    directory = open_directory(out)
    run.wait_for(lambda: sum(len(commit.files) for commit in read_commits(directory)) == 3)
    run.terminate()  # what was found is still read, shuffled and committed
    assert documents_by_file(out) == expect("a.parquet", "b.parquet", "c.parquet")
    assert not (out / naming.WORK_DIRECTORY).exists()


@pytest.mark.parametrize("epochs", [0, 2])
def test_engine_refuses_several_epochs_and_says_what_to_do(
    tmp_path: Path, sample_files: list[str], tokenizer_directory: str, epochs: int
) -> None:
    flags = parquet_flags(sample_files[:1], tokenizer_directory)
    with pytest.raises(
        ValueError, match=r"passes would run into each other.*Loader\(\.\.\., epoch"
    ):
        build(tmp_path, *flags, *ENGINE, "--epochs", epochs)
