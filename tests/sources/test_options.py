"""Reader settings, directories, nested columns, cards: each against `load_dataset`'s own rows."""

import gzip
import json
import tarfile
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardstream.sources.options import SourceOptions
from shardstream.sources.resolve import resolve
from tests.sources.reading import outcomes, texts_of

PARAGRAPHS = "one\ntwo\n\n\nthree\r\n\r\nfour\n\n"
READERS: dict[str, tuple[str, bytes, tuple[str, ...], dict[str, Any]]] = {
    "sep": ("csv", b"n\ttext\n1\ta, b\n", ("sep=\\t",), {"sep": "\t"}),
    "delimiter": ("csv", b"n;text\n1;a, b\n", ("delimiter=;",), {"delimiter": ";"}),
    "names": (
        "csv",
        b"1,a\n2,b\n",
        ('names=["n", "text"]', "header=None"),
        {"names": ["n", "text"], "header": None},
    ),
    "quoting": ("csv", b'text\n"a\n', ("quoting=3",), {"quoting": 3}),
    "na": ("csv", b"text\nNA\nb\n", ("keep_default_na=false",), {"keep_default_na": False}),
    "skiprows": ("csv", b"# head\ntext\na\n", ("skiprows=1",), {"skiprows": 1}),
    "csv encoding": ("csv", b"text\ncaf\xe9\n", ("encoding=latin-1",), {"encoding": "latin-1"}),
    "text encoding": ("text", b"caf\xe9\nb\n", ("encoding=latin-1",), {"encoding": "latin-1"}),
    "utf-16": ("text", "né\nb".encode("utf-16"), ("encoding=utf-16",), {"encoding": "utf-16"}),
    "errors": (
        "text",
        b"caf\xe9\nb\n",
        ("encoding_errors=replace",),
        {"encoding_errors": "replace"},
    ),
    "linebreaks": (
        "text",
        b"a\n\nb\r\nc",
        ("keep_linebreaks=true",),
        {"keep_linebreaks": True},
    ),
    "paragraph": (
        "text",
        PARAGRAPHS.encode(),
        ("sample_by=paragraph",),
        {"sample_by": "paragraph"},
    ),
    "document": (
        "text",
        PARAGRAPHS.encode(),
        ("sample_by=document",),
        {"sample_by": "document"},
    ),
    "json encoding": (
        "json",
        '{"text": "café"}\n'.encode("latin-1"),
        ("encoding=latin-1",),
        {"encoding": "latin-1"},
    ),
    "field": (
        "json",
        b'{"version": 1, "data": [{"text": "a"}, {"text": "7"}]}',
        ("field=data",),
        {"field": "data"},
    ),
}


