"""Hub to batches without a pipeline: `loaders.stream`.

    order.py      which partition when, how far each sequence is put off: arithmetic
    catalog.py    the source pinned and split into partitions
    fetch.py      a partition's documents as tokens, from any row, over network faults (retry.py)
    cache.py      those tokens on disk
    documents.py  from the cache where it has them, else fetched and kept
    units.py      documents to packed sequences, a few hundred at a time
    feed.py       units of several partitions in turn, read ahead
    buffer.py     sequences waiting for their turn
    share.py      the rows of batches, epoch after epoch, and the positions to resume from
    chunks.py     shares side by side
    opened.py     all of it put together
    stream.py     `stream`, `HubStream`

Order. The partitions of an epoch are permuted and read in `lanes` at once. A lane packs its
partition's documents, in row order, into units; lanes hand over a unit each in turn, which numbers
all sequences of the epoch: 0, 1, 2, ... Sequence n comes out in the order of n + delay(n), where
delay(n) is a hash below `buffer_size`. So the order is arithmetic on numbers, whatever is held
in memory when: after a sequence came out, only the `buffer_size` numbers before it can still be
waiting. A position is therefore the lanes' rows at the oldest of those, and resuming reads at most
that many sequences again.

Nothing here imports datasets or transformers before `stream` is called.
"""
