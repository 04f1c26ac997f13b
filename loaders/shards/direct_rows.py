"""Batches read record by record in the order they are wanted: for shuffle "global" and "none".

Some thousand records are asked for at once, shard by shard, so that reads of one shard share a call
and runs of neighbours become ranges. The next chunk is read while one is being used.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future

import numpy as np
from shardstream.loaders.shards.source import Chunk, Source

_FIRST_STEPS = 1  # the first chunk is small, so that the first batch comes at once
_GROWTH = 4


def direct_chunks(source: Source, epoch: int, step: int) -> Iterator[Chunk]:
    """Yields the chunks from (epoch, step) on; reads two chunks ahead."""
    pending: deque[tuple[Chunk, list[Future]]] = deque()
    for chunk in _plans(source, epoch, step):
        records = source.order.records(
            chunk.epoch, chunk.step, chunk.step + chunk.num_steps, source.rows
        ).ravel()
        futures = source.submit(records, chunk.rows, np.arange(len(records)))
        pending.append((chunk, futures))
        if len(pending) > 2:
            yield _finish(*pending.popleft())
    while pending:
        yield _finish(*pending.popleft())


def _plans(source: Source, epoch: int, step: int) -> Iterator[Chunk]:
    """Yields chunks with room for their rows, nothing read yet."""
    count = _FIRST_STEPS
    for current in source.epochs_from(epoch):
        while step < source.steps_per_epoch:
            count = min(count, source.steps_per_epoch - step)
            rows = source.shards.make_rows(count * len(source.rows), lengths=source.lengths)
            yield Chunk(current, step, count, rows)
            step += count
            count = min(count * _GROWTH, source.chunk_steps)
        step, count = 0, source.chunk_steps


def _finish(chunk: Chunk, futures: list[Future]) -> Chunk:
    for future in futures:
        future.result()
    return chunk
