"""Moves tokens into sequences as planned, by Arrow kernels over the documents' own buffer.

    documents' buffer --take--> pieces, end to end --join with padding--> uint16|uint32[N, L]

Both steps copy whole runs of bytes; nothing is done per token. That is several times as fast as
gathering by a NumPy index or padding by a boolean mask. Documents that stay in their own order
(concat, not permuted) need no take, full sequences no join.

Invariant: row s of the lengths holds the tokens of the pieces of sequence s in order, then zeros,
and padding is never told from tokens by its value.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shardstream.shard_format.record import RecordLayout, slots_for
from shardstream.tokens.arrow_buffers import offsets_of
from shardstream.tokens.packing.options import PackingOptions
from shardstream.tokens.packing.pieces import Pieces, expand
from shardstream.tokens.token_ranges import Gather, TokenRanges, large_binary, ranges_of

# Where a quarter or more is padding, it is joined to this much output at a time: for a whole shard
# at once the padding alone would need up to as much memory as the shard. Smaller blocks
# are slower, and so are larger ones.
_PAD_BLOCK_BYTES = 2 << 20
_EMPTY = pa.scalar(b"", pa.large_binary())


def assemble(
    documents: pa.LargeBinaryArray,
    pieces: Pieces,
    *,
    token_dtype: str,
    options: PackingOptions,
    pad_id: int,
    eos_id: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns tokens uint16|uint32[N, L] and document lengths uint16|uint32[N, S], little-endian.

    Args:
        documents: n documents, each its tokens as little-endian bytes; a slice of a larger array
            is as good. BOS and EOS are among the tokens.
        pieces: the plan for these documents, from `pack`, permuted or not.
        token_dtype: "uint16" or "uint32", of documents and of the result.
        options: those the plan was made with.
        pad_id: fills sequences up; any id, since masks come from lengths.
        eos_id: what every document ends with; needed, and checked, with `keep_eos`.

    Guarantees: the arrays are for reading; they may be views of the documents' buffer.
    """
    assembly = Assembly(
        ranges_of(documents),
        pieces,
        token_dtype=token_dtype,
        options=options,
        pad_id=pad_id,
        eos_id=eos_id,
    )
    return assembly.tokens(0, pieces.num_sequences), assembly.lengths


