"""Leaves a tokenizer and its certificate in an image: `bake_tokenizer.py NAME REVISION DIRECTORY`.

Workers then ask no hub and spend no 12 s of every machine on the certificate.
"""

import sys

from shardstream.tokens.options import TokenizerOptions
from shardstream.tokens.tokenizer import open_tokenizer


def main(name: str, revision: str, directory: str) -> None:
    """Saves the tokenizer and opens the copy, which certifies it for both ways to read text."""
    open_tokenizer(TokenizerOptions(tokenizer=name, revision=revision)).save(directory)
    for special in ("encode", "parse"):
        options = TokenizerOptions(tokenizer=directory, special_tokens_in_text=special)
        tokenizer = open_tokenizer(options)
        print(f"{name}: {tokenizer.engine_name}, {special}, {tokenizer.fingerprint[:16]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
