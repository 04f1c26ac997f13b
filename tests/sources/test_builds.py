"""Whole builds of damaged sources: documents written and dead letters add up to the rows."""

import collections
import json
from pathlib import Path

import pytest

from shardstream.pipelines.verify import main as verify_main
from shardstream.tokens.options import TokenizerOptions
from shardstream.tokens.tokenizer import open_tokenizer
from tests.pipeline_runs import build, read_documents
from tests.sources.defects import DEFECTS, FORMATS, Dead, good_rows

CASES = {
    "parquet": ["none", "missing_column", "damaged_row_group", "numbers", "cut", "null_row"],
    "jsonl.gz": ["none", "lone_surrogate", "broken_row", "times", "only_null_rows"],
    "csv": ["none", "bad_byte", "broken_row", "side_column_changes", "missing_column"],
    "text.zst": ["none", "bad_byte", "no_bytes"],
    "tar": ["none", "null_row", "side_column_in_one_row", "cut"],
}


@pytest.mark.parametrize("form", CASES)
@pytest.mark.parametrize("mode", ["batch", "stream"])
def test_written_and_dead_are_all_rows(
    tmp_path: Path, tokenizer_directory: str, form: str, mode: str
) -> None:
    kind, paths, texts = FORMATS[form], [], {}
    dead: collections.Counter[str] = collections.Counter()
    for file, defect in enumerate(CASES[form]):
        made = DEFECTS[defect](kind, good_rows(file, 6), 5)
        assert made is not None
        path = tmp_path / f"{file}{kind.suffix}"
        path.write_bytes(kind.pack(made.data))
        paths.append(str(path))
        for row, outcome in enumerate(made.expected):
            if isinstance(outcome, Dead):
                dead[outcome.reason] += 1
            else:
                texts[file, row] = outcome
    output = tmp_path / "out"
    flags = ["--dataset", kind.module, "--data_files", *paths, "--tokenizer", tokenizer_directory]
    flags += ["--text_column", "txt" if form == "tar" else "text", "--mode", mode]
    manifest = build(output, *flags, "--max_dead_letter_fraction", 1, "--sequence_length", 64)
    assert manifest.dead_letters == dead
    assert manifest.totals["documents_read"] == len(texts) + dead.total()
    tokenizer = open_tokenizer(TokenizerOptions(tokenizer=tokenizer_directory))
    reference = tokenizer.reference
    eos = [tokenizer.eos_id]
    expected = {key: reference(text)["input_ids"] + eos for key, text in texts.items()}
    assert read_documents(output) == expected
    letters = [
        json.loads(line)
        for path in (output / "dead_letters").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert sum(letter.get("num_rows", 1) for letter in letters) == dead.total()
    assert verify_main([str(output)]) == 0
