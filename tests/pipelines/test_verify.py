"""What `pipelines.verify` finds: each kind of damage by name, nothing in a whole dataset."""

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from shardstream.pipelines.verify import main as verify
from shardstream.shard_format import naming
from tests.pipeline_runs import build, parquet_flags

SHARD = naming.shard_name("train", 1, 2)


@pytest.fixture
def dataset(tmp_path: Path, twelve_documents: list[str], tokenizer_directory: str) -> Path:
    """Two shards."""
    flags = [*parquet_flags(twelve_documents, tokenizer_directory), "--num_shards", 2]
    build(tmp_path / "out", *flags, "--sequence_length", 8)
    return tmp_path / "out"


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)


def leave_a_row_out(path: Path) -> None:
    pq.write_table(pq.read_table(path)[1:], path)


def test_whole_dataset_has_no_problem(dataset: Path, capsys: pytest.CaptureFixture) -> None:
    assert verify([str(dataset)]) == 0
    assert "verified: every shard's sha256" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "damage", "expected"),
    [
        (SHARD, Path.unlink, f"{SHARD}: the file is missing"),
        (SHARD, flip_a_byte, "; expected "),
        (naming.provenance_name(SHARD), leave_a_row_out, "provenance doesn't match the lengths"),
        (naming.checksums_name(SHARD), flip_a_byte, "doesn't match the records, which are right"),
    ],
)
def test_damage_is_named(
    dataset: Path,
    name: str,
    damage: Callable[[Path], None],
    expected: str,
    capsys: pytest.CaptureFixture,
) -> None:
    damage(dataset / name)
    assert verify([str(dataset)]) == 1
    assert expected in "".join(capsys.readouterr())


def test_dataset_without_checksums_is_whole(dataset: Path) -> None:
    (dataset / naming.checksums_name(SHARD)).unlink()
    assert verify([str(dataset)]) == 0
