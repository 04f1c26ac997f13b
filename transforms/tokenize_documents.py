"""Reads and tokenizes partitions: one DoFn, so that reading, encoding and what follows overlap.

Prism runs a stage's bundle on one thread; the cores are used by threads inside the DoFn instead,
whose work is native code without the GIL.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from shardstream.sources.partitions import Partition
from shardstream.sources.read import read_blocks
from shardstream.transforms.errors import JobError
from shardstream.transforms.hub_token import use_hub_token
from shardstream.transforms.plan import BuildPlan
from shardstream.transforms.scatter import scatter_block
from shardstream.transforms.threads import shared_executor
from shardstream.transforms.token_blocks import TokenBlock, tokenize_blocks
from shardstream.transforms.worker_inputs import tokenizer_of

# Blocks encoded or waiting beside those the threads hold: with fewer, threads run dry while this
# one scatters (52 Mtok/s with 1, 61 with 3, 59 with 6; 2 cores, 2 MB blocks, one partition).
_AHEAD = 3

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
        plan = self._plan
        use_hub_token(plan.hub_token_secret)
        self._tokenizer = tokenizer_of(plan)
        if self._tokenizer.fingerprint != plan.tokenizer_facts.fingerprint:
            raise JobError(
                f"tokenizer {plan.tokenizer.tokenizer!r} on this worker has fingerprint "
                f"{self._tokenizer.fingerprint[:16]}, the job was planned with "
                f"{plan.tokenizer_facts.fingerprint[:16]}. Pin --tokenizer_revision."
            )
        self._executor = shared_executor("tokenize", plan.threads)

    def token_blocks(self, partition: Partition, *, num_readers: int = 1) -> Iterator[TokenBlock]:
        """Yields the partition's documents as tokens, in order.

        Args:
            partition: to read.
            num_readers: how many partitions are read at once; they share the threads.
        """
        plan = self._plan
        blocks = read_blocks(partition, plan.read_spec, block_bytes=plan.block_bytes)
        return tokenize_blocks(
            blocks,
            self._tokenizer,
            seed=plan.seed,
            executor=self._executor,
            max_pending=-(-(plan.threads + _AHEAD) // num_readers),
        )

    def side_outputs(self, counts: Counter[str], dead_letters: list) -> Iterator[Any]:
        """Yields the tagged counts and dead letters of a partition, and updates the metrics."""
        for name, count in counts.items():
            Metrics.counter("shardstream", name).inc(count)
        yield beam.pvalue.TaggedOutput(COUNTS, dict(counts))
        by_file: dict[int, list] = {}
        for letter in dead_letters:
            by_file.setdefault(letter.partition, []).append(letter)
        for item in by_file.items():
            yield beam.pvalue.TaggedOutput(DEAD_LETTERS, item)


class TokenizeAndScatter(PartitionDoFn):
    """Partition → (bucket, Arrow IPC bytes of documents), for the runner's own shuffle."""

    def process(self, partition: Partition) -> Iterator[Any]:
        """Yields pieces of each block, one for every bucket it touches."""
        counts: Counter[str] = Counter()
        dead_letters: list = []
        for block in self.token_blocks(partition):
            counts.update(block.counts)
            dead_letters += block.dead_letters
            for bucket, piece in scatter_block(block.batch, self._plan):
                yield bucket, piece.serialize().to_pybytes()
        yield from self.side_outputs(counts, dead_letters)
