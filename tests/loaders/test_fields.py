"""Fields follow from lengths: literal rows, both padding sides, shifted targets."""

import numpy as np
import pytest

from shardstream.loaders.arena import Arena
from shardstream.loaders.fields import make_fields, need_lengths, resolve_fields, widen
from tests.loaders.conftest import Dataset

TOKENS = np.array([[11, 12, 13, 14, 15, 9, 9, 9], [21, 22, 23, 24, 25, 26, 27, 28]], np.uint16)
LENGTHS = np.array([[2, 3, 0, 0], [1, 1, 6, 0]], np.uint16)


def made(*names: str, pad_side: str = "right", tokens: np.ndarray = TOKENS) -> dict[str, list]:
    batch = make_fields(names, tokens, LENGTHS, pad_id=9, pad_side=pad_side)
    return {name: array.astype(int).tolist() for name, array in batch.items()}


def test_segments_and_positions_literal() -> None:
    assert made("segment_ids", "positions") == {
        "segment_ids": [[1, 1, 2, 2, 2, 0, 0, 0], [1, 2, 3, 3, 3, 3, 3, 3]],
        "positions": [[0, 1, 0, 1, 2, 0, 0, 0], [0, 0, 0, 1, 2, 3, 4, 5]],
    }


def test_segments_and_positions_with_padding_on_the_left_literal() -> None:
    assert made("segment_ids", "positions", pad_side="left") == {
        "segment_ids": [[0, 0, 0, 1, 1, 2, 2, 2], [1, 2, 3, 3, 3, 3, 3, 3]],
        "positions": [[0, 0, 0, 0, 1, 0, 1, 2], [0, 0, 0, 1, 2, 3, 4, 5]],
    }


def test_shifted_fields_never_predict_across_documents_literal() -> None:
    assert made("inputs", "targets", "loss_mask") == {
        "inputs": TOKENS.tolist(),
        "targets": [[12, 13, 14, 15, 9, 9, 9, 9], [22, 23, 24, 25, 26, 27, 28, 9]],
        "loss_mask": [[1, 0, 1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 1, 1, 0]],
    }


def test_loss_mask_without_targets_marks_tokens() -> None:
    assert made("tokens", "loss_mask")["loss_mask"] == [[1, 1, 1, 1, 1, 0, 0, 0], [1] * 8]


def test_maxtext_fields_literal() -> None:
    names = resolve_fields("maxtext")
    batch = made(*names)
    assert list(batch) == list(names)
    assert batch["inputs_segmentation"][0] == [1, 1, 2, 2, 2, 0, 0, 0]
    assert batch["targets_segmentation"][0] == [1, 0, 2, 2, 0, 0, 0, 0]
    assert batch["inputs_position"] == batch["targets_position"]


def test_hf_fields_literal() -> None:
    assert made(*resolve_fields("hf")) == {
        "input_ids": TOKENS.tolist(),
        "attention_mask": [[1, 1, 1, 1, 1, 0, 0, 0], [1] * 8],
        "labels": [[11, 12, 13, 14, 15, -100, -100, -100], TOKENS[1].tolist()],
    }


def test_masks_come_from_lengths_not_from_token_values() -> None:
    pads = np.full_like(TOKENS, 9)  # as where GPT-2's documents hold EOS, its pad
    assert made("loss_mask", tokens=pads) == made("loss_mask")


def test_fields_agree_with_a_row_by_row_reading(dataset: Dataset) -> None:
    length = dataset.tokens.shape[1]
    batch = make_fields(("segment_ids", "positions"), dataset.tokens, dataset.lengths, pad_id=0)
    for row, lengths in enumerate(dataset.lengths):
        ids, places = np.zeros(length, int), np.zeros(length, int)
        at = 0
        for segment, count in enumerate(lengths, 1):
            ids[at : at + count], places[at : at + count] = segment, np.arange(count)
            at += count
        assert np.array_equal(batch["segment_ids"][row], ids)
        assert np.array_equal(batch["positions"][row], places)


def test_dtypes_after_widening() -> None:
    batch = widen(
        make_fields(("tokens", "loss_mask", "positions"), TOKENS, LENGTHS, pad_id=9), Arena()
    )
    assert [array.dtype.name for array in batch.values()] == ["int32", "bool", "int32"]


def test_lengths_over_the_sequence_raise() -> None:
    with pytest.raises(
        ValueError, match="row 1 of a batch: documents of 9 tokens, expected at most"
    ):
        make_fields(("positions",), TOKENS, np.array([[8], [9]]), pad_id=9)


@pytest.mark.parametrize("fields", ["token", ("tokens", "nope"), ()])
def test_unknown_fields_raise_and_name_those_there_are(fields) -> None:
    with pytest.raises(ValueError, match=r"expected some of tokens, .*sets maxtext, hf"):
        resolve_fields(fields)


def test_resolve_fields_adds_a_mask_only_where_none_shows_padding() -> None:
    assert resolve_fields(("tokens",), masked=True) == ("tokens", "loss_mask")
    assert resolve_fields(("tokens", "segment_ids"), masked=True) == ("tokens", "segment_ids")
    assert resolve_fields("hf", masked=True) == resolve_fields("hf")
    assert not need_lengths(("tokens", "targets")) and need_lengths(("tokens", "positions"))
