"""`dataset.json`: what a dataset directory holds, and the proof that it is whole.

The manifest is written twice: at the start with status "incomplete", naming the plan, so that an
interrupted build can go on, and at the very end with status "complete". Readers refuse the first.

Two hashes name a dataset. `plan_fingerprint` is the hash of everything the output depends on
(source commit, tokenizer, options, seed) and is known before any work. `fingerprint` is the hash of
what was written (the plan, the sha256 of every shard, the totals) and is the same for every runner,
worker count and restart. What may differ between two such runs (engine, times, runner) stands under
`run` and enters neither.

Each shard is one line, in the same JSON that is hashed, so that a reader checks a manifest of many
shards by hashing the bytes of the file instead of serializing all shards again.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Self

from shardstream.shard_format import naming
from shardstream.shard_format.messages import require_choice
from shardstream.shard_format.record import RecordLayout
from shardstream.shard_format.storage import Directory

SCHEMA_VERSION = 1
STATUSES = ("incomplete", "following", "complete")
_VOLATILE = ("run", "status")  # they enter no fingerprint
_SHARDS_BEGIN, _SHARDS_BETWEEN, _SHARDS_END = b'\n "shards": [\n  ', b",\n  ", b"\n ]\n}\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """One shard as the manifest lists it.

    Attributes:
        file: name inside the dataset directory.
        split: "train" or "validation".
        index: place of the shard in its split, from 0.
        records: sequences in the file.
        documents: documents with at least one token here.
        tokens: tokens that are not padding.
        truncated_tokens: tokens that packing cut off and counted.
        max_segments: length slots of a record, see record.RecordLayout.
        bytes: size of the file.
        sha256: of the file's content.
    """

    file: str
    split: str
    index: int
    records: int
    documents: int
    tokens: int
    truncated_tokens: int
    max_segments: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of dataset.json.

    Attributes:
        status: "incomplete" while being built, "following" while a stream is still being written,
            "complete" at the end.
        mode: "batch" or "stream".
        sequence_length: L, tokens per record.
        token_dtype: "uint16" or "uint32".
        pad_id: the id that fills padding; masks come from lengths, never from this.
        shuffled: whether records are in shuffled order.
        packing: its name and options.
        tokenizer: name, fingerprint, vocab_size, bos_id, eos_id, special-token handling.
        source: dataset, config, split, commit, files, text column.
        seed: of the shuffle.
        options: everything else the output depends on.
        shards: in order; a dataset read shard by shard is one permutation of the source.
        totals: counts of documents and tokens, see transforms/commit_dataset.py.
        dead_letters: documents by reason.
        report: figures on packing and lengths.
        plan_fingerprint: sha256 over what the output depends on.
        run: what may differ between equal runs: runner, engine, times, code version.
    """

    status: str
    mode: str = "batch"
    sequence_length: int
    token_dtype: str
    pad_id: int
    shuffled: bool = True
    packing: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    source: Mapping[str, Any]
    seed: int
    options: Mapping[str, Any]
    shards: tuple[Shard, ...] = ()
    totals: Mapping[str, int] = dataclasses.field(default_factory=dict)
    dead_letters: Mapping[str, int] = dataclasses.field(default_factory=dict)
    report: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    plan_fingerprint: str
    run: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        require_choice("status", self.status, STATUSES)

    @functools.cached_property  # 0.4 s for 100,000 shards
    def fingerprint(self) -> str:
        """The sha256 of all that was written; equal datasets have the same, on every machine."""
        content = self._content()
        for volatile in _VOLATILE:
            del content[volatile]
        return fingerprint_of(content)

    def _content(self) -> dict[str, Any]:
        """The fields as JSON values; `dataclasses.asdict` takes seconds for 100,000 shards."""
        content = vars(self) | {"shards": [vars(shard) for shard in self.shards]}
        content.pop("fingerprint", None)  # once computed, it stands among the fields
        return content

    def layout(self, shard: Shard) -> RecordLayout:
        """Returns the record layout of a shard."""
        return RecordLayout(
            sequence_length=self.sequence_length,
            token_dtype=self.token_dtype,
            max_segments=shard.max_segments,
        )

    def shards_of(self, split: str) -> tuple[Shard, ...]:
        """Returns the shards of one split, in order.

        Raises:
            ValueError: there is no such split; the message names those there are.
        """
        found = tuple(shard for shard in self.shards if shard.split == split)
        if not found:
            splits = ", ".join(sorted({shard.split for shard in self.shards})) or "none"
            raise ValueError(f"no split {split!r} in this dataset, expected one of: {splits}")
        return found

    def to_json(self) -> bytes:
        """Returns the bytes of dataset.json: keys in a fixed order, a shard a line."""
        content = self._content()
        head = {"format": "shardstream", "fingerprint": self.fingerprint}
        shards = content.pop("shards")
        text = json.dumps(head | content, indent=1, ensure_ascii=False)
        text = text[: text.rindex("}")].rstrip().encode() + b","
        if not shards:
            return text + b'\n "shards": []\n}\n'
        lines = _SHARDS_BETWEEN.join(_canonical(shard).encode() for shard in shards)
        return text + _SHARDS_BEGIN + lines + _SHARDS_END

    @classmethod
    def from_json(cls, data: bytes, *, where: str) -> Self:
        """Returns the manifest in data; `where` names the file in errors.

        Raises:
            ValueError: no JSON, another format, a newer schema, or a missing field.
        """
        try:
            content = json.loads(data)
        except ValueError as error:
            raise ValueError(f"{where}: no JSON ({error}); is it a dataset's manifest?") from error
        if not isinstance(content, dict) or content.pop("format", None) != "shardstream":
            raise ValueError(f"{where}: expected a shardstream manifest, found other JSON")
        version = content.get("schema_version")
        if version != SCHEMA_VERSION:
            raise ValueError(
                f"{where}: schema_version is {version}, this code reads {SCHEMA_VERSION}. "
                "Install the shardstream version that wrote it, or rebuild the dataset."
            )
        fingerprint = content.pop("fingerprint", None)
        as_written = _fingerprint_as_written(content, data)
        try:
            content["shards"] = _make_shards(content["shards"])
            manifest = cls(**content)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{where}: a field is missing or unknown: {error}") from error
        if as_written == fingerprint:
            vars(manifest)["fingerprint"] = fingerprint  # as cached_property would keep it
        elif manifest.fingerprint != fingerprint:
            raise ValueError(
                f"{where}: fingerprint is {fingerprint}, its content gives {manifest.fingerprint}. "
                "The file was edited or is damaged; restore it or rebuild the dataset."
            )
        return manifest


