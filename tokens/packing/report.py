"""What a packing cost: sequences, padding, truncated tokens, documents cut; sums across shards.

Percentiles of document lengths do not add up, so a report carries a histogram that does: exact
below 16 tokens, then 16 buckets to every doubling, so that a percentile read from the merged
histogram is at most 6.25 % above the true one, whatever the number of shards or their order.

Invariant: the report of all shards is the sum of theirs, and input_tokens = written_tokens +
truncated_tokens.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from shardstream.tokens.packing.options import PackingOptions
from shardstream.tokens.packing.pieces import Pieces

_SUB_BUCKET_BITS = 4
_PERCENTILES = (1, 10, 25, 50, 75, 90, 99)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackingReport:
    """Counts of one shard or of many; `+` merges.

    Attributes:
        sequences: written.
        documents: given to packing, empty and dropped ones included.
        segments: pieces of documents written.
        input_tokens: of all documents.
        written_tokens: of all sequences, padding not counted.
        padding_tokens: of all sequences.
        truncated_tokens: in no sequence, those of dropped documents included.
        cut_documents: not whole in one sequence: continued in another one, or without their end.
        dropped_documents: left out because longer than L.
        empty_documents: of zero tokens, in no sequence.
        longest_document: tokens.
        length_counts: sorted (bucket, documents) pairs, buckets as in `bucket_of_length`.
    """

    sequences: int = 0
    documents: int = 0
    segments: int = 0
    input_tokens: int = 0
    written_tokens: int = 0
    padding_tokens: int = 0
    truncated_tokens: int = 0
    cut_documents: int = 0
    dropped_documents: int = 0
    empty_documents: int = 0
    longest_document: int = 0
    length_counts: tuple[tuple[int, int], ...] = ()

    def __add__(self, other: PackingReport) -> PackingReport:
        sums = {
            field.name: getattr(self, field.name) + getattr(other, field.name)
            for field in dataclasses.fields(self)
        }
        counts = dict(self.length_counts)
        for bucket, documents in other.length_counts:
            counts[bucket] = counts.get(bucket, 0) + documents
        sums["length_counts"] = tuple(sorted(counts.items()))
        sums["longest_document"] = max(self.longest_document, other.longest_document)
        return PackingReport(**sums)

    @property
    def padding_percent(self) -> float:
        """Share of padding in all tokens of all sequences; 0 without sequences."""
        return 100 * self.padding_tokens / max(1, self.padding_tokens + self.written_tokens)

    def length_percentile(self, percent: float) -> int:
        """Returns tokens that `percent` of the documents do not exceed; at most 6.25 % too high."""
        wanted = percent / 100 * self.documents
        seen = 0
        for bucket, documents in self.length_counts:
            seen += documents
            if seen >= wanted:
                return min(largest_length_of(bucket), self.longest_document)
        return self.longest_document

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values: every count, padding in %, and percentiles for people."""
        values = dataclasses.asdict(self)
        values["length_counts"] = [list(pair) for pair in self.length_counts]
        values["padding_percent"] = round(self.padding_percent, 4)
        values["length_percentiles"] = {f"p{p}": self.length_percentile(p) for p in _PERCENTILES}
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PackingReport:
        """The inverse of `to_dict`; what can be derived is derived again."""
        known = {field.name: values[field.name] for field in dataclasses.fields(cls)}
        known["length_counts"] = tuple((b, n) for b, n in known["length_counts"])
        return cls(**known)


def report(pieces: Pieces, lengths: np.ndarray, options: PackingOptions) -> PackingReport:
    """Counts what `pack` did with documents of these lengths.

    Args:
        pieces: the plan.
        lengths: int64[n], tokens of each document, as given to `pack`.
        options: as given to `pack`.
    """
    lengths = np.asarray(lengths, np.int64)
    written = int(pieces.tokens.sum())
    buckets, counts = np.unique(bucket_of_length(lengths), return_counts=True)
    return PackingReport(
        sequences=pieces.num_sequences,
        documents=len(lengths),
        segments=len(pieces.tokens),
        input_tokens=int(lengths.sum()),
        written_tokens=written,
        padding_tokens=pieces.num_sequences * options.sequence_length - written,
        truncated_tokens=pieces.truncated_tokens,
        cut_documents=pieces.cut_documents,
        dropped_documents=pieces.dropped_documents,
        empty_documents=pieces.empty_documents,
        longest_document=int(lengths.max(initial=0)),
        length_counts=tuple(zip(buckets.tolist(), counts.tolist(), strict=True)),
    )


def bucket_of_length(lengths: np.ndarray) -> np.ndarray:
    """Returns int64[n]: the length itself below 16, then 16 buckets to every power of 2.

    Args:
        lengths: int64[n], not negative, below 2**53.
    """
    _, bits = np.frexp(lengths.astype(np.float64))
    shift = np.maximum(bits.astype(np.int64) - 1 - _SUB_BUCKET_BITS, 0)
    return (shift << _SUB_BUCKET_BITS) + (lengths >> shift)


def largest_length_of(bucket: int) -> int:
    """Returns the largest length that falls into a bucket."""
    shift = max((bucket >> _SUB_BUCKET_BITS) - 1, 0)
    return ((bucket - (shift << _SUB_BUCKET_BITS) + 1) << shift) - 1
