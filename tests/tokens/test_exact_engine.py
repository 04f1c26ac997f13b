"""Routing and audit: whatever the fast engine does, the ids are the reference's."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from shardstream.tokens.engines.certify import Certificate
from shardstream.tokens.engines.code_points import CodePointSet
from shardstream.tokens.engines.engine import Encoded
from shardstream.tokens.engines.exact import EncodeCounts, ExactEngine
from tests.tokens.test_certify import Characters

TEXTS = ["plain", "", "caf\u00e9", "a<eos>b", "<eos>\u00e9", "plain"]
ASCII = Certificate(code_points=CodePointSet.of(np.arange(128)), unsafe_literals=("<eos>",))


class Fast(Characters):
    """Right on plain ASCII, wrong on all that a certificate should keep from it."""

    name = "fast"

    def __init__(self, lie_about: str = "\0") -> None:
        super().__init__(
            lambda t: [1] if lie_about in t or "<eos>" in t or not t.isascii() else None
        )


def _column(texts: list[str]) -> pa.LargeStringArray:
    return pa.array(texts, pa.large_string())


def _lists(encoded: Encoded) -> list[list[int]]:
    return [encoded.row(i).tolist() for i in range(encoded.num_rows)]


def _right(texts: list[str]) -> list[list[int]]:
    return [list(map(ord, text)) for text in texts]


def test_encode_mixed_block_routes_and_merges_in_order():
    engine = ExactEngine(Fast(), Characters(), ASCII)
    encoded, counts = engine.encode(_column(TEXTS))
    assert _lists(encoded) == _right(TEXTS)
    assert counts == EncodeCounts(
        documents=6, reference_documents=3, uncertified_documents=2, literal_documents=2
    )


@pytest.mark.parametrize("texts", ([], ["plain"], ["\u00e9"], ["\u00e9", "<eos>"]))
def test_encode_uniform_block_is_right(texts):
    engine = ExactEngine(Fast(), Characters(), ASCII)
    assert _lists(engine.encode(_column(texts))[0]) == _right(texts)


def test_encode_sliced_block_is_right():
    engine = ExactEngine(Fast(), Characters(), ASCII)
    assert _lists(engine.encode(_column(TEXTS)[1:5])[0]) == _right(TEXTS[1:5])


@pytest.mark.parametrize("rows", (np.array([0, 5]), np.array([5, 0, 0]), np.arange(6) % 5 == 0))
def test_audit_equal_counts_only(rows):
    engine = ExactEngine(Fast(), Characters(), ASCII)
    _, counts = engine.encode(_column(TEXTS), rows)
    assert (counts.audited_documents, counts.audit_differences) == (2, 0)
    assert engine.differences == ()


def test_audit_reference_rows_are_not_audited():
    _, counts = ExactEngine(Fast(), Characters(), ASCII).encode(_column(TEXTS), np.arange(6))
    assert (counts.audited_documents, counts.reference_documents) == (3, 3)


def test_audit_difference_gives_block_to_reference_then_switches_off(caplog):
    engine = ExactEngine(Fast(lie_about="lie"), Characters(), ASCII)
    texts = ["ok", "a lie", "another lie"]
    unseen, _ = engine.encode(_column(texts), np.array([0]))
    assert _lists(unseen)[1] == [1]  # what an audit is for

    encoded, counts = engine.encode(_column(texts), np.array([0, 1]))
    assert _lists(encoded) == _right(texts)
    assert (counts.reference_documents, counts.audit_differences) == (3, 1)
    assert engine.active.name == "fast"
    (difference,) = engine.differences
    assert (difference.row, difference.text, difference.found) == (1, "a lie", (1,))
    assert difference.expected == tuple(map(ord, "a lie"))

    encoded, _ = engine.encode(_column(texts), np.array([2]))
    assert _lists(encoded) == _right(texts)
    assert engine.active.name == "characters"
    assert "everything from now on" in caplog.text

    encoded, counts = engine.encode(_column(texts), np.array([0]))
    assert _lists(encoded) == _right(texts)
    assert counts == EncodeCounts(documents=3, reference_documents=3)


@pytest.mark.parametrize(
    ("rows", "message"),
    (
        (np.array([6]), "expected rows from 0 to 5, found 6 to 6"),
        (np.array([-1, 2]), "found -1 to 2"),
        (np.ones(3, bool), r"expected bool\[6\], found bool\[3\]"),
    ),
)
def test_audit_rows_out_of_range_says_so(rows, message):
    with pytest.raises(ValueError, match=message):
        ExactEngine(Fast(), Characters(), ASCII).encode(_column(TEXTS), rows)


def test_counts_add_up():
    both = EncodeCounts(documents=2, audited_documents=1) + EncodeCounts(documents=3)
    assert both == EncodeCounts(documents=5, audited_documents=1)
