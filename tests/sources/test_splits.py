"""Splits joined and sliced: the rows of `load_dataset` without streaming, to the row."""

import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardstream.sources.options import SourceOptions
from shardstream.sources.resolve import resolve
from tests.sources.reading import outcomes, texts_of

EXPRESSIONS = [
    "train",
    "validation",
    "train+validation",
    "validation+train",
    "all",
    "train[:10%]",
    "train[10%:20%]",
    "train[90%:]",
    "train[-10%:]",
    "train[:]",
    "train[5:12]",
    "train[3:]",
    "train[:4]",
    "train[-5:]",
    "train[-9:-2]",
    "train[1_0:2_0]",
    "train[:50%]+validation[50%:]",
    "train[2:4]+validation[1:]+train[20:]",
    "train[:0]+validation[:1]",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same rows as parquet and as jsonl: 3 files of train (23 rows) and 1 of validation (7)."""
    root = tmp_path_factory.mktemp("splits")
    lengths = {"train-0": 8, "train-1": 11, "train-2": 4, "validation-0": 7}
    for kind in ("parquet", "jsonl"):
        (root / kind).mkdir()
        for name, length in lengths.items():
            texts = [f"{name} row {i}" for i in range(length)]
            if kind == "parquet":
                table = pa.table({"text": texts})
                pq.write_table(table, root / kind / f"{name}.parquet", row_group_size=3)
            else:
                lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
                (root / kind / f"{name}.jsonl").write_text(lines)
    return {kind: str(root / kind) for kind in ("parquet", "jsonl")}


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize("split", EXPRESSIONS)
def test_rows_are_those_of_load_dataset(
    folders: dict[str, str], tmp_path: Path, kind: str, split: str
) -> None:
    theirs = datasets.load_dataset(folders[kind], split=split, cache_dir=str(tmp_path))
    options = SourceOptions(dataset=folders[kind], split=split)
    for partition_bytes in (1, 1 << 20):
        assert texts_of(options, partition_bytes=partition_bytes) == theirs["text"][:]


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize("split", ["train+validation", "train[2:9]", "train[3:]+validation[:5]"])
@pytest.mark.parametrize(("skip", "take"), [(0, 4), (2, None), (5, 9), (21, 3), (100, None)])
def test_windows_lie_on_top_of_slices(
    folders: dict[str, str], kind: str, split: str, skip: int, take: int | None
) -> None:
    options = SourceOptions(dataset=folders[kind], split=split)
    whole = texts_of(options)
    window = SourceOptions(
        dataset=folders[kind], split=split, skip_documents=skip, max_documents=take
    )
    assert texts_of(window) == whole[skip:][:take]


def test_documents_of_a_joined_split_have_names_of_their_own(folders: dict[str, str]) -> None:
    options = SourceOptions(dataset=folders["parquet"], split="train[:2]+train[:2]")
    assert list(outcomes(options)) == [(0, 0), (0, 1), (3, 0), (3, 1)]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("test", r"has no split 'test', expected one of train, validation\. Give --split\."),
        ("train+test", "has no split 'test', expected one of train, validation"),
        ("train[:33%](pct1_dropremainder)", "has 23 rows, expected at least 100 for per cents"),
        ("train[1:2", r"can't read 'train\[1:2', expected a name, or a slice such as"),
        ("train[a:b]", r"can't read 'train\[a:b\]'"),
    ],
)
def test_mistakes_are_named(folders: dict[str, str], split: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(SourceOptions(dataset=folders["parquet"], split=split))
