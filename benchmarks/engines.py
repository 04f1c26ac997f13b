"""Prints what tokenization costs: Mtok/s by engine and threads, and memory over ever-new words.

Run from the repository root, with nothing else running:

    python -m benchmarks.engines speed  --tokenizer=DIR_OR_NAME [--megabytes=24]
    python -m benchmarks.engines memory --tokenizer=DIR_OR_NAME [--megabytes=200]

The text is Python's own documentation, each document cut and rotated differently. `exact` is what a
pipeline calls: `Tokenizer.encode`, with the scan for uncertified documents and EOS inserted.
"""

from __future__ import annotations

import argparse
import pydoc_data.topics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa

from shardstream.tokens.engines.engine import Encoded
from shardstream.tokens.options import ENGINES, TokenizerOptions
from shardstream.tokens.tokenizer import open_tokenizer

DOCUMENTS_PER_BLOCK = 1000
# The slow engines get less text, so that every line takes about as long.
_SHARE = {"gigatoken": 1.0, "tokenizers": 0.05, "transformers": 0.05}


def documentation_blocks(megabytes: float) -> list[pa.LargeStringArray]:
    """Blocks of 1,000 documents, some 2.5 MB each, no two documents alike."""
    rng = np.random.default_rng(0)
    words = " ".join(pydoc_data.topics.topics.values()).split(" ")
    blocks, size = [], 0
    while size < megabytes * 1e6:
        starts = rng.integers(0, len(words) - 800, DOCUMENTS_PER_BLOCK)
        lengths = rng.integers(20, 800, DOCUMENTS_PER_BLOCK)
        documents = [" ".join(words[s : s + n]) for s, n in zip(starts, lengths, strict=True)]
        blocks.append(pa.array(documents, pa.large_string()))
        size += blocks[-1].nbytes
    return blocks


def new_word_block(seed: int, num_words: int = 150_000) -> pa.LargeStringArray:
    """1.5 MB of nine-letter words, next to none of which another block has."""
    letters = np.random.default_rng(seed).integers(97, 123, (num_words, 10), dtype=np.uint8)
    letters[:, -1] = ord(" ")
    text = letters.tobytes().decode("ascii")
    return pa.array([text[i : i + 1500] for i in range(0, len(text), 1500)])


def measure_speed(tokenizer: str, megabytes: float) -> None:
    """Prints a line for every engine and 1 and 2 threads, best of three runs after a warm-up."""
    blocks = documentation_blocks(megabytes)
    for name in ("auto", *ENGINES[1:]):
        try:
            opened = open_tokenizer(TokenizerOptions(tokenizer=tokenizer, engine=name))
        except ValueError as error:
            print(f"{name:24} unavailable: {error}")
            continue
        share = _SHARE[opened.engine_name]
        chosen = blocks[: max(2, round(share * len(blocks)))]
        label = f"exact ({opened.engine_name})" if name == "auto" else name
        encode = opened.encode if name == "auto" else opened.engine.active.encode
        for num_threads in (1, 2):
            rate = max(_tokens_per_sec(encode, chosen, num_threads) for _ in range(3))
            print(f"{label:24} {num_threads} thread(s) {rate / 1e6:8.2f} Mtok/s", flush=True)


def measure_memory(tokenizer: str, megabytes: float) -> None:
    """Prints resident memory as one engine meets only new words."""
    opened = open_tokenizer(TokenizerOptions(tokenizer=tokenizer))
    size, seed, start = 0, 0, resident_megabytes()
    print(f"{opened.engine_name}: {start:.0f} MB before any text")
    next_line = 0.0
    while size < megabytes * 1e6:
        block = new_word_block(seed)
        opened.encode(block)
        size, seed = size + block.nbytes, seed + 1
        if size / 1e6 >= next_line:
            print(f"{size / 1e6:6.0f} MB of new words {resident_megabytes():6.0f} MB resident")
            next_line += megabytes / 20


def resident_megabytes() -> float:
    """Memory of this process now (Linux)."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1000


def _tokens_per_sec(
    encode: Callable[[pa.Array], Encoded], blocks: list[pa.LargeStringArray], num_threads: int
) -> float:
    encode(blocks[0])
    with ThreadPoolExecutor(num_threads) as threads:
        start = time.perf_counter()
        num_tokens = sum(threads.map(lambda block: len(encode(block).ids), blocks))
        return num_tokens / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("mode", choices=("speed", "memory"))
    parser.add_argument("--tokenizer", required=True, help="a directory or hub name")
    parser.add_argument("--megabytes", type=float, help="of text; default 24, 200 for memory")
    arguments = parser.parse_args()
    if arguments.mode == "speed":
        measure_speed(arguments.tokenizer, arguments.megabytes or 24)
    else:
        measure_memory(arguments.tokenizer, arguments.megabytes or 200)


if __name__ == "__main__":
    main()
