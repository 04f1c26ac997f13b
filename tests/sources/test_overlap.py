"""An output and its source must not lie in each other, however their paths are written."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shardstream.sources.options import SourceOptions
from shardstream.sources.overlap import pattern_root, refuse_overlap, visible_files

# Other ways to write the path of a local folder.
_SPELLINGS: dict[str, Callable[[Path, Path], str]] = {
    "absolute": lambda path, root: str(path),
    "dots": lambda path, root: f"{root}/data/../{path.relative_to(root)}",
    "relative": lambda path, root: os.path.relpath(path),
    "slash": lambda path, root: f"{path}/",
    "link": lambda path, root: str(root / "link" / path.relative_to(root)),
    "url": lambda path, root: f"file://{path}",
}


def _files(*data_files: str) -> SourceOptions:
    return SourceOptions(dataset="json", data_files=data_files)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data" / "sub").mkdir(parents=True)
    (tmp_path / "data" / "a.jsonl").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    return tmp_path


@pytest.mark.parametrize("spelling", _SPELLINGS)
@pytest.mark.parametrize("inside", ["data", "data/out", "data/sub/out"])
def test_output_inside_a_dataset_directory_is_refused(
    root: Path, spelling: str, inside: str
) -> None:
    output = _SPELLINGS[spelling](root / inside, root)
    with pytest.raises(ValueError, match="lies in the source"):
        refuse_overlap(output, SourceOptions(dataset=str(root / "data")))
    with pytest.raises(ValueError, match="lies where"):
        refuse_overlap(output, _files(f"{root}/data/**/*.jsonl"))
    refuse_overlap(
        _SPELLINGS[spelling](root / "data2", root), SourceOptions(dataset=str(root / "data"))
    )


@pytest.mark.parametrize("spelling", _SPELLINGS)
def test_source_file_inside_the_output_is_refused(root: Path, spelling: str) -> None:
    output = _SPELLINGS[spelling](root / "data", root)
    with pytest.raises(ValueError, match=r"holds a file of the source, a\.jsonl"):
        refuse_overlap(output, _files("x"), [str(root / "data" / "a.jsonl")])
    refuse_overlap(f"{output}/out", _files("x"), [str(root / "data" / "a.jsonl")])


@pytest.mark.parametrize(
    ("pattern", "output", "is_refused"),
    [
        ("gs://bkt/data/**", "gcs://bkt/data/out", True),
        ("gs://bkt/data/*/x.jsonl", "gs://bkt/data/out", True),
        ("gs://bkt/data/part-*/x.jsonl", "gs://bkt/data/out", False),
        ("gs://bkt/data/*.jsonl", "gs://bkt/data/out/deep", False),
        ("gs://bkt/data/**", "s3://bkt/data/out", False),
        ("gs://bkt/data/**", "gs://bkt/data2", False),
        ("gs://bkt/x/../data/**", "gs://bkt/data//out", True),
    ],
)
def test_patterns_are_refused_where_they_reach_the_output(
    pattern: str, output: str, is_refused: bool
) -> None:
    if is_refused:
        with pytest.raises(ValueError, match="lies where"):
            refuse_overlap(output, _files(pattern))
    else:
        refuse_overlap(output, _files(pattern))


def test_store_output_inside_a_store_dataset_is_refused() -> None:
    with pytest.raises(ValueError, match="lies in the source"):
        refuse_overlap("s3://bkt/data/out", SourceOptions(dataset="s3a://bkt/data/"))
    refuse_overlap("out", SourceOptions(dataset="acme/wide"))


def test_hidden_and_underscore_folders_are_no_sources() -> None:
    names = ["a.jsonl", "_work/b.jsonl", ".x/c.jsonl", "sub/_y/d.jsonl", "sub/_e.jsonl"]
    urls = [f"/srv/_data/{name}" for name in names]
    assert visible_files(urls, SourceOptions(dataset="file:///srv/_data")) == [urls[0], urls[4]]


def test_pattern_root_is_the_folder_above_the_first_wildcard() -> None:
    assert pattern_root("data/**/*.parquet") == "data"
    assert pattern_root("*.parquet") == "."
    assert pattern_root("/*.parquet") == "/"
