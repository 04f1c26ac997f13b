"""Tokens in their sequences: literal arrays, round trips, every code path against a plain loop."""

import itertools

import numpy as np
import pyarrow as pa
import pytest

from shardstream.tokens.packing import assemble as pack_assemble
from shardstream.tokens.packing.pack import (
    Assembly,
    PackingOptions,
    Pieces,
    assemble,
    pack,
    permute_sequences,
)
from shardstream.tokens.token_ranges import ranges_of

PAD = 9

ALL_OPTIONS = [
    {"packing": "concat"},
    *(
        {"packing": packing, "truncation": truncation}
        for packing, truncation in itertools.product(("pad", "best_fit"), ("cut", "split", "drop"))
    ),
]


def documents_of(rows: list[np.ndarray], token_dtype: str) -> pa.LargeBinaryArray:
    dtype = np.dtype(token_dtype).newbyteorder("<")
    return pa.array([np.asarray(row).astype(dtype).tobytes() for row in rows], pa.large_binary())


def numbered(lengths: list[int], token_dtype: str = "uint16") -> list[np.ndarray]:
    """Documents in which every token differs from its neighbours, whatever the dtype."""
    top = np.iinfo(token_dtype).max
    return [(np.arange(n) * 7919 + 104_729 * (i + 1)) % top for i, n in enumerate(lengths)]


def assembled(
    rows: list[np.ndarray], *, token_dtype: str = "uint16", eos_id: int | None = None, **options
) -> tuple[list, list]:
    options = PackingOptions(**options)
    pieces = pack(np.array([len(row) for row in rows], np.int64), options)
    tokens, lengths = assemble(
        documents_of(rows, token_dtype),
        pieces,
        token_dtype=token_dtype,
        options=options,
        pad_id=PAD,
        eos_id=eos_id,
    )
    return tokens.tolist(), lengths.tolist()


def by_loop(rows: list[np.ndarray], pieces: Pieces, length: int, pad_side: str) -> list[list[int]]:
    sequences = [[] for _ in range(pieces.num_sequences)]
    for sequence, document, start, tokens in zip(*pieces[:4], strict=True):
        sequences[sequence] += rows[document][start : start + tokens].tolist()
    fill = [[PAD] * (length - len(sequence)) for sequence in sequences]
    if pad_side == "left":
        return [f + s for f, s in zip(fill, sequences, strict=True)]
    return [s + f for f, s in zip(fill, sequences, strict=True)]


def test_concat_literal():
    assert assembled([[1, 2, 3], [], [4, 5]], sequence_length=2) == (
        [[1, 2], [3, 4], [5, PAD]],
        [[2, 0], [1, 1], [1, 0]],
    )


def test_concat_without_a_tail_copies_nothing():
    documents = documents_of([[1, 2, 3], [4]], "uint16")
    options = PackingOptions(sequence_length=2)
    pieces = pack(np.array([3, 1]), options)
    tokens, _ = assemble(documents, pieces, token_dtype="uint16", options=options, pad_id=0)
    assert tokens.tolist() == [[1, 2], [3, 4]]
    assert np.shares_memory(tokens, np.frombuffer(documents.buffers()[2], np.uint16))


@pytest.mark.parametrize(
    ("pad_side", "expected"),
    [("right", [[1, 2, 3], [4, PAD, PAD]]), ("left", [[1, 2, 3], [PAD, PAD, 4]])],
)
def test_pad_literal(pad_side: str, expected: list[list[int]]):
    rows = [[1, 2, 3, 8, 8], [], [4]]
    assert assembled(rows, packing="pad", sequence_length=3, pad_side=pad_side) == (
        expected,
        [[3, 0], [1, 0]],
    )


def test_pad_keeps_bos_and_eos_of_a_document_that_is_cut():
    bos, eos = 50, 51
    rows = [[bos, 1, 2, 3, eos], [bos, 4, eos], [bos, 5, 6, eos]]
    kept, lengths = assembled(
        rows, packing="pad", sequence_length=4, truncation="cut", keep_eos=True, eos_id=eos
    )
    assert kept == [[bos, 1, 2, eos], [bos, 4, eos, PAD], [bos, 5, 6, eos]]
    assert lengths == [[4, 0], [3, 0], [4, 0]]
    cut, _ = assembled(rows, packing="pad", sequence_length=4)
    assert cut[0] == [bos, 1, 2, 3]


