"""Opens the reference tokenizer, and says plainly what was tried when it cannot.

Invariant: loading is the only step that may touch the network, and only for a hub name; a directory
loads with no network at all. The hub is whatever `HF_ENDPOINT` names.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from shardstream.tokens.determinism import apply_overrides
from shardstream.tokens.options import TokenizerOptions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TokenizerError(ValueError):
    """The tokenizer asked for cannot be used as asked; the message says why and what to do."""


def load_reference(options: TokenizerOptions) -> PreTrainedTokenizerBase:
    """Gives `AutoTokenizer.from_pretrained` of a directory or a hub name.

    Raises:
        TokenizerError: no such directory, no tokenizer in it, no such hub name, or no network.
    """
    name = str(Path(options.tokenizer).expanduser())
    is_directory = Path(name).is_dir()
    if not is_directory and _looks_like_path(options.tokenizer):
        raise TokenizerError(
            f"tokenizer {options.tokenizer!r}: expected a directory, found "
            f"{'a file' if Path(name).exists() else 'nothing'} at {Path(name).absolute()}. Pass "
            "the directory that holds tokenizer.json and tokenizer_config.json, or a hub name "
            "such as 'openai-community/gpt2'."
        )
    from transformers import AutoTokenizer

    trusted = options.trust_remote_code
    revision = trusted.rpartition("@")[2] if trusted else options.revision
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name,
            **({} if is_directory or revision is None else {"revision": revision}),
            # Left out, transformers asks on stdin whether to run the repository's code.
            trust_remote_code=trusted is not None,
            **({"code_revision": revision} if trusted else {}),
        )
    except Exception as error:
        place = (
            _code_message(options, error)
            or _slow_message(name, error)
            or (_directory_message(name) if is_directory else _hub_message(options, error))
        )
        raise TokenizerError(f"tokenizer {options.tokenizer!r}: {place}\nCause: {error}") from error
    if len(tokenizer) == 0:
        raise TokenizerError(f"tokenizer {options.tokenizer!r}: its vocabulary is empty.")
    apply_overrides(tokenizer, options.tokenizer_override)
    return tokenizer


def _looks_like_path(name: str) -> bool:
    """True for what no hub name can be: absolute, ./relative, ~home, or more than one slash."""
    return name.startswith(("/", ".", "~")) or name.count("/") > 1 or Path(name).exists()


def _code_message(options: TokenizerOptions, error: Exception) -> str | None:
    """Says what to do about a tokenizer that wants to run code of its own."""
    if "trust_remote_code" not in str(error):
        return None
    return (
        "it comes with Python code of its own, which is not run unless it is asked for by name. "
        f"Read that code, then pass --trust_remote_code {options.tokenizer}@COMMIT with the full "
        "commit you have read, or use a tokenizer that needs none (one with a tokenizer.json)."
    )


def _slow_message(name: str, error: Exception) -> str | None:
    """Says which package a slow tokenizer lacks here."""
    text = " ".join(str(cause) for cause in chain_of_causes(error)).lower()
    if not any(word in text for word in ("sentencepiece", "tiktoken", "protobuf")):
        return None
    models = [path for path in Path(name).glob("*") if path.suffix in (".model", ".tiktoken")]
    if Path(name).is_dir() and not models:
        return None
    return (
        "it has no tokenizer.json that transformers can open. If it has a SentencePiece or "
        "tiktoken model, that needs further packages: pip install 'shardstream[sentencepiece]'."
    )


def _directory_message(directory: str) -> str:
    found = sorted(path.name for path in Path(directory).iterdir())
    listed = ", ".join(found[:12]) + (", ..." if len(found) > 12 else "")
    return (
        f"transformers cannot load the directory {Path(directory).absolute()} "
        f"(it holds: {listed or 'nothing'}). Expected the files that save_pretrained writes: "
        "tokenizer.json with tokenizer_config.json, or a slow tokenizer's vocabulary files."
    )


def _hub_message(options: TokenizerOptions, error: Exception) -> str:
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    revision = options.revision or "main"
    tried = (
        f"no directory of that name in {Path.cwd()}, so asked {endpoint} for "
        f"{options.tokenizer} at revision {revision!r}"
    )
    causes = {type(cause).__name__ for cause in chain_of_causes(error)}
    if causes & {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError"}:
        return (
            f"{tried}; the hub did not answer and the local cache does not hold it. Check the "
            "network and HF_ENDPOINT, or pass a directory made by save_pretrained."
        )
    if "RevisionNotFoundError" in causes:
        return f"{tried}; the hub has it, but not that revision. Check --tokenizer_revision."
    if "GatedRepoError" in causes:
        return f"{tried}; it is gated. Accept its terms on the hub and set HF_TOKEN."
    if "RepositoryNotFoundError" in causes:
        return (
            f"{tried}; the hub has no such repository, or it is private. Check the spelling, set "
            "HF_TOKEN for a private one, or pass a directory."
        )
    return f"{tried}; transformers could not load what it found."


def chain_of_causes(error: BaseException | None) -> list[BaseException]:
    """An exception and everything it was raised from."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain
