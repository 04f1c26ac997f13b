"""What is published appears whole or not at all, in whatever order two writers end."""

from pathlib import Path

import pytest

from shardstream.shard_format.storage.local_publish import (
    PRIVATE_PATTERN,
    publishing_file,
    publishing_folder,
)


@pytest.mark.parametrize("durable", [False, True])
def test_file_appears_at_the_end_and_replaces(tmp_path: Path, durable: bool) -> None:
    target = tmp_path / "new" / "file"
    for content in (b"first", b"second"):
        before = target.read_bytes() if target.exists() else None
        with publishing_file(target, durable=durable) as private:
            private.write_bytes(content)
            assert (target.read_bytes() if target.exists() else None) == before
            assert list(target.parent.glob(PRIVATE_PATTERN)) == [private]
        assert target.read_bytes() == content
        assert list(target.parent.iterdir()) == [target]


def test_nothing_appears_when_the_block_raises(tmp_path: Path) -> None:
    for publishing in (publishing_file, publishing_folder):
        with pytest.raises(KeyError), publishing(tmp_path / "name") as private:
            (private if publishing is publishing_file else private / "file").write_bytes(b"half")
            raise KeyError
        assert list(tmp_path.iterdir()) == []


def test_file_that_was_not_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), publishing_file(tmp_path / "name"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_folder_of_the_first_writer_stays(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "folder"
    with publishing_folder(target) as slow:
        (slow / "a").write_text("slow")
        with publishing_folder(target) as quick:
            assert slow != quick
            (quick / "a").write_text("quick")
        assert (target / "a").read_text() == "quick"
    assert (target / "a").read_text() == "quick"
    assert list(target.parent.iterdir()) == [target]


def test_folder_whose_name_a_file_has_is_an_error(tmp_path: Path) -> None:
    target = tmp_path / "name"
    target.write_text("a file")
    with pytest.raises(NotADirectoryError), publishing_folder(target):
        pass
    assert list(tmp_path.iterdir()) == [target]
