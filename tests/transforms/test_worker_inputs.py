"""What a job leaves in its directory for workers, instead of in its graph."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from shardstream.transforms.worker_inputs import MAX_INLINE_DATA_FILES
from tests.pipeline_runs import build, parquet_flags, read_documents


def test_long_file_list_gives_the_dataset_of_the_pattern(
    tmp_path: Path, tokenizer_directory: str
) -> None:
    """One file more than travels with the graph; workers read the list from the directory."""
    files = []
    (tmp_path / "in").mkdir()
    for i in range(MAX_INLINE_DATA_FILES + 1):
        path = tmp_path / "in" / f"{i:03d}.parquet"
        pq.write_table(pa.table({"text": [f"document {i}"]}), path)
        files.append(str(path))
    named = build(tmp_path / "named", *parquet_flags(files, tokenizer_directory))
    pattern = [str(tmp_path / "in/*.parquet")]
    found = build(tmp_path / "found", *parquet_flags(pattern, tokenizer_directory))
    assert named.totals["documents_written"] == len(files)
    assert named.fingerprint == found.fingerprint
    assert read_documents(tmp_path / "named") == read_documents(tmp_path / "found")
    assert not (tmp_path / "named/_work").exists()


def test_long_file_list_streams(tmp_path: Path, tokenizer_directory: str) -> None:
    files = []
    for i in range(MAX_INLINE_DATA_FILES + 1):
        path = tmp_path / f"{i:03d}.parquet"
        pq.write_table(pa.table({"text": [f"document {i}"]}), path)
        files.append(str(path))
    flags = [*parquet_flags(files, tokenizer_directory), "--mode", "stream"]
    assert build(tmp_path / "out", *flags).totals["documents_written"] == len(files)
