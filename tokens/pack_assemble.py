"""Moves tokens into sequences as planned, by Arrow kernels over the documents' own buffer.

    documents' buffer --take--> pieces, end to end --join with padding--> uint16|uint32[N, L]

Both steps copy whole runs of bytes; nothing is done per token. Measured on 20,000 documents of
log-normal length, L=2048, busy machine, four runs: best_fit 440 to 590 Mtok/s for both steps, where
gathering alone by a numpy index makes 96 to 123 and padding alone by a boolean mask 250 to 300.
Documents that stay in their own order (concat, not permuted) need no take, full sequences no join.

Invariant: row s of the lengths holds the tokens of the pieces of sequence s in order, then zeros,
and padding is never told from tokens by its value.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shard_format.record import RecordLayout, slots_for
from tokens.pack_options import PackingOptions
from tokens.pack_pieces import Pieces, expand

# Where a quarter or more is padding, it is joined to this much output at a time: for a whole shard
# at once the padding alone would need up to as much memory as the shard. Measured, interleaved in
# one run, Mtok/s of output: 512 KB 537, 1 MB 619, 2 MB 735, 16 MB 606, all at once 545.
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
    length = options.sequence_length
    layout = RecordLayout(
        sequence_length=length, token_dtype=token_dtype, max_segments=max_segments(pieces)
    )
    dtype = layout.tokens_dtype
    if not 0 <= pad_id <= np.iinfo(dtype).max:
        raise ValueError(f"pad_id: expected an id that fits {token_dtype}, found {pad_id}.")
    ranges = _byte_ranges(documents, pieces, dtype.itemsize)
    if options.keep_eos:
        ranges = _keep_last_tokens(documents, pieces, ranges, dtype, eos_id)
    lengths = _lengths(pieces, layout)
    used = lengths.sum(axis=1, dtype=np.int64)
    flat = _gather(documents, *ranges).view(dtype)
    return _pad(flat, used, length, pad_id, options.pad_side, dtype), lengths


def max_segments(pieces: Pieces) -> int:
    """Returns S, the length slots of a shard that holds these sequences."""
    if not pieces.num_sequences:
        return slots_for(0)
    return slots_for(int(np.bincount(pieces.sequence).max()))


def _byte_ranges(
    documents: pa.LargeBinaryArray, pieces: Pieces, itemsize: int
) -> tuple[np.ndarray, np.ndarray]:
    """Checks pieces; returns their begin and end in the documents' buffer, int64[P] bytes."""
    if documents.type != pa.large_binary() or documents.null_count:
        raise ValueError(
            f"documents: expected large_binary without nulls, found {documents.type} with "
            f"{documents.null_count} nulls."
        )
    offsets = _offsets(documents)
    if (np.diff(offsets) % itemsize).any():
        raise ValueError(
            f"documents: expected a multiple of {itemsize} bytes each, found other lengths. "
            "Is token_dtype that of the documents?"
        )
    if len(pieces.document) and pieces.document.max() >= len(documents):
        raise ValueError(
            f"pieces: name document {pieces.document.max()}, found {len(documents)} documents. "
            "Pass the documents whose lengths were packed."
        )
    begin = offsets[pieces.document] + pieces.start * itemsize
    end = begin + pieces.tokens * itemsize
    outside = np.flatnonzero(end > offsets[pieces.document + 1])
    if len(outside):
        raise ValueError(
            f"pieces: {len(outside)} pieces end behind their document, the first in document "
            f"{pieces.document[outside[0]]}. Pass the documents whose lengths were packed."
        )
    return begin, end


