"""What a user may ask of tokenization, checked when it is asked.

Invariant: an instance that exists is valid on its own terms; whether the tokenizer can be found and
has the special tokens asked for is checked by `tokens.tokenizer.open_tokenizer`. Frozen and
hashable, so that it is the key of the process-wide tokenizer cache and travels inside Beam's
pickles without a tokenizer in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from shardstream.shard_format.errors import OptionError
from shardstream.shard_format.messages import require_choice
from shardstream.tokens.determinism import check_override

ENGINES: Final = ("auto", "gigatoken", "tokenizers", "transformers")
SPECIAL_TOKENS_IN_TEXT: Final = ("encode", "parse")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class TokenizerOptions:
    """Which tokenizer, run by which engine, with which ids around every document.

    Attributes:
        tokenizer: a Hugging Face hub name (`openai-community/gpt2`) or a local directory.
        revision: the hub commit, tag or branch; None is the hub's default branch.
        engine: `auto` takes the fastest engine that passes certification; a name asks for that
            engine and fails when it cannot give transformers' ids.
        add_bos: put the tokenizer's BOS id before every document.
        add_eos: put the tokenizer's EOS id after every document, empty ones included.
        special_tokens_in_text: what a literal `<|endoftext|>` inside a document becomes. `encode`:
            the ids of its characters, so no document can forge a boundary. `parse`: the special
            token's id, which is what `transformers` does by default.
        audit_every: a document in this many is tokenized again by `transformers` and compared;
            the caller picks which, by document key. 0 turns the audit off.
        tokenizer_override: settings to change in the tokenizer, for those that draw at random:
            `dropout=null`.
        trust_remote_code: `NAME@COMMIT`, the hub repository whose Python code the tokenizer may
            run, and its full commit. No code is run unless it is named here.
    """

    tokenizer: str
    revision: str | None = None
    engine: str = "auto"
    add_bos: bool = False
    add_eos: bool = True
    special_tokens_in_text: str = "encode"
    audit_every: int = 1000
    tokenizer_override: tuple[str, ...] = ()
    trust_remote_code: str | None = None

    def __post_init__(self) -> None:
        if not self.tokenizer.strip():
            raise OptionError(
                "tokenizer: expected a hub name such as 'openai-community/gpt2' or a directory, "
                f"found {self.tokenizer!r}. Pass --tokenizer."
            )
        require_choice("engine", self.engine, ENGINES)
        require_choice(
            "special_tokens_in_text", self.special_tokens_in_text, SPECIAL_TOKENS_IN_TEXT
        )
        for text in self.tokenizer_override:
            if problem := check_override(text):
                raise OptionError(problem)
        if self.trust_remote_code is not None:
            self._check_trusted(*self.trust_remote_code.rpartition("@")[::2])
        if self.audit_every < 0:
            raise OptionError(
                f"audit_every: expected 0 (no audit) or a number of documents, "
                f"found {self.audit_every}."
            )

    def _check_trusted(self, name: str, commit: str) -> None:
        """Raises OptionError where the code that is trusted is not that of this tokenizer."""
        if name != self.tokenizer or not _COMMIT.fullmatch(commit):
            raise OptionError(
                f"trust_remote_code: expected {self.tokenizer}@COMMIT with the 40 hex digits of "
                f"its commit, found {self.trust_remote_code!r}. Read the code at that commit first."
            )
        if self.revision not in (None, commit):
            raise OptionError(
                f"trust_remote_code names commit {commit}, but the tokenizer's revision is "
                f"{self.revision!r}; give one of the two, or the same."
            )

    @property
    def split_special_tokens(self) -> bool:
        """The same choice in the word `transformers` uses for it."""
        return self.special_tokens_in_text == "encode"
