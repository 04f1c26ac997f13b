import dataclasses
from pathlib import Path

import pytest

from shard_format import naming
from shard_format.manifest import Manifest, Shard, find_manifest, read_manifest
from shard_format.storage import Directory

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
  {"file": "train-00000-of-00001.array_record", "split": "train", "index": 0, "records": 3, \
"documents": 2, "tokens": 11, "truncated_tokens": 0, "max_segments": 2, "bytes": 65536, \
"sha256": "SHA"}
 ]
}
""".replace('SHA"', "ab" * 32 + '"')
FINGERPRINT = "25d8bda4680db57bd70007304c930f8f9c24cd5b3d67ebe0787ba23bc5adfbce"


def test_manifest_golden_bytes() -> None:
    assert MANIFEST.to_json().decode() == GOLDEN.replace("FINGERPRINT", FINGERPRINT)


def test_manifest_round_trip(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    assert find_manifest(directory) is None
    directory.write(naming.MANIFEST, MANIFEST.to_json())
    assert read_manifest(directory) == MANIFEST


def test_fingerprint_depends_on_content_not_on_the_run() -> None:
    assert dataclasses.replace(MANIFEST, run={}).fingerprint == MANIFEST.fingerprint
    assert dataclasses.replace(MANIFEST, seed=2).fingerprint != MANIFEST.fingerprint
    other = dataclasses.replace(SHARD, sha256="cd" * 32)
    assert dataclasses.replace(MANIFEST, shards=(other,)).fingerprint != MANIFEST.fingerprint


def test_read_manifest_refuses_an_incomplete_dataset(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    directory.write(naming.MANIFEST, dataclasses.replace(MANIFEST, status="incomplete").to_json())
    with pytest.raises(ValueError, match=r"is incomplete, expected complete\. Run the command"):
        read_manifest(directory)
    assert read_manifest(directory, allow=("incomplete",)).status == "incomplete"


def test_read_manifest_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no dataset\.json, so this is no dataset directory"
    ):
        read_manifest(Directory(tmp_path))


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


def test_shards_of_names_the_splits_there_are() -> None:
    assert MANIFEST.shards_of("train") == (SHARD,)
    with pytest.raises(ValueError, match="no split 'test' in this dataset, expected one of: train"):
        MANIFEST.shards_of("test")
