"""A fast engine made exact: what its certificate does not cover goes to the reference.

Invariant: ids equal the reference's, and a run proves it as it goes. A block is split into the
documents the certificate covers and the rest, encoded by both engines and put back in order; a
sample is encoded by both and compared. A difference gives the block to the reference, and a second
block with one ends the fast engine's use for this instance.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from shardstream.tokens.assemble import differing_rows, merge_rows, take_rows
from shardstream.tokens.engines.certify import Certificate, unsafe_rows
from shardstream.tokens.engines.engine import Encoded, Engine
from shardstream.tokens.engines.gigatoken import GigatokenEngine

MAX_DIFFERING_BLOCKS = 2
"""Blocks with an audit difference after which the fast engine is no longer used."""

MAX_RECORDED_DIFFERENCES = 100

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EncodeCounts:
    """How many documents took which way; adds up over blocks."""

    documents: int = 0
    reference_documents: int = 0
    """Encoded by `transformers`, for whatever reason."""
    uncertified_documents: int = 0
    """Of those, because they hold a code point outside the certificate."""
    literal_documents: int = 0
    """Of those, because they hold the literal text of an added token the engine reads wrong."""
    audited_documents: int = 0
    """Encoded by both and compared."""
    audit_differences: int = 0
    special_text_documents: int = 0
    """Holding the literal text of a special token, whatever was made of it."""
    audit_difference_rows: tuple[int, ...] = ()
    """Rows, in their block, of the documents that differed."""

    def __add__(self, other: EncodeCounts) -> EncodeCounts:
        names = [field.name for field in dataclasses.fields(self)]
        return EncodeCounts(**{n: getattr(self, n) + getattr(other, n) for n in names})


@dataclass(frozen=True, kw_only=True)
class AuditDifference:
    """One document that the fast engine read differently, although certified."""

    row: int
    """Index in its block."""
    engine: str
    text: str
    """First 200 characters."""
    expected: tuple[int, ...]
    """First 16 ids that `transformers` gives."""
    found: tuple[int, ...]


class ExactEngine:
    """Runs a fast engine where it is certified and the reference elsewhere.

    Guarantees: thread-safe; the ids do not depend on which rows are audited.

    Args:
        fast: a certified engine, or None to use the reference alone.
        reference: gives the right ids by definition.
        certificate: what `fast` may be trusted with.
    """

    def __init__(self, fast: Engine | None, reference: Engine, certificate: Certificate) -> None:
        self._fast = fast
        self._reference = reference
        self._certificate = certificate
        self._lock = threading.Lock()
        self._num_differing_blocks = 0
        self._differences: list[AuditDifference] = []

    @property
    def active(self) -> Engine:
        """The engine that certified documents go to now."""
        fast = self._fast
        return self._reference if fast is None else fast

    @property
    def differences(self) -> tuple[AuditDifference, ...]:
        """The audit differences so far, the first 100 of them."""
        with self._lock:
            return tuple(self._differences)

    def encode(
        self, texts: pa.LargeStringArray, audit_rows: np.ndarray | None = None
    ) -> tuple[Encoded, EncodeCounts]:
        """Tokenizes n texts exactly, special ids not added.

        Args:
            texts: n texts.
            audit_rows: bool[n] or int[k]: the rows to check against the reference.
        """
        num_rows = len(texts)
        fast = self._fast
        if fast is None:
            counts = EncodeCounts(documents=num_rows, reference_documents=num_rows)
            return self._reference.encode(texts), counts
        outside, literal = unsafe_rows(texts, self._certificate)
        to_reference = outside | literal
        audited = np.zeros(0, np.int64)
        if audit_rows is not None:
            audited = _row_indices(audit_rows, num_rows)
        audited = audited[~to_reference[audited]]
        encoded = self._encode_split(fast, texts, to_reference)
        differing = self._audit(fast, texts, encoded, audited)
        if differing:
            encoded = self._reference.encode(texts)
        counts = EncodeCounts(
            documents=num_rows,
            reference_documents=num_rows if differing else int(to_reference.sum()),
            uncertified_documents=int(outside.sum()),
            literal_documents=int(literal.sum()),
            audited_documents=len(audited),
            audit_differences=len(differing),
            audit_difference_rows=differing,
        )
        return encoded, counts

    def release_memory(self) -> None:
        """Gives back what the fast engine keeps from one call to the next."""
        if isinstance(self._fast, GigatokenEngine):  # the others keep next to nothing
            self._fast.release_memory()

    def _encode_split(
        self, fast: Engine, texts: pa.LargeStringArray, to_reference: np.ndarray
    ) -> Encoded:
        """Encodes some rows by the reference, the others fast, in their order."""
        if not to_reference.any():
            return fast.encode(texts)
        if to_reference.all():
            return self._reference.encode(texts)
        first = fast.encode(texts.filter(pa.array(~to_reference)))
        second = self._reference.encode(texts.filter(pa.array(to_reference)))
        return merge_rows(first, second, to_reference)

    def _audit(
        self, fast: Engine, texts: pa.LargeStringArray, encoded: Encoded, rows: np.ndarray
    ) -> tuple[int, ...]:
        """Compares rows with the reference; returns those that differ, and remembers them."""
        if len(rows) == 0:
            return ()
        sample = texts.take(pa.array(rows))
        found, expected = take_rows(encoded, rows), self._reference.encode(sample)
        differing = differing_rows(found, expected)
        if len(differing) == 0:
            return ()
        records = [
            AuditDifference(
                row=int(rows[i]),
                engine=fast.name,
                text=sample[int(i)].as_py()[:200],
                expected=tuple(expected.row(i)[:16].tolist()),
                found=tuple(found.row(i)[:16].tolist()),
            )
            for i in differing
        ]
        self._remember(fast, records)
        return tuple(record.row for record in records)

    def _remember(self, fast: Engine, records: list[AuditDifference]) -> None:
        with self._lock:
            self._num_differing_blocks += 1
            room = MAX_RECORDED_DIFFERENCES - len(self._differences)
            self._differences += records[:room]
            is_over = self._num_differing_blocks >= MAX_DIFFERING_BLOCKS
            if is_over:
                self._fast = None
        _log.warning(
            "audit: %s %s differs from transformers on %d document(s) of a block, the first: %r. "
            "The block is encoded by transformers%s. Please report it with the tokenizer's name.",
            fast.name,
            fast.version,
            len(records),
            records[0],
            ", as is everything from now on" if is_over else "",
        )


def _row_indices(rows: np.ndarray, num_rows: int) -> np.ndarray:
    """A mask or a list of rows as int64[k], ascending, without repeats."""
    if rows.dtype == bool:
        if rows.shape != (num_rows,):
            raise ValueError(
                f"audit_rows: expected bool[{num_rows}], found bool{list(rows.shape)}."
            )
        return np.flatnonzero(rows)
    rows = np.unique(rows.astype(np.int64, casting="safe")) if len(rows) else np.zeros(0, np.int64)
    if len(rows) and not (rows[0] >= 0 and rows[-1] < num_rows):
        raise ValueError(
            f"audit_rows: expected rows from 0 to {num_rows - 1}, found {rows[0]} to {rows[-1]}."
        )
    return rows