def _keep_last_tokens(
    documents: pa.LargeBinaryArray,
    pieces: Pieces,
    ranges: tuple[np.ndarray, np.ndarray],
    dtype: np.dtype,
    eos_id: int | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Turns the range of a document that was cut into its first tokens - 1 and its last one."""
    begin, end = ranges
    document_end = _offsets(documents)[pieces.document + 1]
    is_cut = end < document_end
    _check_eos(documents, document_end[is_cut], pieces.document[is_cut], dtype, eos_id)
    piece, part = expand(1 + is_cut)
    begin, end = begin[piece], end[piece]
    end[is_cut[piece] & (part == 0)] -= dtype.itemsize
    end[part == 1] = document_end[is_cut]
    begin[part == 1] = document_end[is_cut] - dtype.itemsize
    return begin, end


def _check_eos(
    documents: pa.LargeBinaryArray,
    ends: np.ndarray,
    indices: np.ndarray,
    dtype: np.dtype,
    eos_id: int | None,
) -> None:
    last_bytes = (ends - dtype.itemsize)[:, None] + np.arange(dtype.itemsize)
    last_ids = np.ascontiguousarray(_data(documents)[last_bytes]).view(dtype).ravel()
    wrong = np.flatnonzero(last_ids != (-1 if eos_id is None else eos_id))
    if len(wrong):
        raise ValueError(
            f"keep_eos: expected every document to end with eos_id {eos_id}, found id "
            f"{last_ids[wrong[0]]} at the end of document {indices[wrong[0]]}. Have the tokenizer "
            "add EOS and pass its id, or leave keep_eos out."
        )


def _gather(documents: pa.LargeBinaryArray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Returns uint8[sum(end - begin)], the ranges one after another; a view where they already are.

    The ranges, sorted, cut the buffer into ranges and gaps: offsets of a large_binary array without
    a copy, from which Arrow takes the ranges in the order asked for.
    """
    data = _data(documents)
    if not len(begin):
        return data[:0]
    if (begin[1:] == end[:-1]).all():
        return data[begin[0] : end[-1]]
    by_place = np.argsort(begin, kind="stable")
    place = np.empty_like(by_place)
    place[by_place] = np.arange(len(by_place))
    offsets = np.stack([begin[by_place], end[by_place]], axis=1).ravel()
    taken = _large_binary(offsets, data).take(pa.array(2 * place))
    return np.frombuffer(taken.buffers()[2], np.uint8)


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
    begin = _ends(used)
    for first in range(0, len(used), rows):
        block = slice(first, first + rows)
        part = flat[begin[first] : begin[min(first + rows, len(used))]]
        padded[block] = _join_padding(part, used[block], missing[block], pad_id, pad_side)
    return padded


def _join_padding(
    flat: np.ndarray, used: np.ndarray, missing: np.ndarray, pad_id: int, pad_side: str
) -> np.ndarray:
    """Puts `missing[i]` padding beside the `used[i]` tokens of each sequence i; as `_pad`."""
    sequences = _large_binary(_ends(used) * flat.itemsize, flat)
    padding = np.full(int(missing.sum()), pad_id, flat.dtype)
    fillers = _large_binary(_ends(missing) * flat.itemsize, padding)
    pair = (sequences, fillers) if pad_side == "right" else (fillers, sequences)
    joined = pc.binary_join_element_wise(*pair, _EMPTY).buffers()[2]
    return np.frombuffer(joined, flat.dtype).reshape(len(used), -1)


def _lengths(pieces: Pieces, layout: RecordLayout) -> np.ndarray:
    """Returns uint16|uint32[N, S]: the tokens of each sequence's pieces, zeros behind them."""
    lengths = np.zeros((pieces.num_sequences, layout.max_segments), layout.lengths_dtype)
    _, slot = expand(np.bincount(pieces.sequence, minlength=pieces.num_sequences))
    lengths[pieces.sequence, slot] = pieces.tokens
    return lengths


def _ends(lengths: np.ndarray) -> np.ndarray:
    ends = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=ends[1:])
    return ends


def _offsets(documents: pa.LargeBinaryArray) -> np.ndarray:
    """The int64[n + 1] byte offsets of a large_binary array, slices included."""
    if not len(documents):
        return np.zeros(1, np.int64)
    offsets = np.frombuffer(documents.buffers()[1], np.int64)
    return offsets[documents.offset : documents.offset + len(documents) + 1]


def _data(documents: pa.LargeBinaryArray) -> np.ndarray:
    """The uint8 bytes that `_offsets` points into."""
    buffer = documents.buffers()[2]
    return np.zeros(0, np.uint8) if buffer is None else np.frombuffer(buffer, np.uint8)


def _large_binary(offsets: np.ndarray, data: np.ndarray) -> pa.LargeBinaryArray:
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)
