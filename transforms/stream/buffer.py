"""The shuffle buffer of a stream: takes blocks of documents, gives some at random, keeps the rest.

It rolls: a draw takes some of what is there and everything else stays for the next one, so a
document may leave soon or late, and documents from far apart meet in a shard. (Filling and
emptying a buffer would shuffle inside windows alone.) Which documents leave is decided by a hash of
(seed, stream, draw) and each document's own key: the order in which they came plays no part, nor
does the clock.

Functions on record batches: the worker's lane and the engine's keyed state call the same ones.
"""

import numpy as np
import pyarrow as pa

from shardstream.shard_format import keys
from shardstream.transforms.scatter import document_ids
from shardstream.transforms.stream.plan import DRAW_DIVISOR, RAMP_DRAWS, StreamPlan
from shardstream.transforms.token_blocks import document_lengths, join_blocks


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
    documents: pa.RecordBatch, plan: StreamPlan, *draw_id: int
) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Returns (drawn, kept): some of the documents at random, and the others.

    Args:
        documents: at least one.
        plan: its shard_records sizes the draw; never more than half, so that the buffer stays one.
        draw_id: numbers the draw.
    """
    lengths = document_lengths(documents["tokens"], plan)
    file_index, row = document_ids(documents)
    drawn, kept = _choose(file_index, row, lengths, plan, draw_id)
    return documents.take(pa.array(drawn)), documents.take(pa.array(kept))


def drain(documents: pa.RecordBatch, plan: StreamPlan, *draw_id: int) -> list[pa.RecordBatch]:
    """Returns all documents in random draws of about a shard each; none where there are none."""
    lengths = document_lengths(documents["tokens"], plan)
    file_index, row = document_ids(documents)
    draws = _divide(file_index, row, lengths, plan, draw_id)
    return [documents.take(pa.array(drawn)) for drawn in draws]


def _choose(
    file_index: np.ndarray,
    row: np.ndarray,
    lengths: np.ndarray,
    plan: StreamPlan,
    draw_id: tuple[int, ...],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns int64 arrays (drawn, kept): which documents leave, in random order, and which stay.

    The latter are in place order: neighbours are copied together.
    """
    order = _random_order(file_index, row, plan, draw_id)
    count = -(-len(order) // DRAW_DIVISOR)
    if plan.shard_records is not None:
        wanted = plan.shard_records * plan.packing.sequence_length
        enough = int(np.searchsorted(np.cumsum(lengths[order]), wanted)) + 1
        count = min(enough, -(-len(order) // 2))
    return order[:count], np.sort(order[count:])


def _divide(
    file_index: np.ndarray,
    row: np.ndarray,
    lengths: np.ndarray,
    plan: StreamPlan,
    draw_id: tuple[int, ...],
) -> list[np.ndarray]:
    """Returns which documents make up each of the draws in which a buffer is drained."""
    if not len(row):
        return []
    tokens = int(lengths.sum())
    if plan.shard_records is None:
        nbytes = tokens * np.dtype(plan.tokenizer_facts.token_dtype).itemsize
        limits = len(row) / plan.buffer_documents, nbytes / plan.buffer_bytes
        count = round(max(limits) * plan.lanes * DRAW_DIVISOR)
    else:
        count = round(tokens / (plan.shard_records * plan.packing.sequence_length))
    order = _random_order(file_index, row, plan, draw_id)
    return np.array_split(order, min(max(1, count), len(order)))


def _random_order(
    file_index: np.ndarray, row: np.ndarray, plan: StreamPlan, draw_id: tuple[int, ...]
) -> np.ndarray:
    document_keys = keys.document_keys(plan.seed, file_index, row)
    return np.lexsort((document_keys, keys.draw_keys(document_keys, plan.seed, *draw_id)))


# Blocks that the first draw waits for: one from each partition that is read at a time.
MIN_BLOCKS = 16
# A document that is held: who it is, and where.
_ENTRY = np.dtype(
    [("file_index", "i4"), ("row", "i8"), ("length", "i8"), ("block", "i8"), ("place", "i8")]
)


class ShuffleBuffer:
    """A lane's buffer in memory.

    Blocks stay as they came and an index says which of their documents are still held; a block is
    copied when more than half of it has left. A document is then copied about once on its way
    instead of once at every draw (a fifth of the stream's time), for at most twice the memory.

    Args:
        plan: of the stream.
        buffer_id: tells the buffers of a stream apart.
        draws: made before, by earlier runs; each run's draws go on from there.
    """

    def __init__(self, plan: StreamPlan, *buffer_id: int, draws: int = 0) -> None:
        self._plan = plan
        self._buffer_id = buffer_id
        self._blocks: list[pa.RecordBatch] = []
        self._index: list[np.ndarray] = []  # _ENTRY[n] of each block, in its order
        self._first_draw = self._draws = draws
        self._documents = self._tokens = self._num_added = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held."""
        return self._documents == 0

    @property
    def nbytes(self) -> int:
        """Bytes of the tokens held."""
        return self._tokens * np.dtype(self._plan.tokenizer_facts.token_dtype).itemsize

    @property
    def is_full(self) -> bool:
        """Whether a draw is due."""
        draws = self._draws - self._first_draw
        if self._num_added < MIN_BLOCKS:  # too few to mix: not before there is no room for more
            draws = RAMP_DRAWS
        return is_full(self._documents, self.nbytes, draws, self._plan)

    def add(self, documents: pa.RecordBatch) -> None:
        """Takes a block of documents in."""
        self._num_added += 1
        self._hold(documents)

    def draw(self) -> pa.RecordBatch:
        """Returns some of what is held at random, in no particular order; the rest stays."""
        index = np.concatenate(self._index)
        drawn, kept = _choose(*self._columns(index), self._plan, self._draw_id)
        self._draws += 1
        batch = self._gather(index[np.sort(drawn)])
        self._keep(index[kept])
        return batch

    def drain(self) -> list[pa.RecordBatch]:
        """Returns everything in random draws of about a shard; the buffer is empty then."""
        index = np.concatenate([np.empty(0, _ENTRY), *self._index])
        draws = _divide(*self._columns(index), self._plan, self._draw_id)
        self._draws += 1
        batches = [self._gather(index[np.sort(drawn)]) for drawn in draws]
        self._keep(index[:0])
        return batches

    @property
    def _draw_id(self) -> tuple[int, ...]:
        return (*self._buffer_id, self._draws)

    def _columns(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return index["file_index"], index["row"], index["length"]

    def _hold(self, documents: pa.RecordBatch) -> None:
        entries = np.empty(documents.num_rows, _ENTRY)
        entries["file_index"], entries["row"] = document_ids(documents)
        entries["length"] = document_lengths(documents["tokens"], self._plan)
        entries["block"] = len(self._blocks)
        entries["place"] = np.arange(len(entries))
        self._blocks.append(documents)
        self._index.append(entries)
        self._documents += len(entries)
        self._tokens += int(entries["length"].sum())

    def _gather(self, entries: np.ndarray) -> pa.RecordBatch:
        """Returns the documents of entries, which are sorted by block and place."""
        edges = np.flatnonzero(np.diff(entries["block"])) + 1
        runs = np.split(entries, edges) if len(entries) else []
        return join_blocks(
            self._blocks[run["block"][0]].take(pa.array(run["place"])) for run in runs
        )

    def _keep(self, index: np.ndarray) -> None:
        """Holds the documents of index only; blocks of which little is left are joined."""
        held = np.bincount(index["block"], minlength=len(self._blocks))
        sizes = np.array([block.num_rows for block in self._blocks])
        is_sparse = 2 * held < sizes
        joined = self._gather(index[is_sparse[index["block"]]])
        whole = np.flatnonzero(~is_sparse)
        self._blocks = [self._blocks[i] for i in whole.tolist()]
        number = np.zeros(len(sizes), np.int64)
        number[whole] = np.arange(len(whole))
        index = index[~is_sparse[index["block"]]]
        index["block"] = number[index["block"]]
        self._index = [index]
        self._documents, self._tokens = len(index), int(index["length"].sum())
        if joined.num_rows:
            self._hold(joined)
