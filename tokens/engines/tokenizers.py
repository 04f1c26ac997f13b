"""The `tokenizers` engine: the Rust library under transformers' fast tokenizers, called directly.

Invariant: the instance is its own copy, built once from the canonical tokenizer.json with padding
and truncation off, and never changed, so any number of threads may share it. `encode_batch_fast`
leaves out character offsets, which nothing here needs.
"""

from __future__ import annotations

import json

import pyarrow as pa
import tokenizers

from shardstream.tokens.assemble import from_lists
from shardstream.tokens.engines.engine import Encoded, EngineUnavailable, calling_library


class TokenizersEngine:
    """Runs a tokenizer.json with `tokenizers`.

    Args:
        tokenizer_json: content of tokenizer.json, as transformers' backend gives it.
        split_special_tokens: True reads a literal special token as ordinary text.

    Raises:
        EngineUnavailable: this version of `tokenizers` cannot read the file.
    """

    name = "tokenizers"
    version = tokenizers.__version__

    def __init__(self, tokenizer_json: str, *, split_special_tokens: bool) -> None:
        content = json.loads(tokenizer_json) | {"truncation": None, "padding": None}
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(content))
        except Exception as error:  # tokenizers raises bare Exception
            raise EngineUnavailable(f"tokenizers {self.version} cannot load it: {error}") from error
        self._tokenizer.encode_special_tokens = split_special_tokens

    def encode(self, texts: pa.LargeStringArray) -> Encoded:
        """See `tokens.engines.engine.Engine.encode`."""
        with calling_library():
            encodings = self._tokenizer.encode_batch_fast(
                texts.to_pylist(), add_special_tokens=False
            )
        return from_lists([encoding.ids for encoding in encodings])
