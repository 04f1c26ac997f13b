"""`compare_with_source`: a dataset holds the ids of its source's texts, or the document is named."""

from pathlib import Path

import pytest

from shardstream.pipelines.job.against_source import compare_with_source
from shardstream.pipelines.verify import main as verify_main
from shardstream.shard_format.storage import open_directory
from shardstream.sources.resolve import resolve
from tests.pipeline_runs import build, parquet_flags


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--packing", "pad", "--sequence_length", 32, "--keep_eos"],
        ["--skip_documents", 3, "--max_documents", 6],
        ["--mode", "stream"],
    ],
)
@pytest.mark.parametrize("count", [None, 4])
def test_documents_are_those_of_the_source(
    tmp_path: Path,
    twelve_documents: list[str],
    tokenizer_directory: str,
    flags: list[object],
    count: int | None,
) -> None:
    out = tmp_path / "out"
    build(out, *parquet_flags(twelve_documents, tokenizer_directory), *flags)
    found = compare_with_source(
        open_directory(out), sample=count, dataset="parquet", data_files=twelve_documents
    )
    assert found.problems == ()
    assert found.documents == (count or (6 if "--skip_documents" in flags else 12))


def test_what_differs_is_named(
    tmp_path: Path, tokenizer_directory: str, capsys: pytest.CaptureFixture
) -> None:
    source, out = tmp_path / "rows.txt", tmp_path / "out"
    lines = [f"This is line {number:05d} of the text." for number in range(9_000)]
    source.write_text("\n".join(lines))
    flags = ["--dataset", "text", "--data_files", str(source), "--tokenizer", tokenizer_directory]
    build(out, *flags)
    asked = [str(out), "--against_source", "all", "--dataset", "text", "--data_files", str(source)]
    assert verify_main(asked) == 0
    assert "9,000 documents have the ids of their source's texts" in capsys.readouterr().out
    # Of the same size, and far from both ends: only its ids tell.
    lines[4_321] = lines[4_321].replace("text", "song")
    source.write_text("\n".join(lines))
    resolve.cache_clear()
    assert verify_main(asked) == 1
    assert "document 4321 of file 0: tokens 0 to" in capsys.readouterr().out


def test_another_source_is_refused(
    tmp_path: Path, twelve_documents: list[str], tokenizer_directory: str
) -> None:
    out = tmp_path / "out"
    build(out, *parquet_flags(twelve_documents, tokenizer_directory))
    with pytest.raises(ValueError, match="its files are not those that the dataset was made from"):
        compare_with_source(
            open_directory(out), sample=None, dataset="parquet", data_files=twelve_documents[:1]
        )
