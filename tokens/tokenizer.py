"""A tokenizer opened for work: exact ids, special ids around documents, and what a manifest says.

Invariant: whatever engine runs, `Tokenizer.encode` gives the ids that `AutoTokenizer` gives for the
same options, with BOS and EOS inserted as numbers, never as text. A Tokenizer holds native objects
and is not picklable: send `TokenizerOptions` to a worker and open it there.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import threading
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from shardstream.tokens.assemble import add_special_ids
from shardstream.tokens.determinism import why_it_takes_no_text, why_not_a_function
from shardstream.tokens.engines.engine import Encoded, as_large_strings
from shardstream.tokens.engines.exact import AuditDifference, EncodeCounts
from shardstream.tokens.engines.select import select_engine
from shardstream.tokens.engines.transformers import TransformersEngine
from shardstream.tokens.fingerprint import canonical_json, fingerprint
from shardstream.tokens.literals import LiteralSearch
from shardstream.tokens.load import TokenizerError, load_reference
from shardstream.tokens.options import TokenizerOptions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_open_lock = threading.Lock()
_opened: weakref.WeakSet[Tokenizer] = weakref.WeakSet()


def open_tokenizer(options: TokenizerOptions) -> Tokenizer:
    """Opens a tokenizer, or gives this process' open one for the same options.

    The first call on a machine certifies the engine (about 15 s, then kept on disk); later ones
    take the time of loading the tokenizer.

    Raises:
        TokenizerError: not found, lacks the special token asked for, or cannot run on the engine
            asked for by name.
    """
    with _open_lock:  # lru_cache alone would let two threads load at once
        return _open(options)


@functools.lru_cache(maxsize=8)
def _open(options: TokenizerOptions) -> Tokenizer:
    tokenizer = Tokenizer(options, load_reference(options))
    _opened.add(tokenizer)
    return tokenizer


def release_memory() -> None:
    """Has this process' open tokenizers drop their caches; one that is used again makes its own.

    For a process that is done with tokenizing, for now or for good.
    """
    for tokenizer in list(_opened):
        tokenizer.engine.release_memory()


class Tokenizer:
    """Turns columns of documents into ids; made by `open_tokenizer`.

    Guarantees: any number of threads may encode at once; native engines scale over threads.

    Attributes:
        options: what it was opened with.
        reference: the transformers tokenizer that defines the ids.
        engine: what makes the ids, special ids not added; `encode` is the way to call it.
        fingerprint: sha256, hex, of everything that determines the ids of text.
        vocab_size: the largest id, added tokens included, plus one.
        bos_id, eos_id, pad_id, unk_id: special ids; None where the tokenizer has none.
    """

    def __init__(self, options: TokenizerOptions, reference: PreTrainedTokenizerBase) -> None:
        self.options = options
        self.reference = reference
        content = canonical_json(reference)
        if why := why_not_a_function(reference, content):
            raise TokenizerError(f"tokenizer {options.tokenizer!r}: {why}.")
        if why := why_it_takes_no_text(reference):
            raise TokenizerError(
                f"tokenizer {options.tokenizer!r}: it refuses every text tried, the words of its "
                f"own vocabulary included: {why}. Mend its files, or choose another tokenizer."
            )
        self.fingerprint: str = fingerprint(reference, content)
        self.vocab_size: int = max(reference.get_vocab().values()) + 1
        self.bos_id = _one_id(reference.bos_token_id)
        self.eos_id = _one_id(reference.eos_token_id)
        self.pad_id = _one_id(reference.pad_token_id)
        self.unk_id = _one_id(reference.unk_token_id)
        _require_id(options.add_bos, self.bos_id, "bos", options.tokenizer)
        _require_id(options.add_eos, self.eos_id, "eos", options.tokenizer)
        definition = TransformersEngine(
            reference, split_special_tokens=options.split_special_tokens
        )
        self.engine = select_engine(options, definition, content, self.fingerprint)
        added = reference.added_tokens_decoder.values()
        self._special_texts = LiteralSearch([token.content for token in added if token.special])
        self._counts = EncodeCounts()
        self._counts_lock = threading.Lock()

    @property
    def token_dtype(self) -> type[np.uint16] | type[np.uint32]:
        """The smallest type that stores every id."""
        return np.uint16 if self.vocab_size <= 1 << 16 else np.uint32

    @property
    def fill_id(self) -> int:
        """What padding is filled with: the pad id, else EOS (as GPT-2's users do), else 0.

        Masks come from lengths, so the id only has to be valid.
        """
        fallback = self.eos_id if self.eos_id is not None else 0
        return self.pad_id if self.pad_id is not None else fallback

    @property
    def engine_name(self) -> str:
        """The engine in use now; an audit may change it to `transformers` while running."""
        return self.engine.active.name

    @property
    def engine_version(self) -> str:
        """Version of the library that `engine_name` runs."""
        return self.engine.active.version

    @property
    def counts(self) -> EncodeCounts:
        """Totals of every block this instance has encoded."""
        with self._counts_lock:
            return self._counts

    @property
    def audit_differences(self) -> tuple[AuditDifference, ...]:
        """The first 100 documents on which the audit caught the engine, over all blocks."""
        return self.engine.differences

    def encode(
        self, texts: pa.Array | pa.ChunkedArray, audit_rows: np.ndarray | None = None
    ) -> Encoded:
        """Tokenizes n documents, BOS and EOS inserted as the options say.

        Args:
            texts: string, large_string or string_view; slices too; no nulls.
            audit_rows: bool[n] or int[k], the documents to compare with transformers. Choose them
                by document key, one in `options.audit_every`.

        Returns:
            n rows of ids; an empty document has its special ids only.

        Raises:
            TypeError, ValueError: not strings, or nulls among them.
        """
        return self.encode_counted(texts, audit_rows)[0].narrow(np.uint32)

    def encode_counted(
        self, texts: pa.Array | pa.ChunkedArray, audit_rows: np.ndarray | None = None
    ) -> tuple[Encoded, EncodeCounts]:
        """Does what `encode` does, and says how many documents of this block took which way.

        The ids are of `token_dtype`, narrowed before anything else moves them.
        """
        texts = as_large_strings(texts)
        encoded, counts = self.engine.encode(texts, audit_rows)
        with_special_text = int(self._special_texts.rows_with(texts).sum())
        counts = dataclasses.replace(counts, special_text_documents=with_special_text)
        with self._counts_lock:
            self._counts += counts
        bos_id = self.bos_id if self.options.add_bos else None
        eos_id = self.eos_id if self.options.add_eos else None
        encoded = encoded.narrow(self.token_dtype)
        return add_special_ids(encoded, bos_id=bos_id, eos_id=eos_id), counts

    def decode(self, ids: np.ndarray | Sequence[int]) -> str:
        """Text of int[t] ids, special tokens written out."""
        text = self.reference.decode(np.asarray(ids, np.int64).tolist())
        assert isinstance(text, str)  # a list of texts is for a list of lists
        return text

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Writes the tokenizer's own files, enough to open it again without a network."""
        self.reference.save_pretrained(os.fspath(directory))

    def __reduce__(self) -> str:
        raise TypeError(
            "Tokenizer cannot be pickled. Send TokenizerOptions to the worker and call "
            "open_tokenizer there (in DoFn.setup)."
        )


def _one_id(found: object) -> int | None:
    """Returns a special id; to transformers it may be of many types, in a tokenizer it is one."""
    assert found is None or isinstance(found, int)
    return found


def _require_id(asked: bool, found: int | None, name: str, tokenizer: str) -> None:
    """Checks at the start that a special id to be inserted exists."""
    if asked and found is None:
        raise TokenizerError(
            f"tokenizer {tokenizer!r}: add_{name} needs a tokenizer with a {name}_token, found "
            f"none. Pass --no-{name}, or set {name}_token in its tokenizer_config.json."
        )
