from pathlib import Path

import pytest

from shard_format.storage import Directory


def test_write_replaces_and_lists_sorted(tmp_path: Path) -> None:
    directory = Directory(tmp_path / "new")
    directory.write("b/c", b"1")
    directory.write("a", b"2")
    directory.write("b/c", b"3")
    assert directory.list() == ["a", "b/c"]
    assert directory.read("b/c") == b"3"
    assert (directory.size("a"), directory.size("none")) == (1, None)


def test_publishing_that_fails_leaves_nothing(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    directory.write("a", b"old")
    with pytest.raises(RuntimeError), directory.publishing("a") as private:
        private.write_bytes(b"half")
        assert directory.read("a") == b"old"
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert directory.read("a") == b"old"


def test_private_files_are_not_listed_and_can_be_cleared(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    (tmp_path / ".a.0123.private").write_bytes(b"of a killed writer")
    assert directory.list() == []
    directory.remove_private()
    assert list(tmp_path.iterdir()) == []


def test_remove_takes_files_folders_and_nothing(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    directory.write("folder/file", b"")
    directory.remove("folder")
    directory.remove("folder")
    assert directory.list() == []


def test_directory_refuses_urls() -> None:
    with pytest.raises(ValueError, match="gs://bucket/out: only local"):
        Directory("gs://bucket/out")
