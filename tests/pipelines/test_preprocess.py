"""The batch job, end to end in this process, on tiny files whose outcome is known."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from shardstream.pipelines.verify import main as verify_main
from shardstream.shard_format.provenance import read_provenance
from shardstream.shard_format.storage import open_directory
from tests.conftest import TWELVE_DOCUMENTS
from tests.pipeline_runs import (
    build,
    needs_prism,
    parquet_flags,
    read_documents,
    read_order,
    read_records,
)
from tests.real_tokenizers import gpt2_directory

DOCUMENT_IDS = [(0, row) for row in range(5)] + [(1, row) for row in range(7)]


def _expected_ids(tokenizer: str, texts: list[str]) -> dict[tuple[int, int], list[int]]:
    reference = AutoTokenizer.from_pretrained(tokenizer)
    encoded = reference(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    with_eos = [[*ids, reference.eos_token_id] for ids in encoded]
    return dict(zip(DOCUMENT_IDS, with_eos, strict=True))


@pytest.mark.parametrize("packing", ["concat", "pad", "best_fit"])
def test_ids_written_are_those_of_auto_tokenizer(
    tmp_path: Path, twelve_documents: list[str], packing: str
) -> None:
    tokenizer = str(gpt2_directory())
    flags = parquet_flags(twelve_documents, tokenizer)
    truncation = ["--truncation", "split"] if packing == "pad" else []
    out = tmp_path / "out"
    manifest = build(
        out, *flags, "--sequence_length", 64, "--num_shards", 3, "--packing", packing, *truncation
    )
    assert read_documents(out) == _expected_ids(tokenizer, TWELVE_DOCUMENTS)
    assert manifest.totals["documents_read"] == manifest.totals["documents_written"] == 12
    assert manifest.token_dtype == "uint16"


def test_ids_written_for_the_sample(
    tmp_path: Path, sample_files: list[str], tokenizer_directory: str
) -> None:
    flags = parquet_flags(sample_files, tokenizer_directory)
    manifest = build(tmp_path, *flags, "--sequence_length", 256, "--num_shards", 4)
    found = read_documents(tmp_path)
    reference = AutoTokenizer.from_pretrained(tokenizer_directory)
    for partition, path in enumerate(sorted(sample_files)):
        texts = pq.read_table(path, columns=["text"])["text"].to_pylist()
        encoded = reference(texts, add_special_tokens=False, split_special_tokens=True)
        for row, ids in enumerate(encoded["input_ids"]):
            assert found.pop((partition, row)) == [*ids, reference.eos_token_id]
    assert not found
    assert verify_main([str(tmp_path)]) == 0
    assert manifest.totals["tokens_in"] == manifest.totals["tokens_written"]


def test_pad_truncates_and_counts(
    tmp_path: Path, twelve_documents: list[str], tokenizer_directory: str
) -> None:
    flags = parquet_flags(twelve_documents, tokenizer_directory)
    out = tmp_path / "out"
    manifest = build(out, *flags, "--sequence_length", 16, "--num_shards", 1, "--packing", "pad")
    (shard,) = manifest.shards
    tokens, lengths = read_records(out, shard)
    assert tokens.shape == (12, 16)
    expected = _expected_ids(tokenizer_directory, TWELVE_DOCUMENTS)
    table = read_provenance(open_directory(out), shard.file).to_pylist()
    for piece, row, length in zip(table, tokens, lengths, strict=True):
        ids = expected[piece["partition"], piece["row"]]
        assert row[: length[0]].tolist() == ids[:16]
        assert length.tolist() == [min(16, len(ids)), *[0] * (shard.max_segments - 1)]
    cut = sum(max(0, len(ids) - 16) for ids in expected.values())
    assert manifest.totals["tokens_truncated"] == cut > 0


def test_validation_split_is_disjoint_and_stable(
    tmp_path: Path, sample_files: list[str], tokenizer_directory: str
) -> None:
    flags = parquet_flags(sample_files, tokenizer_directory)
    held_out = []
    for seed in (0, 1):
        out = tmp_path / str(seed)
        options = ["--num_shards", 3, "--validation_fraction", 0.1, "--seed", seed]
        manifest = build(out, *flags, *options)
        assert [shard.split for shard in manifest.shards] == ["train"] * 3 + ["validation"]
        table = read_provenance(open_directory(out), manifest.shards_of("validation")[0].file)
        pairs = zip(table["partition"].to_pylist(), table["row"].to_pylist(), strict=True)
        held_out.append(set(pairs))
        assert verify_main([str(out)]) == 0
    assert held_out[0] == held_out[1]
    assert len(held_out[0]) == pytest.approx(0.1 * manifest.totals["documents_read"], rel=0.15)


def test_more_shards_than_documents_gives_empty_shards(
    tmp_path: Path, twelve_documents: list[str], tokenizer_directory: str
) -> None:
    flags = parquet_flags(twelve_documents, tokenizer_directory)
    out = tmp_path / "out"
    manifest = build(out, *flags, "--num_shards", 40, "--sequence_length", 32)
    assert len(manifest.shards) == 40
    assert sum(shard.records == 0 for shard in manifest.shards) >= 28
    assert verify_main([str(out)]) == 0


@pytest.mark.parametrize(("skip", "take"), [(0, 1), (0, 5), (3, 4), (4, 100), (0, 12), (6, 2)])
@pytest.mark.parametrize("kind", ["parquet", "json"])
def test_window_is_that_of_take_and_skip(
    tmp_path: Path,
    twelve_documents: list[str],
    tokenizer_directory: str,
    kind: str,
    skip: int,
    take: int,
) -> None:
    files = twelve_documents
    if kind == "json":
        files = [str(Path(path).with_suffix(".jsonl")) for path in twelve_documents]
        for source, target in zip(twelve_documents, files, strict=True):
            rows = pq.read_table(source).to_pylist()
            Path(target).write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    flags = ["--dataset", kind, "--data_files", *files, "--tokenizer", tokenizer_directory]
    build(out, *flags, "--skip_documents", skip, "--max_documents", take, "--num_shards", 2)
    assert sorted(read_documents(out)) == DOCUMENT_IDS[skip : skip + take]


def _rows_of_every_kind(path: Path) -> None:
    texts = pa.array([b"good", None, b"bad \xff utf-8", b"", b"also good"], pa.binary())
    strings = pa.StringArray.from_buffers(
        5, texts.buffers()[1], texts.buffers()[2], texts.buffers()[0]
    )
    pq.write_table(pa.table({"text": strings}), path)


def test_bad_rows_become_dead_letters_with_reasons(
    tmp_path: Path, tokenizer_directory: str
) -> None:
    path = tmp_path / "rows.parquet"
    _rows_of_every_kind(path)
    out = tmp_path / "out"
    flags = parquet_flags([str(path)], tokenizer_directory)
    manifest = build(out, *flags, "--max_dead_letter_fraction", 0.5)
    assert manifest.dead_letters == {"invalid_utf8": 1, "null_text": 1}
    assert sorted(read_documents(out)) == [(0, 0), (0, 3), (0, 4)]
    lines = (out / "dead_letters" / "partition-00000.jsonl").read_text().splitlines()
    letters = [json.loads(line) for line in lines]
    assert [(d["row"], d["reason"]) for d in letters] == [(1, "null_text"), (2, "invalid_utf8")]
    assert letters[1]["preview"] == "bad \N{REPLACEMENT CHARACTER} utf-8"
    assert verify_main([str(out)]) == 0


def test_json_rows_of_mixed_types(tmp_path: Path, tokenizer_directory: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "good"}\n{"text": 5}\n{"text": null}\n{"text": ["x"]}\n')
    flags = ["--dataset", "json", "--data_files", str(path), "--tokenizer", tokenizer_directory]
    manifest = build(tmp_path / "out", *flags, "--max_dead_letter_fraction", 1)
    assert manifest.dead_letters == {"not_a_string": 2, "null_text": 1}
    assert sorted(read_documents(tmp_path / "out")) == [(0, 0)]


def test_text_template_joins_columns(tmp_path: Path, tokenizer_directory: str) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"title": ["T", None], "text": ["body {x}", "y"]}), path)
    flags = parquet_flags([str(path)], tokenizer_directory)
    template = "# {title}\\n\\n{text}{{}}"
    out = tmp_path / "out"
    manifest = build(
        out, *flags, "--text_template", template, "--max_dead_letter_fraction", 1, "--no-eos"
    )
    reference = AutoTokenizer.from_pretrained(tokenizer_directory)
    assert reference.decode(read_documents(out)[0, 0]) == "# T\n\nbody {x}{}"
    assert manifest.dead_letters == {"null_text": 1}


@needs_prism
def test_same_fingerprint_whatever_does_the_work(
    tmp_path: Path, sample_files: list[str], tokenizer_directory: str
) -> None:
    flags = [*parquet_flags(sample_files, tokenizer_directory), "--num_shards", 5]
    ways = {
        "FnApiRunner": [],
        "PrismRunner": [],
        "FnApiRunner engine": ["--shuffle_via", "engine"],
        "PrismRunner engine": ["--shuffle_via", "engine", "--block_kb", 16],
        "FnApiRunner small": ["--partition_mb", 1, "--block_kb", 16, "--threads", 1],
        "FnApiRunner reference": ["--tokenizer_engine", "transformers"],
    }
    found = {}
    for way, work in ways.items():
        manifest = build(tmp_path / way, *flags, *work, runner=way.split()[0])
        assert manifest.run["runner"] == way.split()[0]
        found[way] = manifest.fingerprint
    assert len(set(found.values())) == 1, found


def test_seed_changes_the_order_and_nothing_else(
    tmp_path: Path, twelve_documents: list[str], tokenizer_directory: str
) -> None:
    flags = parquet_flags(twelve_documents, tokenizer_directory)
    for seed in (0, 1):
        build(tmp_path / str(seed), *flags, "--seed", seed, "--num_shards", 2)
    assert read_documents(tmp_path / "0") == read_documents(tmp_path / "1")
    assert read_order(tmp_path / "0") != read_order(tmp_path / "1")


def test_order_statistics_are_those_of_a_uniform_permutation(
    tmp_path: Path, sample_files: list[str], tokenizer_directory: str
) -> None:
    """Against numbers known for uniform permutations, within 5 standard deviations."""
    flags = parquet_flags(sample_files, tokenizer_directory)
    build(tmp_path, *flags, "--num_shards", 4, "--sequence_length", 64)
    order = read_order(tmp_path)
    n = len(order)
    position = {document: i for i, document in enumerate(sorted(order))}
    found = np.array([position[document] for document in order])
    assert sorted(found.tolist()) == list(range(n))
    # Mean displacement of a uniform permutation: (n**2 - 1) / 3n, deviation about n / sqrt(45 n) * 2.
    displacement = np.abs(found - np.arange(n)).mean()
    assert abs(displacement - n / 3) < 5 * n * np.sqrt(2 / 45 / n) * 2
    # Neighbours i, i + 1 of the source that stay neighbours in order: Poisson with mean 1.
    assert np.count_nonzero(np.diff(found) == 1) <= 7
    # Spearman's correlation of place before and after: normal, deviation 1 / sqrt(n).
    assert abs(np.corrcoef(found, np.arange(n))[0, 1]) < 5 / np.sqrt(n)
    # Descents of a uniform permutation: mean (n - 1) / 2, variance (n + 1) / 12.
    descents = np.count_nonzero(np.diff(found) < 0)
    assert abs(descents - (n - 1) / 2) < 5 * np.sqrt((n + 1) / 12)


@pytest.mark.slow
def test_document_of_100_mb_among_small_ones(tmp_path: Path, tokenizer_directory: str) -> None:
    line = "Naïve café: 12 tokens or so, then another line of it.\n"
    texts = ["before", line * (100_000_000 // len(line.encode())), "after"]
    pq.write_table(pa.table({"text": texts}), tmp_path / "big.parquet")
    flags = parquet_flags([str(tmp_path / "big.parquet")], tokenizer_directory)
    out = tmp_path / "out"
    manifest = build(out, *flags, "--num_shards", 1)
    assert verify_main([str(out)]) == 0
    ids = AutoTokenizer.from_pretrained(tokenizer_directory)(line)["input_ids"]
    times = texts[1].count("\n")
    tokens, lengths = read_records(out, manifest.shards[0])
    assert manifest.totals["documents_written"] == 3
    found = tokens[np.arange(tokens.shape[1]) < lengths.sum(axis=1)[:, None]]
    # Records are permuted: which tokens there are is what a sum over the vocabulary can tell.
    expected = np.bincount(ids, minlength=manifest.tokenizer["vocab_size"]) * times
    small = AutoTokenizer.from_pretrained(tokenizer_directory)(["before", "after"])["input_ids"]
    np.add.at(expected, [*small[0], *small[1], *[manifest.tokenizer["eos_id"]] * 3], 1)
    assert np.array_equal(np.bincount(found, minlength=len(expected)), expected)
