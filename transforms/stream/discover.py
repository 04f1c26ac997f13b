"""The unbounded source of a stream in an engine: files of a source as they appear.

A splittable DoFn whose restriction is the range of file indices still to come. The log gives
indices before a file is passed on, and the engine keeps the restriction, so a file is passed on
once, whatever is restarted; a start without the engine's state passes all files on again, and the
readers leave out what the log holds. The watermark is the clock, which is what the buffer's latency
timer waits for.
"""

# pyright: reportArgumentType=false
# Beam declares what a DoFn's method is given by a parameter's default, which is of another type.

# ruff: noqa: B008 (Beam declares state, timers and trackers as argument defaults)

import time
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.pvalue import PBegin
from apache_beam.runners.sdf_utils import RestrictionTrackerView
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Duration, Timestamp

from shardstream.sources.partitions import Partition, list_partitions, split_partition
from shardstream.sources.resolve import SourceFile
from shardstream.transforms.hub_token import use_hub_token
from shardstream.transforms.stream.follow import SourceWatch
from shardstream.transforms.stream.log import StreamLog
from shardstream.transforms.stream.plan import StreamPlan

_NO_END = 2**62
# A lane of its own in the log: giving indices never competes with committing shards.
_DISCOVERY_LANE = -2


class DiscoverPartitions(beam.PTransform):
    """Lists the partitions of files as they appear, until the plan's stop file does.

    Input: the pipeline's begin.
    Output: PCollection[Partition], unbounded, at the time at which their file was found.
    """

    def __init__(self, plan: StreamPlan) -> None:
        super().__init__()
        self._plan = plan

    def expand(self, begin: PBegin) -> beam.PCollection[Partition]:
        """Wires looking and splitting."""
        return (
            begin
            | "StartLooking" >> beam.Create([None])  # (None)
            | "DiscoverFiles" >> beam.ParDo(_DiscoverFiles(self._plan))  # file
            | "SpreadFiles" >> beam.Reshuffle()
            | "SplitFiles" >> beam.ParDo(_SplitFile(self._plan))  # partition
            | "SpreadPartitions" >> beam.Reshuffle()
        )


class _EndlessTracker(OffsetRestrictionTracker):
    """May be left unfinished: a stream that is stopped has no last file."""

    def is_bounded(self) -> bool:
        return False

    def check_done(self) -> None:
        return


class _FilesToCome(RestrictionProvider):
    def initial_restriction(self, element: None) -> OffsetRange:
        return OffsetRange(0, _NO_END)

    def create_tracker(self, restriction: OffsetRange) -> _EndlessTracker:
        return _EndlessTracker(restriction)

    def restriction_size(self, element: None, restriction: OffsetRange) -> float:
        return 1.0

    def truncate(self, element: None, restriction: OffsetRange) -> None:
        return None


class _DiscoverFiles(beam.DoFn):
    def __init__(self, plan: StreamPlan) -> None:
        self._plan = plan

    def setup(self) -> None:
        use_hub_token(self._plan.hub_token_secret)
        self._log = StreamLog(self._plan.directory, lane=_DISCOVERY_LANE, documents=False)
        self._watch = SourceWatch(self._plan, self._log, registers=True)

    @beam.DoFn.unbounded_per_element()
    def process(
        self,
        _: None,
        tracker: RestrictionTrackerView = beam.DoFn.RestrictionParam(_FilesToCome()),
        watermark: ManualWatermarkEstimator = beam.DoFn.WatermarkEstimatorParam(
            ManualWatermarkEstimator.default_provider()
        ),
    ) -> Iterator[Any]:  # a hint of TimestampedValue would become the element type
        if self._plan.is_stopping:
            return
        self._watch.register()
        now = Timestamp.of(time.time())
        position = tracker.current_restriction().start
        for file in self._log.files[position:]:
            if not tracker.try_claim(file.index):
                return
            yield TimestampedValue(SourceFile(**vars(file)), now)
        watermark.set_watermark(now)
        tracker.defer_remainder(Duration.of(self._plan.poll_secs))


class _SplitFile(beam.DoFn):
    def __init__(self, plan: StreamPlan) -> None:
        self._plan = plan

    def setup(self) -> None:
        use_hub_token(self._plan.hub_token_secret)

    def process(self, file: SourceFile) -> Iterator[Partition]:
        for coarse in list_partitions((file,), self._plan.read_spec):
            yield from split_partition(coarse, self._plan.read_spec, self._plan.partition_bytes)
