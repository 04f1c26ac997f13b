"""One record: a sequence of L tokens followed by the lengths of the documents inside it.

    tokens   L x uint16 or uint32, little-endian; padding holds any valid id and is never trusted
    lengths  S x uint16 (uint32 where L > 65535), little-endian: how many tokens the 1st, 2nd, ...
             document of the sequence has, then zeros; their sum is the number of tokens that are
             not padding

S is one number per shard (a multiple of 2, so that records stay aligned to 4 bytes), which gives
every record of a shard the same size: N records decode as one join, one reshape and two views.
Everything a trainer needs (segment_ids, positions, loss_mask) follows from the lengths; nothing is
ever guessed from token values, since GPT-2 and its kin pad with EOS.
"""

import dataclasses

import numpy as np

from shardstream.shard_format.messages import require_choice


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordLayout:
    """Sizes and dtypes of the records of one shard.

    Attributes:
        sequence_length: L, tokens per sequence.
        token_dtype: "uint16" or "uint32".
        max_segments: S, slots for document lengths; even, at least 2.
    """

    sequence_length: int
    token_dtype: str
    max_segments: int

    def __post_init__(self) -> None:
        if self.sequence_length < 1:
            raise ValueError(f"sequence_length is {self.sequence_length}, expected at least 1")
        require_choice("token_dtype", self.token_dtype, ("uint16", "uint32"))
        if self.max_segments < 2 or self.max_segments % 2:
            raise ValueError(f"max_segments is {self.max_segments}, expected an even number >= 2")

    @property
    def tokens_dtype(self) -> np.dtype:
        """The little-endian dtype of tokens."""
        return np.dtype(self.token_dtype).newbyteorder("<")

    @property
    def lengths_dtype(self) -> np.dtype:
        """The little-endian dtype of document lengths."""
        return np.dtype("<u2" if self.sequence_length <= 0xFFFF else "<u4")

    @property
    def tokens_bytes(self) -> int:
        """Bytes of the tokens at the front of a record."""
        return self.sequence_length * self.tokens_dtype.itemsize

    @property
    def record_bytes(self) -> int:
        """Bytes of a whole record."""
        return self.tokens_bytes + self.max_segments * self.lengths_dtype.itemsize


def token_dtype_for(vocab_size: int) -> str:
    """Returns the narrowest dtype that holds every id below vocab_size."""
    if not 1 <= vocab_size <= 2**32:
        raise ValueError(f"vocab_size is {vocab_size}, expected 1 to 2**32")
    return "uint16" if vocab_size <= 2**16 else "uint32"


def slots_for(max_documents: int) -> int:
    """Returns S, the length slots a shard needs when a sequence holds at most max_documents."""
    return max(2, max_documents + max_documents % 2)


def encode_records(tokens: np.ndarray, lengths: np.ndarray, layout: RecordLayout) -> np.ndarray:
    """Returns uint8[N, record_bytes], the records of N sequences.

    Args:
        tokens: integer[N, L].
        lengths: integer[N, S], document lengths, followed by zeros.
        layout: of the shard.
    """
    expected = (len(tokens), layout.sequence_length), (len(tokens), layout.max_segments)
    if (tokens.shape, lengths.shape) != expected:
        raise ValueError(
            f"tokens, lengths are {tokens.shape}, {lengths.shape}, expected {expected}"
        )
    block = np.empty((len(tokens), layout.record_bytes), np.uint8)
    block[:, : layout.tokens_bytes].view(layout.tokens_dtype)[:] = tokens
    block[:, layout.tokens_bytes :].view(layout.lengths_dtype)[:] = lengths
    return block


def decode_records(block: np.ndarray, layout: RecordLayout) -> tuple[np.ndarray, np.ndarray]:
    """Returns views of the tokens, uint16|uint32[N, L], and the lengths, uint16|uint32[N, S].

    Args:
        block: uint8[N, record_bytes], each row contiguous.
        layout: of the shard.
    """
    if block.ndim != 2 or block.shape[1] != layout.record_bytes:
        raise ValueError(
            f"block is uint8{block.shape}, expected rows of {layout.record_bytes} bytes"
        )
    return (
        block[:, : layout.tokens_bytes].view(layout.tokens_dtype),
        block[:, layout.tokens_bytes :].view(layout.lengths_dtype),
    )
