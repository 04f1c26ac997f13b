"""A source that grows: what joins is read once, and SIGTERM leaves all that was read committed."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shardstream.pipelines.sample import SampleFiles
from shardstream.shard_format.commit_log import read_commits
from shardstream.shard_format.manifest import read_manifest
from shardstream.shard_format.provenance import read_provenance
from shardstream.shard_format.storage import open_directory
from tests.loopback_hub import Hub, hub_environment
from tests.pipeline_runs import needs_prism
from tests.pipelines.stream_runs import FollowRun, documents_by_file, expect, put, texts

RUNNERS = ["FnApiRunner", pytest.param("PrismRunner", marks=needs_prism)]


@pytest.mark.parametrize("runner", RUNNERS)
def test_new_files_join_and_a_rerun_goes_on(
    tmp_path: Path, tokenizer_directory: str, follow: Callable[..., FollowRun], runner: str
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    put(folder / "b.parquet", texts("b"))
    flags = ["--dataset", folder, "--tokenizer", tokenizer_directory, f"--runner={runner}"]
    run = follow(out, *flags)
    run.wait_for(lambda: documents_by_file(out) == expect("b.parquet"))
    put(folder / "a.parquet", texts("a"))  # its name sorts first: indices must not move
    run.wait_for(lambda: documents_by_file(out) == expect("a.parquet", "b.parquet"))
    text = run.terminate()
    assert "stopping: what was read is being committed" in text
    assert (
        f"following, {len(list(out.glob('*.array_record')))} shards committed, 60 documents" in text
    )
    assert f"ran on {runner}" in text
    assert read_manifest(open_directory(out), allow=("following",)).mode == "stream"
    put(folder / "c.parquet", texts("c"))
    run = follow(out, *flags)
    run.wait_for(lambda: documents_by_file(out) == expect("a.parquet", "b.parquet", "c.parquet"))
    run.terminate()
    assert documents_by_file(out) == expect("a.parquet", "b.parquet", "c.parquet")
    assert not list(out.rglob(".*.private")) and not (out / "_work").exists()


def test_stopped_in_the_middle_of_a_file_everything_read_is_committed(
    tmp_path: Path, tokenizer_directory: str, follow: Callable[..., FollowRun]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    put(folder / "a.parquet", texts("some words to make it long " * 20, 20_000))
    flags = ["--dataset", folder, "--tokenizer", tokenizer_directory, "--runner=FnApiRunner"]
    flags += ["--block_kb", 16, "--tokenizer_engine", "transformers", "--buffer_documents", 1000]
    run = follow(out, *flags)
    run.wait_for(lambda: len(list(read_commits(open_directory(out)))) > 3)
    run.terminate()
    rows = [row for _, row in documents_by_file(out)]
    assert 0 < len(rows) < 20_000
    # Reading stopped at some row; nothing before it is missing (the buffer was published).
    assert rows == list(range(len(rows)))
    run = follow(out, *flags)
    run.wait_for(lambda: len(documents_by_file(out)) == 20_000)
    run.terminate()
    assert documents_by_file(out) == expect("a.parquet", count=20_000)


def test_killed_while_following_and_run_again(
    tmp_path: Path, tokenizer_directory: str, follow: Callable[..., FollowRun]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    put(folder / "a.parquet", texts("a", 3000))
    flags = ["--dataset", folder, "--tokenizer", tokenizer_directory, "--runner=FnApiRunner"]
    flags += ["--buffer_documents", 500, "--tokenizer_engine", "transformers", "--block_kb", 16]
    for name in ("b", "c"):
        run = follow(out, *flags)
        run.wait_for(lambda: len(documents_by_file(out)) > 0)
        put(folder / f"{name}.parquet", texts(name, 3000))
        run.kill()
    run = follow(out, *flags)
    expected = expect("a.parquet", "b.parquet", "c.parquet", count=3000)
    run.wait_for(lambda: len(documents_by_file(out)) >= len(expected))
    run.terminate()
    assert documents_by_file(out) == expected


def test_changed_file_is_not_read_again_and_the_user_is_told(
    tmp_path: Path, tokenizer_directory: str, follow: Callable[..., FollowRun]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    put(folder / "a.parquet", texts("a"))
    flags = ["--dataset", "parquet", "--data_files", folder / "*.parquet"]
    run = follow(out, *flags, "--tokenizer", tokenizer_directory, "--runner=FnApiRunner")
    run.wait_for(lambda: len(documents_by_file(out)) == 30)
    put(folder / "a.parquet", texts("other", 40))
    put(folder / "b.parquet", texts("b"))
    run.wait_for(lambda: len(documents_by_file(out)) == 60)
    text = run.terminate()
    assert "a.parquet has changed" in text
    assert "Put new documents into new files" in text


def test_new_commits_of_a_hub_dataset_join(
    tmp_path: Path, sample: SampleFiles, follow: Callable[..., FollowRun]
) -> None:
    with Hub(tmp_path / "hub") as hub:
        environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
        environment |= hub_environment(hub)

        def add(name: str) -> None:
            lines = "".join(json.dumps({"text": text}) + "\n" for text in texts(name))
            hub.add_commit("acme/news", {name: lines.encode()})

        out = tmp_path / "out"
        add("b.jsonl")
        flags = ["--dataset", "acme/news", "--tokenizer", sample.tokenizer_directory]
        run = follow(out, *flags, "--runner=FnApiRunner", env=environment)
        run.wait_for(lambda: documents_by_file(out) == expect("b.jsonl"))
        add("a.jsonl")
        run.wait_for(lambda: documents_by_file(out) == expect("a.jsonl", "b.jsonl"))
        text = run.terminate()
        assert hub.bytes_sent("b.jsonl") < 5000, text
        files = [file for commit in read_commits(open_directory(out)) for file in commit.files]
        assert [(file.index, file.name) for file in files] == [(0, "b.jsonl"), (1, "a.jsonl")]


def test_endless_epochs_stop_on_sigterm(
    tmp_path: Path, tokenizer_directory: str, follow: Callable[..., FollowRun]
) -> None:
    put(tmp_path / "a.parquet", texts("a"))
    flags = ["--dataset", "parquet", "--data_files", tmp_path / "a.parquet", "--epochs", 0]
    out = tmp_path / "out"
    flags += ["--tokenizer", tokenizer_directory, "--runner=FnApiRunner"]
    run = follow(out, *flags, follow=False)
    directory = open_directory(out)
    run.wait_for(lambda: sum(len(c.shards) for c in read_commits(directory)) > 3)
    run.terminate()
    tables = [
        read_provenance(directory, entry.shard.file)
        for commit in read_commits(directory)
        for entry in commit.shards
    ]
    pairs = [(p["partition"], p["row"]) for table in tables for p in table.to_pylist()]
    assert len(set(pairs)) == len(pairs)
    assert max(epoch for epoch, _ in pairs) >= 3
