"""Plans: literal expectations for every packing, and the laws that all of them keep."""

import itertools

import numpy as np
import pytest

from shardstream.tokens.packing.pack import PackingOptions, Pieces, pack, permute_sequences, report

ALL_OPTIONS = [
    {"packing": "concat"},
    {"packing": "none"},
    *(
        {"packing": packing, "truncation": truncation}
        for packing, truncation in itertools.product(("pad", "best_fit"), ("cut", "split", "drop"))
    ),
]

CORPORA = {
    "none": [],
    "only_empty": [0, 0, 0],
    "one_token": [1],
    "exactly_l": [8],
    "exactly_l_all": [8, 8, 16, 8],
    "all_longer": [9, 17, 100, 9],
    "empty_ends": [0, 3, 0, 5, 0],
    "ones": [1] * 50,
    "mixed": [3, 0, 8, 9, 24, 1, 7, 25, 2, 2, 5, 16, 0, 12],
    "huge_between": [5, 25_000_001, 3],
    "web_like": np.random.default_rng(5).lognormal(1.6, 1.2, 3000).astype(int).tolist(),
}


def triples(pieces: Pieces) -> list[list[tuple[int, int, int]]]:
    """Pieces as (document, start, tokens) in lists by sequence."""
    rows = [[] for _ in range(pieces.num_sequences)]
    for sequence, *piece in zip(*(column.tolist() for column in pieces[:4]), strict=True):
        rows[sequence].append(tuple(piece))
    return rows


def plan(lengths: list[int], **options: object) -> Pieces:
    return pack(np.array(lengths, np.int64), PackingOptions(**options))


def counts(pieces: Pieces) -> tuple[int, ...]:
    """(sequences, truncated tokens, cut, dropped, empty documents)."""
    return tuple(pieces[4:])


def test_concat_cuts_the_stream_every_l_tokens():
    pieces = plan([3, 0, 5, 9, 4], sequence_length=4)
    assert triples(pieces) == [
        [(0, 0, 3), (2, 0, 1)],
        [(2, 1, 4)],
        [(3, 0, 4)],
        [(3, 4, 4)],
        [(3, 8, 1), (4, 0, 3)],
        [(4, 3, 1)],
    ]
    assert counts(pieces) == (6, 0, 3, 0, 1)


def test_concat_documents_of_exactly_l_are_not_cut():
    pieces = plan([4, 4, 8], sequence_length=4)
    assert triples(pieces) == [[(0, 0, 4)], [(1, 0, 4)], [(2, 0, 4)], [(2, 4, 4)]]
    assert counts(pieces) == (4, 0, 1, 0, 0)


def test_pad_cut_keeps_the_first_l_tokens():
    pieces = plan([3, 0, 5, 4, 9], packing="pad", sequence_length=4)
    assert triples(pieces) == [[(0, 0, 3)], [(2, 0, 4)], [(3, 0, 4)], [(4, 0, 4)]]
    assert counts(pieces) == (4, 6, 2, 0, 1)


def test_pad_split_goes_on_in_further_sequences():
    pieces = plan([3, 0, 5, 4], packing="pad", sequence_length=4, truncation="split")
    assert triples(pieces) == [[(0, 0, 3)], [(2, 0, 4)], [(2, 4, 1)], [(3, 0, 4)]]
    assert counts(pieces) == (4, 0, 1, 0, 1)


def test_pad_drop_leaves_longer_documents_out():
    pieces = plan([3, 0, 5, 4], packing="pad", sequence_length=4, truncation="drop")
    assert triples(pieces) == [[(0, 0, 3)], [(3, 0, 4)]]
    assert counts(pieces) == (2, 5, 0, 1, 1)


def test_best_fit_puts_whole_documents_together():
    # Decreasing: 7 and 6 open a sequence each, 3 opens a third, 2 fits 6 exactly, 1 fits 7 exactly.
    pieces = plan([3, 6, 1, 7, 2], packing="best_fit", sequence_length=8)
    assert triples(pieces) == [[(0, 0, 3)], [(1, 0, 6), (4, 0, 2)], [(2, 0, 1), (3, 0, 7)]]
    assert counts(pieces) == (3, 0, 0, 0, 0)


def test_best_fit_splits_longer_documents_and_packs_their_remainders():
    pieces = plan([5, 19, 0], packing="best_fit", sequence_length=8)
    assert triples(pieces) == [[(0, 0, 5), (1, 16, 3)], [(1, 0, 8)], [(1, 8, 8)]]
    assert counts(pieces) == (3, 0, 1, 0, 1)


def test_best_fit_cut_and_drop():
    cut = plan([5, 19, 3], packing="best_fit", sequence_length=8, truncation="cut")
    assert triples(cut) == [[(0, 0, 5), (2, 0, 3)], [(1, 0, 8)]]
    assert counts(cut) == (2, 11, 1, 0, 0)
    drop = plan([5, 19, 3], packing="best_fit", sequence_length=8, truncation="drop")
    assert triples(drop) == [[(0, 0, 5), (2, 0, 3)]]
    assert counts(drop) == (1, 19, 0, 1, 0)


