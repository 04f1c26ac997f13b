"""What a runner in this process is kept from waiting for, and how runners are named."""

import apache_beam as beam
import pytest
from apache_beam.runners.worker import statesampler

from shardstream.pipelines.job.runners import is_local, known_runner, run, runner_name
from shardstream.shard_format.errors import OptionError

_seen: list[int] = []


class _SeePeriod(beam.DoFn):
    def process(self, _: int) -> None:
        _seen.append(_sampling_period_ms())


def _sampling_period_ms() -> int:
    return statesampler.StateSampler("name", None).sampling_period_ms


@pytest.mark.parametrize(("before", "during"), [(200, 10), (7, 7)])
def test_bundles_end_without_waiting_for_beam_s_sampler_while_a_job_runs(
    monkeypatch: pytest.MonkeyPatch, before: int, during: int
) -> None:
    """A Beam that chose another period than usual keeps it."""
    monkeypatch.setattr(statesampler.StateSampler.__init__, "__defaults__", (before,))
    _seen.clear()
    run(beam.Create([1]) | beam.ParDo(_SeePeriod()), ["--runner=FnApiRunner"])
    assert _seen == [during]
    assert _sampling_period_ms() == before


@pytest.mark.parametrize(
    ("given", "name", "local"),
    [
        ("flinkrunner", "FlinkRunner", False),
        ("flink", "FlinkRunner", False),
        ("direct", "DirectRunner", True),
        ("Prism", "PrismRunner", True),
        ("my.package.OwnRunner", "OwnRunner", False),
    ],
)
def test_runner_is_known_however_beam_lets_it_be_written(
    given: str, name: str, local: bool
) -> None:
    assert runner_name([f"--runner={given}"]) == name
    assert is_local(["--runner", given]) is local


def test_unknown_runner_is_refused_with_those_there_are() -> None:
    with pytest.raises(OptionError, match=r"--runner is Flnk, expected one of .*FlinkRunner"):
        known_runner("Flnk")
