"""Reads a stream's partitions many at a time: the first half of its shuffle.

Partitions come in a pseudo-random order, over many files, and a block is taken from each of the
open ones in turn. So the buffer that follows holds documents from all over the source, which is
what makes its shuffle good: batches from narrow windows over an ordered source train a model worse.

Documents that committed shards hold already are left out before they are tokenized; partitions of
which nothing is missing aren't opened at all.
"""

import dataclasses
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

import pyarrow as pa

from shardstream.shard_format import keys, naming
from shardstream.shard_format.commit_log import PartitionRead
from shardstream.sources.partitions import Partition, list_partitions, split_partition
from shardstream.sources.read import DeadLetter, TextBlock, count_by_reason, read_blocks
from shardstream.sources.resolve import SourceFile
from shardstream.tokens.arrow_buffers import value_nbytes
from shardstream.tokens.packing.pack import PackingReport, pack, report
from shardstream.tokens.tokenizer import Tokenizer
from shardstream.transforms.stream.log import StreamLog
from shardstream.transforms.stream.plan import StreamPlan
from shardstream.transforms.token_blocks import (
    TokenBlock,
    document_lengths,
    tokenize_blocks,
)

# Partitions read in turn, a block from each; a row group of each is in memory.
OPEN_PARTITIONS = 16
# Files whose footers are opened together, and between whose partitions the order is drawn.
_FILES_AT_ONCE = 16
# Fewer documents in a tokenizer call cost more than mixing them finer brings.
_MIN_BLOCK_ROWS = 16