@pytest.mark.parametrize("options", ALL_OPTIONS, ids=lambda o: "-".join(o.values()))
def test_sequences_of_one_token(options: dict[str, str]):
    pieces = plan([1, 0, 2], sequence_length=1, **options)
    expected = {"split": [[(0, 0, 1)], [(2, 0, 1)], [(2, 1, 1)]], "cut": [[(0, 0, 1)], [(2, 0, 1)]]}
    assert triples(pieces) == expected.get(options.get("truncation", "split"), [[(0, 0, 1)]])


@pytest.mark.parametrize("corpus", CORPORA)
@pytest.mark.parametrize("options", ALL_OPTIONS, ids=lambda o: "-".join(o.values()))
def test_laws(corpus: str, options: dict[str, str]):
    lengths = np.array(CORPORA[corpus], np.int64)
    length = 2048 if corpus == "huge_between" else 8
    options = PackingOptions(sequence_length=length, **options)
    pieces = pack(lengths, options)
    assert all(column.dtype == np.int64 for column in pieces[:4])

    # Every sequence is there, in order, and none holds more than L tokens or nothing.
    assert np.array_equal(np.unique(pieces.sequence), np.arange(pieces.num_sequences))
    assert (np.diff(pieces.sequence) >= 0).all()
    used = np.bincount(pieces.sequence, weights=pieces.tokens, minlength=pieces.num_sequences)
    assert (used >= 1).all() and (used <= length).all() and (pieces.tokens >= 1).all()

    # A document's pieces follow each other without gap or overlap, from its first token on.
    order = np.lexsort((pieces.start, pieces.document))
    document, start, tokens = (column[order] for column in pieces[1:4])
    is_first = np.diff(document, prepend=-1) > 0
    assert (start[is_first] == 0).all()
    assert (start[1:] == start[:-1] + tokens[:-1])[~is_first[1:]].all()
    written = np.zeros(len(lengths), np.int64)
    np.add.at(written, document, tokens)
    expected = {
        "split": lengths,
        "cut": np.minimum(lengths, length),
        "drop": np.where(lengths > length, 0, lengths),
    }[options.truncation_rule]
    assert np.array_equal(written, expected)

    # Nothing is lost without being counted.
    assert written.sum() + pieces.truncated_tokens == lengths.sum()
    assert np.count_nonzero(written) + pieces.dropped_documents + pieces.empty_documents == len(
        lengths
    )
    sequences_of_document = [
        len(np.unique(pieces.sequence[pieces.document == d])) for d in np.flatnonzero(written)[:500]
    ]
    if len(lengths) <= 500:
        is_cut = (np.array(sequences_of_document, int) > 1) | (written < lengths)[written > 0]
        assert pieces.cut_documents == np.count_nonzero(is_cut)
    assert report(pieces, lengths, options).input_tokens == lengths.sum()

    # The same again, to the last value.
    again = pack(lengths, options)
    assert all(np.array_equal(a, b) for a, b in zip(pieces, again, strict=True))


def test_permute_sequences_moves_whole_sequences():
    pieces = plan([3, 0, 5, 9, 4], sequence_length=4)
    moved = permute_sequences(pieces, np.array([4, 0, 5, 2, 1, 3]))
    before = triples(pieces)
    assert triples(moved) == [before[i] for i in (4, 0, 5, 2, 1, 3)]
    assert counts(moved) == counts(pieces)
    with pytest.raises(ValueError, match="permutation of 6 sequences, found 5"):
        permute_sequences(pieces, np.arange(5))


@pytest.mark.parametrize("lengths", [[3, -1], [[1, 2]]])
def test_pack_refuses_what_are_no_lengths(lengths: list):
    with pytest.raises(ValueError, match="non-negative"):
        plan(lengths)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"packing": "bestfit"},
            "packing is 'bestfit', expected one of concat, pad, best_fit, none",
        ),
        ({"truncation": "chop"}, "expected one of auto, cut, split, drop"),
        ({"pad_side": "both"}, "expected one of right, left"),
        ({"sequence_length": 0}, "expected 1 to 2\\*\\*31 - 1 tokens, found 0"),
        ({"packing": "concat", "truncation": "drop"}, "loses none"),
        ({"packing": "best_fit", "pad_side": "left"}, "or packing 'pad'"),
        ({"packing": "best_fit", "keep_eos": True}, "truncation 'split'"),
        ({"packing": "concat", "keep_eos": True}, "no document loses its end"),
        ({"packing": "pad", "keep_eos": True, "sequence_length": 1}, "at least 2"),
    ],
)
def test_options_refuse_what_has_no_meaning(options: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        PackingOptions(**options)


def test_options_auto_truncation():
    rules = {p: PackingOptions(packing=p).truncation_rule for p in ("concat", "pad", "best_fit")}
    assert rules == {"concat": "split", "pad": "cut", "best_fit": "split"}
    assert PackingOptions(packing="concat", truncation="split").truncation_rule == "split"


def test_none_is_pad_that_loses_nothing() -> None:
    lengths = np.array([3, 0, 20, 8])
    found = pack(lengths, PackingOptions(packing="none", sequence_length=8))
    expected = pack(lengths, PackingOptions(packing="pad", truncation="split", sequence_length=8))
    assert found.document.tolist() == [0, 2, 2, 2, 3]
    assert found.truncated_tokens == 0
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
