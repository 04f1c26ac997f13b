"""The loopback hub serves unmodified datasets, huggingface_hub and transformers.

Every client runs in its own interpreter, as `HF_ENDPOINT` is read at import. One client process
serves many scenarios, since importing `datasets` takes longer than all of them.
"""

import gzip
import http.client
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.loopback_hub import Hub, hub_environment

README = """---
configs:
- config_name: prose
  data_files:
  - {split: train, path: "prose/train-*.parquet"}
  - {split: test, path: "prose/test-*.parquet"}
- config_name: verse
  data_files:
  - {split: train, path: "verse/train-*.parquet"}
---
A corpus for tests.
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub(tmp_path / "hub", page_entries=3) as hub:
        yield hub


def fill_corpus(hub: Hub) -> str:
    """Two configs, two splits: prose has 6 rows in 3 files and 2 test rows, verse 3 rows."""
    folder = hub.root / "datasets/acme/corpus"
    for name, first, rows in [
        ("prose/train-00000.parquet", 0, 2),
        ("prose/train-00001.parquet", 2, 2),
        ("prose/train-00002.parquet", 4, 2),
        ("prose/test-00000.parquet", 100, 2),
        ("verse/train-00000.parquet", 200, 3),
    ]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_rows(folder / name, range(first, first + rows))
    (folder / "README.md").write_text(README)
    return hub.commit("acme/corpus")


def write_rows(path: Path, numbers: range) -> None:
    pq.write_table(pa.table({"text": [f"row {i}" for i in numbers]}), path, row_group_size=1)


def run_client(hub: Hub, code: str, **extra: str) -> Any:
    """Runs Python code against the hub; what it assigned to `result` comes back through JSON."""
    program = textwrap.dedent(code) + "\nimport json\nprint('RESULT ' + json.dumps(result))\n"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **hub_environment(hub), **extra},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rsplit("RESULT ", 1)[1])


def get(hub: Hub, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """One plain request, no retries."""
    connection = http.client.HTTPConnection(urlsplit(hub.url).netloc, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


def test_load_dataset_configs_splits_and_old_commits_stream_what_was_committed(hub: Hub) -> None:
    old = fill_corpus(hub)
    fresh = hub.root / "fresh.parquet"
    write_rows(fresh, range(6, 8))
    new = hub.add_commit("acme/corpus", {"prose/train-00003.parquet": fresh})
    assert old != new
    lines = "".join(json.dumps({"text": f"line {i}"}) + "\n" for i in range(3))
    hub.add_commit("acme/lines", {"train.jsonl.gz": gzip.compress(lines.encode(), mtime=0)})

    result = run_client(
        hub,
        """
        from datasets import load_dataset
        from huggingface_hub import HfApi
        def texts(*name, **options):
            return [row["text"] for row in load_dataset(*name, streaming=True, **options)]
        api = HfApi()
        result = {
            "train": texts("acme/corpus", "prose", split="train"),
            "old": texts("acme/corpus", "prose", split="train", revision=OLD),
            "test": texts("acme/corpus", "prose", split="test"),
            "verse": texts("acme/corpus", "verse", split="train"),
            "lines": texts("acme/lines", split="train"),
            "sha": api.dataset_info("acme/corpus").sha,
            "commits": [c.commit_id for c in api.list_repo_commits("acme/corpus", repo_type="dataset")],
            "files": api.list_repo_files("acme/corpus", repo_type="dataset"),
        }
        """.replace("OLD", repr(old)),
    )

    assert result["train"] == [f"row {i}" for i in range(8)]
    assert result["old"] == [f"row {i}" for i in range(6)]
    assert result["test"] == ["row 100", "row 101"]
    assert result["verse"] == ["row 200", "row 201", "row 202"]
    assert result["lines"] == ["line 0", "line 1", "line 2"]
    assert result["sha"] == new
    assert result["commits"] == [new, old]
    assert len(result["files"]) == 7  # three pages of three, directories among them
    assert any(r.range and r.status == 206 for r in hub.requests)
    assert hub.bytes_sent("train-00003.parquet") >= fresh.stat().st_size


def test_missing_and_gated_repositories_raise_the_errors_users_see(hub: Hub) -> None:
    fill_corpus(hub)
    hub.gate("acme/corpus", tokens=["hf_good"])
    code = """
        from datasets import load_dataset
        from huggingface_hub import hf_hub_download
        result = {}
        def attempt(name, token=None):
            try:
                rows = load_dataset(name, "prose", split="test", streaming=True, token=token)
                return len(list(rows))
            except Exception as error:
                return f"{type(error).__name__}: {error}"
        result["missing"] = attempt("acme/nothing")
        result["anonymous"] = attempt("acme/corpus")
        result["wrong"] = attempt("acme/corpus", "hf_wrong")
        result["right"] = attempt("acme/corpus", "hf_good")
        """
    result = run_client(hub, code)
    assert "DatasetNotFoundError" in result["missing"] and "doesn't exist" in result["missing"]
    assert "gated dataset" in result["anonymous"] and "authenticated" in result["anonymous"]
    assert "gated dataset" in result["wrong"] and "ask for access" in result["wrong"]
    assert result["right"] == 2


def test_auto_tokenizer_loads_from_a_model_repository(hub: Hub, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"<eos>": 0, "row": 1, "7": 2}, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = hub.root / "models/acme/words"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(folder)

    result = run_client(
        hub,
        """
        from transformers import AutoTokenizer
        tokenizer = AutoTokenizer.from_pretrained("acme/words")
        result = [tokenizer("row 7")["input_ids"], tokenizer.eos_token_id]
        """,
    )
    assert result == [[1, 2], 0]


def test_streaming_survives_faults_that_its_client_retries(hub: Hub) -> None:
    fill_corpus(hub)
    faults = [
        hub.add_fault("*/prose/train-00000.parquet", "reset"),
        hub.add_fault("*/prose/train-00001.parquet", "429"),
        hub.add_fault("*/prose/train-00002.parquet", "503"),
        hub.add_fault("*/prose/train-00000.parquet", "truncated", skip=1),
        hub.add_fault("*/prose/train-00001.parquet", "slow", seconds=0.2),
    ]
    result = run_client(
        hub,
        """
        from datasets import load_dataset
        rows = load_dataset("acme/corpus", "prose", split="train", streaming=True)
        result = [row["text"] for row in rows]
        """,
    )
    assert result == [f"row {i}" for i in range(6)]
    assert [fault.fired for fault in faults] == [1] * 5
    assert {429, 503} <= {request.status for request in hub.requests}


def test_each_fault_looks_on_the_wire_as_documented(hub: Hub) -> None:
    hub.add_commit("acme/bytes", {"data.bin": bytes(range(100))})
    path = "/datasets/acme/bytes/resolve/main/data.bin"
    hub.add_fault("*/data.bin", "reset")
    with pytest.raises((ConnectionError, http.client.IncompleteRead)):
        get(hub, path)
    hub.add_fault("*/data.bin", "truncated")
    with pytest.raises(http.client.IncompleteRead):
        get(hub, path)
    hub.add_fault("*/data.bin", "short")
    assert get(hub, path)[2] == bytes(range(50))
    hub.add_fault("*/data.bin", "429", retry_after_secs=7)
    status, headers, _ = get(hub, path)
    assert (status, headers["Retry-After"]) == (429, "7")
    assert get(hub, path)[2] == bytes(range(100))
    assert [r.fault for r in hub.requests] == ["reset", "truncated", "short", "429", None]
    hub.reset_log()
    assert hub.bytes_sent("data.bin") == 0


@pytest.mark.parametrize(
    ("range_header", "expected"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=90-", slice(90, 100)),
        ("bytes=-5", slice(95, 100)),
        ("bytes=98-500", slice(98, 100)),
    ],
)
def test_range_answers_are_exact_and_carry_commit_and_etag(
    hub: Hub, range_header: str, expected: slice
) -> None:
    sha = hub.add_commit("acme/bytes", {"data.bin": bytes(range(100))})
    status, headers, body = get(
        hub, f"/datasets/acme/bytes/resolve/{sha}/data.bin", Range=range_header
    )
    assert (status, body) == (206, bytes(range(100))[expected])
    assert headers["X-Repo-Commit"] == sha
    assert headers["Content-Range"] == f"bytes {expected.start}-{expected.stop - 1}/100"
    assert headers["ETag"].strip('"')


def test_sha_depends_on_content_alone_and_unknown_revision_is_named(tmp_path: Path) -> None:
    files = {"a.txt": b"one", "b/c.txt": b"two"}
    with Hub(tmp_path / "1") as first, Hub(tmp_path / "2") as second:
        assert first.add_commit("acme/x", files) == second.add_commit("acme/x", files)
        changed = second.add_commit("acme/x", {"a.txt": None})
        assert changed != first.commit("acme/x")
        assert get(second, "/datasets/acme/x/resolve/main/a.txt")[0] == 404
        assert get(second, f"/datasets/acme/x/resolve/{first.commit('acme/x')}/a.txt")[2] == b"one"
        status, headers, _ = get(second, "/api/datasets/acme/x/revision/nope")
        assert (status, headers["X-Error-Code"]) == (404, "RevisionNotFound")


def test_closed_hub_refuses_connections_and_removes_its_caches(tmp_path: Path) -> None:
    with Hub(tmp_path) as hub:
        home, netloc = hub.home, urlsplit(hub.url).netloc
        idle = http.client.HTTPConnection(netloc)
        idle.request("GET", "/api/datasets/acme/none")
        assert idle.getresponse().status == 404
    assert not home.exists()
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection(netloc, timeout=5).request("GET", "/")
    idle.close()
