"""Packing: document lengths to a plan of sequences of L tokens, by one of four rules.

    concat    documents end to end, cut every L tokens. No padding but in the last sequence, every
              token kept; most documents that cross a boundary lose their context.
    pad       one document a sequence. Simplest to train on; the padding is most of many corpora.
    best_fit  whole documents together by best-fit-decreasing. Nearly no padding, and only documents
              longer than L are cut (`best_fit.py`).
    none      pad, but a document longer than L goes on in further sequences: no token is lost.

Guarantees, for all four: a pure function of (lengths, options); tokens written + truncated =
tokens in; the last sequence is padded, never dropped; `pad` and `concat` keep the order given.
The order of best_fit's sequences is not random even when the documents' is: permute sequences
afterwards (`permute_sequences`), as the pipeline does for every packing.
"""

from __future__ import annotations

import numpy as np

from shardstream.tokens.packing.assemble import Assembly, assemble
from shardstream.tokens.packing.best_fit import best_fit
from shardstream.tokens.packing.options import PackingOptions
from shardstream.tokens.packing.pieces import (
    Pieces,
    expand,
    kept_lengths,
    permute_sequences,
    split_every,
    truncation_counts,
)
from shardstream.tokens.packing.report import PackingReport, report

__all__ = [
    "Assembly",
    "PackingOptions",
    "PackingReport",
    "Pieces",
    "assemble",
    "best_fit",
    "concat",
    "pack",
    "pad",
    "permute_sequences",
    "report",
]


def pack(lengths: np.ndarray, options: PackingOptions) -> Pieces:
    """Plans the sequences of a shard.

    Args:
        lengths: int64[n], tokens of each document, in the order they are to be written.
        options: which packing, and its sequence length.
    """
    lengths = np.asarray(lengths, np.int64)
    if lengths.ndim != 1 or (len(lengths) and lengths.min() < 0):
        raise ValueError(
            f"lengths: expected one non-negative number of tokens a document, found shape "
            f"{lengths.shape}, smallest {lengths.min() if lengths.size else None}."
        )
    length, rule = options.sequence_length, options.truncation_rule
    if options.packing == "concat":
        return concat(lengths, length)
    return {"pad": pad, "none": pad, "best_fit": best_fit}[options.packing](lengths, length, rule)


def concat(lengths: np.ndarray, sequence_length: int) -> Pieces:
    """Documents end to end, cut every L tokens.

    Args:
        lengths: int64[n], tokens of each document.
        sequence_length: L.
    """
    end = np.cumsum(lengths)
    begin = end - lengths
    first_sequence = begin // sequence_length
    sequences_of_document = np.where(
        lengths > 0, (end - 1) // sequence_length - first_sequence + 1, 0
    )
    document, index = expand(sequences_of_document)
    sequence = first_sequence[document] + index
    piece_begin = np.maximum(begin[document], sequence * sequence_length)
    piece_end = np.minimum(end[document], (sequence + 1) * sequence_length)
    return Pieces(
        sequence=sequence,
        document=document,
        start=piece_begin - begin[document],
        tokens=piece_end - piece_begin,
        num_sequences=int(sequence[-1]) + 1 if len(sequence) else 0,
        truncated_tokens=0,
        cut_documents=int(np.count_nonzero(sequences_of_document > 1)),
        dropped_documents=0,
        empty_documents=int(np.count_nonzero(lengths == 0)),
    )


def pad(lengths: np.ndarray, sequence_length: int, truncation_rule: str = "cut") -> Pieces:
    """One document a sequence; with `split`, one after another for a document longer than L.

    Args:
        lengths: int64[n], tokens of each document.
        sequence_length: L.
        truncation_rule: cut, split or drop, for documents longer than L.
    """
    kept = kept_lengths(lengths, sequence_length, truncation_rule)
    runs = split_every(kept, sequence_length)
    return Pieces(
        sequence=np.arange(len(runs.document), dtype=np.int64),
        document=runs.document,
        start=runs.start,
        tokens=runs.tokens,
        num_sequences=len(runs.document),
        **truncation_counts(lengths, kept, sequence_length),
    )
