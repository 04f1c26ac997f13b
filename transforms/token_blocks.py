"""Documents as tokens, in blocks: an Arrow record batch whose rows are documents.

    partition  int32, the index of the document's file
    row        int64, its row in the file
    tokens     large_binary, its ids as little-endian bytes

The shuffle moves documents as values of Arrow's binary arrays: `take` gathers them at the speed of
memory, where NumPy's fancy indexing would handle every token, and IPC writes a slice without
copying the rest.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from shardstream.sources.read import DeadLetter, TextBlock
from shardstream.tokens.arrow_buffers import value_nbytes, value_offsets
from shardstream.tokens.assemble import as_binary
from shardstream.tokens.encode_around import audited_rows, encode_around
from shardstream.tokens.engines.engine import Encoded
from shardstream.tokens.tokenizer import Tokenizer
from shardstream.transforms.plan import BuildPlan

SCHEMA = pa.schema([("partition", pa.int32()), ("row", pa.int64()), ("tokens", pa.large_binary())])


class TokenBlock(NamedTuple):
    """Documents tokenized together: `batch` has SCHEMA; `counts` sum over blocks."""

    batch: pa.RecordBatch
    dead_letters: list[DeadLetter]
    counts: Counter[str]


def tokenize_blocks(
    blocks: Iterable[TextBlock],
    tokenizer: Tokenizer,
    *,
    seed: int,
    executor: Executor,
    max_pending: int,
) -> Iterator[TokenBlock]:
    """Yields each block's tokens, in the order of the blocks.

    Blocks are encoded by the executor's threads (engines release the GIL) while this thread goes on
    reading; no more than max_pending blocks are in flight.
    """
    pending: deque = deque()
    for block in blocks:
        pending.append(executor.submit(tokenize_block, block, tokenizer, seed=seed))
        if len(pending) >= max_pending:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def tokenize_block(block: TextBlock, tokenizer: Tokenizer, *, seed: int) -> TokenBlock:
    """Tokenizes one block; documents that the tokenizer can't take become dead letters."""
    dead = list(block.dead_letters)
    rows, texts = block.rows, block.texts
    audit = audited_rows(tokenizer, seed=seed, file_index=block.file_index, rows=rows)
    encoded, encode_counts, keep, errors = encode_around(tokenizer, texts, audit)
    if errors:
        dead += [_poison(block, i, error) for i, error in errors.items()]
        rows, texts = rows[keep], texts.filter(pa.array(keep))
    batch = to_batch(block.file_index, rows, encoded, tokenizer.token_dtype)
    counts = Counter(
        documents_read=block.num_read,
        documents_tokenized=len(rows),
        tokens_in=len(encoded.ids),
        text_bytes=value_nbytes(texts),
    )
    for letter in dead:
        counts[f"dead_letters/{letter.reason}"] += letter.num_rows
    for name, value in vars(encode_counts).items():
        if isinstance(value, int) and value and name != "documents":
            counts[name] += value
    # Few by nature: an engine that differs twice is switched off. The manifest names them.
    for i in encode_counts.audit_difference_rows:
        counts[f"audit_difference/{block.file_index}:{rows[i]}"] += 1
    return TokenBlock(batch, dead, counts)


def to_batch(
    file_index: int, rows: np.ndarray, encoded: Encoded, token_dtype: type[np.integer]
) -> pa.RecordBatch:
    """Returns a record batch with SCHEMA of documents `rows` of a file."""
    tokens = as_binary(encoded, np.dtype(token_dtype))
    file_indices = pa.array(np.full(len(rows), file_index, np.int32))
    return pa.RecordBatch.from_arrays([file_indices, pa.array(rows), tokens], schema=SCHEMA)


def _poison(block: TextBlock, i: int, error: Exception) -> DeadLetter:
    return DeadLetter(
        file_index=block.file_index,
        row=int(block.rows[i]),
        reason="tokenizer_error",
        message=f"{type(error).__name__}: {error}",
        preview=block.texts[i].as_py()[:200],
    )


def join_blocks(blocks: Iterable[pa.RecordBatch]) -> pa.RecordBatch:
    """Returns all documents of the blocks in one batch, in the order they came."""
    batches = list(blocks)
    return pa.concat_batches(batches) if batches else pa.RecordBatch.from_pylist([], SCHEMA)


def document_lengths(tokens: pa.LargeBinaryArray, plan: BuildPlan) -> np.ndarray:
    """Returns int64[n], the tokens of each document."""
    return np.diff(value_offsets(tokens)) // np.dtype(plan.tokenizer_facts.token_dtype).itemsize