class Assembly:
    """Sequences about to be made, any run of them at a time: a shard need not be in memory twice.

    Args: as `assemble`, with the documents as ranges.

    Attributes:
        lengths: uint16|uint32[N, S], little-endian, the tokens of each sequence's documents.
    """

    def __init__(
        self,
        documents: TokenRanges,
        pieces: Pieces,
        *,
        token_dtype: str,
        options: PackingOptions,
        pad_id: int,
        eos_id: int | None = None,
    ) -> None:
        layout = RecordLayout(
            sequence_length=options.sequence_length,
            token_dtype=token_dtype,
            max_segments=max_segments(pieces),
        )
        self._dtype = layout.tokens_dtype
        if not 0 <= pad_id <= np.iinfo(self._dtype).max:
            raise ValueError(f"pad_id: expected an id that fits {token_dtype}, found {pad_id}.")
        self._options, self._pad_id = options, pad_id
        self._data = documents.data
        self._begin, self._end = _byte_ranges(documents, pieces, self._dtype.itemsize)
        ranges_of_sequence = np.bincount(pieces.sequence, minlength=pieces.num_sequences)
        if options.keep_eos:
            self._begin, self._end, ranges_of_piece = _keep_last_tokens(
                documents, pieces, self._begin, self._end, self._dtype, eos_id
            )
            ranges_of_sequence = np.bincount(
                pieces.sequence, weights=ranges_of_piece, minlength=pieces.num_sequences
            ).astype(np.int64)
        self._first_range = offsets_of(ranges_of_sequence)
        self.lengths = _lengths(pieces, layout)
        self._used = self.lengths.sum(axis=1, dtype=np.int64)
        self._gather = Gather(self._data, self._begin, self._end)

    def blocks(self, num_rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (tokens, lengths) of num_rows sequences after another, as `assemble` returns."""
        for first in range(0, len(self.lengths), num_rows):
            last = min(first + num_rows, len(self.lengths))
            yield self.tokens(first, last), self.lengths[first:last]

    def tokens(self, first: int, last: int) -> np.ndarray:
        """Returns uint16|uint32[last - first, L], for reading; maybe a view of the documents."""
        flat = self._gather(self._first_range[first], self._first_range[last])
        options = self._options
        return _pad(
            flat.view(self._dtype),
            self._used[first:last],
            options.sequence_length,
            self._pad_id,
            options.pad_side,
            self._dtype,
        )


def max_segments(pieces: Pieces) -> int:
    """Returns S, the length slots of a shard that holds these sequences."""
    if not pieces.num_sequences:
        return slots_for(0)
    return slots_for(int(np.bincount(pieces.sequence).max()))


def _byte_ranges(
    documents: TokenRanges, pieces: Pieces, itemsize: int
) -> tuple[np.ndarray, np.ndarray]:
    """Checks pieces; returns their begin and end in the documents' buffer, int64[P] bytes."""
    if ((documents.end - documents.begin) % itemsize).any():
        raise ValueError(
            f"documents: expected a multiple of {itemsize} bytes each, found other lengths. "
            "Is token_dtype that of the documents?"
        )
    if len(pieces.document) and pieces.document.max() >= len(documents.begin):
        raise ValueError(
            f"pieces: name document {pieces.document.max()}, found {len(documents.begin)} "
            "documents. Pass the documents whose lengths were packed."
        )
    begin = documents.begin[pieces.document] + pieces.start * itemsize
    end = begin + pieces.tokens * itemsize
    outside = np.flatnonzero(end > documents.end[pieces.document])
    if len(outside):
        raise ValueError(
            f"pieces: {len(outside)} pieces end after their document does, the first in document "
            f"{pieces.document[outside[0]]}. Pass the documents whose lengths were packed."
        )
    return begin, end


def _keep_last_tokens(
    documents: TokenRanges,
    pieces: Pieces,
    begin: np.ndarray,
    end: np.ndarray,
    dtype: np.dtype,
    eos_id: int | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turns the range of a document that was cut into its first tokens - 1 and its last one.

    Returns:
        begin and end, int64[R], and how many of them each piece has, int64[P], 1 or 2.
    """
    document_end = documents.end[pieces.document]
    is_cut = end < document_end
    _check_eos(documents, document_end[is_cut], pieces.document[is_cut], dtype, eos_id)
    ranges_of_piece = 1 + is_cut
    piece, slot = expand(ranges_of_piece)
    begin, end = begin[piece], end[piece]
    end[is_cut[piece] & (slot == 0)] -= dtype.itemsize
    end[slot == 1] = document_end[is_cut]
    begin[slot == 1] = document_end[is_cut] - dtype.itemsize
    return begin, end, ranges_of_piece


def _check_eos(
    documents: TokenRanges,
    ends: np.ndarray,
    indices: np.ndarray,
    dtype: np.dtype,
    eos_id: int | None,
) -> None:
    last_bytes = (ends - dtype.itemsize)[:, None] + np.arange(dtype.itemsize)
    last_ids = np.ascontiguousarray(documents.data[last_bytes]).view(dtype).ravel()
    wrong = np.flatnonzero(last_ids != (-1 if eos_id is None else eos_id))
    if len(wrong):
        raise ValueError(
            f"keep_eos: expected every document to end with eos_id {eos_id}, found id "
            f"{last_ids[wrong[0]]} at the end of document {indices[wrong[0]]}. Have the tokenizer "
            "add EOS and pass its id, or leave keep_eos out."
        )


def _pad(
    flat: np.ndarray, used: np.ndarray, length: int, pad_id: int, pad_side: str, dtype: np.dtype
) -> np.ndarray:
    """Returns dtype[N, L] from sequences end to end, each filled up to L tokens.

    Args:
        flat: dtype[sum(used)].
        used: int64[N], tokens of each sequence.
        length: L.
        pad_id: fills up.
        pad_side: "right" or "left" of the sequence's tokens.
        dtype: of tokens.
    """
    missing = length - used
    if not missing.any():
        return flat.reshape(-1, length)
    if pad_side == "right" and not missing[:-1].any():
        tail = np.full(missing[-1], pad_id, dtype)
        return np.concatenate([flat, tail]).reshape(-1, length)
    if 4 * int(missing.sum()) <= used.size * length:
        return _join_padding(flat, used, missing, pad_id, pad_side)
    padded = np.empty((len(used), length), dtype)
    rows = max(1, _PAD_BLOCK_BYTES // (length * dtype.itemsize))
    begin = offsets_of(used)
    for first in range(0, len(used), rows):
        block = slice(first, first + rows)
        tokens = flat[begin[first] : begin[min(first + rows, len(used))]]
        padded[block] = _join_padding(tokens, used[block], missing[block], pad_id, pad_side)
    return padded


def _join_padding(
    flat: np.ndarray, used: np.ndarray, missing: np.ndarray, pad_id: int, pad_side: str
) -> np.ndarray:
    """Puts `missing[i]` padding beside the `used[i]` tokens of each sequence i; as `_pad`."""
    sequences = large_binary(offsets_of(used) * flat.itemsize, flat)
    padding = np.full(int(missing.sum()), pad_id, flat.dtype)
    fillers = large_binary(offsets_of(missing) * flat.itemsize, padding)
    pair = (sequences, fillers) if pad_side == "right" else (fillers, sequences)
    joined = pc.binary_join_element_wise(  # pyright: ignore[reportAttributeAccessIssue]
        *pair, _EMPTY
    ).buffers()[2]
    return np.frombuffer(joined, flat.dtype).reshape(len(used), -1)


def _lengths(pieces: Pieces, layout: RecordLayout) -> np.ndarray:
    """Returns uint16|uint32[N, S]: the tokens of each sequence's pieces, then zeros."""
    lengths = np.zeros((pieces.num_sequences, layout.max_segments), layout.lengths_dtype)
    _, slot = expand(np.bincount(pieces.sequence, minlength=pieces.num_sequences))
    lengths[pieces.sequence, slot] = pieces.tokens
    return lengths
