"""Small real data for every test: parquet files on disk, a trained tokenizer, no network."""

import os

# Tests reach no hub but the loopback one, which subprocesses are pointed at; failing fast is kinder.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.sample import SampleFiles, build_sample


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleFiles:
    """The embedded sample: 4 parquet files of real English, a tokenizer of 8,192 entries."""
    return build_sample(tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="session")
def tokenizer_directory(sample: SampleFiles) -> str:
    return str(sample.tokenizer_directory)


@pytest.fixture(scope="session")
def sample_files(sample: SampleFiles) -> list[str]:
    return [str(path) for path in sample.parquet_files]


TWELVE_DOCUMENTS = [
    "The quick brown fox jumps over the lazy dog.",
    "",
    "Naïve café — ½ price, 東京, привет, 👩‍👩‍👧‍👦!",
    "a " * 400,
    "tabs\tand\r\nnew lines\n\n",
    "   leading and trailing   ",
    "def f(x):\n    return x ** 2\n",
    "It's, we'll, THEY'RE, don'T",
    "1234567890 3.14159 1e-9",
    "<|endoftext|> is written here as text",
    "x",
    "The quick brown fox jumps over the lazy dog.",
]


@pytest.fixture
def twelve_documents(tmp_path: Path) -> list[str]:
    """Two parquet files with 5 and 7 documents in row groups of 2, beside columns nobody wants."""
    paths = []
    for index, texts in enumerate((TWELVE_DOCUMENTS[:5], TWELVE_DOCUMENTS[5:])):
        table = pa.table({"id": range(len(texts)), "text": texts, "url": ["u"] * len(texts)})
        path = tmp_path / f"part-{index}.parquet"
        pq.write_table(table, path, row_group_size=2)
        paths.append(str(path))
    return paths
