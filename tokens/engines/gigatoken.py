"""The `gigatoken` engine: BPE over Arrow's own buffers, no Python object a document or a token.

Invariant: memory is bounded whatever the text. gigatoken 0.10 remembers every distinct word it ever
met (about 110 bytes each) and one instance serves one thread at a time, so the engine keeps a pool:
a call takes an idle instance or makes one, charges it with what the process grew by during the
call, and drops it when that passes the budget. Dropping costs one load and a cold cache; ids never
depend on the cache.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from shardstream.tokens.arrow_buffers import value_bytes, value_offsets
from shardstream.tokens.engines.engine import Encoded, EngineUnavailable, calling_library
from shardstream.tokens.process_memory import resident_bytes

DEFAULT_CACHE_BYTES = 256 << 20
"""Cache growth allowed to each instance: about two million distinct words, some GB of web text."""

# Worst case found for one byte of text where the process' size cannot be read: every word new and
# short, 110 bytes of cache for 6 of text.
_CACHE_BYTES_PER_TEXT_BYTE = 20


@dataclass
class _Instance:
    """One gigatoken tokenizer and what it is charged with, in bytes."""

    backend: Any
    charged_bytes: int = 0


class GigatokenEngine:
    """Runs a byte-level or SentencePiece BPE tokenizer.json with `gigatoken`.

    Guarantees: `encode` may run in several threads at once and they scale; at most one instance
    lives for each call in flight. Cannot be pickled.

    Args:
        tokenizer_json: content of tokenizer.json, as transformers' backend gives it.
        split_special_tokens: True reads a literal special token as ordinary text.
        cache_bytes: growth after which an instance is dropped.

    Raises:
        EngineUnavailable: gigatoken is not installed, or does not know this kind of model.
    """

    name = "gigatoken"

    def __init__(
        self,
        tokenizer_json: str,
        *,
        split_special_tokens: bool,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        try:
            import awkward
            import gigatoken
        except ImportError as error:
            raise EngineUnavailable(f"not installed ({error}); pip install gigatoken") from error
        self._gigatoken = gigatoken
        self._awkward = awkward
        self.version = _installed_version()
        self._json = (
            _without_special_tokens(tokenizer_json) if split_special_tokens else tokenizer_json
        )
        self._cache_bytes = cache_bytes
        self._lock = threading.Lock()
        self._idle = [self._make_instance()]
        self.num_rebuilds = 0

    def encode(self, texts: pa.LargeStringArray) -> Encoded:
        """See `tokens.engines.engine.Engine.encode`."""
        if len(texts) == 0:
            return Encoded(np.zeros(0, np.uint32), np.zeros(1, np.int64))
        rows = self._rows(texts)
        instance = self._take_instance()
        before = resident_bytes()
        with calling_library():
            result = instance.backend.encode_batch(rows, parallel=False).layout
        ids = np.asarray(result.content.data)
        offsets = np.asarray(result.offsets.data)
        if before is None:
            size = int(value_offsets(texts)[-1] - value_offsets(texts)[0])
            instance.charged_bytes += _CACHE_BYTES_PER_TEXT_BYTE * size
        else:
            growth = (resident_bytes() or before) - before - ids.nbytes - offsets.nbytes
            instance.charged_bytes += max(growth, 0)
        self._give_instance(instance)
        return Encoded(ids, offsets)

    def release_memory(self) -> None:
        """Drops the idle instances with their caches; the next call makes one."""
        with self._lock:
            self._idle.clear()

    def __reduce__(self) -> str:
        raise TypeError(
            "GigatokenEngine cannot be pickled. Send TokenizerOptions to the worker and call "
            "open_tokenizer there (in DoFn.setup)."
        )

    def _rows(self, texts: pa.LargeStringArray) -> object:
        """Wraps n texts as an awkward array over the same memory."""
        contents = self._awkward.contents
        characters = contents.NumpyArray(
            value_bytes(texts),  # pyright: ignore[reportArgumentType]  (it takes any array)
            parameters={"__array__": "char"},
        )
        offsets = self._awkward.index.Index64(value_offsets(texts))
        layout = contents.ListOffsetArray(offsets, characters, parameters={"__array__": "string"})
        return self._awkward.Array(layout)

    def _make_instance(self) -> _Instance:
        try:
            return _Instance(self._gigatoken.Tokenizer.from_json(self._json).backend)
        except Exception as error:  # the Rust side raises ValueError and its own kinds
            reason = str(error).partition("\n")[0]  # the rest is a Rust source location
            raise EngineUnavailable(f"gigatoken {self.version} cannot load it: {reason}") from error

    def _take_instance(self) -> _Instance:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self._make_instance()

    def _give_instance(self, instance: _Instance) -> None:
        with self._lock:
            if instance.charged_bytes <= self._cache_bytes:
                self._idle.append(instance)
            else:
                self.num_rebuilds += 1


def _installed_version() -> str:
    from importlib.metadata import version

    return version("gigatoken")


def _without_special_tokens(tokenizer_json: str) -> str:
    """Drops the special tokens from what is looked for in text; their ids are never made then."""
    begin = '{"added_tokens":'
    if tokenizer_json.startswith(begin):  # keys sorted, as we give it: the vocabulary is not parsed
        tokens, end = json.JSONDecoder().raw_decode(tokenizer_json, len(begin))
        kept = json.dumps([token for token in tokens or [] if not token["special"]])
        return begin + kept + tokenizer_json[end:]
    content = json.loads(tokenizer_json)
    content["added_tokens"] = [t for t in content.get("added_tokens") or [] if not t["special"]]
    return json.dumps(content)
