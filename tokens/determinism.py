"""Finds tokenizers that are no function of their text; applies what makes them one.

Some tokenizers carry a setting that makes them draw at random: BPE dropout, SentencePiece sampling.
They are meant for augmentation while a model trains; a dataset made with one could never be built
again. The settings are looked for by name, and a few texts are encoded several times to find what
has no name here.
"""

from __future__ import annotations

import json
from itertools import chain, islice
from typing import TYPE_CHECKING

from shardstream.tokens.engines.engine import calling_library

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Long words of many pieces: with a dropout of 0.01 hundreds of merges are at stake.
_PROBES = tuple(
    f"{word} uncharacteristically internationalization antidisestablishmentarianism {word * 3} " * 8
    for word in ("tokenization", "Donaudampfschifffahrt", "преподавание", "0123456789")
)
_TIMES = 4
_MOST_WORDS = 1000
DROPOUT_OFF = "dropout=null"


def check_override(text: str) -> str | None:
    """Returns what is wrong with one override, None where nothing is."""
    if text == DROPOUT_OFF:
        return None
    return f"tokenizer_override: expected {DROPOUT_OFF}, found {text!r}."


def apply_overrides(tokenizer: PreTrainedTokenizerBase, overrides: tuple[str, ...]) -> None:
    """Switches off the settings that make a tokenizer draw at random; changes it in place."""
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    if DROPOUT_OFF in overrides and model is not None and hasattr(model, "dropout"):
        model.dropout = None


def why_not_a_function(tokenizer: PreTrainedTokenizerBase, content: str | None) -> str | None:
    """Returns why a tokenizer gives one text several lists of ids, None where it does not.

    Args:
        tokenizer: as transformers opened it.
        content: its tokenizer.json, None for a slow tokenizer.
    """
    model = json.loads(content).get("model", {}) if content is not None else {}
    if model.get("dropout"):
        return (
            f"its BPE model has a dropout of {model['dropout']}, so one text gives other ids each "
            "time. Pass --tokenizer_override dropout=null to build without it"
        )
    sampling = (tokenizer.init_kwargs.get("sp_model_kwargs") or {}).get("enable_sampling")
    if sampling:
        return (
            "its SentencePiece model samples (sp_model_kwargs.enable_sampling), so one text gives "
            "other ids each time. Remove that setting from its tokenizer_config.json"
        )
    for probe in _PROBES:
        try:
            with calling_library():
                found = {tuple(tokenizer(probe, verbose=False)["input_ids"]) for _ in range(_TIMES)}
        except Exception:  # it refuses this text; documents that it refuses are dead letters
            continue
        if len(found) > 1:
            return (
                f"encoding one text {_TIMES} times gave {len(found)} lists of ids. A dataset needs "
                "a tokenizer that draws nothing at random: switch that off in its files"
            )
    return None


def why_it_takes_no_text(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Returns why a tokenizer refuses every text, None where it takes one.

    A tokenizer may refuse what its vocabulary has no token for. So the words of its vocabulary are
    tried as well as ordinary text.
    """
    special = set(tokenizer.all_special_ids)
    ids = (index for index in tokenizer.get_vocab().values() if index not in special)
    words = (tokenizer.decode([index]) for index in islice(ids, _MOST_WORDS))
    why = "its vocabulary is empty"
    for text in chain(_PROBES, words):
        try:
            with calling_library():
                tokenizer(text, verbose=False)
            return None
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
    return why
