"""The batch job on gs:// and s3://: the local job's dataset, byte for byte, and its manners."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shardstream.pipelines.show_batches import main as show_batches
from shardstream.pipelines.verify import main as verify
from shardstream.shard_format import naming
from shardstream.shard_format.manifest import find_manifest
from shardstream.shard_format.storage import open_directory
from tests.pipeline_runs import build, parquet_flags

FLAGS = ["--num_shards", 3, "--validation_fraction", 0.2, "--sequence_length", 64]


def _upload(files: list[str], root: str) -> str:
    """Puts files on the store; returns the pattern that finds them."""
    for path in map(Path, files):
        open_directory(f"{root}/in").write(path.name, path.read_bytes())
    return f"{root}/in/*{Path(files[0]).suffix}"


def _files(root: str) -> dict[str, bytes]:
    """Returns all files of a dataset but dataset.json, which names runner and time."""
    directory = open_directory(root)
    return {name: directory.read(name) for name in directory.list() if name != naming.MANIFEST}


def test_dataset_is_the_local_one_byte_for_byte(
    store_root: str,
    tmp_path: Path,
    twelve_documents: list[str],
    tokenizer_directory: str,
    capsys: pytest.CaptureFixture,
) -> None:
    local = build(tmp_path / "out", *parquet_flags(twelve_documents, tokenizer_directory), *FLAGS)
    pattern = _upload(twelve_documents, store_root)
    out = f"{store_root}/out"
    flags = [*parquet_flags([pattern], tokenizer_directory), *FLAGS]
    there = build(out, *flags)
    assert there.fingerprint == local.fingerprint
    assert _files(out) == _files(str(tmp_path / "out"))
    assert verify([out]) == 0
    assert build(out, *flags) == there
    assert "already complete, nothing to do" in capsys.readouterr().out


def test_another_plan_is_refused_and_overwrite_replaces_it(
    store_root: str, twelve_documents: list[str], tokenizer_directory: str
) -> None:
    out = f"{store_root}/out"
    flags = parquet_flags(twelve_documents, tokenizer_directory)
    build(out, *flags, "--num_shards", 3)
    with pytest.raises(ValueError, match=r"another plan \(options num_shards: 3 there, 2 now\)"):
        build(out, *flags, "--num_shards", 2)
    open_directory(out).write("notes.txt", b"the user's own")
    build(out, *flags, "--num_shards", 2, "--overwrite")
    shards = [name for name in open_directory(out).list() if name.endswith(".array_record")]
    assert shards == ["train-00000-of-00002.array_record", "train-00001-of-00002.array_record"]
    assert open_directory(out).read("notes.txt") == b"the user's own"
    assert verify([out]) == 0


def test_dead_letters_stand_on_the_store(
    store_root: str, tmp_path: Path, tokenizer_directory: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "good"}\n{"text": null}\n')
    pattern = _upload([str(path)], store_root)
    flags = ["--dataset", "json", "--data_files", pattern, "--tokenizer", tokenizer_directory]
    build(f"{store_root}/out", *flags, "--max_dead_letter_fraction", 1)
    letters = open_directory(f"{store_root}/out").read(naming.dead_letters_name(0))
    assert b'"reason": "null_text"' in letters


def test_stream_mode_commits_on_the_store(
    store_root: str, twelve_documents: list[str], tokenizer_directory: str
) -> None:
    out = f"{store_root}/out"
    flags = [*parquet_flags(twelve_documents, tokenizer_directory), "--mode", "stream"]
    manifest = build(out, *flags, "--shard_records", 2, "--sequence_length", 64)
    assert manifest.status == "complete"
    assert len(open_directory(out).list(naming.COMMITS_DIRECTORY)) > 1
    assert verify([out]) == 0


@pytest.mark.slow
def test_killed_and_run_again_gives_the_same_dataset(
    store_root: str, tmp_path: Path, sample_files: list[str], tokenizer_directory: str
) -> None:
    """As tests/pipelines/test_rerun.py, on a store: kill -9 twice at random moments."""
    flags = [*parquet_flags(sample_files, tokenizer_directory), "--num_shards", "12"]
    slow = ["--partition_mb", "1", "--block_kb", "4", "--threads", "1"]
    expected = build(tmp_path / "whole", *flags).fingerprint
    out = f"{store_root}/out"
    command = [
        sys.executable,
        "-m",
        "shardstream.pipelines.preprocess",
        *flags,
        *slow,
        "--output",
        out,
    ]
    command += ["--runner=FnApiRunner", "--tokenizer_engine", "transformers", "--no-progress"]
    rng = random.Random(os.environ.get("KILL_SEED", "0"))
    killed = 0
    for _ in range(2):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        while not open_directory(out).list(naming.WORK_DIRECTORY) and process.poll() is None:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 2))
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert killed > 0
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert find_manifest(open_directory(out)).fingerprint == expected
    assert not open_directory(out).list(naming.WORK_DIRECTORY)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("gs://no-such-bucket/out", "can't be written to .*no-such-bucket"),
        ("gcs://bucket/out", "expected a path, gs://bucket/prefix"),
    ],
)
def test_wrong_output_is_told_before_any_work(
    gs_root: str, twelve_documents: list[str], tokenizer_directory: str, output: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(output, *parquet_flags(twelve_documents, tokenizer_directory))


def test_show_batches_prints_a_dataset_on_a_store(
    gs_root: str,
    twelve_documents: list[str],
    tokenizer_directory: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    build(f"{gs_root}/out", *parquet_flags(twelve_documents, tokenizer_directory), *FLAGS)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert show_batches([f"{gs_root}/out", "--batch_size", "2", "--num_batches", "2"]) == 0
    assert "step 1: tokens jnp.int32[2, 64]" in capsys.readouterr().out
