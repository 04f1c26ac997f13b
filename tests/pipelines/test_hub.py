"""From a hub on loopback, by unmodified `datasets` and `transformers`: what is fetched, what is said.

HF_ENDPOINT is read when huggingface_hub is imported, so each test is one process that runs commands.
"""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardstream.pipelines.sample import SampleFiles
from shardstream.shard_format.manifest import Manifest, read_manifest
from shardstream.shard_format.storage import open_directory
from tests.loopback_hub import Hub, hub_environment
from tests.pipeline_runs import read_documents

_CARD = """---
configs:
- config_name: big
  default: true
  data_files:
  - {split: train, path: big/train-*.parquet}
  - {split: test, path: big/test-*.parquet}
- config_name: small
  data_files:
  - {split: train, path: small/train-*.parquet}
---
"""
_WORDS = np.array(
    [
        "the",
        "quick",
        "brown",
        "fox",
        "jumps",
        "over",
        "a",
        "lazy",
        "dog",
        "while",
        "rain",
        "falls",
        "in",
        "spain",
    ]
)


def _wide_table(rows: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(_WORDS, 60)) for _ in range(rows)]
    noise = [rng.bytes(3000) for _ in range(rows)]
    return pa.table({"embedding": noise, "text": texts, "blob": noise})


def _put(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=250)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, sample: SampleFiles) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("hub")
    wide = root / "datasets" / "acme" / "wide"
    for index in range(3):
        _put(wide / "big" / f"train-{index}.parquet", _wide_table(1000, index))
    _put(wide / "big" / "test-0.parquet", _wide_table(20, 8))
    _put(wide / "small" / "train-0.parquet", _wide_table(30, 9))
    (wide / "README.md").write_text(_CARD)
    lines = root / "datasets" / "acme" / "lines"
    lines.mkdir(parents=True)
    for index in range(2):
        rows = [{"text": f"line {i} of file {index}"} for i in range(50)]
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        (lines / f"part-{index}.jsonl.gz").write_bytes(gzip.compress(data))
    secret = root / "datasets" / "acme" / "secret"
    _put(secret / "train.parquet", _wide_table(5, 10))
    tokenizer = root / "models" / "acme" / "tokenizer"
    tokenizer.mkdir(parents=True)
    for path in Path(sample.tokenizer_directory).iterdir():
        (tokenizer / path.name).write_bytes(path.read_bytes())
    with Hub(root) as running:
        running.gate("acme/secret", tokens=["hf_allowed"])
        yield running


