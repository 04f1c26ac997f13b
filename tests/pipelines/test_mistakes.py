"""Every mistake gets a message of its own before any work is done."""

import logging
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardstream.pipelines.preprocess import main
from tests.pipeline_runs import parquet_flags
from tests.real_tokenizers import minilm_directory


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, str]]:
    def run_main(*flags: object) -> tuple[int, str]:
        argv = [str(flag) for flag in flags]
        if "--output" not in argv:
            argv += ["--output", str(tmp_path / "out")]
        status = main([*argv, "--runner=FnApiRunner", "--no-progress"])
        return status, capsys.readouterr().err

    return run_main


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--split", "test"], "has no split 'test', expected one of train. Give --split."),
        (["--text_column", "body"], "has no column 'body', expected one of id, text, url."),
        (["--text_column", "id"], "column 'id' of dataset 'parquet' is int64, expected text. Text"),
        (["--text_template", "{body}"], "has no column 'body', expected one of id, text, url."),
        (["--text_template", "{text"], "text_template is '{text'"),
        (["--text_template", "plain"], "expected at least one {column}"),
        (["--sequence_length", "0"], "sequence_length: expected 1 to 2**31 - 1 tokens, found 0"),
        (["--max_documents", "0"], "max_documents is 0, expected at least 1"),
        (["--skip_documents", "-1"], "skip_documents is -1, expected 0 or more"),
        (["--num_shards", "0"], "--num_shards is 0, expected 1 to 999999"),
        (["--max_dead_letter_fraction", "2"], "--max_dead_letter_fraction is 2.0, expected 0 to 1"),
        (["--validation_fraction", "1"], "--validation_fraction is 1.0, expected 0 or more and"),
        (["--sequence_lenght", "5"], "unknown flag --sequence_lenght; did you mean --sequence_len"),
        (["--threads", "0"], "--threads is 0, expected at least 1"),
        (["--output", "ftp://b/out"], "ftp://b/out: expected a path, gs://bucket/prefix or s3://"),
    ],
)
def test_wrong_option_is_named_with_what_is_expected(
    run: Callable, twelve_documents: list[str], tokenizer_directory: str, flags: list, message: str
) -> None:
    status, stderr = run(*parquet_flags(twelve_documents, tokenizer_directory), *flags)
    assert (status, message in stderr) == (2, True), stderr


def test_unknown_local_dataset(run: Callable, tokenizer_directory: str) -> None:
    status, stderr = run("--dataset", "/no/such", "--tokenizer", tokenizer_directory)
    assert status == 2
    assert "dataset '/no/such': Couldn't find any data file" in stderr
    assert "Expected a hub name (owner/name), a directory of data files" in stderr


def test_pattern_that_matches_nothing(run: Callable, tokenizer_directory: str) -> None:
    flags = parquet_flags(["/no/such/*.parquet"], tokenizer_directory)
    status, stderr = run(*flags)
    assert (status, "error: no file matches /no/such/*.parquet." in stderr) == (2, True), stderr


def test_unknown_config_names_those_there_are(
    run: Callable, twelve_documents: list[str], tokenizer_directory: str
) -> None:
    directory = Path(twelve_documents[0]).parent / "corpus"
    directory.mkdir()
    Path(twelve_documents[0]).rename(directory / "a.parquet")
    flags = ["--dataset", directory, "--config", "big", "--tokenizer", tokenizer_directory]
    status, stderr = run(*flags)
    assert (status, "has no config 'big', expected one of ['default']" in stderr) == (2, True), (
        stderr
    )


def test_unknown_tokenizer(run: Callable, twelve_documents: list[str]) -> None:
    status, stderr = run(*parquet_flags(twelve_documents, "/no/tokenizer"))
    assert (status, "/no/tokenizer" in stderr) == (2, True), stderr


def test_tokenizer_without_eos(run: Callable, twelve_documents: list[str]) -> None:
    flags = parquet_flags(twelve_documents, str(minilm_directory()))
    status, stderr = run(*flags)
    assert status == 2
    assert "add_eos needs a tokenizer with a eos_token, found none. Pass --no-eos" in stderr
    assert run(*flags, "--no-eos")[0] == 0


def test_output_that_cannot_be_written(
    run: Callable, twelve_documents: list[str], tokenizer_directory: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    flags = parquet_flags(twelve_documents, tokenizer_directory)
    status, stderr = run(*flags, "--output", tmp_path / "file" / "out")
    assert (status, "can't be written to (Not a directory)" in stderr) == (2, True), stderr


def test_no_documents_at_all(run: Callable, tokenizer_directory: str, tmp_path: Path) -> None:
    path = tmp_path / "empty.parquet"
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    status, stderr = run(*parquet_flags([str(path)], tokenizer_directory))
    assert status in (1, 2)
    assert "no documents at all" in stderr


def test_window_behind_the_last_document(
    run: Callable, twelve_documents: list[str], tokenizer_directory: str
) -> None:
    flags = parquet_flags(twelve_documents, tokenizer_directory)
    status, stderr = run(*flags, "--skip_documents", 12)
    assert (status, "no documents at all" in stderr) == (1, True), stderr
    assert logging.getLogger().isEnabledFor(logging.CRITICAL)  # only a process's end is silent


def test_file_that_is_no_parquet(run: Callable, tokenizer_directory: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.parquet"
    path.write_bytes(b"PAR1 no more PAR1")
    status, stderr = run(*parquet_flags([str(path)], tokenizer_directory))
    assert status == 2
    assert f"its first file, {path}, can't be read as parquet" in stderr
    assert "Mend the file, or leave it out with --data_files." in stderr


def test_too_many_dead_letters_stop_the_job(
    run: Callable, tokenizer_directory: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": ["a", None, None, "b"]}), path)
    status, stderr = run(*parquet_flags([str(path)], tokenizer_directory))
    assert status == 1
    assert "2 of 4 documents are dead letters (null_text 2), more than" in stderr
    assert "--max_dead_letter_fraction 0.01 allows" in stderr
    assert len((tmp_path / "out/dead_letters/partition-00000.jsonl").read_text().splitlines()) == 2
