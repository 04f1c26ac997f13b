"""`loaders.stream` from the loopback hub: each document once over every fault, or a clear error."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.loaders.hub.conftest import all_documents, document, write_corpus
from tests.loaders.hub.hub_client import HubClient
from tests.loopback_hub import Hub

OPTIONS: dict[str, Any] = {
    "tokenizer": "acme/tokenizer",
    "sequence_length": 32,
    "batch_size": 64,
    "buffer_size": 500,
    "lanes": 4,
    "retry_secs": 0.01,
    "stall_secs": 0.3,
    "drop_remainder": False,
    "packing": "none",
}
PARQUET = "*/resolve/*.parquet"
LINES = "*/resolve/*.jsonl"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, tokenizer_directory: str) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("hub")
    write_corpus(root / "datasets/acme/corpus")
    tokenizer = root / "models/acme/tokenizer"
    tokenizer.mkdir(parents=True)
    for path in Path(tokenizer_directory).iterdir():
        (tokenizer / path.name).write_bytes(path.read_bytes())
    lines = root / "datasets/acme/lines"
    lines.mkdir(parents=True)
    for file in range(2):
        rows = (json.dumps({"text": document(20_000 * file + i)}) for i in range(10_000))
        (lines / f"train-{file}.jsonl").write_text("\n".join(rows) + "\n")
    with Hub(root) as running:
        yield running


@pytest.fixture(scope="module")
def client(hub: Hub) -> Iterator[HubClient]:
    with HubClient(hub, {"HF_HUB_DOWNLOAD_TIMEOUT": "1"}) as running:
        yield running


@pytest.fixture(scope="module")
def expected(client: HubClient) -> dict[str, Any]:
    found = client.run("acme/corpus", **OPTIONS)
    assert found["error"] is None
    assert found["stats"]["documents"] == len(all_documents())
    return found


@pytest.mark.parametrize(
    ("kind", "times", "skip", "fails"),
    [
        ("reset", 3, 8, False),
        ("truncated", 3, 9, False),
        ("slow", 3, 10, False),
        ("stall", 1, 12, False),
        ("429", 2, 8, False),
        ("503", 2, 10, False),
        ("short", 3, 8, True),  # only the parquet reader can tell, so only we try again
        ("short", 1, 3, False),  # a footer, while the source is opened
    ],
)
def test_every_document_comes_once_over_a_fault(
    hub: Hub,
    client: HubClient,
    expected: dict[str, Any],
    kind: Any,
    times: int,
    skip: int,
    fails: bool,
) -> None:
    fault = hub.add_fault(PARQUET, kind, times, skip=skip, retry_after_secs=1, seconds=2.0)
    found = client.run("acme/corpus", **OPTIONS)
    assert fault.fired == times
    assert found["error"] is None
    assert found["digest"] == expected["digest"]
    assert bool(found["stats"].get("failed_reads")) == fails
    if kind == "stall":
        assert any("no batch for" in line and "reading hf://" in line for line in found["log"])
    if kind == "429":
        assert found["seconds"] >= 1  # Retry-After


def test_a_missing_file_is_an_error_at_once(hub: Hub, client: HubClient) -> None:
    fault = hub.add_fault("*/train-3.parquet", "404", -1, skip=1)
    found = client.run("acme/corpus", **OPTIONS)
    fault.times = 0
    assert "train-3.parquet, row 0: can't be read" in found["error"]
    assert found["stats"]["failed_reads"] == 1


def test_a_read_that_goes_on_failing_is_an_error_with_its_place(
    hub: Hub, client: HubClient
) -> None:
    fault = hub.add_fault("*/train-4.parquet", "short", -1, skip=2)
    found = client.run("acme/corpus", **OPTIONS, retries=2)
    fault.times = 0
    assert "train-4.parquet, row " in found["error"]
    assert "3 attempts in a row brought no document" in found["error"]
    assert found["stats"]["failed_reads"] == 3
    assert any("train-4.parquet, row 0" in line and "attempt 3" in line for line in found["log"])


@pytest.mark.parametrize("kind", ["reset", "truncated", "short"])
def test_lines_come_once_over_a_fault(hub: Hub, client: HubClient, kind: Any) -> None:
    whole = client.run("acme/lines", **OPTIONS)
    assert whole["stats"]["documents"] == 20_000
    fault = hub.add_fault(LINES, kind, 2, skip=1)
    found = client.run("acme/lines", **OPTIONS)
    assert fault.fired == 2
    assert (found["error"], found["digest"]) == (None, whole["digest"])


def test_second_epoch_and_second_run_do_not_touch_the_network(
    hub: Hub, client: HubClient, tmp_path: Path
) -> None:
    runs = []
    for dataset in ("acme/corpus", "acme/lines"):
        plain = client.run(dataset, **OPTIONS, epochs=2)
        numbers = []
        for epochs in (1, 2):
            options = OPTIONS | {"cache_dir": str(tmp_path / str(epochs)), "epochs": epochs}
            hub.reset_log()
            first = client.run(dataset, **options)
            numbers.append(len(hub.requests))
        assert 0 < numbers[0] == numbers[1]
        assert plain["digest"] == first["digest"]
        assert plain["stats"] == first["stats"]
        runs.append((dataset, options, plain))
    hub.reset_log()
    with HubClient(hub) as other:
        for dataset, options, plain in runs:
            second = other.run(dataset, **options)
            assert (second["digest"], second["stats"]) == (plain["digest"], plain["stats"])
            reseeded = other.run(dataset, **options | {"seed": 1, "sequence_length": 64})
            assert reseeded["tokens"] == plain["tokens"]
            assert reseeded["digest"] != plain["digest"]
    assert hub.requests == []


def test_unknown_dataset_is_named(client: HubClient) -> None:
    found = client.run("acme/nothing", **OPTIONS)
    assert "dataset 'acme/nothing' was not found on the hub" in found["error"]
