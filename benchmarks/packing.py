"""Packing: tokens a second, padding, documents cut, on the document lengths of real text.

Takes one shard's worth of documents from parquet files with a `text` column (benchmarks/corpus.py
makes some), tokenizes them (or, without --tokenizer, makes them a token for 4 bytes: packing looks
at lengths only), and packs the same documents every way. Each figure is the best of --repeat runs
on one thread. `plan` is `pack` alone, `all` is pack + permute sequences + assemble, in tokens
that come in; `in order` is pack + assemble without the permutation. `slots` is S, the room for
document lengths in every record; `overhead` is padding and slots together, over the tokens
written.

Run it: `python -m benchmarks.packing --corpus DIR --tokenizer DIR`
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shardstream.shard_format.keys import document_keys, permutation
from shardstream.tokens.packing.pack import (
    PackingOptions,
    assemble,
    pack,
    permute_sequences,
    report,
)

HEADER = (
    "L      packing   truncation  plan Mtok/s  all Mtok/s  in order  padding %  slots  overhead %"
    "  cut documents  truncated tokens"
)


def read_texts(corpus: Path, num_documents: int) -> pa.Array:
    """Returns the first num_documents texts of the directory's parquet files, in key order."""
    files = sorted(corpus.glob("*.parquet"))
    if not files:
        raise SystemExit(f"--corpus {corpus}: expected *.parquet with a `text` column, found none.")
    chunks, num_read = [], 0
    while files and num_read < num_documents:
        chunks.append(pq.read_table(files.pop(0), columns=["text"])["text"].combine_chunks())
        num_read += len(chunks[-1])
    texts = pa.concat_arrays([pc.cast(chunk, pa.large_string()) for chunk in chunks])
    texts = texts.slice(0, num_documents)
    return texts.take(pa.array(np.argsort(document_keys(0, 0, np.arange(len(texts))))))


def tokenize(texts: pa.Array, tokenizer: str | None) -> tuple[pa.LargeBinaryArray, np.ndarray, str]:
    """Returns the documents, EOS included, their lengths int64[n], and their token dtype."""
    if tokenizer is None:
        lengths = np.asarray(pc.binary_length(texts)).astype(np.int64) // 4 + 1
        ids, token_dtype = np.arange(lengths.sum(), dtype=np.uint16), "uint16"
    else:
        from shardstream.tokens.options import TokenizerOptions
        from shardstream.tokens.tokenizer import open_tokenizer

        engine = open_tokenizer(TokenizerOptions(tokenizer=tokenizer))
        encoded = engine.encode(texts)
        ids, lengths = encoded.ids.astype(engine.token_dtype), np.diff(encoded.offsets)
        token_dtype = str(ids.dtype)
    offsets = np.concatenate([[0], np.cumsum(lengths * ids.itemsize)]).astype(np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(ids)]
    documents = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(lengths), buffers)
    return documents, lengths, token_dtype


def best_secs(run: Callable[[], object], repeat: int) -> float:
    """Returns the shortest of several runs."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def every_way(sequence_lengths: list[int]) -> Iterator[PackingOptions]:
    """Yields the packings that are compared."""
    for length in sequence_lengths:
        yield PackingOptions(packing="concat", sequence_length=length)
        yield PackingOptions(packing="best_fit", sequence_length=length)
        for truncation in ("cut", "split"):
            yield PackingOptions(packing="pad", sequence_length=length, truncation=truncation)


def row(
    documents: pa.LargeBinaryArray,
    lengths: np.ndarray,
    token_dtype: str,
    options: PackingOptions,
    repeat: int,
) -> str:
    """Measures one packing and returns its line of the table."""

    def run(is_permuted: bool) -> tuple[np.ndarray, np.ndarray]:
        pieces = pack(lengths, options)
        if is_permuted:
            pieces = permute_sequences(pieces, permutation(pieces.num_sequences, 0))
        return assemble(documents, pieces, token_dtype=token_dtype, options=options, pad_id=0)

    mtok = lengths.sum() / 1e6
    plan = mtok / best_secs(lambda: pack(lengths, options), repeat)
    permuted = mtok / best_secs(lambda: run(True), repeat)
    in_order = mtok / best_secs(lambda: run(False), repeat)
    tokens, slots = run(False)
    found = report(pack(lengths, options), lengths, options)
    overhead = 100 * ((tokens.nbytes + slots.nbytes) / tokens.itemsize / found.written_tokens - 1)
    return (
        f"{options.sequence_length:<6} {options.packing:<9} {options.truncation_rule:<10} "
        f"{plan:>12,.0f} {permuted:>11,.0f} {in_order:>9,.0f} {found.padding_percent:>10.3f} "
        f"{slots.shape[1]:>6} {overhead:>11.2f} {found.cut_documents:>14,} "
        f"{found.truncated_tokens:>17,}"
    )


def main() -> None:
    """Reads the flags, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True, help="directory of *.parquet")
    parser.add_argument("--tokenizer", help="name or directory; without it, 4 bytes are a token")
    parser.add_argument("--documents", type=int, default=20_000, help="documents in the shard")
    parser.add_argument("--sequence_lengths", type=int, nargs="+", default=[512, 2048, 8192])
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    documents, lengths, token_dtype = tokenize(
        read_texts(args.corpus, args.documents), args.tokenizer
    )
    quantiles = np.percentile(lengths, (10, 50, 90, 99)).astype(int).tolist()
    print(
        f"{len(lengths):,} documents, {lengths.sum():,} tokens ({token_dtype}), lengths "
        f"p10/50/90/99 {quantiles}, longest {lengths.max():,}"
    )
    print(HEADER)
    for options in every_way(args.sequence_lengths):
        print(row(documents, lengths, token_dtype, options, args.repeat), flush=True)


if __name__ == "__main__":
    main()
