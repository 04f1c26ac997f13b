"""Spill files: how much waits in memory, and that neither the dataset nor a rerun depends on it."""

from pathlib import Path
from typing import Any

import pytest

from shardstream.pipelines.job.options import parse_options
from shardstream.pipelines.job.planning import make_plan
from shardstream.shard_format import naming
from shardstream.sources.partitions import list_partitions, split_partition
from shardstream.sources.read import read_blocks
from shardstream.sources.resolve import resolve
from shardstream.tokens.tokenizer import open_tokenizer
from shardstream.transforms.batch.spill import SPILL, spill_partition
from shardstream.transforms.batch.spill_limit import SpillLimit
from shardstream.transforms.plan import BuildPlan
from shardstream.transforms.threads import shared_executor
from shardstream.transforms.token_blocks import tokenize_blocks
from tests.pipeline_runs import build, parquet_flags

_MB = 1 << 20


@pytest.fixture
def flags(sample_files: list[str], tokenizer_directory: str) -> list[str]:
    """Builds the sample in blocks so small that each partition has some."""
    sample = parquet_flags(sample_files, tokenizer_directory)
    return [*sample, "--num_shards", "4", "--block_kb", "16"]


def _limit_of(num_readers: int, *megabytes: int) -> SpillLimit:
    """A limit in a process that takes so many MB, one answer after another."""
    sizes = iter(megabytes)
    return SpillLimit(num_readers, resident=lambda: next(sizes) * _MB)


@pytest.mark.parametrize(("num_readers", "expected"), [(1, 28), (2, 38), (4, 43)])
def test_limit_gives_up_what_the_process_has_grown_by(num_readers: int, expected: int) -> None:
    limit = _limit_of(num_readers, 600, 620, 900)
    limit.note_spill(16 * _MB - 1)  # of a small file: all isn't loaded yet
    limit.note_spill(16 * _MB)  # at 600 MB
    limit.note_spill(48 * _MB)  # asks no more
    assert [limit.spill_bytes(), limit.spill_bytes()] == [expected * _MB, 16 * _MB]


def test_limit_stays_before_the_first_spill_and_where_the_size_is_unknown() -> None:
    assert _limit_of(2, 600).spill_bytes() == 48 * _MB
    limit = SpillLimit(2, resident=lambda: None)
    limit.note_spill(48 * _MB)
    assert limit.spill_bytes() == 48 * _MB


def test_limit_rises_again_when_the_process_shrinks() -> None:
    limit = _limit_of(2, 600, 700, 580)
    limit.note_spill(48 * _MB)
    assert [limit.spill_bytes(), limit.spill_bytes()] == [16 * _MB, 48 * _MB]


def test_dataset_is_the_same_however_little_may_wait(
    tmp_path: Path, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = build(tmp_path / "whole", *flags).fingerprint
    out = tmp_path / "blocks"
    with monkeypatch.context() as patch:
        _spill_each_block(patch)
        _build_and_fail_at(
            "shardstream.transforms.batch.build_shard.write_shard", patch, out, flags
        )
    assert len(_spilled(out)) > 8
    assert build(out, *flags).fingerprint == expected


def test_attempts_that_spill_at_different_blocks_leave_each_other_s_files(
    tmp_path: Path, flags: list[str]
) -> None:
    plan = make_plan(parse_options([*flags, "--output", str(tmp_path / "out")]))
    whole = _attempt(plan, 1 << 40)
    content = {name: plan.directory.read(name) for name in whole["files"]}
    by_block = _attempt(plan, 1)
    num_blocks = len(by_block["files"])
    assert num_blocks > 2
    assert [name[-17:] for name in whole["files"]] == [f"00000-{num_blocks:05d}.arrow"]
    assert [name[-17:] for name in by_block["files"]] == [
        f"{i:05d}-{i + 1:05d}.arrow" for i in range(num_blocks)
    ]
    assert {name: plan.directory.read(name) for name in whole["files"]} == content
    assert whole["counts"] == by_block["counts"]
    assert _attempt(plan, 1 << 40) == whole


def test_reading_again_after_a_loss_leaves_no_file_of_before(
    tmp_path: Path, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, last_step = tmp_path / "out", "shardstream.transforms.commit_dataset.complete_manifest"
    with monkeypatch.context() as patch:
        _spill_each_block(patch)
        _build_and_fail_at(last_step, patch, out, flags)
    before = _spilled(out)
    next(out.glob("*.array_record")).unlink()
    with monkeypatch.context() as patch:
        _build_and_fail_at(last_step, patch, out, flags)
    assert 0 < len(_spilled(out)) < len(before)


def _spill_each_block(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        "shardstream.transforms.batch.spill.process_limit", lambda n: SpillLimit(n, most=1, least=1)
    )


def _build_and_fail_at(step: str, patch: pytest.MonkeyPatch, out: Path, flags: list[str]) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("killed")

    patch.setattr(step, fail)
    with pytest.raises(Exception, match="killed"):
        build(out, *flags)


def _spilled(output: Path) -> list[Path]:
    return sorted((output / naming.WORK_DIRECTORY).rglob(f"{SPILL}/*.arrow"))


def _attempt(plan: BuildPlan, spill_bytes: int) -> dict[str, Any]:
    """Spills the plan's first partition."""
    coarse = next(iter(list_partitions(resolve(plan.source).files, plan.read_spec)))
    partition = next(iter(split_partition(coarse, plan.read_spec, plan.partition_bytes)))
    limit = SpillLimit(1, most=spill_bytes, least=spill_bytes)
    blocks = tokenize_blocks(
        read_blocks(partition, plan.read_spec, block_bytes=plan.block_bytes),
        open_tokenizer(plan.tokenizer),
        seed=plan.seed,
        executor=shared_executor("tokenize", 2),
        max_pending=2,
    )
    return spill_partition(blocks, partition.name, plan, plan.directory, limit)