def test_best_fit_keeps_eos_too():
    rows = [[1, 51], [2, 3, 4, 5, 6, 51], [7, 51]]
    tokens, _ = assembled(
        rows, packing="best_fit", sequence_length=4, truncation="cut", keep_eos=True, eos_id=51
    )
    assert tokens == [[1, 51, 7, 51], [2, 3, 4, 51]]


@pytest.mark.parametrize("eos_id", [None, 50])
def test_keep_eos_without_eos_in_the_documents_is_refused(eos_id: int | None):
    with pytest.raises(ValueError, match=f"eos_id {eos_id}, found id 3 at the end of document 1"):
        assembled([[9], [1, 2, 3]], packing="pad", sequence_length=2, keep_eos=True, eos_id=eos_id)


@pytest.mark.parametrize("token_dtype", ["uint16", "uint32"])
@pytest.mark.parametrize("is_permuted", [False, True])
@pytest.mark.parametrize("options", ALL_OPTIONS, ids=lambda o: "-".join(o.values()))
@pytest.mark.parametrize("length", [1, 7, 64])
def test_round_trip(options: dict, length: int, is_permuted: bool, token_dtype: str):
    rng = np.random.default_rng(length)
    sizes = [*rng.integers(0, 40, 60).tolist(), 0, 64, 128, 7, 1, 333, 64]
    rows = numbered(sizes, token_dtype)
    options = PackingOptions(sequence_length=length, **options)
    pieces = pack(np.array(sizes), options)
    if is_permuted:
        pieces = permute_sequences(pieces, rng.permutation(pieces.num_sequences))
    # A slice, as a part of a larger block is: its offsets do not begin at 0.
    documents = documents_of([[1, 2, 3], *rows, [4, 5]], token_dtype).slice(1, len(rows))
    tokens, lengths = assemble(
        documents, pieces, token_dtype=token_dtype, options=options, pad_id=PAD
    )
    assert tokens.dtype == np.dtype(token_dtype).newbyteorder("<")
    assert lengths.dtype == np.dtype("<u2")
    assert tokens.tolist() == by_loop(rows, pieces, length, "right")

    # Back to documents, from tokens, lengths and provenance only.
    most = int(np.bincount(pieces.sequence).max())
    assert lengths.shape == (pieces.num_sequences, max(2, most + most % 2))
    ends = np.cumsum(lengths, axis=1)
    segments = [
        tokens[s, end - n : end]
        for s, k in np.argwhere(lengths)
        for n, end in [(lengths[s, k], ends[s, k])]
    ]
    found = {i: {} for i in range(len(rows))}
    for segment, document, start in zip(segments, pieces.document, pieces.start, strict=True):
        found[int(document)][int(start)] = segment
    for index, row in enumerate(rows):
        parts = [found[index][start] for start in sorted(found[index])]
        expected = row if options.truncation_rule == "split" else row[:length]
        if options.truncation_rule == "drop" and len(row) > length:
            expected = []
        assert np.concatenate([np.array([], int), *parts]).tolist() == list(expected)


@pytest.mark.parametrize("block_bytes", [1, 32, 48, 1 << 20])
@pytest.mark.parametrize("pad_side", ["right", "left"])
def test_pad_sides_against_a_loop(pad_side: str, block_bytes: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pack_assemble, "_PAD_BLOCK_BYTES", block_bytes)
    rows = numbered([5, 0, 12, 8, 1, 30])
    options = PackingOptions(
        packing="pad", sequence_length=8, truncation="split", pad_side=pad_side
    )
    pieces = pack(np.array([len(row) for row in rows]), options)
    tokens, _ = assemble(
        documents_of(rows, "uint16"), pieces, token_dtype="uint16", options=options, pad_id=PAD
    )
    assert tokens.tolist() == by_loop(rows, pieces, 8, pad_side)


@pytest.mark.parametrize("sizes", [[], [0, 0]])
@pytest.mark.parametrize("options", ALL_OPTIONS, ids=lambda o: "-".join(o.values()))
def test_nothing_to_write(options: dict, sizes: list[int]):
    options = PackingOptions(sequence_length=8, **options)
    tokens, lengths = assemble(
        documents_of(numbered(sizes), "uint32"),
        pack(np.array(sizes, np.int64), options),
        token_dtype="uint32",
        options=options,
        pad_id=0,
    )
    assert (tokens.shape, lengths.shape) == ((0, 8), (0, 2))


def test_lengths_of_sequences_above_65535_tokens_are_uint32():
    options = PackingOptions(sequence_length=65_536)
    documents = documents_of(numbered([70_000]), "uint16")
    pieces = pack(np.array([70_000]), options)
    _, lengths = assemble(documents, pieces, token_dtype="uint16", options=options, pad_id=0)
    assert lengths.dtype == np.dtype("<u4")
    assert lengths.tolist() == [[65_536, 0], [4_464, 0]]


