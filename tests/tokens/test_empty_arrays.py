"""No document, and documents without a token: a shape that every function on arrays must take."""

import itertools

import numpy as np
import pyarrow as pa
import pytest

from shardstream.tokens import assemble as ids
from shardstream.tokens.engines.engine import Encoded
from shardstream.tokens.literals import LiteralSearch
from shardstream.tokens.packing.options import PACKINGS, PAD_SIDES, TRUNCATIONS
from shardstream.tokens.packing.pack import (
    Assembly,
    PackingOptions,
    PackingReport,
    assemble,
    pack,
    permute_sequences,
    report,
)
from shardstream.tokens.token_ranges import Gather, ranges_of

_SEQUENCE_LENGTH = 4


def _options() -> list[PackingOptions]:
    """Every valid combination of the options."""
    found = []
    for packing, truncation, side, keep in itertools.product(
        PACKINGS, TRUNCATIONS, PAD_SIDES, (False, True)
    ):
        try:
            found.append(
                PackingOptions(
                    packing=packing,
                    truncation=truncation,
                    pad_side=side,
                    keep_eos=keep,
                    sequence_length=_SEQUENCE_LENGTH,
                )
            )
        except ValueError:
            continue
    return found


def _name(options: PackingOptions) -> str:
    return f"{options.packing}-{options.truncation}-{options.pad_side}-{options.keep_eos}"


# Tokens of each document: none at all, only empty ones, one that is not among some that are.
_LENGTHS = ([], [0], [0, 0, 0], [3, 0, 0], [0, 3, 0], [0, 0, 3])


@pytest.mark.parametrize("options", _options(), ids=_name)
@pytest.mark.parametrize("lengths", _LENGTHS, ids=str)
@pytest.mark.parametrize("token_dtype", ["uint16", "uint32"])
def test_packing_takes_documents_without_tokens(
    options: PackingOptions, lengths: list[int], token_dtype: str
) -> None:
    documents = pa.array([np.full(n, 7, token_dtype).tobytes() for n in lengths], pa.large_binary())
    pieces = pack(np.array(lengths, np.int64), options)
    pieces = permute_sequences(pieces, np.arange(pieces.num_sequences)[::-1])
    common = dict(token_dtype=token_dtype, options=options, pad_id=1, eos_id=7)
    tokens, used = assemble(documents, pieces, **common)
    expected = (
        [[7, 7, 7, 1] if options.pad_side == "right" else [1, 7, 7, 7]] if any(lengths) else []
    )
    assert tokens.tolist() == expected
    assert tokens.shape == (len(expected), _SEQUENCE_LENGTH)
    assert used.shape[0] == len(expected) and used.sum() == sum(lengths)
    assert len(list(Assembly(ranges_of(documents), pieces, **common).blocks(2))) == len(expected)
    counted = report(pieces, np.array(lengths, np.int64), options)
    assert (counted.documents, counted.empty_documents) == (len(lengths), lengths.count(0))
    assert counted.sequences == len(expected)
    assert PackingReport.from_dict(counted.to_dict()) == counted


def _encoded(*lengths: int) -> Encoded:
    return ids.from_lists([[7] * n for n in lengths])


@pytest.mark.parametrize("lengths", _LENGTHS, ids=str)
@pytest.mark.parametrize(("bos", "eos"), itertools.product((None, 1), (None, 2)))
def test_arithmetic_on_ids_takes_rows_without_tokens(
    lengths: list[int], bos: int | None, eos: int | None
) -> None:
    encoded = _encoded(*lengths)
    around = ids.add_special_ids(encoded, bos_id=bos, eos_id=eos)
    expected = [
        [i for i in (bos,) if i is not None] + [7] * n + [i for i in (eos,) if i is not None]
        for n in lengths
    ]
    assert [around.row(i).tolist() for i in range(around.num_rows)] == expected
    as_bytes = ids.as_binary(around, np.dtype(np.uint16))
    assert [np.frombuffer(b, "<u2").tolist() for b in as_bytes.to_pylist()] == expected
    assert ids.differing_rows(encoded, encoded).tolist() == []
    taken = ids.take_rows(encoded, np.arange(len(lengths))[::-1])
    assert np.diff(taken.offsets).tolist() == lengths[::-1]


@pytest.mark.parametrize("is_second", itertools.product((False, True), repeat=3))
def test_rows_without_tokens_merge(is_second: tuple[bool, ...]) -> None:
    mask = np.array(is_second)
    first, second = _encoded(*[0] * int((~mask).sum())), _encoded(*[0] * int(mask.sum()))
    merged = ids.merge_rows(first, second, mask)
    assert (merged.num_rows, len(merged.ids)) == (3, 0)


def test_nothing_is_gathered_and_searched() -> None:
    nothing = np.zeros(0, np.int64)
    assert len(Gather(np.zeros(0, np.uint8), nothing, nothing)(0, 0)) == 0
    for texts in ([], [""], ["", ""]):
        column = pa.array(texts, pa.large_string())
        assert LiteralSearch(["<eos>"]).rows_with(column).tolist() == [False] * len(texts)
        assert LiteralSearch([]).rows_with(column.slice(len(texts))).tolist() == []