@pytest.mark.parametrize("case", READERS)
@pytest.mark.parametrize("pack", [False, True])
def test_reader_settings(tmp_path: Path, case: str, pack: bool) -> None:
    module, data, options, settings = READERS[case]
    plain = path = tmp_path / f"rows.{module}"
    plain.write_bytes(data)
    if pack:  # where `load_dataset` forgets the encoding
        path = tmp_path / f"rows.{module}.gz"
        path.write_bytes(gzip.compress(data))
    theirs = datasets.load_dataset(
        module, data_files=str(plain), split="train", streaming=True, **settings
    )
    ours = SourceOptions(dataset=module, data_files=(str(path),), reader_option=options)
    assert texts_of(ours) == [row["text"] for row in theirs]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("seperator=;",), "the reader has no 'seperator', expected one of .*sep"),
        (("features=x",), "is none of the reader: the dataset's card says them"),
        (("columns=x",), "give --text_column or --text_template"),
    ],
)
def test_unknown_reader_settings(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    (tmp_path / "rows.csv").write_text("text\na\n")
    with pytest.raises(ValueError, match=message):
        resolve(SourceOptions(dataset=str(tmp_path), reader_option=options))
    with pytest.raises(ValueError, match=r"reader_option is 'x', expected NAME=VALUE"):
        SourceOptions(dataset="csv", reader_option=("x",))


def test_data_dir(tmp_path: Path) -> None:
    for name in ("en", "de"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_text(json.dumps({"text": name}) + "\n")
    theirs = datasets.load_dataset(str(tmp_path), data_dir="de", split="train", streaming=True)
    options = SourceOptions(dataset=str(tmp_path), data_dir="de")
    assert texts_of(options) == [row["text"] for row in theirs] == ["de"]
    assert resolve(options).identity["data_dir"] == "de"


NESTED = [
    {"meta": {"text": "a", "n": 1, "deep": {"er": "A"}}},
    {"meta": None},
    {"meta": {"text": None, "n": 2, "deep": {"er": "B"}}},
    {"meta": {"text": "d", "n": 3, "deep": None}},
]


def _write_nested(path: Path) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(NESTED), path)
    elif path.suffix == ".arrow":
        table = pa.Table.from_pylist(NESTED)
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table)
    elif path.suffix == ".tar":
        with tarfile.open(path, "w") as archive:
            for number, row in enumerate(NESTED):
                (path.parent / "member").write_text(json.dumps(row["meta"]))
                archive.add(path.parent / "member", f"{number}.meta.json")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in NESTED))


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".jsonl", ".tar"])
def test_nested_columns(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    _write_nested(path)
    module = {".jsonl": "json", ".tar": "webdataset"}.get(suffix, suffix[1:])
    root = "meta.json" if suffix == ".tar" else "meta"
    theirs = datasets.load_dataset(module, data_files=str(path), split="train", streaming=True)
    rows = [row[root] or {} for row in theirs]
    files = (str(path),)
    shallow = SourceOptions(dataset=module, data_files=files, text_column=f"{root}.text")
    assert texts_of(shallow) == [row.get("text") for row in rows]
    deep = SourceOptions(dataset=module, data_files=files, text_column=f"{root}.deep.er")
    assert texts_of(deep) == [(row.get("deep") or {}).get("er") for row in rows]
    both = SourceOptions(
        dataset=module, data_files=files, text_template=f"{{{root}.text}}: {{{root}.deep.er}}"
    )
    assert texts_of(both) == ["a: A", None, None, None]
    with pytest.raises(ValueError, match=r"has no column 'meta\.body', expected one of"):
        resolve(SourceOptions(dataset=module, data_files=files, text_column="meta.body"))


def test_column_whose_name_has_a_dot(tmp_path: Path) -> None:
    pq.write_table(pa.table({"meta.text": ["a"], "meta": [{"text": "b"}]}), tmp_path / "a.parquet")
    assert texts_of(SourceOptions(dataset=str(tmp_path), text_column="meta.text")) == ["a"]


def test_column_inside_json_texts(tmp_path: Path) -> None:
    features = datasets.Features({"j": datasets.Json()})
    rows = datasets.Dataset.from_dict({"j": [{"x": "a"}, {"x": 1}, {"y": 2}]}, features=features)
    rows.to_parquet(str(tmp_path / "rows.parquet"))
    found = outcomes(SourceOptions(dataset=str(tmp_path), text_column="j.x"))
    assert sorted(found.values()) == [
        ("dead", "not_a_string"),
        ("dead", "null_text"),
        ("text", "a"),
    ]


@pytest.mark.parametrize("num_shards", [1, 3])
def test_folder_of_save_to_disk(tmp_path: Path, num_shards: int) -> None:
    rows = datasets.Dataset.from_dict({"text": [f"row {i}" for i in range(10)]})
    rows.save_to_disk(str(tmp_path / "one"), num_shards=num_shards)
    assert texts_of(SourceOptions(dataset=str(tmp_path / "one"))) == rows["text"][:]
    both = datasets.DatasetDict({"train": rows, "test": rows.select(range(3))})
    both.save_to_disk(str(tmp_path / "both"))
    assert texts_of(SourceOptions(dataset=str(tmp_path / "both"), split="test")) == [
        "row 0",
        "row 1",
        "row 2",
    ]
    sliced = SourceOptions(dataset=str(tmp_path / "both"), split="train[:20%]+test")
    assert texts_of(sliced) == [f"row {i}" for i in (0, 1, 0, 1, 2)]


CARD = """---
dataset_info:
  features:
  - name: text
    dtype: string
  - name: n
    dtype: int64
---
"""


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("rows.parquet", pa.table({"text": pa.array([b"a", None, b"b"]), "n": [1, 2, 3]})),
        ("rows.parquet", pa.table({"text": pa.array([7, None, 8]), "n": [1, 2, 3]})),
        ("rows.parquet", pa.table({"text": pa.array([7.5, None, 8]), "n": [1, 2, 3]})),
        ("rows.parquet", pa.table({"text": pa.array([True, None]), "n": [1, 2]})),
        ("rows.parquet", pa.table({"text": pa.array(["a", "b"]).dictionary_encode(), "n": [1, 2]})),
        ("rows.parquet", pa.table({"text": pa.array(["a"], pa.string_view()), "n": [1]})),
        ("rows.csv", b"text,n\n007,1\n1.50,2\n"),
        ("rows.csv", b"text,n\ntrue,1\nfalse,2\n"),
        ("rows.jsonl", b'{"text": 7, "n": 1}\n{"text": 8, "n": 1}\n'),
        ("rows.jsonl", b'{"text": 7.25, "n": 1}\n{"text": 8, "n": 1}\n'),
        ("rows.jsonl", b'{"text": true, "n": 1}\n{"text": null, "n": 1}\n'),
        (
            "rows.jsonl",
            b'{"text": "2024-01-01", "n": 1}\n{"text": "2024-02-01T10:11:12", "n": 1}\n',
        ),
        ("rows.jsonl", b'{"text": {"a": 1, "b": "x/y"}, "n": 1}\n{"text": {"a": 2}, "n": 1}\n'),
    ],
)
def test_card_that_says_text(tmp_path: Path, name: str, data: pa.Table | bytes) -> None:
    (tmp_path / "README.md").write_text(CARD)
    if isinstance(data, pa.Table):
        pq.write_table(data, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(data)
    theirs = datasets.load_dataset(str(tmp_path), split="train", streaming=True)
    assert texts_of(SourceOptions(dataset=str(tmp_path))) == [row["text"] for row in theirs]


def test_what_the_card_says_but_cannot_be_cast(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(CARD)
    (tmp_path / "rows.jsonl").write_text('{"text": ["a"]}\n{"text": "b"}\n{"text": 3}\n')
    found = outcomes(SourceOptions(dataset=str(tmp_path)))
    assert found == {
        (0, 0): ("dead", "not_a_string"),
        (0, 1): ("text", "b"),
        (0, 2): ("text", "3"),
    }


def test_large_documents_are_refused(tmp_path: Path) -> None:
    texts = ["a", "x" * (3 << 20), "b"]
    pq.write_table(pa.table({"text": texts}), tmp_path / "rows.parquet")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    (tmp_path / "rows.txt").write_text("\n".join(texts))
    (tmp_path / "rows.csv").write_text("text\n" + "\n".join(texts))
    for module in ("parquet", "json", "text", "csv"):
        suffix = {"json": "jsonl", "text": "txt"}.get(module, module)
        options = SourceOptions(
            dataset=module, data_files=(str(tmp_path / f"rows.{suffix}"),), max_document_mb=2
        )
        found = [outcome for _, outcome in sorted(outcomes(options).items())]
        assert found == [("text", "a"), ("dead", "too_large"), ("text", "b")], module


def test_identity_of_older_plans_stays(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("a\n")
    identity = resolve(SourceOptions(dataset=str(tmp_path))).identity
    assert list(identity) == [
        "dataset",
        "config",
        "split",
        "commit",
        "num_files",
        "first_file",
        "format",
        "text_column",
        "text_template",
        "skip_documents",
        "max_documents",
    ]


def test_formats_that_only_datasets_reads(tmp_path: Path) -> None:
    pytest.importorskip("Bio", reason="pip install biopython")
    for file in range(3):
        lines = "".join(f">id{file}{row} about it\nACGT\n{'TTGA' * row}\n" for row in range(4))
        (tmp_path / f"{file}.fasta").write_text(lines)
    theirs = datasets.load_dataset(str(tmp_path), split="train", streaming=True)
    options = SourceOptions(dataset=str(tmp_path), text_column="sequence")
    assert texts_of(options) == [row["sequence"] for row in theirs]
    window = SourceOptions(
        dataset=str(tmp_path), text_column="sequence", skip_documents=3, max_documents=4
    )
    assert texts_of(window) == [row["sequence"] for row in theirs][3:7]


def test_lance(tmp_path: Path) -> None:
    lance = pytest.importorskip("lance", reason="pip install pylance")
    rows = pa.table({"text": ["a", None, "c", "d", "e"], "n": range(5)})
    lance.write_dataset(rows, str(tmp_path / "train.lance"), max_rows_per_file=2)
    theirs = datasets.load_dataset(str(tmp_path), split="train", streaming=True)
    options = SourceOptions(dataset=str(tmp_path))
    assert [file.name for file in resolve(options).files] == ["train.lance"]
    assert texts_of(options) == [row["text"] for row in theirs] == ["a", None, "c", "d", "e"]
