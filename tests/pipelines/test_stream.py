"""Stream mode over a bounded source: the same documents as batch mode, shards while it reads."""

import itertools
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardstream.pipelines.job.options import parse_options
from shardstream.pipelines.preprocess import preprocess
from shardstream.pipelines.verify import main as verify_main
from shardstream.shard_format import naming
from shardstream.shard_format.commit_log import read_commits
from shardstream.shard_format.manifest import Manifest, find_manifest
from shardstream.shard_format.provenance import read_provenance
from shardstream.shard_format.storage import open_directory
from shardstream.transforms.errors import JobError
from shardstream.transforms.stream.log import StreamLog
from tests.conftest import TWELVE_DOCUMENTS
from tests.pipeline_runs import build, needs_prism, parquet_flags, read_documents, read_order

SMALL = ["--mode", "stream", "--buffer_documents", 400, "--partition_mb", 1, "--block_kb", 32]


def stream(output: Path, *flags: object, runner: str = "FnApiRunner") -> Manifest:
    return build(output, *SMALL, *flags, runner=runner)


@pytest.mark.parametrize("packing", ["concat", "pad", "best_fit"])
def test_stream_holds_the_documents_that_batch_mode_holds(
    tmp_path: Path, sample_files: list[str], tokenizer_directory: str, packing: str
) -> None:
    flags = [*parquet_flags(sample_files, tokenizer_directory), "--packing", packing]
    flags += [
        "--sequence_length",
        "512",
        "--truncation",
        "auto" if packing == "concat" else "split",
    ]
    batch = build(tmp_path / "batch", *flags, "--num_shards", 3)
    streamed = stream(tmp_path / "stream", *flags)
    assert read_documents(tmp_path / "stream") == read_documents(tmp_path / "batch")
    for name in (
        "documents_read",
        "documents_written",
        "tokens_in",
        "tokens_written",
        "text_bytes",
    ):
        assert streamed.totals[name] == batch.totals[name]
    assert (streamed.status, streamed.mode, len(streamed.shards) > 10) == (
        "complete",
        "stream",
        True,
    )
    assert verify_main([str(tmp_path / "stream")]) == 0


@needs_prism
def test_stream_is_the_same_on_every_runner(
    tmp_path: Path, sample_files: list[str], tokenizer_directory: str
) -> None:
    flags = parquet_flags(sample_files, tokenizer_directory)
    found = {
        runner: stream(tmp_path / runner, *flags, runner=runner)
        for runner in ("FnApiRunner", "PrismRunner")
    }
    assert {m.run["runner"] for m in found.values()} == set(found)
    assert len({manifest.fingerprint for manifest in found.values()}) == 1


def test_log_manifest_and_files_agree(
    tmp_path: Path, sample_files: list[str], tokenizer_directory: str
) -> None:
    manifest = stream(tmp_path, *parquet_flags(sample_files, tokenizer_directory))
    commits = list(read_commits(open_directory(tmp_path)))
    assert [c.sequence for c in commits] == list(range(len(commits)))
    assert tuple(e.shard for c in commits for e in c.shards) == manifest.shards
    assert [shard.index for shard in manifest.shards_of("train")] == list(
        range(len(manifest.shards))
    )
    found = sorted(path.name for path in tmp_path.glob("*.array_record"))
    assert found == sorted(shard.file for shard in manifest.shards)
    assert not (tmp_path / naming.WORK_DIRECTORY).exists()
    assert not list(tmp_path.rglob(".*.private"))


def test_following_manifest_says_all_that_a_reader_needs(
    tmp_path: Path,
    sample_files: list[str],
    tokenizer_directory: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Manifest | None] = []
    commit = StreamLog.commit

    def look(log: StreamLog, *args: object, **kwargs: object) -> None:
        commit(log, *args, **kwargs)
        seen.append(find_manifest(open_directory(tmp_path)))

    monkeypatch.setattr(StreamLog, "commit", look)
    done = stream(tmp_path, *parquet_flags(sample_files, tokenizer_directory))
    assert len(seen) > 5
    assert all(
        m is not None and (m.status, m.mode, m.shards) == ("following", "stream", ()) for m in seen
    )
    following = seen[0]
    assert following is not None
    for name in (
        "sequence_length",
        "token_dtype",
        "pad_id",
        "tokenizer",
        "packing",
        "plan_fingerprint",
    ):
        assert getattr(following, name) == getattr(done, name)


