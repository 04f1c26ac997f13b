"""Reads and tokenizes partitions: one DoFn, so that reading, encoding and what follows overlap.

Prism runs a stage's bundle on one thread; the cores are used by threads inside the DoFn instead,
whose work is native code without the GIL.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.pvalue import TaggedOutput

from shardstream.sources.partitions import Partition
from shardstream.transforms.plan import BuildPlan
from shardstream.transforms.read_partition import PartitionReader
from shardstream.transforms.scatter import scatter_block

COUNTS = "counts"
DEAD_LETTERS = "dead_letters"


class PartitionDoFn(beam.DoFn):
    """Base of the DoFns that turn a partition into tokens: opens the tokenizer once a worker.

    Guarantees: pure, so a retried bundle gives equal blocks. Counters (namespace "shardstream"):
    documents_read, documents_tokenized, tokens_in, text_bytes, dead_letters/REASON.
    """

    def __init__(self, plan: BuildPlan) -> None:
        self._plan = plan

    def setup(self) -> None:
        """Opens the tokenizer and checks that it is the plan's."""
        self._reader = PartitionReader(self._plan)

    def side_outputs(self, counts: Counter[str], dead_letters: list) -> Iterator[Any]:
        """Yields the tagged counts and dead letters of a partition, and updates the metrics."""
        for name, count in counts.items():
            Metrics.counter("shardstream", name).inc(count)
        yield TaggedOutput(COUNTS, dict(counts))
        by_file: dict[int, list] = {}
        for letter in dead_letters:
            by_file.setdefault(letter.file_index, []).append(letter)
        for item in by_file.items():
            yield TaggedOutput(DEAD_LETTERS, item)


class TokenizeAndScatter(PartitionDoFn):
    """Partition → (bucket, Arrow IPC bytes of documents), for the runner's own shuffle."""

    def process(self, partition: Partition) -> Iterator[Any]:
        """Yields pieces of each block, one for every bucket it touches."""
        counts: Counter[str] = Counter()
        dead_letters: list = []
        for block in self._reader.token_blocks(partition):
            counts.update(block.counts)
            dead_letters += block.dead_letters
            for bucket, piece in scatter_block(block.batch, self._plan):
                yield bucket, piece.serialize().to_pybytes()
        yield from self.side_outputs(counts, dead_letters)
