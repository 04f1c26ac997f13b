"""Encoding that no document can stop: what the tokenizer can't take is set aside, the rest kept.

Invariant: ids and offsets are those of the documents kept, in their order; every document is either
kept or named with its error.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from shardstream.shard_format.keys import document_keys
from shardstream.tokens.engines.engine import Encoded
from shardstream.tokens.engines.exact import EncodeCounts
from shardstream.tokens.tokenizer import Tokenizer


class Healthy(NamedTuple):
    """What could be encoded: `keep` is bool[n] over the texts given, `errors` is by their index."""

    encoded: Encoded
    counts: EncodeCounts
    keep: np.ndarray
    errors: dict[int, Exception]


def encode_around(
    tokenizer: Tokenizer, texts: pa.LargeStringArray, audit_rows: np.ndarray | None
) -> Healthy:
    """Encodes n documents; one by one where a document of the block raises.

    Args:
        tokenizer: to encode with.
        texts: large_string[n], without nulls.
        audit_rows: as in `Tokenizer.encode`; a block with a poisonous document is not audited.
    """
    keep = np.ones(len(texts), bool)
    try:
        encoded, counts = tokenizer.encode_counted(texts, audit_rows=audit_rows)
        return Healthy(encoded, counts, keep, {})
    except Exception:  # any document may be the poison; find it, keep the rest
        errors: dict[int, Exception] = {}
    for i in range(len(texts)):
        try:
            tokenizer.encode(texts[i : i + 1] if len(texts) > 1 else texts)
        except Exception as error:
            keep[i] = False
            errors[i] = error
    encoded, counts = tokenizer.encode_counted(texts.filter(pa.array(keep)), audit_rows=None)
    return Healthy(encoded, counts, keep, errors)


def audited_rows(
    tokenizer: Tokenizer, *, seed: int, file_index: int, rows: np.ndarray
) -> np.ndarray | None:
    """Returns bool[n], about one document in `audit_every`, chosen by key: the same in any run."""
    every = tokenizer.options.audit_every
    if every == 0 or len(rows) == 0:
        return None
    return document_keys(seed, file_index, rows) % np.uint64(every) == 0