def test_shards_mix_the_source(
    tmp_path: Path, sample_files: list[str], tokenizer_directory: str
) -> None:
    manifest = stream(tmp_path, *parquet_flags(sample_files, tokenizer_directory))
    directory = open_directory(tmp_path)
    tables = [read_provenance(directory, shard.file) for shard in manifest.shards]
    files = [len(set(table["partition"].to_pylist())) for table in tables]
    assert set(files[: len(files) // 2]) == {4}  # at the end the smaller files have run out
    order = read_order(tmp_path)
    together = sum(a[0] == b[0] and abs(a[1] - b[1]) == 1 for a, b in itertools.pairwise(order))
    assert together < 0.02 * len(order)


def test_complete_stream_is_left_alone_and_another_plan_refused(
    tmp_path: Path,
    twelve_documents: list[str],
    tokenizer_directory: str,
    capsys: pytest.CaptureFixture,
) -> None:
    flags = parquet_flags(twelve_documents, tokenizer_directory)
    first = stream(tmp_path, *flags)
    assert stream(tmp_path, *flags) == first
    assert "already complete, nothing to do" in capsys.readouterr().out
    with pytest.raises(ValueError, match="options buffer_documents: 400 there, 99 now"):
        stream(tmp_path, *flags, "--buffer_documents", 99)
    again = stream(tmp_path, *flags, "--buffer_documents", 99, "--overwrite")
    assert len(list(read_commits(open_directory(tmp_path)))) == len(again.shards)
    assert read_documents(tmp_path).keys() == {
        (p, r) for p, n in ((0, 5), (1, 7)) for r in range(n)
    }


def test_empty_and_dropped_documents_and_dead_letters_are_counted(
    tmp_path: Path, tokenizer_directory: str
) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": [None, "", "short", "word " * 99, None]}), path)
    flags = parquet_flags([str(path)], tokenizer_directory)
    flags += ["--no-eos", "--packing", "pad", "--truncation", "drop", "--sequence_length", "16"]
    out = tmp_path / "out"
    manifest = stream(out, *flags, "--max_dead_letter_fraction", 1)
    names = ("documents_read", "documents_written", "documents_dropped", "dead_letters")
    assert [manifest.totals[name] for name in names] == [5, 2, 1, 2]
    assert manifest.totals["tokens_truncated"] >= 99
    assert manifest.dead_letters == {"null_text": 2}
    (name,) = (out / "dead_letters").iterdir()
    assert [json.loads(line)["row"] for line in name.read_text().splitlines()] == [0, 4]
    assert verify_main([str(out)]) == 0


def test_validation_split_is_that_of_batch_mode(
    tmp_path: Path, sample_files: list[str], tokenizer_directory: str
) -> None:
    flags = [*parquet_flags(sample_files, tokenizer_directory), "--validation_fraction", "0.1"]
    held_out = []
    for mode in ("batch", "stream"):
        run = build if mode == "batch" else stream
        manifest = run(tmp_path / mode, *flags)
        directory = open_directory(tmp_path / mode)
        tables = [read_provenance(directory, s.file) for s in manifest.shards_of("validation")]
        pairs = pa.concat_tables(tables).select(["partition", "row"]).to_pylist()
        held_out.append({(pair["partition"], pair["row"]) for pair in pairs})
    assert held_out[0] == held_out[1]
    assert verify_main([str(tmp_path / "stream")]) == 0


@pytest.mark.parametrize(("skip", "take"), [(3, 4), (0, 5), (4, 100)])
@pytest.mark.parametrize("kind", ["parquet", "json"])
def test_window_is_that_of_take_and_skip(
    tmp_path: Path,
    twelve_documents: list[str],
    tokenizer_directory: str,
    kind: str,
    skip: int,
    take: int,
) -> None:
    files = twelve_documents
    if kind == "json":
        files = [str(tmp_path / f"{index}.jsonl") for index in range(2)]
        for source, target in zip(twelve_documents, files, strict=True):
            lines = (json.dumps(row) + "\n" for row in pq.read_table(source).to_pylist())
            Path(target).write_text("".join(lines))
    flags = ["--dataset", kind, "--data_files", *files, "--tokenizer", tokenizer_directory]
    stream(tmp_path / "out", *flags, "--skip_documents", skip, "--max_documents", take)
    ids = [(0, row) for row in range(5)] + [(1, row) for row in range(7)]
    assert sorted(read_documents(tmp_path / "out")) == ids[skip : skip + take]


def test_epochs_hold_every_document_once_each_in_another_order(
    tmp_path: Path, twelve_documents: list[str], tokenizer_directory: str
) -> None:
    flags = parquet_flags(twelve_documents, tokenizer_directory)
    manifest = stream(tmp_path, *flags, "--epochs", 3, "--sequence_length", 64)
    order = read_order(tmp_path)
    ids = {(0, row) for row in range(5)} | {(1, row) for row in range(7)}
    epochs = [[(p % 2, row) for p, row in order if p // 2 == epoch] for epoch in range(3)]
    assert [set(epoch) for epoch in epochs] == [ids] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert [p // 2 for p, _ in order] == sorted(p // 2 for p, _ in order)
    assert manifest.totals["documents_read"] == 3 * len(TWELVE_DOCUMENTS)
    assert verify_main([str(tmp_path)]) == 0


def test_latency_closes_a_shard_before_the_buffer_is_full(
    tmp_path: Path, sample_files: list[str], tokenizer_directory: str
) -> None:
    flags = parquet_flags(sample_files, tokenizer_directory)
    big = ["--buffer_documents", 10**7, "--max_shard_latency_secs"]
    patient = stream(tmp_path / "a", *flags, *big, 60)
    hasty = stream(tmp_path / "b", *flags, *big, 0.01, "--block_kb", 8)
    assert len(patient.shards) == 1
    assert len(hasty.shards) > 3
    assert read_documents(tmp_path / "a") == read_documents(tmp_path / "b")


def test_second_writer_gives_up_and_nothing_is_twice(
    tmp_path: Path,
    sample_files: list[str],
    tokenizer_directory: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While one run is under way another starts, does everything and ends; the first must notice."""
    flags = parquet_flags(sample_files, tokenizer_directory)
    commit = StreamLog.commit
    started: list[str] = []

    def interrupt(log: StreamLog, *args: object, **kwargs: object) -> None:
        if not started:
            started.append("other")
            argv = ["--output", str(tmp_path), "--runner", "FnApiRunner", "--no-progress"]
            preprocess(parse_options([*argv, *map(str, SMALL), *flags]))
        commit(log, *args, **kwargs)

    monkeypatch.setattr(StreamLog, "commit", interrupt)
    with pytest.raises((JobError, RuntimeError), match="another process commits to this"):
        stream(tmp_path, *flags)
    assert verify_main([str(tmp_path)]) == 0


def test_job_that_ends_before_the_stream_does_is_an_error(
    tmp_path: Path,
    twelve_documents: list[str],
    tokenizer_directory: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on Flink, where the end can overtake the last shards and the commit step drops them."""
    flags = [*parquet_flags(twelve_documents, tokenizer_directory), "--mode", "stream"]
    with monkeypatch.context() as patch, pytest.raises(JobError, match="ended, with 0 shards"):
        patch.setattr(
            "shardstream.pipelines.job.run_stream.run", lambda *args, **kwargs: "FlinkRunner"
        )
        build(tmp_path, *flags)
    assert build(tmp_path, *flags).status == "complete"


def test_too_many_dead_letters_stop_the_stream(tmp_path: Path, tokenizer_directory: str) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": ["a", None, None, "b"]}), path)
    with pytest.raises((JobError, RuntimeError), match="2 of 4 documents are dead letters"):
        stream(tmp_path / "out", *parquet_flags([str(path)], tokenizer_directory))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--mode", "batch", "--epochs", "2"], "--epochs is for --mode stream"),
        (["--buffer_documents", "1"], "--buffer_documents is 1, expected at least 2"),
        (
            ["--max_shard_latency_secs", "0"],
            "--max_shard_latency_secs is 0.0, expected more than 0",
        ),
        (["--follow_source", "--epochs", "2"], "--epochs is 2 with --follow_source, expected 1"),
        (["--follow_source", "--max_documents", "2"], "--follow_source with --skip_documents or"),
        (["--num_shards", "2"], "--num_shards is for --mode batch"),
        (["--shuffle_via", "files"], "--shuffle_via files is for --mode batch, expected worker"),
        (
            ["--epochs", "2", "--validation_fraction", "0.1"],
            "--validation_fraction with --epochs 2",
        ),
    ],
)
def test_wrong_stream_option_is_named(flags: list[str], message: str) -> None:
    argv = ["--dataset", "x", "--tokenizer", "t", "--output", "o", "--mode", "stream", *flags]
    with pytest.raises(ValueError, match=message):
        parse_options(argv)
