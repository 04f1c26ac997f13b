"""Reads a dataset's source again: do its documents have the ids that the dataset holds?

`verify` proves that a dataset is what was written. This proves that what was written is what the
source says, for a sample of documents or for all of them. Documents are compared in rounds of a
bounded number, so memory does not grow with the dataset.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from shardstream.shard_format.errors import OptionError
from shardstream.shard_format.manifest import Manifest, read_manifest
from shardstream.shard_format.provenance import read_provenance
from shardstream.shard_format.record import decode_records
from shardstream.shard_format.shard_file import ShardFile
from shardstream.shard_format.storage import Directory
from shardstream.sources.options import SourceOptions
from shardstream.sources.partitions import Partition, list_partitions, split_partition
from shardstream.sources.read import TextBlock, read_blocks
from shardstream.sources.resolve import Source, resolve
from shardstream.tokens.options import TokenizerOptions
from shardstream.tokens.tokenizer import Tokenizer, open_tokenizer

_DOCUMENTS_AT_ONCE = 200_000
_MOST_PROBLEMS = 20
_ROW_BITS = 40  # of a document's number: its file above, its row below

_PLACE = ("record", "segment", "start", "tokens")

Pieces = dict[int, list[tuple[int, np.ndarray]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """What was compared, and what differs.

    Attributes:
        documents: compared.
        problems: one a document that differs, the first few.
    """

    documents: int
    problems: tuple[str, ...]


def sample_size(text: str) -> int | None:
    """Returns how many documents to compare, None for all.

    Raises:
        OptionError: text is neither a number nor "all".
    """
    if text == "all":
        return None
    if not text.isdecimal():
        raise OptionError(f"--against_source is {text!r}, expected a number of documents, or all")
    return int(text)


def compare_with_source(
    directory: Directory, *, sample: int | None, dataset: str | None, data_files: Sequence[str]
) -> Comparison:
    """Compares documents of a dataset with its source.

    Args:
        directory: of the dataset.
        sample: how many documents, drawn by the dataset's seed; None for all.
        dataset: where the source is, if the manifest doesn't say: it keeps no local paths.
        data_files: likewise.

    Raises:
        ValueError: the source can't be read, or isn't the one that the dataset was made from.
    """
    manifest = read_manifest(directory)
    source = _open_source(manifest, dataset, data_files)
    documents = _choose(_documents_of(directory, manifest), sample, manifest.seed)
    problems: list[str] = []
    with directory.fetching("tokenizer") as folder:
        tokenizer = _open_tokenizer(manifest, str(folder))
        for begin in range(0, len(documents), _DOCUMENTS_AT_ONCE):
            wanted = documents[begin : begin + _DOCUMENTS_AT_ONCE]
            pieces = _read_pieces(directory, manifest, wanted)
            for problem in _differences(source, manifest, tokenizer, wanted, pieces):
                problems.append(problem)
                if len(problems) == _MOST_PROBLEMS:
                    return Comparison(documents=len(documents), problems=tuple(problems))
    return Comparison(documents=len(documents), problems=tuple(problems))


def _open_source(manifest: Manifest, dataset: str | None, data_files: Sequence[str]) -> Source:
    known = manifest.source
    is_hub = "/" in str(known["dataset"]) and dataset is None and not data_files
    options = SourceOptions(
        dataset=dataset or known["dataset"],
        config=known["config"],
        split=known["split"],
        data_dir=known.get("data_dir"),
        data_files=tuple(data_files),
        revision=known.get("commit") if is_hub else None,
        text_column=known["text_column"] or "text",
        text_template=known["text_template"],
        reader_option=tuple(known.get("reader_option", ())),
        skip_documents=known["skip_documents"],
        max_documents=known["max_documents"],
        max_document_mb=known.get("max_document_mb", 256),
    )
    source = resolve(options)
    if "commit" in known and source.commit != known["commit"]:
        raise ValueError(
            f"the source found is {source.commit}, expected {known['commit']}: its files are not "
            "those that the dataset was made from. Give --dataset and --data_files as they were."
        )
    return source


def _open_tokenizer(manifest: Manifest, folder: str) -> Tokenizer:
    facts = manifest.tokenizer
    tokenizer = open_tokenizer(
        TokenizerOptions(
            tokenizer=folder,
            add_bos=facts["add_bos"],
            add_eos=facts["add_eos"],
            special_tokens_in_text=facts["special_tokens_in_text"],
        )
    )
    if tokenizer.fingerprint != facts["fingerprint"]:
        raise ValueError(
            f"tokenizer/ has fingerprint {tokenizer.fingerprint[:16]}, expected "
            f"{facts['fingerprint'][:16]}: it is not the one that the dataset was made with"
        )
    return tokenizer


def _numbers(file_index: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Returns int64[n], a number for each document, ascending by file and row."""
    return (file_index.astype(np.int64) << _ROW_BITS) | row.astype(np.int64)