@pytest.mark.parametrize("options", ALL_OPTIONS, ids=lambda o: "-".join(o.values()))
def test_one_document_of_50_megabytes(options: dict):
    document = (np.arange(25_000_000, dtype=np.uint32) % 65_521).astype(np.uint16)
    data = pa.py_buffer(document)
    documents = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), 1, [None, pa.py_buffer(np.array([0, data.size], np.int64)), data]
    )
    options = PackingOptions(sequence_length=2048, **options)
    pieces = pack(np.array([25_000_000]), options)
    tokens, lengths = assemble(documents, pieces, token_dtype="uint16", options=options, pad_id=PAD)
    written = {"split": 25_000_000, "cut": 2048, "drop": 0}[options.truncation_rule]
    assert int(lengths.sum()) == written == 25_000_000 - pieces.truncated_tokens
    assert np.array_equal(tokens.ravel()[:written], document[:written])
    assert (tokens.ravel()[written:] == PAD).all()


@pytest.mark.parametrize(("token_dtype", "top"), [("uint16", 65_535), ("uint32", 4_294_967_295)])
def test_the_largest_id_of_a_dtype(token_dtype: str, top: int):
    options = PackingOptions(packing="pad", sequence_length=3)
    documents = documents_of([[top, 0], [top]], token_dtype)
    pieces = pack(np.array([2, 1]), options)
    tokens, _ = assemble(
        documents, pieces, token_dtype=token_dtype, options=options, pad_id=top - 1
    )
    assert tokens.tolist() == [[top, 0, top - 1], [top, top - 1, top - 1]]


def test_documents_that_are_not_those_packed_are_refused():
    options = PackingOptions(sequence_length=2)
    pieces = pack(np.array([3, 2]), options)
    arguments = {"token_dtype": "uint16", "options": options, "pad_id": 0}
    with pytest.raises(ValueError, match="end after their document does, the first in document 1"):
        assemble(documents_of([[1, 2, 3], [4]], "uint16"), pieces, **arguments)
    with pytest.raises(ValueError, match="name document 1, found 1 documents"):
        assemble(documents_of([[1, 2, 3]], "uint16"), pieces, **arguments)
    with pytest.raises(ValueError, match="multiple of 2 bytes"):
        assemble(pa.array([b"abc", b"abcd"], pa.large_binary()), pieces, **arguments)
    with pytest.raises(ValueError, match="1 nulls"):
        assemble(pa.array([b"abcdef", None], pa.large_binary()), pieces, **arguments)
    with pytest.raises(ValueError, match="expected large_binary"):
        assemble(pa.array([b"abcdef"], pa.binary()), pieces, **arguments)
    documents = documents_of([[1, 2, 3], [4, 5]], "uint16")
    with pytest.raises(ValueError, match="fits uint16, found 65536"):
        assemble(documents, pieces, **arguments | {"pad_id": 65_536})


@pytest.mark.parametrize("num_rows", [1, 3, 100])
@pytest.mark.parametrize(
    "options",
    [
        *ALL_OPTIONS,
        {"packing": "pad", "pad_side": "left"},
        {"packing": "pad", "keep_eos": True},
        {"packing": "best_fit", "truncation": "cut", "keep_eos": True},
    ],
    ids=str,
)
def test_blocks_end_to_end_are_what_assemble_gives(options: dict, num_rows: int):
    lengths = np.random.default_rng(5).geometric(0.05, 60) - 1
    rows = [np.append(row[:-1], 7) if len(row) else row for row in numbered(lengths.tolist())]
    options = PackingOptions(sequence_length=16, **options)
    pieces = pack(lengths, options)
    pieces = permute_sequences(pieces, np.random.default_rng(6).permutation(pieces.num_sequences))
    arguments = {"token_dtype": "uint16", "options": options, "pad_id": PAD, "eos_id": 7}
    documents = documents_of(rows, "uint16")
    tokens, slots = assemble(documents, pieces, **arguments)
    blocks = list(Assembly(ranges_of(documents), pieces, **arguments).blocks(num_rows))
    assert [len(block) for block, _ in blocks[:-1]] == [num_rows] * (len(blocks) - 1)
    assert np.array_equal(np.concatenate([block for block, _ in blocks]), tokens)
    assert np.array_equal(np.concatenate([part for _, part in blocks]), slots)
