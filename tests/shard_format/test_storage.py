"""The laws of Directory, on local disks and on both kinds of stores."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shardstream.shard_format.storage import Directory, open_directory, store_client
from shardstream.shard_format.storage.store_client import StoreError
from tests.store_servers import StoreServer


@pytest.fixture(params=["local", "gs", "s3"])
def directory(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    store_servers: Callable[[str], StoreServer],
    monkeypatch: pytest.MonkeyPatch,
) -> Directory:
    if request.param == "local":
        return open_directory(tmp_path / "new")
    server = store_servers(request.param)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return open_directory(server.root(f"{tmp_path.name}/new"))


def test_write_replaces_and_lists_sorted(directory: Directory) -> None:
    assert directory.list() == []
    directory.write("b/c", b"1")
    directory.write("a", b"2")
    directory.write("b/c", b"3")
    directory.write("b=x/ü %2F.json", b"")
    assert directory.list() == ["a", "b/c", "b=x/ü %2F.json"]
    assert directory.list(recursive=False) == ["a"]
    assert directory.list("b") == ["b/c"]
    assert directory.read("b/c") == directory.find("b/c") == b"3"
    assert (directory.size("a"), directory.size("none"), directory.find("none")) == (1, None, None)
    assert directory.exists("b=x/ü %2F.json") and not directory.exists("b=x/ü /.json")
    with pytest.raises(FileNotFoundError, match="none"):
        directory.read("none")


def test_read_range_returns_those_bytes(directory: Directory) -> None:
    directory.write("a", bytes(range(100)))
    assert bytes(directory.read_range("a", 10, 20)) == bytes(range(10, 20))
    assert bytes(directory.read_range("a", 99, 100)) == b"c"
    assert bytes(directory.read_range("a", 5, 5)) == b""


def test_read_into_fills_an_array(directory: Directory) -> None:
    directory.write("a", bytes(range(100)))
    into = np.zeros(10, np.uint8)
    directory.read_into("a", 10, into)
    assert into.tolist() == list(range(10, 20))
    directory.read_into("a", 5, into[:0])


def test_read_into_says_that_the_file_is_too_short(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    directory.write("a", bytes(range(100)))
    with pytest.raises(OSError, match="expected 10 bytes from 95 on, found 5"):
        directory.read_into("a", 95, np.zeros(10, np.uint8))


def test_released_range_keeps_the_file_and_its_neighbours(directory: Directory) -> None:
    data = bytes(range(1, 201)) * 1000
    directory.write("a", data)
    directory.release_range("a", 5_000, 150_001)
    directory.release_range("none", 0, 10)
    assert directory.size("a") == len(data)
    found = directory.read("a")
    assert (found[:5_000], found[150_001:]) == (data[:5_000], data[150_001:])


def test_create_is_won_by_one_of_many_writers(directory: Directory) -> None:
    made: list[tuple[int, bool]] = []
    start = threading.Barrier(8)

    def create(writer: int) -> None:
        start.wait()
        made.append((writer, directory.create("commits/0", b"writer %d" % writer)))

    threads = [threading.Thread(target=create, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [writer for writer, was_made in made if was_made]
    assert len(made) == 8
    assert directory.read("commits/0") == b"writer %d" % winner
    assert not directory.create("commits/0", b"late")
    assert directory.list() == ["commits/0"]


def test_publishing_that_fails_leaves_nothing(directory: Directory) -> None:
    directory.write("a", b"old")
    with pytest.raises(RuntimeError), directory.publishing("a") as private:
        private.write_bytes(b"half")
        assert directory.read("a") == b"old"
        raise RuntimeError
    assert not private.exists()
    assert directory.list() == ["a"]
    assert directory.read("a") == b"old"


def test_publishing_a_file_of_many_parts_keeps_its_bytes(directory: Directory) -> None:
    data = bytes(range(256)) * (40 << 12)  # 40 MB: parts of 16
    with directory.publishing("large") as private:
        private.write_bytes(data)
    assert directory.size("large") == len(data)
    with directory.fetching("large") as path:
        assert path.read_bytes() == data


def test_folders_go_out_and_come_back(directory: Directory) -> None:
    with directory.publishing_folder("tokenizer") as folder:
        (folder / "a.json").write_bytes(b"1")
        (folder / "sub").mkdir()
        (folder / "sub" / "b.json").write_bytes(b"2")
    assert directory.list("tokenizer") == ["tokenizer/a.json", "tokenizer/sub/b.json"]
    with directory.fetching("tokenizer") as folder:
        assert (folder / "a.json").read_bytes() == b"1"
        assert (folder / "sub" / "b.json").read_bytes() == b"2"


def test_remove_takes_files_folders_and_nothing(directory: Directory) -> None:
    directory.write("folder/file", b"")
    directory.write("folder2", b"")
    directory.remove("folder")
    directory.remove("folder")
    assert directory.list() == ["folder2"]
    directory.remove("folder2")
    directory.check_writable()
    assert directory.list() == []


def test_private_files_are_not_listed_and_can_be_cleared(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    (tmp_path / ".a.0123.private").write_bytes(b"of a killed writer")
    assert directory.list() == []
    directory.remove_private()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("root", ["gcs://b/x", "http://host/x", "gs://", "s3:///x"])
def test_addresses_of_no_store_are_refused(root: str) -> None:
    with pytest.raises(ValueError, match="expected a path, gs://bucket/prefix"):
        open_directory(root)


def test_a_path_made_of_an_address_is_refused() -> None:
    with pytest.raises(ValueError, match="gs:/bucket/out: expected gs://bucket/prefix"):
        open_directory(Path("gs://bucket/out"))


def test_profiles_of_the_home_directory_sign_in(
    store_servers: Callable[[str], StoreServer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = store_servers("s3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("HOME", str(tmp_path))
    keys = "aws_access_key_id = x\naws_secret_access_key = y\nregion = us-east-1\n"
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(f"[team]\n{keys}")
    monkeypatch.setenv("AWS_PROFILE", "team")
    store_client._open_bucket.cache_clear()
    directory = open_directory(server.root(tmp_path.name))
    directory.write("a", b"1")
    assert directory.read("a") == b"1"
    store_client._open_bucket.cache_clear()


def test_missing_credentials_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(StoreError, match=r"gs://some-bucket: can't be opened .*none.json"):
        open_directory("gs://some-bucket/out")