def _documents_of(directory: Directory, manifest: Manifest) -> np.ndarray:
    """Returns int64[n], the numbers of all documents of a dataset, sorted."""
    found = [np.zeros(0, np.int64)]
    for shard in manifest.shards:
        table = read_provenance(directory, shard.file)
        found.append(np.unique(_numbers(table["partition"].to_numpy(), table["row"].to_numpy())))
    return np.unique(np.concatenate(found))


def _choose(documents: np.ndarray, sample: int | None, seed: int) -> np.ndarray:
    if sample is None or sample >= len(documents):
        return documents
    chosen = np.random.default_rng(seed).choice(len(documents), sample, replace=False)
    return documents[np.sort(chosen)]


def _read_pieces(directory: Directory, manifest: Manifest, wanted: np.ndarray) -> Pieces:
    """Returns the ids that shards hold of documents, by number, as (start in the document, ids)."""
    pieces: Pieces = {}
    for shard in manifest.shards:
        table = read_provenance(directory, shard.file)
        numbers = _numbers(table["partition"].to_numpy(), table["row"].to_numpy())
        mine = np.flatnonzero(np.isin(numbers, wanted))
        if not len(mine):
            continue
        layout = manifest.layout(shard)
        with directory.fetching(shard.file) as path:
            file = ShardFile(path, record_bytes=layout.record_bytes, num_records=shard.records)
            try:
                columns = [table[name].to_numpy()[mine].tolist() for name in _PLACE]
                last = -1
                for number, record, segment, start, count in zip(
                    numbers[mine].tolist(), *columns, strict=True
                ):
                    if record != last:  # segments come in the order of records
                        tokens, lengths = decode_records(file.read(record, record + 1), layout)
                        last = record
                    begin = int(lengths[0, :segment].sum())
                    ids = tokens[0, begin : begin + count].astype(np.int64)
                    pieces.setdefault(number, []).append((start, ids))
            finally:
                file.close()
    return pieces


def _differences(
    source: Source, manifest: Manifest, tokenizer: Tokenizer, wanted: np.ndarray, pieces: Pieces
) -> Iterator[str]:
    seen: set[int] = set()
    files = set((wanted >> _ROW_BITS).tolist())
    for partition in _partitions(source):
        if not files.intersection(file.index for file in partition.files):
            continue
        for block in read_blocks(partition, source.read_spec):
            yield from _compare_block(block, manifest, tokenizer, wanted, pieces, seen)
    for number in wanted.tolist():
        if number not in seen:
            yield f"{_name(source, number)} is no document of the source"


def _partitions(source: Source) -> Iterator[Partition]:
    options, spec = source.options, source.read_spec
    coarse = list_partitions(
        source.files,
        spec,
        skip_documents=options.skip_documents,
        max_documents=options.max_documents,
    )
    for partition in coarse:
        yield from split_partition(partition, spec)


def _compare_block(
    block: TextBlock,
    manifest: Manifest,
    tokenizer: Tokenizer,
    wanted: np.ndarray,
    pieces: Pieces,
    seen: set[int],
) -> Iterator[str]:
    numbers = _numbers(np.full(len(block.rows), block.file_index), block.rows)
    mask = np.isin(numbers, wanted)
    if not mask.any():
        return
    encoded = tokenizer.encode(block.texts.filter(pa.array(mask)))
    for i, number in enumerate(numbers[mask].tolist()):
        seen.add(number)
        expected = encoded.ids[encoded.offsets[i] : encoded.offsets[i + 1]].astype(np.int64)
        for start, ids in pieces[number]:
            if not _is_piece(ids, expected[start : start + len(ids)], manifest):
                row = number & ((1 << _ROW_BITS) - 1)
                yield (
                    f"document {row} of file {block.file_index}: tokens {start} to "
                    f"{start + len(ids) - 1} are not those of its text"
                )
                break


def _is_piece(found: np.ndarray, expected: np.ndarray, manifest: Manifest) -> bool:
    """Says whether ids are the expected ones; a truncated document may end in EOS instead."""
    if np.array_equal(found, expected):
        return True
    eos_id = manifest.tokenizer["eos_id"]
    if not manifest.packing.get("keep_eos") or len(found) != len(expected):
        return False
    return bool(found[-1] == eos_id) and np.array_equal(found[:-1], expected[:-1])


def _name(source: Source, number: int) -> str:
    file_index, row = number >> _ROW_BITS, number & ((1 << _ROW_BITS) - 1)
    return f"document {row} of file {file_index} (of {len(source.files)} files)"
