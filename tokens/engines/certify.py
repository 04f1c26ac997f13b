"""Finds out where an engine's ids equal the reference's, before it is trusted with a corpus.

Invariant: a certificate claims nothing that was not compared id by id. It holds the code points
that agree in every context tried, and the added tokens that do not; documents with anything else
take the reference path. Whatever is left, mixtures of certified code points and safe tokens, must
agree on every probe or the engine fails. Making one takes about 15 s on a core, so
`tokens.engines.certificates` keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import pyarrow as pa

from shardstream.tokens.assemble import differing_rows
from shardstream.tokens.engines import probes
from shardstream.tokens.engines.code_points import CodePointSet
from shardstream.tokens.engines.engine import Encoded, Engine
from shardstream.tokens.literals import literal_search

NUM_RANDOM_TEXTS = 4000
_BATCH_TEXTS = 4096

MIN_CERTIFIED_SHARE = 0.9
"""Of the code points tried; an engine below it disagrees about text, not about new characters."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Certificate:
    """What one engine may be trusted with, for one tokenizer and one way to read special tokens.

    Attributes:
        failure: why the engine may not be used at all; None when it may.
        code_points: the characters its documents may consist of; None is any (the engine shares
            the reference's Unicode tables).
        unsafe_literals: added tokens whose literal text it reads differently.
    """

    failure: str | None = None
    code_points: CodePointSet | None = None
    unsafe_literals: tuple[str, ...] = ()


def certify(
    engine: Engine,
    reference: Engine,
    *,
    added_tokens: Sequence[str],
    has_normalizer: bool,
    shares_unicode_tables: bool,
) -> Certificate:
    """Compares an engine with the reference on everything in `tokens.engines.probes`.

    Args:
        engine: what is tried.
        reference: gives the right ids by definition.
        added_tokens: literal text of every added token, special or not.
        has_normalizer: the tokenizer changes text before it looks for tokens, so an added token
            can appear in a document in other characters than its own.
        shares_unicode_tables: `engine` and `reference` run the same library code, so that code
            points need no comparison of their own.
    """
    pair = _Pair(engine, reference)
    try:
        unsafe = tuple(pair.differing(added_tokens, probes.literal_text))
        if unsafe and has_normalizer:
            return Certificate(
                failure=f"it reads the added token {unsafe[0]!r} differently, and this "
                "tokenizer's normalizer can make that token out of other text"
            )
        code_points = None
        if not shares_unicode_tables:
            candidates = probes.certified_range()
            differing = list(pair.differing(candidates.tolist(), probes.code_point_text))
            if len(differing) > (1 - MIN_CERTIFIED_SHARE) * len(candidates):
                return Certificate(
                    failure=f"it differs on {len(differing)} of {len(candidates)} code points, "
                    f"U+{differing[0]:04X} the first"
                )
            code_points = CodePointSet.of(np.setdiff1d(candidates, differing))
        failure = pair.first_failure(_mixtures(added_tokens), code_points, unsafe)
    except _EngineFailure as error:
        return Certificate(failure=str(error))
    return Certificate(failure=failure, code_points=code_points, unsafe_literals=unsafe)


def unsafe_rows(
    texts: pa.LargeStringArray, certificate: Certificate
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the documents a certificate does not cover.

    Returns:
        bool[n], documents with a code point outside the certificate; bool[n], documents with an
        unsafe added token's literal text.
    """
    literal = literal_search(certificate.unsafe_literals).rows_with(texts)
    if certificate.code_points is None:
        return np.zeros(len(texts), bool), literal
    return certificate.code_points.rows_outside(texts), literal


def _mixtures(added_tokens: Sequence[str]) -> Iterator[str]:
    """The probes that combine characters; batches of like length."""
    yield from probes.fixed_texts()
    yield from probes.block_texts()
    yield from map(probes.near_literal_text, added_tokens)
    yield from probes.random_texts(NUM_RANDOM_TEXTS // 2, seed=1)
    yield from probes.random_texts(NUM_RANDOM_TEXTS // 2, seed=2, extra=added_tokens[:50])
    yield from probes.long_texts()


class _EngineFailure(Exception):
    """The engine on trial could not encode a probe at all."""


class _Pair:
    """The engine on trial beside the reference."""

    def __init__(self, engine: Engine, reference: Engine) -> None:
        self._engine = engine
        self._reference = reference

    def differing(self, items: Sequence[T], text_of: Callable[[T], str]) -> Iterator[T]:
        """Yields the items whose text the two read differently."""
        for batch in _batches(items):
            texts = pa.array(map(text_of, batch), pa.large_string())
            ours, theirs = self._encode_both(texts)
            yield from (batch[row] for row in differing_rows(ours, theirs))

    def first_failure(
        self, texts: Iterable[str], code_points: CodePointSet | None, unsafe: Sequence[str]
    ) -> str | None:
        """Says how the first text that differs does; None if all that are covered agree."""
        covered = Certificate(code_points=code_points, unsafe_literals=tuple(unsafe))
        for batch in _batches(texts):
            column = pa.array(batch, pa.large_string())
            outside, literal = unsafe_rows(column, covered)
            column = column.filter(pa.array(~(outside | literal)))
            ours, theirs = self._encode_both(column)
            for row in differing_rows(ours, theirs):
                return _difference(column[int(row)].as_py(), ours.row(row), theirs.row(row))
        return None

    def _encode_both(self, texts: pa.LargeStringArray) -> tuple[Encoded, Encoded]:
        try:
            theirs = self._reference.encode(texts)
        except Exception as error:  # a vocabulary without a token for what it doesn't know
            raise _EngineFailure(f"transformers itself refuses a probe: {error}") from error
        try:
            return self._engine.encode(texts), theirs
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a Rust panic is not an Exception
            raise _EngineFailure(f"it raises {type(error).__name__} on a probe: {error}") from error


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    source = iter(items)
    while batch := list(islice(source, _BATCH_TEXTS)):
        yield batch


def _difference(text: str, ours: np.ndarray, theirs: np.ndarray) -> str:
    """Returns one line that says where two rows of ids first differ, and on what text."""
    shared = min(len(ours), len(theirs))
    place = int(np.argmax(np.append(ours[:shared] != theirs[:shared], True)))
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    return (
        f"expected ids {theirs[place : place + 4].tolist()} from id {place}, found "
        f"{ours[place : place + 4].tolist()}, in the probe {shown!r} ({len(text)} characters)"
    )
