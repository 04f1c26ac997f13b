"""The batch graph: from a plan to a complete dataset directory.

    partitions → read, tokenize, scatter → (bucket, block) → GroupByKey → shards → dataset.json

Elements are partitions and blocks of documents, never single documents, so that Beam's cost per
element vanishes. Where blocks wait in files (`shuffle_via`), files and buckets take the place of
the GroupByKey. Only steps that every runner takes: Map, ParDo, GroupByKey, side inputs.
"""

# pyright: reportArgumentType=false
# To Beam's types, what a pipe of transforms gives is a PValue, whatever comes out.

from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PBegin

from shardstream.transforms.batch.spill_partitions import SpillPartitions
from shardstream.transforms.batch.write_shards import WriteShards
from shardstream.transforms.commit_dataset import CommitDataset
from shardstream.transforms.dead_letters import SumCounts, WriteDeadLetters
from shardstream.transforms.list_partitions import ListPartitions
from shardstream.transforms.plan import BuildPlan
from shardstream.transforms.tokenize_documents import COUNTS, DEAD_LETTERS, TokenizeAndScatter


class BuildDataset(beam.PTransform):
    """Builds the plan's dataset in its output directory.

    Input: the pipeline's begin.
    Output: PCollection of one str, the dataset's fingerprint.
    Guarantees: every document of the source is written, dropped by the packing options or a dead
    letter, once; the bytes are the same for every runner, number of workers, size of partitions
    and blocks, retry and restart.
    """

    def __init__(self, plan: BuildPlan) -> None:
        super().__init__()
        self._plan = plan

    def expand(self, begin: PBegin) -> beam.PCollection[str]:
        """Wires the graph."""
        plan = self._plan
        tokenize = SpillPartitions if plan.shuffle_via == "files" else TokenizeAndScatter
        tokenized: Any = (
            begin
            | "ListPartitions" >> ListPartitions(plan)  # partition
            | "TokenizeDocuments"
            >> beam.ParDo(tokenize(plan)).with_outputs(COUNTS, DEAD_LETTERS, main="blocks")
        )  # blocks: (bucket, block) or spill file · counts: dict · dead_letters: (file index, [..])
        dead_letters = tokenized[DEAD_LETTERS] | WriteDeadLetters(plan)  # (file name, count)
        counts = tokenized[COUNTS] | SumCounts(plan, dead_letters)  # dict, one
        shards = tokenized.blocks | "WriteShards" >> WriteShards(plan, ready=counts)  # result
        return shards | "CommitDataset" >> CommitDataset(plan, counts, dead_letters)
