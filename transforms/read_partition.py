"""Reads a partition's documents as tokens: what a worker needs for it, opened once.

Beam-free, so that a worker process (`batch/worker_pool.py`) starts without importing Beam.
"""

from collections.abc import Iterator

from shardstream.sources.partitions import Partition
from shardstream.sources.read import read_blocks
from shardstream.transforms.errors import JobError
from shardstream.transforms.hub_token import use_hub_token
from shardstream.transforms.plan import BuildPlan
from shardstream.transforms.threads import shared_executor
from shardstream.transforms.token_blocks import TokenBlock, tokenize_blocks
from shardstream.transforms.worker_inputs import tokenizer_of

# Blocks encoded or waiting beside those that the threads hold: with fewer, threads run dry while
# the reading thread scatters.
_AHEAD = 3


class PartitionReader:
    """A plan's tokenizer and the threads that encode with it; several threads may read at once.

    Args:
        plan: of the build.

    Raises:
        JobError: the tokenizer on this machine is not the one that the job was planned with.
    """

    def __init__(self, plan: BuildPlan) -> None:
        self.plan = plan
        use_hub_token(plan.hub_token_secret)
        self.tokenizer = tokenizer_of(plan)
        if self.tokenizer.fingerprint != plan.tokenizer_facts.fingerprint:
            raise JobError(
                f"tokenizer {plan.tokenizer.tokenizer!r} on this worker has fingerprint "
                f"{self.tokenizer.fingerprint[:16]}, the job was planned with "
                f"{plan.tokenizer_facts.fingerprint[:16]}. Pin --tokenizer_revision."
            )
        self.executor = shared_executor("tokenize", plan.threads)

    def token_blocks(self, partition: Partition, *, num_readers: int = 1) -> Iterator[TokenBlock]:
        """Yields the partition's documents as tokens, in order.

        Args:
            partition: to read.
            num_readers: how many partitions are read at once; they share the threads.
        """
        plan = self.plan
        blocks = read_blocks(partition, plan.read_spec, block_bytes=plan.block_bytes)
        return tokenize_blocks(
            blocks,
            self.tokenizer,
            seed=plan.seed,
            executor=self.executor,
            max_pending=-(-(plan.threads + _AHEAD) // num_readers),
        )
