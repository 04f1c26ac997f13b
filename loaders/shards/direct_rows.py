"""Batches read record by record in the order they are wanted: for shuffle "global" and "none".

Some thousand records are asked for at once, shard by shard, so that reads of one shard share a call
and runs of neighbours become ranges. The next chunk is read while one is being used.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future

import numpy as np

from shardstream.loaders.shards.read_plan import Chunk, ReadPlan

_FIRST_STEPS = 1  # the first chunk is small, so that the first batch comes at once
_GROWTH = 4


def direct_chunks(plan: ReadPlan, epoch: int, step: int) -> Iterator[Chunk]:
    """Yields the chunks from (epoch, step) on; reads two chunks ahead."""
    pending: deque[tuple[Chunk, list[Future]]] = deque()
    for chunk in _plans(plan, epoch, step):
        records = plan.order.records(
            chunk.epoch, chunk.step, chunk.step + chunk.num_steps, plan.rows
        ).ravel()
        futures = plan.submit(records, chunk.rows, np.arange(len(records)))
        pending.append((chunk, futures))
        if len(pending) > 2:
            yield _finish(*pending.popleft())
    while pending:
        yield _finish(*pending.popleft())


def _plans(plan: ReadPlan, epoch: int, step: int) -> Iterator[Chunk]:
    """Yields chunks with room for their rows, nothing read yet."""
    count = _FIRST_STEPS
    for current in plan.epochs_from(epoch):
        while step < plan.steps_per_epoch:
            count = min(count, plan.steps_per_epoch - step)
            rows = plan.shards.make_rows(count * len(plan.rows), lengths=plan.lengths)
            yield Chunk(current, step, count, rows)
            step += count
            count = min(count * _GROWTH, plan.chunk_steps)
        step, count = 0, plan.chunk_steps


def _finish(chunk: Chunk, futures: list[Future]) -> Chunk:
    for future in futures:
        future.result()
    return chunk
