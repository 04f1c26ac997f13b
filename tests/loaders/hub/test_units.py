"""Units depend on documents alone: not on the blocks they came in, nor on where reading began."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from shardstream.loaders.hub.units import UNIT_SEQUENCES, Documents, Packer, Unit
from shardstream.tokens.packing.options import PackingOptions

LENGTH = 8
PACKINGS = ["concat", "best_fit", "pad", "none"]


def _documents(count: int, seed: int) -> Documents:
    """Documents of 0 to 40 tokens; rows between them are dead."""
    rng = np.random.default_rng(seed)
    tokens = [
        rng.integers(1, 99, rng.integers(0, 41)).astype("<u2").tobytes() for _ in range(count)
    ]
    return Documents(pa.array(tokens, pa.large_binary()), np.cumsum(rng.integers(1, 4, count)))


def _blocks(documents: Documents, seed: int) -> list[Documents]:
    cuts = np.random.default_rng(seed).integers(0, len(documents.ends) + 1, 30)
    bounds = [0, *sorted(cuts.tolist()), len(documents.ends)]
    return [
        Documents(documents.tokens[begin:end], documents.ends[begin:end])
        for begin, end in pairwise(bounds)
    ]


def _packer(packing: str) -> Packer:
    options = PackingOptions(packing=packing, sequence_length=LENGTH)
    return Packer(options, token_dtype="uint16", pad_id=0, eos_id=None)


def _same(left: list[Unit], right: list[Unit]) -> bool:
    return len(left) == len(right) and all(
        np.array_equal(a.tokens, b.tokens)
        and np.array_equal(a.lengths, b.lengths)
        and a.next_row == b.next_row
        for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("packing", PACKINGS)
def test_units_do_not_depend_on_blocks(packing: str) -> None:
    documents = _documents(1500, 0)
    whole = list(_packer(packing).units([documents]))
    assert len(whole) > 3
    for seed in range(5):
        assert _same(list(_packer(packing).units(_blocks(documents, seed))), whole)
    tokens = sum(int(unit.lengths.sum()) for unit in whole)
    lengths = np.array([len(item) // 2 for item in documents.tokens.to_pylist()])
    kept = np.minimum(lengths, LENGTH) if packing == "pad" else lengths
    assert tokens == kept.sum()
    if packing != "best_fit":
        # A document takes 5 sequences at most; an empty one counts, but gives none.
        sizes = [len(unit.tokens) for unit in whole[:-1]]
        assert max(sizes) <= UNIT_SEQUENCES + 5
        assert min(sizes) > 0.9 * UNIT_SEQUENCES


@pytest.mark.parametrize("packing", PACKINGS)
def test_reading_from_a_units_first_row_gives_the_units_that_follow(packing: str) -> None:
    documents = _documents(1500, 1)
    whole = list(_packer(packing).units([documents]))
    for index, unit in enumerate(whole):
        rest = documents.ends > unit.next_row
        left = Documents(documents.tokens.filter(pa.array(rest)), documents.ends[rest])
        assert _same(list(_packer(packing).units([left])), whole[index + 1 :])


def test_no_documents_are_no_units() -> None:
    assert list(_packer("concat").units([])) == []
    assert list(_packer("concat").units([_documents(0, 0)])) == []
