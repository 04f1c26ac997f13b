"""The reference engine: the ids of `AutoTokenizer(...)(text)`, by asking `transformers` for them.

Invariant: whatever this engine returns is right by definition; the other engines are certified
against it. It takes slow tokenizers too. One lock serializes the calls, because a call changes the
settings of the tokenizer it runs on (padding, truncation, special-token splitting).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pyarrow as pa
import transformers

from shardstream.tokens.assemble import from_lists
from shardstream.tokens.engines.engine import Encoded, calling_library

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TransformersEngine:
    """Calls a transformers tokenizer, a block of texts a call.

    Args:
        tokenizer: what `AutoTokenizer.from_pretrained` gave, fast or slow.
        split_special_tokens: True reads a literal special token as ordinary text.
    """

    name = "transformers"
    version = transformers.__version__

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, split_special_tokens: bool) -> None:
        self._tokenizer = tokenizer
        _forgo_cache(tokenizer)
        self._split_special_tokens = split_special_tokens
        self._lock = threading.Lock()

    def encode(self, texts: pa.LargeStringArray) -> Encoded:
        """See `tokens.engines.engine.Engine.encode`; any number of threads may call, one runs."""
        if len(texts) == 0:
            return from_lists([])
        with self._lock, calling_library():
            batch = self._tokenizer(
                texts.to_pylist(),
                add_special_tokens=False,
                padding=False,
                truncation=False,
                return_attention_mask=False,
                return_token_type_ids=False,
                split_special_tokens=self._split_special_tokens,
                verbose=False,
            )
        return from_lists(batch["input_ids"])


def _forgo_cache(tokenizer: PreTrainedTokenizerBase) -> None:
    """Has the tokenizers library remember no words.

    Its BPE keeps 10,000 of them for each thread that ever called it, GPT-2's 4 MB a thread, through
    the tokenizer's end; audits meet them little by little, so a job's memory grew for as long as it
    ran. It is no slower without. Only private names lead there.
    """
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    resize = getattr(model, "_resize_cache", None)
    if resize is not None:
        resize(0)
