"""One hash for everything that determines a tokenizer's ids.

Invariant: two tokenizers with one fingerprint give the same ids, wherever they were loaded from and
whatever settings a call left on them (padding and truncation are not part of it). Names and paths
are not part of it either, so a copy in a dataset directory has the fingerprint of the original.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SPECIAL_NAMES = ("bos", "eos", "pad", "unk")


def canonical_json(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """tokenizer.json as the running tokenizer has it, keys sorted; None for a slow tokenizer.

    Taken from the live object, not the file, because `transformers` changes what it loads
    (adds special tokens from tokenizer_config.json, sets the prefix space).
    """
    backend = getattr(tokenizer, "backend_tokenizer", None) if tokenizer.is_fast else None
    if backend is None:
        return None
    content = json.loads(backend.to_str()) | {"truncation": None, "padding": None}
    return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def fingerprint(tokenizer: PreTrainedTokenizerBase, content: str | None) -> str:
    """sha256, hex, of a tokenizer's definition and its special ids.

    Args:
        tokenizer: as transformers opened it.
        content: its canonical_json, which takes a tenth of a second to make.
    """
    digest = hashlib.sha256()
    if content is not None:
        _add(digest, "tokenizer.json", content.encode("utf-8", "surrogatepass"))
    else:
        _add_slow(digest, tokenizer)
    special = {name: getattr(tokenizer, f"{name}_token_id") for name in _SPECIAL_NAMES}
    _add(digest, "special ids", json.dumps(special, sort_keys=True).encode())
    return digest.hexdigest()


def _add_slow(digest: hashlib._Hash, tokenizer: PreTrainedTokenizerBase) -> None:
    """A slow tokenizer is its class, the files it saves, and what was added to it."""
    kind = type(tokenizer)
    _add(digest, "class", f"{kind.__module__.rpartition('.')[2]}.{kind.__qualname__}".encode())
    with tempfile.TemporaryDirectory() as directory:
        tokenizer.save_vocabulary(directory)
        for path in sorted(Path(directory).rglob("*")):
            if path.is_file():
                _add(digest, path.name, path.read_bytes())
    added = {index: repr(token) for index, token in tokenizer.added_tokens_decoder.items()}
    _add(digest, "added tokens", json.dumps(added, sort_keys=True).encode())
    settings = {
        key: value
        for key, value in tokenizer.init_kwargs.items()
        if isinstance(value, bool | int | float | str) and not _is_place(key)
    }
    _add(digest, "settings", json.dumps(settings, sort_keys=True).encode())


def _is_place(key: str) -> bool:
    """Arguments that say where a tokenizer came from, not what it does."""
    return key.endswith(("_file", "_path", "_commit_hash")) or key in ("name_or_path", "auto_map")


def _add(digest: hashlib._Hash, name: str, content: bytes) -> None:
    """Adds one named item; lengths go first, so that no two lists of items hash alike."""
    digest.update(f"{name}:{len(content)}:".encode())
    digest.update(content)
