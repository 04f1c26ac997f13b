import dataclasses
import json
from pathlib import Path

import pytest

from shardstream.shard_format import naming
from shardstream.shard_format.manifest import Manifest, Shard, find_manifest, read_manifest
from shardstream.shard_format.storage import open_directory

SHARD = Shard(
    file="train-00000-of-00001.array_record",
    split="train",
    index=0,
    records=3,
    documents=2,
    tokens=11,
    truncated_tokens=0,
    max_segments=2,
    bytes=65536,
    sha256="ab" * 32,
)
MANIFEST = Manifest(
    status="complete",
    sequence_length=4,
    token_dtype="uint16",
    pad_id=0,
    packing={"packing": "concat"},
    tokenizer={"vocab_size": 256},
    source={"dataset": "acme/corpus", "commit": "c" * 40},
    seed=1,
    options={"num_shards": 1},
    shards=(SHARD,),
    totals={"records": 3},
    plan_fingerprint="f" * 64,
    run={"runner": "FnApiRunner"},
)
GOLDEN = """{
 "format": "shardstream",
 "fingerprint": "FINGERPRINT",
 "status": "complete",
 "mode": "batch",
 "sequence_length": 4,
 "token_dtype": "uint16",
 "pad_id": 0,
 "shuffled": true,
 "packing": {
  "packing": "concat"
 },
 "tokenizer": {
  "vocab_size": 256
 },
 "source": {
  "dataset": "acme/corpus",
  "commit": "cccccccccccccccccccccccccccccccccccccccc"
 },
 "seed": 1,
 "options": {
  "num_shards": 1
 },
 "totals": {
  "records": 3
 },
 "dead_letters": {},
 "report": {},
 "plan_fingerprint": "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
 "run": {
  "runner": "FnApiRunner"
 },
 "schema_version": 1,
 "shards": [
  {"bytes":65536,"documents":2,"file":"train-00000-of-00001.array_record","index":0,\
"max_segments":2,"records":3,"sha256":"SHA","split":"train","tokens":11,"truncated_tokens":0}
 ]
}
""".replace('SHA"', "ab" * 32 + '"')
FINGERPRINT = "25d8bda4680db57bd70007304c930f8f9c24cd5b3d67ebe0787ba23bc5adfbce"


def test_manifest_golden_bytes() -> None:
    assert MANIFEST.to_json().decode() == GOLDEN.replace("FINGERPRINT", FINGERPRINT)


def test_manifest_round_trip(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    assert find_manifest(directory) is None
    directory.write(naming.MANIFEST, MANIFEST.to_json())
    assert read_manifest(directory) == MANIFEST


def test_fingerprint_depends_on_content_not_on_the_run() -> None:
    assert dataclasses.replace(MANIFEST, run={}).fingerprint == MANIFEST.fingerprint
    assert dataclasses.replace(MANIFEST, seed=2).fingerprint != MANIFEST.fingerprint
    other = dataclasses.replace(SHARD, sha256="cd" * 32)
    assert dataclasses.replace(MANIFEST, shards=(other,)).fingerprint != MANIFEST.fingerprint


def test_read_manifest_refuses_an_incomplete_dataset(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    directory.write(naming.MANIFEST, dataclasses.replace(MANIFEST, status="incomplete").to_json())
    with pytest.raises(ValueError, match=r"is incomplete, expected complete\. Run the command"):
        read_manifest(directory)
    assert read_manifest(directory, allow=("incomplete",)).status == "incomplete"


def test_read_manifest_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no dataset\.json, so this is no dataset directory"
    ):
        read_manifest(open_directory(tmp_path))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "no JSON"),
        (b"[]", "found other JSON"),
        (b"{}", "found other JSON"),
        (b'{"format": "shardstream", "schema_version": 99}', "schema_version is 99, .* reads 1"),
        (MANIFEST.to_json().replace(b'"seed": 1', b'"seed": 2'), "was edited or is damaged"),
        (MANIFEST.to_json().replace(b'"seed"', b'"sead"'), "missing or unknown"),
    ],
)
def test_damaged_manifest_is_named(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s)here.json: .*{message}"):
        Manifest.from_json(data, where="here.json")


def test_manifest_written_again_by_another_tool_is_accepted_and_checked() -> None:
    text = json.dumps(json.loads(MANIFEST.to_json()), indent=4)
    assert Manifest.from_json(text.encode(), where="x") == MANIFEST
    with pytest.raises(ValueError, match="was edited or is damaged"):
        Manifest.from_json(text.replace('"records": 3', '"records": 4').encode(), where="x")


@pytest.mark.parametrize("num_shards", [0, 1, 2, 50])
def test_fingerprint_of_a_file_as_written_is_that_of_its_content(num_shards: int) -> None:
    shards = tuple(
        dataclasses.replace(SHARD, index=i, file=naming.shard_name("train", i, 50))
        for i in range(num_shards)
    )
    # Keys around "shards" in the order of the alphabet, and text that JSON has to escape.
    options = {"shards": [], "note": 'ä\n "shards": [\n  \u2028'}
    manifest = dataclasses.replace(MANIFEST, shards=shards, options=options)
    found = Manifest.from_json(manifest.to_json(), where="x")
    assert found == manifest
    # `replace` forgets what the file said, so this computes it from the content.
    assert found.fingerprint == dataclasses.replace(found).fingerprint == manifest.fingerprint
    assert found.to_json() == manifest.to_json()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"records":3', b'"records":4'),
        (b'"sha256":"ab', b'"sha256":"ac'),
        (b'"split":"train"', b'"split":"other"'),
        (b'"pad_id": 0', b'"pad_id": 7'),
        (b'"plan_fingerprint": "f', b'"plan_fingerprint": "e'),
    ],
)
def test_any_edited_value_is_noticed(old: bytes, new: bytes) -> None:
    data = MANIFEST.to_json()
    assert data.count(old) == 1
    with pytest.raises(ValueError, match="was edited or is damaged"):
        Manifest.from_json(data.replace(old, new), where="x")


def test_shards_of_names_the_splits_there_are() -> None:
    assert MANIFEST.shards_of("train") == (SHARD,)
    with pytest.raises(ValueError, match="no split 'test' in this dataset, expected one of: train"):
        MANIFEST.shards_of("test")
