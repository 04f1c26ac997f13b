"""Reports: literal counts, sums across shards, percentiles within the histogram's precision."""

import json

import numpy as np
import pytest

from shardstream.tokens.packing.pack import PackingOptions, PackingReport, pack, report
from shardstream.tokens.packing.report import bucket_of_length, largest_length_of


def reported(lengths: list[int] | np.ndarray, **options: object) -> PackingReport:
    options = PackingOptions(**options)
    return report(pack(np.array(lengths, np.int64), options), lengths, options)


def test_report_literal():
    found = reported([3, 0, 5, 9, 4], packing="pad", sequence_length=4, truncation="drop")
    assert found == PackingReport(
        sequences=2,
        documents=5,
        segments=2,
        input_tokens=21,
        written_tokens=7,
        padding_tokens=1,
        truncated_tokens=14,
        cut_documents=0,
        dropped_documents=2,
        empty_documents=1,
        longest_document=9,
        length_counts=((0, 1), (3, 1), (4, 1), (5, 1), (9, 1)),
    )
    assert found.padding_percent == 12.5
    assert [found.length_percentile(p) for p in (0, 20, 21, 60, 100)] == [0, 0, 3, 4, 9]


def test_report_of_nothing():
    found = reported([])
    assert found == PackingReport()
    assert (found.padding_percent, found.length_percentile(50)) == (0, 0)


def test_reports_add_up_to_the_report_of_all():
    rng = np.random.default_rng(0)
    shards = [rng.lognormal(6, 1.5, n).astype(np.int64) for n in (0, 10, 1000, 5000)]
    parts = [reported(s, packing="pad", sequence_length=256) for s in shards]
    whole = reported(np.concatenate(shards), packing="pad", sequence_length=256)
    assert sum(parts, PackingReport()) == sum(parts[::-1], PackingReport()) == whole


@pytest.mark.parametrize("percent", [0.1, 1, 25, 50, 75, 90, 99, 99.9, 100])
def test_percentiles_are_at_most_a_sixteenth_too_high(percent: float):
    lengths = np.random.default_rng(1).lognormal(6, 1.5, 20_000).astype(np.int64)
    found = reported(lengths).length_percentile(percent)
    exact = np.percentile(lengths, percent, method="inverted_cdf")
    assert exact <= found <= exact * (1 + 1 / 16)


def test_buckets_hold_every_length_between_their_ends():
    lengths = np.array([*range(5000), *(2**k + d for k in range(13, 50) for d in (-1, 0, 1))])
    buckets = bucket_of_length(lengths)
    largest = np.array([largest_length_of(b) for b in buckets.tolist()])
    assert (np.diff(buckets[np.argsort(lengths)]) >= 0).all()
    assert (lengths <= largest).all() and np.array_equal(bucket_of_length(largest), buckets)
    assert np.array_equal(bucket_of_length(largest + 1), buckets + 1)
    assert bucket_of_length(np.arange(32)).tolist() == list(range(32))


def test_to_dict_is_json_and_comes_back():
    found = reported([3, 0, 5000, 9], packing="best_fit", sequence_length=64)
    values = json.loads(json.dumps(found.to_dict()))
    assert PackingReport.from_dict(values) == found
    assert values["length_percentiles"]["p50"] == 3
    assert values["padding_percent"] == pytest.approx(found.padding_percent, abs=1e-4)
