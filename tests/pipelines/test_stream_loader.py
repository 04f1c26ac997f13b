"""A loader beside a real stream: it follows through a kill -9 and a rerun to the stream's end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from shardstream.loaders import Loader
from shardstream.shard_format.manifest import find_manifest
from shardstream.shard_format.storage import open_directory
from tests.pipeline_runs import parquet_flags, read_documents
from tests.pipelines.test_stream_rerun import SLOW, SMALL

OPTIONS = {"batch_size": 4, "buffer_size": 50, "seed": 1, "output": "numpy", "follow": True}


@pytest.fixture
def command(
    tmp_path: Path, sample_files: list[str], tokenizer_directory: str
) -> Iterator[list[str]]:
    flags = [*parquet_flags(sample_files, tokenizer_directory), *SMALL, *SLOW]
    flags += ["--sequence_length", "256", "--validation_fraction", "0.1"]
    flags += ["--output", str(tmp_path / "out"), "--runner", "FnApiRunner"]
    yield [sys.executable, "-m", "shardstream.pipelines.preprocess", *flags]


def open_when_there(path: Path, process: subprocess.Popen[str], **options: object) -> Loader:
    while find_manifest(open_directory(path)) is None:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    return Loader(path, **OPTIONS | options)


def test_a_loader_follows_a_stream_that_is_killed_and_run_again(
    tmp_path: Path, command: list[str]
) -> None:
    start = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    out = tmp_path / "out"
    process = subprocess.Popen(command, **start, start_new_session=True)
    try:
        with open_when_there(out, process) as loader:
            found = [next(loader)["tokens"]]
            assert find_manifest(open_directory(out)).status == "following"  # type: ignore[union-attr]
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            state = json.loads(json.dumps(loader.get_state()))
            process = subprocess.Popen(command, **start, start_new_session=True)
            with open_when_there(out, process) as resumed:
                resumed.set_state(state)
                assert np.array_equal(next(resumed)["tokens"], next(loader)["tokens"])
                found += [resumed.batch_at(1)["tokens"]]
                found += [batch["tokens"] for batch in resumed]
        with open_when_there(out, process, split="validation") as held_out:
            num_held_out = len(list(held_out))
        text = process.communicate()[0]
        assert process.returncode == 0, text
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    with Loader(out, **OPTIONS) as loader:
        expected = [batch["tokens"] for batch in loader]
    assert np.array_equal(found, expected)
    manifest = find_manifest(open_directory(out))
    assert manifest is not None
    records = {
        split: sum(shard.records for shard in manifest.shards_of(split))
        for split in ("train", "validation")
    }
    assert (len(found), num_held_out) == (records["train"] // 4, records["validation"] // 4)
    with Loader(out, batch_size=4, output="numpy") as plain:  # a later pass, over the whole
        assert len(list(plain)) == len(found)
    assert len(read_documents(out)) == manifest.totals["documents_written"]
