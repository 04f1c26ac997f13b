"""`shardstream inspect`: every figure is what is on disk, at every stage of a dataset's life."""

import dataclasses
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardstream.pipelines.inspect_dataset import describe_account, main
from shardstream.pipelines.job.account import account_of
from shardstream.shard_format.manifest import Manifest
from shardstream.shard_format.storage import Directory, open_directory
from tests.pipeline_runs import build, parquet_flags


def put_manifest(directory: Directory, whole: Manifest, status: str) -> None:
    """The manifest as it was before the dataset was complete."""
    before = dataclasses.replace(
        whole, status=status, shards=(), totals={}, dead_letters={}, report={}, run={}
    )
    directory.write("dataset.json", before.to_json())


@pytest.fixture
def rows(tmp_path: Path) -> list[str]:
    """Six documents, of which two are dead and, with --truncation drop, one is dropped."""
    path = tmp_path / "rows.parquet"
    texts = ["a b", None, "c " * 300, "", None, "d"]
    pq.write_table(pa.table({"text": texts}), path)
    return [str(path)]


def _flags(rows: list[str], tokenizer: str) -> list[object]:
    flags = [*parquet_flags(rows, tokenizer), "--max_dead_letter_fraction", 0.5]
    return [*flags, "--sequence_length", 32, "--packing", "pad", "--truncation", "drop"]


@pytest.mark.parametrize("mode", ["batch", "stream"])
def test_funnel_of_a_finished_dataset_adds_up(
    tmp_path: Path, rows: list[str], tokenizer_directory: str, mode: str
) -> None:
    out = tmp_path / "out"
    manifest = build(out, *_flags(rows, tokenizer_directory), "--mode", mode)
    account = account_of(open_directory(out))
    assert account.totals == manifest.totals
    assert account.shards == manifest.shards
    text = describe_account(account, str(out))
    assert text.startswith(f"{out}: complete, {mode} mode, fingerprint {manifest.fingerprint[:16]}")
    lines = [line.split() for line in text.splitlines()]
    assert ["documents", "6", "read"] in lines
    assert ["1", "dropped", "as", "longer", "than", "a", "sequence"] in lines
    assert ["2", "dead:", "null_text"] in lines
    assert ["3", "written"] in lines
    size = sum(shard.bytes for shard in manifest.shards)
    assert any(line[:2] == [f"{size:,}", "bytes,"] for line in lines)
    for word in ("source", "tokenizer", "packing", "options", "tokens", "shards", "padding", "run"):
        assert f"\n  {word:11}" in text
    assert manifest.source["commit"][:12] in text


@pytest.mark.parametrize("built", [0, 1, 2])
def test_interrupted_build_says_what_is_done(
    tmp_path: Path, rows: list[str], tokenizer_directory: str, built: int
) -> None:
    out = tmp_path / "out"
    manifest = build(out, *_flags(rows, tokenizer_directory), "--num_shards", 2)
    directory = open_directory(out)
    content = json.loads((out / "dataset.json").read_bytes())
    work = f"_work/{manifest.plan_fingerprint[:16]}"
    counts = {"documents_read": 6, "tokens_in": 400, "dead_letters/null_text": 2}
    directory.write(f"{work}/spilled/a.json", json.dumps({"counts": counts}).encode())
    for bucket, shard in enumerate(content["shards"][:built]):
        result = {"bucket": bucket, "shard": shard, "dropped_documents": 0}
        result["report"] = content["report"]
        name = f"{work}/shards/{bucket:06d}.json"
        directory.write(name, json.dumps(result).encode())
    put_manifest(directory, manifest, "incomplete")
    account = account_of(directory)
    assert len(account.shards) == built and account.expected_shards == 2
    assert account.totals["documents_read"] == 6
    assert account.dead_letters == {"null_text": 2}
    text = describe_account(account, "here")
    assert text.startswith("here: incomplete, batch mode, plan ")
    assert "6 read, so far" in text
    assert (f"{built} of 2 finished" in text) is (built < 2)
    assert ("no sequence is written yet" in text) is (built == 0)


def test_stream_that_goes_on_says_what_is_committed(
    tmp_path: Path, rows: list[str], tokenizer_directory: str
) -> None:
    out = tmp_path / "out"
    manifest = build(out, *_flags(rows, tokenizer_directory), "--mode", "stream")
    directory = open_directory(out)
    complete = account_of(directory)
    put_manifest(directory, manifest, "following")
    account = account_of(directory)
    for name in ("documents_read", "documents_written", "documents_dropped", "dead_letters"):
        assert account.totals[name] == manifest.totals[name]
    assert account.totals["tokens_written"] == manifest.totals["tokens_written"]
    assert account.report == complete.report
    assert "following, stream mode, plan " in describe_account(account, str(out))


def test_directory_that_is_no_dataset_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([str(tmp_path)]) == 2
    assert f"error: {tmp_path}: no dataset.json" in capsys.readouterr().err
