"""The dataset card: README.md of a dataset directory, for readers who do not have this repository.

The picture of document lengths is a Mermaid chart, which the Hub and GitHub draw from plain text.
"""

import json

from shardstream.shard_format.manifest import Manifest
from shardstream.tokens.packing.pack import PackingReport
from shardstream.tokens.packing.report import largest_length_of

_MAX_BARS = 24


def make_card(manifest: Manifest) -> str:
    """Returns the card's Markdown."""
    totals, report = manifest.totals, PackingReport.from_dict(dict(manifest.report))
    source = manifest.source
    rows = {
        "Source": f"{source['dataset']} {source['config'] or ''} `{source['split']}` at "
        f"`{source['commit'][:12]}`",
        "Documents": f"{totals['documents_written']:,} of {totals['documents_read']:,} read; "
        f"{totals['documents_dropped']:,} dropped, {totals['dead_letters']:,} dead letters",
        "Tokens": f"{totals['tokens_written']:,}; {totals['tokens_truncated']:,} truncated",
        "Sequences": f"{totals['records']:,} of {manifest.sequence_length} tokens "
        f"(`{manifest.packing['packing']}`), {report.padding_percent:.2f} % padding, "
        f"{report.cut_documents:,} documents cut",
        "Document lengths": ", ".join(
            f"{name} {length:,}" for name, length in manifest.report["length_percentiles"].items()
        )
        + f", longest {report.longest_document:,} tokens",
        "Shards": f"{len(manifest.shards):,}, {totals['bytes'] / 1e6:,.1f} MB, "
        f"`{manifest.token_dtype}` tokens, seed {manifest.seed}",
        "Tokenizer": f"`tokenizer/`, {manifest.tokenizer['vocab_size']:,} ids, fingerprint "
        f"`{manifest.tokenizer['fingerprint'][:12]}`",
        "Fingerprint": f"`{manifest.fingerprint}`",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""---
tags: [tokenized, arrayrecord, shardstream]
---
# Token sequences, shuffled, in ArrayRecord shards

Written by `shardstream build`; `dataset.json` is the full account. `shardstream inspect` prints it,
and `shardstream verify` checks that every record is there and whole.

| | |
|---|---|
{table}

```python
from shardstream import Loader

for batch in Loader("this directory", batch_size=64, seed=0):
    batch["tokens"]  # int32[64, {manifest.sequence_length}]
```

{length_chart(report)}
"""


def length_chart(report: PackingReport) -> str:
    """Returns a Mermaid bar chart of documents by length, octaves of tokens."""
    octaves: dict[int, int] = {}
    for bucket, documents in report.length_counts:
        octave = largest_length_of(bucket).bit_length()
        octaves[octave] = octaves.get(octave, 0) + documents
    if not octaves:
        return ""
    first, last = min(octaves), max(octaves)
    first = max(first, last - _MAX_BARS + 1)
    labels = json.dumps([f"<{2**octave}" for octave in range(first, last + 1)])
    heights = [octaves.get(octave, 0) for octave in range(first, last + 1)]
    return f"""```mermaid
xychart-beta
    title "Documents by length, tokens"
    x-axis {labels}
    y-axis "documents"
    bar {heights}
```"""