def _make_shards(entries: list[dict[str, Any]]) -> tuple[Shard, ...]:
    """Returns the shards of JSON objects; TypeError names a field that is missing or unknown.

    `Shard(**entry)` sets frozen fields one by one, which is slow for many shards.
    """
    # 100,000 shards: 0.35 s by Shard(**entry), 0.05 s here.
    names = {field.name for field in dataclasses.fields(Shard)}

    def make(entry: dict[str, Any]) -> Shard:
        if entry.keys() != names:
            return Shard(**entry)  # raises
        shard = object.__new__(Shard)
        object.__setattr__(shard, "__dict__", entry)
        return shard

    return tuple(map(make, entries))


def fingerprint_of(content: Mapping[str, Any]) -> str:
    """Returns the sha256 of the canonical JSON of content (sorted keys, no spaces)."""
    return hashlib.sha256(_canonical(content).encode()).hexdigest()


def _canonical(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _fingerprint_as_written(content: Mapping[str, Any], data: bytes) -> str | None:
    """Returns fingerprint_of a parsed file, its shards hashed as their bytes stand in the file.

    The result is None, or another hash, where the file isn't laid out as `to_json` lays it out:
    another program has written it again, which is no damage.
    """
    begin = data.rfind(_SHARDS_BEGIN)
    if begin < 0 or not data.endswith(_SHARDS_END):
        return None
    lines = data[begin + len(_SHARDS_BEGIN) : -len(_SHARDS_END)].replace(_SHARDS_BETWEEN, b",")
    rest = {name: value for name, value in content.items() if name not in (*_VOLATILE, "shards")}
    before = _canonical({name: value for name, value in rest.items() if name < "shards"})
    after = _canonical({name: value for name, value in rest.items() if name > "shards"})
    hashed = hashlib.sha256(before[:-1].encode() + b',"shards":[')
    hashed.update(lines)
    hashed.update(b"]," + after[1:].encode())
    return hashed.hexdigest()


def find_manifest(directory: Directory) -> Manifest | None:
    """Returns the manifest of a directory, whatever its status; None where there is none."""
    content = directory.find(naming.MANIFEST)
    if content is None:
        return None
    return Manifest.from_json(content, where=directory.where(naming.MANIFEST))


def read_manifest(directory: Directory, *, allow: tuple[str, ...] = ("complete",)) -> Manifest:
    """Returns the manifest of a dataset that may be read.

    Args:
        directory: the dataset directory.
        allow: statuses to accept; "complete" alone unless the caller means to follow a stream.

    Raises:
        FileNotFoundError: there is no manifest.
        ValueError: it is damaged, or its status is not allowed.
    """
    manifest = find_manifest(directory)
    if manifest is None:
        raise FileNotFoundError(
            f"{directory}: no {naming.MANIFEST}, so this is no dataset directory. Give the "
            "--output of a finished `shardstream build`."
        )
    if manifest.status not in allow:
        cure = "Run the command that builds it again: it goes on from what is there."
        if manifest.status == "following":
            cure += " Loader(..., follow=True) reads it while it grows."
        raise ValueError(
            f"{directory}: the dataset is {manifest.status}, expected {' or '.join(allow)}. {cure}"
        )
    return manifest
