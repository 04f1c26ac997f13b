"""Pieces: which run of which document lies where, the plan that every packing produces.

A packing is a function from document lengths alone to pieces; tokens are moved once, afterwards, by
`tokens.packing.assemble`. So each packing is a page of integer arithmetic, and provenance, lengths
and the report all come from the same arrays.

Invariant: no token of a document is in two pieces, and tokens in pieces + truncated_tokens = tokens
of all documents.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Pieces(NamedTuple):
    """Runs of tokens in the order in which they are written: by sequence, then by slot in it.

    Attributes:
        sequence: int64[P], non-decreasing, every value of 0 to num_sequences - 1 at least once.
        document: int64[P], index into the documents given.
        start: int64[P], the piece's first token, counted inside its document.
        tokens: int64[P], length of the piece, at least 1.
        num_sequences: N.
        truncated_tokens: tokens in no piece, those of dropped documents included.
        cut_documents: documents written, but not whole in one sequence: continued in another one,
            or without their end.
        dropped_documents: documents left out because they are longer than L (truncation `drop`).
        empty_documents: documents of zero tokens; they have no piece.
    """

    sequence: np.ndarray
    document: np.ndarray
    start: np.ndarray
    tokens: np.ndarray
    num_sequences: int
    truncated_tokens: int
    cut_documents: int
    dropped_documents: int
    empty_documents: int


class Runs(NamedTuple):
    """Consecutive runs of documents' tokens, ordered by document, then by start.

    Attributes:
        document: int64[R].
        start: int64[R], first token inside the document.
        tokens: int64[R], at least 1.
    """

    document: np.ndarray
    start: np.ndarray
    tokens: np.ndarray


def kept_lengths(lengths: np.ndarray, sequence_length: int, truncation_rule: str) -> np.ndarray:
    """Returns int64[n]: the tokens of each document that are written (its first ones).

    Args:
        lengths: int64[n], tokens of each document.
        sequence_length: L.
        truncation_rule: cut, split or drop.
    """
    if truncation_rule == "cut":
        return np.minimum(lengths, sequence_length)
    if truncation_rule == "drop":
        return np.where(lengths <= sequence_length, lengths, 0)
    return lengths


def split_every(lengths: np.ndarray, sequence_length: int) -> Runs:
    """Cuts each document into runs of L tokens and a last one of 1 to L.

    Args:
        lengths: int64[n]; a document of zero tokens has no run.
        sequence_length: L.
    """
    runs_of_document = -(-lengths // sequence_length)
    document, index = expand(runs_of_document)
    start = index * sequence_length
    return Runs(document, start, np.minimum(lengths[document] - start, sequence_length))


def expand(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turns counts into (group, index in group): [2, 0, 1] gives [0, 0, 2] and [0, 1, 0].

    Args:
        counts: int64[n], not negative.

    Returns:
        int64[sum(counts)] twice.
    """
    group = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    first = np.cumsum(counts) - counts
    return group, np.arange(len(group), dtype=np.int64) - first[group]


def permute_sequences(pieces: Pieces, order: np.ndarray) -> Pieces:
    """Puts the sequences into another order; the slots inside each stay as they are.

    Planning the order before `assemble` is free: tokens still move once. Doing it afterwards
    (`tokens[order]`) copies every token again.

    Args:
        pieces: of N sequences.
        order: int64[N], a permutation; sequence `order[i]` becomes sequence i.
    """
    if len(order) != pieces.num_sequences:
        raise ValueError(
            f"order: expected a permutation of {pieces.num_sequences} sequences, "
            f"found {len(order)} values."
        )
    pieces_of_sequence = np.bincount(pieces.sequence, minlength=pieces.num_sequences)
    first = np.cumsum(pieces_of_sequence) - pieces_of_sequence
    sequence, slot = expand(pieces_of_sequence[order])
    rows = first[order][sequence] + slot
    return pieces._replace(
        sequence=sequence,
        document=pieces.document[rows],
        start=pieces.start[rows],
        tokens=pieces.tokens[rows],
    )


def truncation_counts(
    lengths: np.ndarray, kept: np.ndarray, sequence_length: int
) -> dict[str, int]:
    """Returns the counting fields of Pieces, for packings that keep a run of up to L tokens whole.

    Args:
        lengths: int64[n], tokens of each document.
        kept: int64[n], what `kept_lengths` leaves of them.
        sequence_length: L.
    """
    is_cut = (kept > 0) & ((kept < lengths) | (kept > sequence_length))
    return {
        "truncated_tokens": int(np.sum(lengths - kept)),
        "cut_documents": int(np.count_nonzero(is_cut)),
        "dropped_documents": int(np.count_nonzero((kept == 0) & (lengths > 0))),
        "empty_documents": int(np.count_nonzero(lengths == 0)),
    }
