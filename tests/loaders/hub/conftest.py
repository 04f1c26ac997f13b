"""A small corpus whose documents say which they are, so that a batch shows what it was made of."""

import dataclasses
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardstream import loaders
from shardstream.loaders.hub.stream import HubStream

NUM_FILES = 6
ROWS_PER_FILE = 400
DEAD_ROWS = 3  # nulls in file 2
_WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "rain",
    "falls",
    "mainly",
    "in",
    "spain",
]


def document(number: int) -> str:
    """Text of a document: its number, then 10 to 40 words."""
    rng = np.random.default_rng(number)
    return f"#{number}# " + " ".join(rng.choice(_WORDS, rng.integers(10, 41)))


def write_corpus(folder: Path) -> list[str]:
    """Writes the files: document 1000 * file + row, rows 7, 8 and 9 of file 2 null."""
    paths = []
    for file in range(NUM_FILES):
        texts: list[str | None] = [document(1000 * file + row) for row in range(ROWS_PER_FILE)]
        if file == 2:
            texts[7 : 7 + DEAD_ROWS] = [None] * DEAD_ROWS
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"train-{file}.parquet"
        pq.write_table(pa.table({"n": range(len(texts)), "text": texts}), path, row_group_size=90)
        paths.append(str(path))
    return paths


def all_documents() -> list[int]:
    """Numbers of the documents that are not dead, in the order of the stream."""
    return [
        1000 * file + row
        for file in range(NUM_FILES)
        for row in range(ROWS_PER_FILE)
        if not (file == 2 and 7 <= row < 7 + DEAD_ROWS)
    ]


@pytest.fixture(scope="session")
def corpus_files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_corpus(tmp_path_factory.mktemp("hub-corpus"))


@dataclasses.dataclass(frozen=True)
class Streams:
    """Opens streams over the corpus, and reads what batches hold."""

    files: list[str]
    tokenizer_directory: str

    def open(self, files: Iterable[str] | None = None, **options: Any) -> HubStream:
        """A stream with small defaults: L=32, B=64, a buffer of 500, four lanes, NumPy."""
        defaults: dict[str, Any] = {
            "dataset": "parquet",
            "data_files": list(self.files if files is None else files),
            "tokenizer": self.tokenizer_directory,
            "sequence_length": 32,
            "batch_size": 64,
            "buffer_size": 500,
            "lanes": 4,
            "output": "numpy",
            "fields": ("tokens", "segment_ids"),
            "audit_every": 0,
        }
        return loaders.stream(**(defaults | options))

    def numbers(self, batches: Iterable[dict[str, np.ndarray]]) -> list[int]:
        """Numbers of the documents that begin in rows, in the order of batches."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.tokenizer_directory)
        found: list[int] = []
        for batch in batches:
            rows = [
                tokens[segments > 0].tolist()
                for tokens, segments in zip(batch["tokens"], batch["segment_ids"], strict=True)
            ]
            for text in tokenizer.batch_decode(rows):
                found += map(int, re.findall(r"#(\d+)#", text))
        return found


@pytest.fixture(scope="session")
def streams(corpus_files: list[str], tokenizer_directory: str) -> Streams:
    return Streams(corpus_files, tokenizer_directory)


@pytest.fixture
def same() -> Callable[[Iterable, Iterable], None]:
    """Compares batches, array by array."""

    def check(left: Iterable, right: Iterable) -> None:
        left, right = list(left), list(right)
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert list(a) == list(b)
            for name in a:
                np.testing.assert_array_equal(a[name], b[name])

    return check
