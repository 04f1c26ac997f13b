"""Arrays that a training step asks for, made from tokens and document lengths of whole batches.

Everything follows from the lengths stored with each record, nothing from token values: GPT-2 and
its kin pad with EOS. Padding is segment 0 and position 0; documents of a sequence count from 1.

Targets are the next token *of the same document*: the last token of a document predicts nothing, so
`loss_mask` and `targets_segmentation` are 0 there and on padding. Arrays keep their length L.

Source: packed-example fields of T5 (Raffel et al. 2020); names as in MaxText and in transformers.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np

from shardstream.loaders.arena import Arena

FieldName = Literal[
    "tokens",
    "segment_ids",
    "positions",
    "loss_mask",
    "inputs",
    "targets",
    "inputs_position",
    "inputs_segmentation",
    "targets_position",
    "targets_segmentation",
    "input_ids",
    "attention_mask",
    "labels",
]
FieldSet = Literal["maxtext", "hf"]

Array: TypeAlias = Any  # a jax.Array, or a numpy.ndarray with output="numpy"

if TYPE_CHECKING:

    class Batch(dict[str, Array]):
        """A dictionary of arrays by field name; a misspelt name in `batch["..."]` is an error."""

        def __getitem__(self, name: FieldName) -> Array: ...
else:
    Batch = dict  # a plain dictionary, since JAX takes subclasses for leaves

FIELDS: dict[FieldName, str] = {
    "tokens": "token ids",
    "segment_ids": "document of each token, from 1; 0 on padding",
    "positions": "place of each token in its document, from 0",
    "loss_mask": "1 where a token counts: the target if targets are asked for, else the token",
    "inputs": "the same as tokens",
    "targets": "the next token of each place; the pad id at the end",
    "inputs_position": "as positions",
    "inputs_segmentation": "as segment_ids",
    "targets_position": "as positions",
    "targets_segmentation": "as segment_ids; 0 where the target is no token of the same document",
    "input_ids": "the same as tokens",
    "attention_mask": "1 on tokens, 0 on padding",
    "labels": "tokens, -100 on padding; transformers' models shift them by themselves",
}
FIELD_SETS: dict[str, tuple[FieldName, ...]] = {
    "maxtext": (
        "inputs",
        "inputs_position",
        "inputs_segmentation",
        "targets",
        "targets_position",
        "targets_segmentation",
    ),
    "hf": ("input_ids", "attention_mask", "labels"),
}
_PLAIN = frozenset(("tokens", "inputs", "input_ids", "targets"))
_MASKS = frozenset(
    ("segment_ids", "loss_mask", "inputs_segmentation", "targets_segmentation", "attention_mask")
)
_IGNORED_LABEL = -100


def resolve_fields(fields: Sequence[str] | str, *, masked: bool = False) -> tuple[FieldName, ...]:
    """Returns the names of fields, a set's name resolved.

    Args:
        fields: names of FIELDS, or the name of a set.
        masked: rows may be empty, so a `loss_mask` is added where no field would show it.

    Raises:
        ValueError: an unknown name, or none at all.
    """
    names = FIELD_SETS.get(fields, (fields,)) if isinstance(fields, str) else tuple(fields)
    if not names or not set(FIELDS).issuperset(names):
        raise ValueError(
            f"fields are {fields!r}, expected some of {', '.join(FIELDS)}, "
            f"or one of the sets {', '.join(FIELD_SETS)}"
        )
    if masked and not _MASKS.intersection(names):
        names = (*names, "loss_mask")
    return cast("tuple[FieldName, ...]", tuple(dict.fromkeys(names)))


def need_lengths(fields: Sequence[str]) -> bool:
    """Says whether any of the fields depends on document lengths."""
    return not _PLAIN.issuperset(fields)


def segments(lengths: np.ndarray, sequence_length: int, pad_side: str = "right") -> np.ndarray:
    """Returns int32[N, L], the document of each token, 0 on padding.

    Args:
        lengths: integer[N, S], documents' lengths, zeros after them.
        sequence_length: L, at least each row's sum.
        pad_side: "left" where tokens stand at the end of the record.
    """
    counts, ids, _ = _runs(lengths, sequence_length, pad_side)
    return np.repeat(ids, counts).reshape(len(lengths), sequence_length)


def positions(lengths: np.ndarray, sequence_length: int, pad_side: str = "right") -> np.ndarray:
    """Returns int32[N, L], the place of each token in its document; 0 on padding."""
    counts, ids, starts = _runs(lengths, sequence_length, pad_side)
    place = np.tile(np.arange(sequence_length, dtype=np.int32), (len(lengths), 1))
    place -= np.repeat(starts, counts).reshape(place.shape)
    if (counts[ids == 0] > 0).any():
        place *= np.repeat(ids > 0, counts).reshape(place.shape)
    return place


def _runs(
    lengths: np.ndarray, sequence_length: int, pad_side: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns flat (counts, ids, starts) of the runs of each row, padding among them."""
    counts = np.empty((lengths.shape[0], lengths.shape[1] + 1), np.int64)
    ids = np.zeros(counts.shape, np.int32)
    padding = sequence_length - lengths.sum(axis=1, dtype=np.int64)
    documents = slice(1, None) if pad_side == "left" else slice(None, -1)
    counts[:, documents] = lengths
    counts[:, 0 if pad_side == "left" else -1] = padding
    ids[:, documents] = np.arange(1, lengths.shape[1] + 1, dtype=np.int32)
    if (padding < 0).any():
        row = int(np.argmin(padding))
        raise ValueError(
            f"row {row} of a batch: documents of {int(lengths[row].sum())} tokens, expected "
            f"at most {sequence_length} (sequence_length of dataset.json); verify the dataset"
        )
    starts = (np.cumsum(counts, axis=1) - counts).astype(np.int32)
    return counts.ravel(), ids.ravel(), starts.ravel()


