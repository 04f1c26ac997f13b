"""A dataset of the Hub as batches, without a pipeline: `loaders.stream`.

    order.py      arithmetic: which partition is read when, how far each sequence is put off
    catalog.py    pins the source and splits it into partitions
    fetch.py      reads a partition's documents as tokens, in spite of network faults (retry.py)
    cache.py      keeps those tokens on disk
    documents.py  takes documents from the cache where it has them, and else fetches and keeps them
    units.py      packs documents into sequences, a few hundred at a time
    feed.py       takes units of several partitions in turn, and reads them ahead
    buffer.py     holds sequences until their turn
    share.py      makes the rows of batches, epoch after epoch, and the positions to resume from
    chunks.py     puts shares side by side
    opened.py     puts all of it together
    source.py     offers it to loaders.iterator as a RowSource
    stream.py     has what users call: `stream` and `HubStream`

The partitions of an epoch are permuted, and `lanes` of them are read at once. A lane packs its
partition's documents, in row order, into units. Lanes hand over one unit each in turn, which
numbers all sequences of the epoch: 0, 1, 2, ... Sequence n comes out in the order of n + delay(n),
where delay(n) is a hash below `buffer_size`. So the order is arithmetic on numbers and doesn't
depend on what is in memory: after a sequence came out, only the `buffer_size` numbers before it can
still be waiting. A position is therefore the lanes' rows at the oldest of those, and resuming reads
at most that many sequences again.

Nothing here imports datasets or transformers before `stream` is called.
"""
