"""The stream graph: from a plan to a dataset that grows in its directory and can be followed.

    worker   lanes → read, tokenize, buffer, write, commit (one step) → dataset.json
    engine   partitions → read, tokenize → (lane, block) → keyed buffer → shards → commit
             → dataset.json

Both call the functions of batch mode for reading, tokenizing, packing and writing. Which way is
taken depends on who keeps what is in flight: `worker` where that is the commit log (local runners),
`engine` where the runner's own state is durable (Flink, Dataflow).
"""

# pyright: reportArgumentType=false
# To Beam's types, what a pipe of transforms gives is a PValue, whatever comes out.

from collections.abc import Iterator

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.pvalue import AsSingleton, PBegin

from shardstream.transforms.list_partitions import ListPartitions
from shardstream.transforms.stream.complete import complete_stream
from shardstream.transforms.stream.discover import DiscoverPartitions
from shardstream.transforms.stream.engine import StreamThroughState
from shardstream.transforms.stream.lane import run_lane
from shardstream.transforms.stream.plan import StreamPlan
from shardstream.transforms.tokenize_documents import PartitionDoFn


class BuildStream(beam.PTransform):
    """Streams the plan's source into its output directory.

    Input: the pipeline's begin.
    Output: PCollection of one str, the fingerprint; nothing where the stream was stopped or has no
        end.
    Guarantees: every document once an epoch, over any number of kills and reruns; shards appear
        while the source is read; memory is bounded by the plan's buffer.
    """

    def __init__(self, plan: StreamPlan) -> None:
        super().__init__()
        self._plan = plan

    def expand(self, begin: PBegin) -> beam.PCollection[str]:
        """Wires the graph."""
        return self._expand_engine(begin) if self._is_engine else self._expand_worker(begin)

    @property
    def _is_engine(self) -> bool:
        return self._plan.shuffle_via == "engine"

    def _expand_worker(self, begin: PBegin) -> beam.PCollection[str]:
        plan = self._plan
        summaries = (
            begin
            | "ListLanes" >> beam.Create(range(plan.lanes))  # lane
            | "SpreadLanes" >> beam.Reshuffle()
            | "StreamLanes" >> beam.ParDo(_StreamLane(plan))  # number of partitions
        )
        counts = summaries | "AddLanes" >> beam.CombineGlobally(sum)  # number of partitions, one
        return (
            begin
            | "Once" >> beam.Create([None])
            | "Complete" >> beam.ParDo(_Complete(plan), AsSingleton(counts))
        )  # fingerprint

    def _expand_engine(self, begin: PBegin) -> beam.PCollection[str]:
        list_partitions = DiscoverPartitions if self._plan.follow_source else ListPartitions
        partitions = begin | "ListPartitions" >> list_partitions(self._plan)  # partition
        return partitions | "StreamThroughState" >> StreamThroughState(self._plan)


class _StreamLane(PartitionDoFn):
    """Lane number → partitions of the lane; see transforms.stream.lane."""

    _plan: StreamPlan

    def process(self, lane: int) -> Iterator[int]:
        """Streams the lane; takes as long as the stream lasts."""
        num_partitions = run_lane(self._plan, lane, self._reader.tokenizer, self._reader.executor)
        Metrics.counter("shardstream", "partitions").inc(num_partitions)
        yield num_partitions


class _Complete(beam.DoFn):
    """Completes the manifest after the last commit; a stream that was stopped stays as it is."""

    def __init__(self, plan: StreamPlan) -> None:
        self._plan = plan

    def process(self, _: None, num_partitions: int) -> Iterator[str]:
        plan = self._plan
        if not plan.is_stopping and not plan.follow_source:
            yield complete_stream(plan, num_partitions).fingerprint
