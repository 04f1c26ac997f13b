"""Picks the engine: the fastest one that a certificate says gives transformers' ids.

Invariant: an engine that fails certification is never used. `auto` passes over it and logs why; one
asked for by name raises, because running another in silence would hide that it is slow.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

import tokenizers
import transformers

from shardstream.tokens.engines.certificates import certificate_for
from shardstream.tokens.engines.certify import Certificate, certify
from shardstream.tokens.engines.engine import Engine, EngineUnavailable
from shardstream.tokens.engines.exact import ExactEngine
from shardstream.tokens.engines.gigatoken import GigatokenEngine
from shardstream.tokens.engines.tokenizers import TokenizersEngine
from shardstream.tokens.engines.transformers import TransformersEngine
from shardstream.tokens.load import TokenizerError
from shardstream.tokens.options import TokenizerOptions

_log = logging.getLogger(__name__)

# Fastest first. The `tokenizers` library is what transformers runs underneath, so its code points
# need no certificate of their own.
_NATIVE: dict[str, Callable[..., Engine]] = {
    "gigatoken": GigatokenEngine,
    "tokenizers": TokenizersEngine,
}


def select_engine(
    options: TokenizerOptions,
    reference: TransformersEngine,
    tokenizer_json: str | None,
    fingerprint: str,
) -> ExactEngine:
    """Gives an engine whose ids are exact.

    Args:
        options: which engine is asked for, and how special tokens in text are read.
        reference: the definition of right ids.
        tokenizer_json: what native engines are built from; None for a slow tokenizer.
        fingerprint: of the tokenizer, names its certificates.

    Raises:
        TokenizerError: the engine asked for by name cannot run this tokenizer, or fails
            certification.
    """
    if options.engine == "transformers":
        return ExactEngine(None, reference, Certificate())
    names = list(_NATIVE) if options.engine == "auto" else [options.engine]
    if tokenizer_json is None:
        reasons = {name: "a slow tokenizer has no tokenizer.json" for name in names}
    else:
        reasons = {}
        for name in names:
            found = _try_engine(name, options, reference, tokenizer_json, fingerprint)
            if isinstance(found, ExactEngine):
                return found
            _log.info("engine %s passed over for %s: %s", name, options.tokenizer, found)
            reasons[name] = found
    if options.engine != "auto":
        raise TokenizerError(
            f"tokenizer {options.tokenizer!r}: engine {options.engine!r} cannot be used: "
            f"{reasons[options.engine]}. Pass --engine=auto to take the fastest that can."
        )
    why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    _log.warning("%s runs on transformers alone, about 60 times slower: %s", options.tokenizer, why)
    return ExactEngine(None, reference, Certificate())


def _try_engine(
    name: str,
    options: TokenizerOptions,
    reference: TransformersEngine,
    tokenizer_json: str,
    fingerprint: str,
) -> ExactEngine | str:
    """One engine, certified; or why not."""
    try:
        engine = _NATIVE[name](tokenizer_json, split_special_tokens=options.split_special_tokens)
    except EngineUnavailable as error:
        return str(error)
    key = {
        "fingerprint": fingerprint,
        "engine": name,
        "engine_version": engine.version,
        "special_tokens_in_text": options.special_tokens_in_text,
        "reference_version": f"{transformers.__version__}, {tokenizers.__version__}",
    }

    def make() -> Certificate:
        content = json.loads(tokenizer_json)
        _log.info("certifying engine %s for %s, once; about 15 s", name, options.tokenizer)
        return certify(
            engine,
            reference,
            added_tokens=[token["content"] for token in content.get("added_tokens") or []],
            has_normalizer=content.get("normalizer") is not None,
            shares_unicode_tables=name == "tokenizers",
        )

    certificate = certificate_for(key, make)
    if certificate.failure is not None:
        return f"it fails certification: {certificate.failure}"
    return ExactEngine(engine, reference, certificate)
