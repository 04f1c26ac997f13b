import numpy as np
import pytest

from shardstream.shard_format.record import (
    RecordLayout,
    decode_records,
    encode_records,
    slots_for,
    token_dtype_for,
)


def test_record_golden_bytes() -> None:
    layout = RecordLayout(sequence_length=4, token_dtype="uint16", max_segments=2)
    block = encode_records(np.array([[1, 2, 513, 0]]), np.array([[2, 1]]), layout)
    assert block.tobytes().hex(" ") == "01 00 02 00 01 02 00 00 02 00 01 00"


def test_record_golden_bytes_uint32() -> None:
    layout = RecordLayout(sequence_length=2, token_dtype="uint32", max_segments=2)
    block = encode_records(np.array([[70000, 5]]), np.array([[2, 0]]), layout)
    assert block.tobytes().hex(" ") == "70 11 01 00 05 00 00 00 02 00 00 00"


@pytest.mark.parametrize("token_dtype", ["uint16", "uint32"])
@pytest.mark.parametrize("length", [1, 7, 2048, 70_000])
@pytest.mark.parametrize("n", [0, 1, 3])
def test_record_round_trip(token_dtype: str, length: int, n: int) -> None:
    layout = RecordLayout(sequence_length=length, token_dtype=token_dtype, max_segments=4)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, np.iinfo(token_dtype).max, (n, length), endpoint=True)
    lengths = rng.integers(0, max(1, length // 4), (n, 4))
    block = encode_records(tokens, lengths, layout)
    assert block.shape == (n, layout.record_bytes)
    found_tokens, found_lengths = decode_records(block, layout)
    assert np.array_equal(found_tokens, tokens)
    assert np.array_equal(found_lengths, lengths)
    assert found_tokens.base is not None  # a view


def test_decode_records_wrong_size_says_both_sizes() -> None:
    layout = RecordLayout(sequence_length=4, token_dtype="uint16", max_segments=2)
    with pytest.raises(ValueError, match=r"uint8\(3, 10\), expected rows of 12 bytes"):
        decode_records(np.zeros((3, 10), np.uint8), layout)


@pytest.mark.parametrize(
    ("vocab_size", "expected"),
    [(1, "uint16"), (65_535, "uint16"), (65_536, "uint16"), (65_537, "uint32")],
)
def test_token_dtype_is_the_narrowest(vocab_size: int, expected: str) -> None:
    assert token_dtype_for(vocab_size) == expected


def test_slots_are_even_and_enough() -> None:
    assert [slots_for(n) for n in (0, 1, 2, 3, 4)] == [2, 2, 2, 4, 4]


@pytest.mark.parametrize(
    "wrong",
    [{"sequence_length": 0}, {"token_dtype": "int16"}, {"max_segments": 3}, {"max_segments": 0}],
)
def test_layout_refuses_what_it_cannot_mean(wrong: dict) -> None:
    good = {"sequence_length": 4, "token_dtype": "uint16", "max_segments": 2}
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RecordLayout(**(good | wrong))
