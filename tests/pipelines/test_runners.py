"""What a runner in this process is kept from waiting for."""

import apache_beam as beam
import pytest
from apache_beam.runners.worker import statesampler
from shardstream.pipelines.job.runners import run


def _sampling_period_ms() -> int:
    return statesampler.StateSampler("name", None).sampling_period_ms


def test_bundles_end_without_waiting_for_beam_s_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = statesampler.StateSampler.__init__
    monkeypatch.setattr(begin, "__defaults__", (statesampler.DEFAULT_SAMPLING_PERIOD_MS,))
    assert _sampling_period_ms() == 200
    run(beam.Create([1]), ["--runner=FnApiRunner"])
    assert _sampling_period_ms() == 10
    monkeypatch.setattr(begin, "__defaults__", (7,))  # a Beam that chose otherwise
    run(beam.Create([1]), ["--runner=FnApiRunner"])
    assert _sampling_period_ms() == 7
