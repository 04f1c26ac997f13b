"""What is in the output directory already: complete, interrupted, another plan's, a stranger's."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shardstream.shard_format import naming
from shardstream.shard_format.manifest import find_manifest
from shardstream.shard_format.storage import open_directory
from tests.pipeline_runs import build, parquet_flags


def test_complete_dataset_of_the_same_plan_is_left_alone(
    tmp_path: Path,
    twelve_documents: list[str],
    tokenizer_directory: str,
    capsys: pytest.CaptureFixture,
) -> None:
    flags = parquet_flags(twelve_documents, tokenizer_directory)
    first = build(tmp_path / "out", *flags)
    before = (tmp_path / "out" / naming.MANIFEST).stat().st_mtime_ns
    assert build(tmp_path / "out", *flags) == first
    assert (tmp_path / "out" / naming.MANIFEST).stat().st_mtime_ns == before
    assert "already complete, nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (["--seed", 1], "seed: 0 there, 1 now"),
        (["--sequence_length", 99], "packing sequence_length: 2048 there, 99 now"),
        (["--max_documents", 3], "source max_documents: None there, 3 now"),
    ],
)
def test_complete_dataset_of_another_plan_is_refused(
    tmp_path: Path,
    twelve_documents: list[str],
    tokenizer_directory: str,
    change: list,
    difference: str,
) -> None:
    flags = parquet_flags(twelve_documents, tokenizer_directory)
    first = build(tmp_path / "out", *flags)
    with pytest.raises(ValueError, match=f"holds a complete dataset of another plan .{difference}"):
        build(tmp_path / "out", *flags, *change)
    assert find_manifest(open_directory(tmp_path / "out")) == first
    (tmp_path / "out" / "notes.txt").write_text("the user's own")
    second = build(tmp_path / "out", *flags, *change, "--overwrite")
    assert second.fingerprint != first.fingerprint
    assert (tmp_path / "out" / "notes.txt").exists()


def test_shards_without_a_manifest_are_refused(
    tmp_path: Path, twelve_documents: list[str], tokenizer_directory: str
) -> None:
    (tmp_path / "train-00000-of-00001.array_record").write_bytes(b"precious")
    with pytest.raises(ValueError, match=r"has shards .* but no dataset.json"):
        build(tmp_path, *parquet_flags(twelve_documents, tokenizer_directory))


def test_a_finished_build_leaves_no_temporary_files(
    tmp_path: Path, twelve_documents: list[str], tokenizer_directory: str
) -> None:
    out = tmp_path / "out"
    build(out, *parquet_flags(twelve_documents, tokenizer_directory), "--num_shards", 2)
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "checksums",
        "dataset.json",
        "provenance",
        "tokenizer",
        "train-00000-of-00002.array_record",
        "train-00001-of-00002.array_record",
    ]


def test_killed_at_any_moment_and_run_again_gives_the_same_dataset(
    tmp_path: Path, sample_files: list[str], tokenizer_directory: str
) -> None:
    """Kill -9 once work has begun, at a moment drawn at random, three times; then to the end."""
    flags = [*parquet_flags(sample_files, tokenizer_directory), "--num_shards", "12"]
    # One tokenizer thread on small blocks: the job takes long enough to be hit in the middle.
    slow = ["--partition_mb", "1", "--block_kb", "4", "--threads", "1"]
    expected = build(tmp_path / "whole", *flags).fingerprint
    out = tmp_path / "killed"
    command = [
        sys.executable,
        "-m",
        "shardstream.pipelines.preprocess",
        *flags,
        *slow,
        "--output",
        str(out),
    ]
    command += ["--runner=FnApiRunner", "--tokenizer_engine", "transformers", "--no-progress"]
    rng = random.Random(os.environ.get("KILL_SEED", "0"))
    killed = 0
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        while not (out / naming.WORK_DIRECTORY).exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 2))
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        manifest = find_manifest(open_directory(out))
        assert manifest is None or killed == 0 or manifest.status in ("incomplete", "complete")
    assert killed > 0
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert find_manifest(open_directory(out)).fingerprint == expected
    assert not list(out.rglob(".*.private"))
