"""`--plan`: says what the job then does, and leaves nothing behind."""

import shutil
from pathlib import Path

import pytest

from shardstream.pipelines.job.estimate import describe_estimate, estimate
from shardstream.pipelines.job.options import parse_options
from shardstream.pipelines.job.planning import make_plan
from shardstream.pipelines.preprocess import main
from shardstream.sources.partitions import list_partitions, split_partition
from tests.pipeline_runs import build, parquet_flags


@pytest.mark.parametrize("mode", ["batch", "stream"])
def test_plan_prints_every_figure_and_writes_nothing(
    tmp_path: Path,
    sample_files: list[str],
    tokenizer_directory: str,
    capsys: pytest.CaptureFixture,
    mode: str,
) -> None:
    flags = parquet_flags(sample_files, tokenizer_directory)
    out = tmp_path / "out"
    assert main([*flags, "--output", str(out), "--plan", "--mode", mode]) == 0
    printed = capsys.readouterr().out
    for line in ("source", "tokens", "shards", "shuffle", "memory", "work"):
        assert f"  {line:10}" in printed
    assert "nothing was run" in printed
    assert not out.exists()


def test_plan_is_near_what_the_job_then_does(
    tmp_path: Path, sample_files: list[str], tokenizer_directory: str
) -> None:
    flags = [*parquet_flags(sample_files, tokenizer_directory), "--num_shards", "4"]
    work = ["--partition_mb", "1", "--shuffle_via", "engine"]
    options = parse_options([*flags, *work, "--output", str(tmp_path / "out")])
    plan = make_plan(options, writes=False)
    found = estimate(plan)
    totals = build(tmp_path / "out", *flags, *work).totals
    assert found.num_shards == 4
    assert found.num_files == len(sample_files)
    coarse = list_partitions(_files(options), plan.read_spec)
    fine = [part for file in coarse for part in split_partition(file, plan.read_spec, 1 << 20)]
    assert found.num_partitions == pytest.approx(len(fine), rel=0.2)
    assert found.tokens == pytest.approx(totals["tokens_in"], rel=0.3)
    assert found.documents == totals["documents_read"]  # as the footers say
    assert found.shard_bytes == pytest.approx(totals["bytes"] / 4, rel=0.4)
    assert found.shuffled_bytes > 2 * found.tokens


def _files(options: object) -> tuple:
    from shardstream.sources.resolve import resolve

    return resolve(options.source).files  # type: ignore[attr-defined]


def test_plan_scales_with_the_source(
    tmp_path: Path, sample_files: list[str], tokenizer_directory: str
) -> None:
    def of(files: list[str]) -> int:
        flags = parquet_flags(files, tokenizer_directory)
        options = parse_options([*flags, "--output", str(tmp_path / "out")])
        return estimate(make_plan(options, writes=False)).tokens

    copies = [str(shutil.copy(sample_files[0], tmp_path / f"{i}.parquet")) for i in range(4)]
    assert of(copies) == pytest.approx(4 * of(copies[:1]), rel=0.01)


def test_first_documents_are_counted_exactly(
    tmp_path: Path, sample_files: list[str], tokenizer_directory: str
) -> None:
    flags = parquet_flags(sample_files, tokenizer_directory)
    options = parse_options([*flags, "--max_documents", "7", "--output", str(tmp_path / "out")])
    assert estimate(make_plan(options, writes=False)).documents == 7


@pytest.mark.parametrize(
    ("flags", "documents"),
    [
        ([], 12),
        (["--skip_documents", "5"], 7),
        (["--skip_documents", "5", "--max_documents", "3"], 3),
        (["--skip_documents", "20"], 0),
    ],
)
def test_documents_are_those_that_all_footers_tell(
    tmp_path: Path,
    twelve_documents: list[str],
    tokenizer_directory: str,
    flags: list[str],
    documents: int,
) -> None:
    argv = [*parquet_flags(twelve_documents, tokenizer_directory), *flags]
    options = parse_options([*argv, "--output", str(tmp_path / "out")])
    assert estimate(make_plan(options, writes=False)).documents == documents


def test_dataflow_plan_names_machine_and_vcpu_hours(
    tmp_path: Path, sample_files: list[str], tokenizer_directory: str
) -> None:
    flags = parquet_flags(sample_files, tokenizer_directory)
    runner = ["--runner", "DataflowRunner", "--output", "gs://nowhere/out"]
    options = parse_options([*flags, *runner])
    text = describe_estimate(make_plan(options, writes=False), options.beam_args)
    assert "n2-standard-4" in text and "vCPU hours" in text
    assert "1 thread a process" in text and "through the runner's shuffle" in text


def test_core_hours_follow_tokens(
    tmp_path: Path, sample_files: list[str], tokenizer_directory: str
) -> None:
    """35.3 for a trillion, as docs/dataflow.md says."""
    flags = parquet_flags(sample_files, tokenizer_directory)
    options = parse_options([*flags, "--output", str(tmp_path / "out")])
    found = estimate(make_plan(options, writes=False))
    assert found.core_hours * 1e12 / found.tokens == pytest.approx(35.3, rel=0.01)