def make_fields(
    names: Sequence[str],
    tokens: np.ndarray,
    lengths: np.ndarray | None,
    *,
    pad_id: int,
    pad_side: str = "right",
) -> dict[str, np.ndarray]:
    """Returns one array [N, L] for each name, in their order.

    Args:
        names: of FIELDS.
        tokens: integer[N, L], kept as narrow as they come.
        lengths: integer[N, S]; may be None where no name needs them.
        pad_id: fills `targets` at the end.
        pad_side: of the dataset.

    Returns:
        arrays of token ids in the dtype of tokens, `loss_mask` bool, all others int32.
    """
    length = tokens.shape[1]
    made: dict[str, np.ndarray] = {}

    def once(name: str) -> np.ndarray:
        if name not in made:
            assert lengths is not None
            make = segments if name == "segment_ids" else positions
            made[name] = make(lengths, length, pad_side)
        return made[name]

    batch = {}
    for name in names:
        if name in ("tokens", "inputs", "input_ids"):
            batch[name] = tokens
        elif name == "targets":
            batch[name] = np.concatenate(
                [tokens[:, 1:], np.full((len(tokens), 1), pad_id, tokens.dtype)], axis=1
            )
        elif name in ("positions", "inputs_position", "targets_position"):
            batch[name] = once("positions")
        elif name in ("segment_ids", "inputs_segmentation"):
            batch[name] = once("segment_ids")
        elif name == "targets_segmentation":
            batch[name] = once("segment_ids") * _has_target(once("segment_ids"))
        elif name == "loss_mask":
            ids = once("segment_ids")
            batch[name] = _has_target(ids) if "targets" in names else ids > 0
        elif name == "attention_mask":
            batch[name] = (once("segment_ids") > 0).astype(np.int32)
        else:
            labels = np.where(once("segment_ids") > 0, tokens, np.int32(_IGNORED_LABEL))
            batch[name] = labels.astype(np.int32, copy=False)  # int64 where tokens are uint32
    return batch


def _has_target(ids: np.ndarray) -> np.ndarray:
    """Returns bool[N, L]: the next place holds a token of the same document."""
    has = np.zeros(ids.shape, bool)
    np.equal(ids[:, :-1], ids[:, 1:], out=has[:, :-1])
    has &= ids > 0
    return has


def widen(batch: dict[str, np.ndarray], arena: Arena) -> dict[str, np.ndarray]:
    """Returns the batch with token ids as int32, in the arena; ids of 2**31 and more wrap."""
    wide = {}
    for name, array in batch.items():
        wide[name] = array
        if array.dtype not in (np.int32, np.bool_):
            wide[name] = arena.empty(array.shape, np.int32)
            np.copyto(wide[name], array, casting="unsafe")
    return wide
