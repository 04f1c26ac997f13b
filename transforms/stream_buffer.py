"""The shuffle buffer of a stream: takes blocks of documents, gives a random part, keeps the rest.

It rolls: a draw takes a part of what is there and everything else stays for the next one, so a
document may leave soon or late, and far-away parts of the source meet in a shard. (Filling and
emptying a buffer would shuffle inside windows alone.) Which documents leave is decided by a hash of
(seed, stream, draw) and each document's own key: the order in which they came plays no part, nor
does the clock.

Functions on record batches: the worker's lane and the engine's keyed state call the same ones.
"""

import numpy as np
import pyarrow as pa

from shard_format import keys
from transforms.build_shard import document_lengths, join_blocks
from transforms.scatter import document_ids
from transforms.stream_plan import DRAW_PART, RAMP_DRAWS, StreamPlan


def is_full(documents: int, nbytes: int, draws: int, plan: StreamPlan) -> bool:
    """Says whether a lane's buffer is due for a draw.

    Args:
        documents: in the buffer.
        nbytes: of their tokens.
        draws: made before in this run; the first ones come early.
        plan: of the stream.
    """
    ramp = 2 ** max(0, RAMP_DRAWS - draws) * plan.lanes
    return documents * ramp >= plan.buffer_documents or nbytes * ramp >= plan.buffer_bytes


def draw(
    documents: pa.RecordBatch, plan: StreamPlan, *stream: int
) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Returns (drawn, kept): a random part of the documents, and the others.

    Args:
        documents: at least one.
        plan: its shard_records sizes the draw; never more than half, so that the buffer stays one.
        stream: numbers the draw.
    """
    order = _random_order(documents, plan, stream)
    count = -(-len(order) // DRAW_PART)
    if plan.shard_records is not None:
        tokens = np.cumsum(document_lengths(documents["tokens"], plan)[order])
        wanted = plan.shard_records * plan.packing.sequence_length
        count = min(int(np.searchsorted(tokens, wanted)) + 1, -(-len(order) // 2))
    kept = np.sort(order[count:])  # in place order: neighbours are copied together
    return documents.take(pa.array(order[:count])), documents.take(pa.array(kept))


def drain(documents: pa.RecordBatch, plan: StreamPlan, *stream: int) -> list[pa.RecordBatch]:
    """Returns all documents in random parts of about a shard each."""
    if not documents.num_rows:
        return []
    order = _random_order(documents, plan, stream)
    if plan.shard_records is None:
        limits = (
            documents.num_rows * plan.lanes / plan.buffer_documents,
            documents["tokens"].nbytes * plan.lanes / plan.buffer_bytes,
        )
        parts = round(max(limits) * DRAW_PART)
    else:
        tokens = int(document_lengths(documents["tokens"], plan).sum())
        parts = round(tokens / (plan.shard_records * plan.packing.sequence_length))
    parts = min(max(1, parts), len(order))
    return [documents.take(pa.array(part)) for part in np.array_split(order, parts)]


def _random_order(
    documents: pa.RecordBatch, plan: StreamPlan, stream: tuple[int, ...]
) -> np.ndarray:
    partition, row = document_ids(documents)
    document_keys = keys.document_keys(plan.seed, partition, row)
    return np.lexsort((document_keys, keys.draw_keys(document_keys, plan.seed, *stream)))


# Blocks that the first draw waits for: one from each partition that is read at a time.
MIN_BLOCKS = 16


class ShuffleBuffer:
    """A lane's buffer in memory.

    Args:
        plan: of the stream.
        stream: tells the buffers of a stream apart.
        draws: made before, by earlier runs; each run's draws go on from there.
    """

    def __init__(self, plan: StreamPlan, *stream: int, draws: int = 0) -> None:
        self._plan = plan
        self._stream = stream
        self._held: list[pa.RecordBatch] = []
        self._first_draw = self._draws = draws
        self._documents = self._nbytes = self._blocks = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held."""
        return self._documents == 0

    @property
    def is_full(self) -> bool:
        """Whether a draw is due."""
        draws = self._draws - self._first_draw
        if self._blocks < MIN_BLOCKS:  # too few to mix: not before there is no room for more
            draws = RAMP_DRAWS
        return is_full(self._documents, self._nbytes, draws, self._plan)

    def add(self, documents: pa.RecordBatch) -> None:
        """Takes a block of documents in."""
        self._held.append(documents)
        self._blocks += 1
        self._documents += documents.num_rows
        self._nbytes += documents["tokens"].nbytes

    def draw(self) -> pa.RecordBatch:
        """Returns a random part of what is held; the rest stays."""
        drawn, kept = draw(self._take_all(), self._plan, *self._stream, self._draws)
        self._draws += 1
        if kept.num_rows:
            self.add(kept)
        return drawn

    def drain(self) -> list[pa.RecordBatch]:
        """Returns everything in random parts of about a shard; the buffer is empty then."""
        parts = drain(self._take_all(), self._plan, *self._stream, self._draws)
        self._draws += 1
        return parts

    def _take_all(self) -> pa.RecordBatch:
        documents = join_blocks(self._held)
        self._held, self._documents, self._nbytes = [], 0, 0
        return documents
