"""What a stream needs on Flink is there without being asked for."""

from shardstream.pipelines.job.runners import stream_args

NEEDED = ["--checkpointing_interval=10000", "--unaligned_checkpoint_enabled"]
NEEDED += ["--finish_bundle_before_checkpointing"]
NEEDED += ["--max_bundle_size=16", "--max_bundle_time_mills=1000"]


def test_flink_gets_checkpoints_that_need_not_wait() -> None:
    assert stream_args(["--runner=FlinkRunner"], is_bounded=False) == [
        "--runner=FlinkRunner",
        *NEEDED,
    ]


def test_flink_ends_a_bounded_stream() -> None:
    found = stream_args(["--runner", "FlinkRunner"], is_bounded=True)
    assert found == ["--runner", "FlinkRunner", *NEEDED, "--shutdown_sources_after_idle_ms=5000"]


def test_flags_that_are_given_stay() -> None:
    given = ["--runner=FlinkRunner", "--checkpointing_interval=500", "--max_bundle_size", "2"]
    given += ["--shutdown_sources_after_idle_ms=100"]
    assert stream_args(given, is_bounded=True) == [*given, NEEDED[1], NEEDED[2], NEEDED[4]]


def test_other_runners_get_nothing() -> None:
    for runner in ("FnApiRunner", "PrismRunner", "PortableRunner", "DataflowRunner"):
        assert stream_args([f"--runner={runner}"], is_bounded=True) == [f"--runner={runner}"]