def list_stream(
    plan: StreamPlan, files: Iterable[SourceFile], permutation_id: int
) -> Iterator[Partition]:
    """Yields the partitions of files in a pseudo-random order fixed by (seed, permutation_id).

    The files of a chunk are spread evenly over its partitions, so that those open at a time are of
    many files, in proportion to their sizes; which partition of a file comes when is random.
    """
    coarse = list(
        list_partitions(
            tuple(files),
            plan.read_spec,
            skip_documents=plan.source.skip_documents,
            max_documents=plan.source.max_documents,
        )
    )
    order = keys.permutation(len(coarse), plan.seed, permutation_id)
    pool: list[tuple[float, Partition]] = []
    with ThreadPoolExecutor(_FILES_AT_ONCE, thread_name_prefix="footers") as footers:
        for begin in range(0, len(order), _FILES_AT_ONCE):
            chunk = [coarse[i] for i in order[begin : begin + _FILES_AT_ONCE]]
            files_of_chunk = list(footers.map(lambda partition: _split(partition, plan), chunk))
            for number, fine in enumerate(files_of_chunk):
                shuffled = keys.permutation(len(fine), plan.seed, permutation_id, begin + number)
                # The file's i-th partition comes at about i / n of the chunk's time; files start
                # at different fractions of a step.
                phase = (number + 0.5) / len(files_of_chunk)
                pool += [((i + phase) / len(fine), fine[p]) for i, p in enumerate(shuffled)]
            pool.sort(key=lambda item: item[0])
            is_last = begin + _FILES_AT_ONCE >= len(order)
            # Half of the pool stays, to be mixed with the partitions of the next files.
            count = len(pool) if is_last else -(-len(pool) // 2)
            yield from (partition for _, partition in pool[:count])
            pool = [(time - 0.5, partition) for time, partition in pool[count:]]


def epoch_files(plan: StreamPlan, files: Iterable[SourceFile], epoch: int) -> Iterator[SourceFile]:
    """Yields the files under the indices they have in an epoch."""
    first = epoch * plan.num_files
    return (dataclasses.replace(file, index=first + file.index) for file in files)


def _split(partition: Partition, plan: StreamPlan) -> list[Partition]:
    return list(split_partition(partition, plan.read_spec, plan.partition_bytes))


class PartitionTally:
    """Counts what a partition holds while it is read.

    Args:
        partition: the one.
    """

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.letters: list[DeadLetter] = []
        self._spans: dict[int, tuple[int, int]] = {}
        self._documents = self._text_bytes = 0
        self._set_aside = PackingReport()

    def see_text(self, block: TextBlock) -> None:
        """Counts a block as it was read, before anything is left out."""
        self._documents += block.num_read
        self._text_bytes += value_nbytes(block.texts)
        rows = block.rows.tolist()
        for letter in block.dead_letters:
            rows += (letter.row, letter.row + letter.num_rows - 1)
        if rows:
            begin, end = self._spans.get(block.file_index, (rows[0], 0))
            self._spans[block.file_index] = min(begin, *rows), max(end, max(rows) + 1)

    def see_tokens(self, block: TokenBlock, plan: StreamPlan) -> pa.RecordBatch:
        """Counts a block's tokens; returns its documents but for those that no shard is to hold."""
        self.letters += block.dead_letters
        lengths = document_lengths(block.batch["tokens"], plan)
        unwanted = lengths == 0
        if plan.packing.truncation_rule == "drop":
            unwanted |= lengths > plan.packing.sequence_length
        if not unwanted.any():
            return block.batch
        aside = lengths[unwanted]
        self._set_aside += report(pack(aside, plan.packing), aside, plan.packing)
        return block.batch.filter(pa.array(~unwanted))

    def finish(self, plan: StreamPlan) -> PartitionRead:
        """Writes the partition's dead letters; returns what the log keeps of it."""
        name = self.partition.name
        if self.letters:
            letters = sorted(self.letters, key=lambda letter: (letter.file_index, letter.row))
            lines = (json.dumps(letter.as_dict(), ensure_ascii=False) for letter in letters)
            text = "".join(f"{line}\n" for line in lines)
            plan.directory.write(naming.dead_letters_name(name), text.encode())
        return PartitionRead(
            name=name,
            spans=tuple((file, *span) for file, span in sorted(self._spans.items())),
            documents=self._documents,
            dead_letters=count_by_reason(self.letters),
            text_bytes=self._text_bytes,
            set_aside=self._set_aside.to_dict(),
        )


def read_stream(
    partitions: Iterable[Partition],
    plan: StreamPlan,
    log: StreamLog,
    tokenizer: Tokenizer,
    executor: Executor,
    *,
    open_partitions: int = OPEN_PARTITIONS,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[pa.RecordBatch | PartitionRead]:
    """Yields blocks of documents that are still missing, each partition's tally after its last.

    Args:
        partitions: read in this order, several at a time.
        plan: of the stream.
        log: knows what is committed.
        tokenizer: opened from the plan's options.
        executor: encodes.
        open_partitions: how many at a time.
        stop: asked before every block; after a yes, partitions under way get no tally.
    """
    reading: deque[tuple[PartitionTally, bool]] = deque()

    def texts() -> Iterator[TextBlock]:
        for tally, block in _interleave(partitions, plan, open_partitions, stop):
            reading.append((tally, block is None))
            if block is not None:
                tally.see_text(block)
                yield _missing(block, log)

    def ended() -> Iterator[PartitionRead]:
        while reading and reading[0][1]:
            yield reading.popleft()[0].finish(plan)

    blocks = tokenize_blocks(
        texts(), tokenizer, seed=plan.seed, executor=executor, max_pending=plan.threads + 1
    )
    for block in blocks:
        yield from ended()
        documents = reading.popleft()[0].see_tokens(block, plan)
        if documents.num_rows:
            yield documents
    yield from ended()


def _interleave(
    partitions: Iterable[Partition],
    plan: StreamPlan,
    open_partitions: int,
    stop: Callable[[], bool],
) -> Iterator[tuple[PartitionTally, TextBlock | None]]:
    """Yields a block from each open partition in turn; None after a partition's last."""
    waiting = iter(partitions)
    turns: deque[tuple[PartitionTally, Iterator[TextBlock]]] = deque()
    while not stop():
        if len(turns) < open_partitions:
            partition = next(waiting, None)
            if partition is not None:
                turns.appendleft((PartitionTally(partition), _read_pieces(partition, plan)))
        if not turns:
            return
        tally, blocks = turns.popleft()
        block = next(blocks, None)
        if block is not None:
            turns.append((tally, blocks))
        yield tally, block


def _read_pieces(partition: Partition, plan: StreamPlan) -> Iterator[TextBlock]:
    """Yields a partition in blocks that are small beside the buffer, so that it holds many."""
    limit = max(_MIN_BLOCK_ROWS, plan.buffer_documents // (8 * OPEN_PARTITIONS))
    for block in read_blocks(partition, plan.read_spec, block_bytes=plan.block_bytes):
        letters = block.dead_letters
        for begin in range(0, max(1, len(block.rows)), limit):
            rows = block.rows[begin : begin + limit]
            texts = block.texts.slice(begin, limit)
            num_read = len(rows) + sum(letter.num_rows for letter in letters)
            yield TextBlock(block.file_index, rows, texts, letters, num_read)
            letters = []


def _missing(block: TextBlock, log: StreamLog) -> TextBlock:
    """Returns the block without the documents that committed shards hold."""
    committed = log.committed_rows(block.file_index, block.rows)
    if not committed.any():
        return block
    keep = ~committed
    return block._replace(rows=block.rows[keep], texts=block.texts.filter(pa.array(keep)))