def _preprocess(hub: Hub, output: Path, *flags: object) -> tuple[int, str]:
    command = [
        sys.executable,
        "-m",
        "shardstream.pipelines.preprocess",
        "--tokenizer",
        "acme/tokenizer",
    ]
    command += ["--runner=FnApiRunner", "--no-progress", "--output", str(output), *map(str, flags)]
    environment = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
    done = subprocess.run(
        command, env=environment | hub_environment(hub), capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def _manifest(output: Path) -> Manifest:
    return read_manifest(open_directory(output))


def test_first_documents_of_a_wide_hub_dataset_fetch_little(hub: Hub, tmp_path: Path) -> None:
    hub.reset_log()
    status, text = _preprocess(hub, tmp_path, "--dataset", "acme/wide", "--max_documents", 300)
    assert status == 0, text
    assert sorted(read_documents(tmp_path)) == [(0, row) for row in range(300)]
    manifest = _manifest(tmp_path)
    assert manifest.source["commit"] == hub.commit("acme/wide")
    assert manifest.source["dataset"] == "acme/wide"
    first = hub.root / "datasets/acme/wide/big/train-0.parquet"
    # 300 of 3,000 documents, one column of three: the other files' footers at most.
    assert hub.bytes_sent("big/train-0.parquet") < 0.1 * first.stat().st_size
    assert hub.bytes_sent("big/train-1.parquet") == 0
    assert hub.bytes_sent("big/train-2.parquet") == 0


def test_text_column_alone_is_fetched_from_wide_files(hub: Hub, tmp_path: Path) -> None:
    hub.reset_log()
    status, text = _preprocess(hub, tmp_path, "--dataset", "acme/wide", "--split", "train")
    assert status == 0, text
    assert _manifest(tmp_path).totals["documents_read"] == 3000
    files = sorted((hub.root / "datasets/acme/wide/big").glob("train-*.parquet"))
    text_bytes = 0
    for path in files:
        metadata = pq.ParquetFile(path).metadata
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        text_bytes += sum(group.column(1).total_compressed_size for group in groups)
    footers = 6 * len(files) * (64 << 10)  # the sample for the plan, the schema, three openings
    sent = hub.bytes_sent(".parquet")
    assert sent < text_bytes + footers
    assert sent < 0.25 * sum(path.stat().st_size for path in files)


def test_config_split_and_jsonl_gz(hub: Hub, tmp_path: Path) -> None:
    flags = ["--dataset", "acme/wide", "--config", "small"]
    status, text = _preprocess(hub, tmp_path / "small", *flags)
    assert status == 0, text
    assert _manifest(tmp_path / "small").totals["documents_read"] == 30
    status, text = _preprocess(hub, tmp_path / "lines", "--dataset", "acme/lines")
    assert status == 0, text
    found = read_documents(tmp_path / "lines")
    assert sorted(found) == [(part, row) for part in range(2) for row in range(50)]


def test_remote_files_by_url(hub: Hub, tmp_path: Path) -> None:
    url = f"{hub.url}/datasets/acme/wide/resolve/main/small/train-0.parquet"
    status, text = _preprocess(hub, tmp_path, "--dataset", "parquet", "--data_files", url)
    assert status == 0, text
    assert _manifest(tmp_path).totals["documents_read"] == 30


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset", "acme/missing"], "dataset 'acme/missing' was not found on the hub"),
        (["--dataset", "acme/secret"], "dataset 'acme/secret' is gated: ask for access"),
        (["--dataset", "acme/wide", "--config", "huge"], "no config 'huge', expected one of"),
        (
            ["--dataset", "acme/wide", "--split", "dev"],
            "no split 'dev', expected one of test, train",
        ),
        (["--dataset", "acme/wide", "--revision", "v9"], "revision 'v9', was not found"),
        (
            ["--dataset", "acme/wide", "--tokenizer", "acme/no-tokenizer"],
            "tokenizer 'acme/no-tokenizer'",
        ),
    ],
)
def test_hub_mistakes_have_their_own_messages(
    hub: Hub, tmp_path: Path, flags: list[str], message: str
) -> None:
    status, text = _preprocess(hub, tmp_path, *flags)
    assert status == 2, text
    assert message in text
    assert "Traceback" not in text


def test_new_commit_is_another_plan_and_the_old_one_can_be_pinned(hub: Hub, tmp_path: Path) -> None:
    old = hub.add_commit("acme/moving", {"a.jsonl": b'{"text": "one"}\n'})
    status, text = _preprocess(hub, tmp_path, "--dataset", "acme/moving")
    assert status == 0, text
    hub.add_commit("acme/moving", {"b.jsonl": b'{"text": "two"}\n'})
    status, text = _preprocess(hub, tmp_path, "--dataset", "acme/moving")
    assert (status, "dataset of another plan (source commit: " in text) == (2, True), text
    status, text = _preprocess(hub, tmp_path, "--dataset", "acme/moving", "--revision", old)
    assert (status, "already complete, nothing to do" in text) == (0, True), text


@pytest.mark.parametrize(
    "form", ["hf://datasets/{}/a.jsonl", "{hub}/datasets/{}/resolve/main/a.jsonl"]
)
def test_files_by_hub_url_are_read_at_one_commit(hub: Hub, tmp_path: Path, form: str) -> None:
    name = f"acme/by-url-{form[0]}".replace("{", "h")
    old = hub.add_commit(name, {"a.jsonl": b'{"text": "one"}\n'})
    flags = ["--dataset", "json", "--data_files", form.format(name, hub=hub.url)]
    status, text = _preprocess(hub, tmp_path, *flags)
    assert status == 0, text
    source = _manifest(tmp_path).source
    assert (source["dataset"], source["commit"], source["first_file"]) == (name, old, "a.jsonl")
    hub.add_commit(name, {"a.jsonl": b'{"text": "two"}\n'})
    status, text = _preprocess(hub, tmp_path, *flags)
    assert (status, "dataset of another plan (source commit: " in text) == (2, True), text
    pinned = ["--dataset", "json", "--data_files", f"hf://datasets/{name}@{old}/a.jsonl"]
    status, text = _preprocess(hub, tmp_path, *pinned)
    assert (status, "already complete, nothing to do" in text) == (0, True), text


def test_gated_file_by_url_is_one_line(hub: Hub, tmp_path: Path) -> None:
    flags = ["--dataset", "parquet", "--data_files", "hf://datasets/acme/secret/train.parquet"]
    status, text = _preprocess(hub, tmp_path, *flags)
    assert status == 2, text
    assert "gated" in text
    assert "Traceback" not in text
