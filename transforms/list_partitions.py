"""From a pinned source to the partitions that workers read; the graph itself holds no file list.

Listing runs on one worker, opening footers on all of them, a file an element: the job stays a few
kilobytes however many files the source has.
"""

from collections.abc import Iterator

import apache_beam as beam
from apache_beam.pvalue import PBegin

from shardstream.sources.partitions import Partition, list_partitions, split_partition
from shardstream.sources.resolve import resolve
from shardstream.transforms.errors import JobError
from shardstream.transforms.hub_token import use_hub_token
from shardstream.transforms.plan import BuildPlan
from shardstream.transforms.worker_inputs import source_of


class ListPartitions(beam.PTransform):
    """Lists the partitions of the plan's source.

    Input: the pipeline's begin.
    Output: PCollection[Partition], bounded, in no order, spread over workers.
    Guarantees: together the partitions hold each document of the source's window once.
    """

    def __init__(self, plan: BuildPlan) -> None:
        super().__init__()
        self._plan = plan

    def expand(self, begin: PBegin) -> beam.PCollection[Partition]:
        """Wires listing and splitting."""
        return (
            begin
            | "Start" >> beam.Impulse()  # bytes, one
            | "ListFiles" >> beam.ParDo(_ListFiles(self._plan))  # coarse partition
            | "SpreadFiles" >> beam.Reshuffle()
            | "SplitFiles" >> beam.ParDo(_SplitFile(self._plan))  # partition
            | "SpreadPartitions" >> beam.Reshuffle()
        )


class _ListFiles(beam.DoFn):
    def __init__(self, plan: BuildPlan) -> None:
        self._plan = plan

    def setup(self) -> None:
        use_hub_token(self._plan.hub_token_secret)

    def process(self, _: bytes) -> Iterator[Partition]:
        plan = self._plan
        source = resolve(source_of(plan))
        if source.commit != plan.source_identity["commit"]:
            raise JobError(
                f"the source changed while the job ran: commit {source.commit}, expected "
                f"{plan.source_identity['commit']}. Run the command again."
            )
        yield from list_partitions(
            source.files,
            plan.read_spec,
            skip_documents=plan.source.skip_documents,
            max_documents=plan.source.max_documents,
        )


class _SplitFile(beam.DoFn):
    def __init__(self, plan: BuildPlan) -> None:
        self._plan = plan

    def setup(self) -> None:
        use_hub_token(self._plan.hub_token_secret)

    def process(self, partition: Partition) -> Iterator[Partition]:
        yield from split_partition(partition, self._plan.read_spec, self._plan.partition_bytes)
