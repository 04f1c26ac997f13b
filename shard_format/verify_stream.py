"""Checks for streams alone: that the log lists the shards, and that no document is in two of them.

In batch mode the shard of a document is a function of its identity, so each shard can be checked
alone. In a stream a document may be in any shard, so one bit for each document is kept while all
provenance is read.
"""

from collections.abc import Iterator

import numpy as np

from shardstream.shard_format.commit_log import read_commits
from shardstream.shard_format.manifest import Manifest
from shardstream.shard_format.provenance import read_provenance
from shardstream.shard_format.storage import Directory


def verify_stream(directory: Directory, manifest: Manifest) -> Iterator[str]:
    """Yields one line a problem found."""
    committed = [entry.shard for commit in read_commits(directory) for entry in commit.shards]
    if tuple(committed) != manifest.shards:
        yield f"the log commits {len(committed)} shards, not the {len(manifest.shards)} listed"
    seen: dict[int, np.ndarray] = {}
    num_written = 0
    for shard in manifest.shards:
        if not directory.exists(shard.file):
            continue  # verify has reported it
        table = read_provenance(directory, shard.file).select(["partition", "row"])
        documents = table.group_by(["partition", "row"]).aggregate([])
        num_written += documents.num_rows
        file_index, row = documents["partition"].to_numpy(), documents["row"].to_numpy()
        for file in np.unique(file_index).tolist():
            rows = row[file_index == file]
            known = seen.get(file, np.zeros(0, bool))
            if len(known) <= rows.max():
                known = np.concatenate([known, np.zeros(int(rows.max()) + 1, bool)])
            again = rows[known[rows]]
            if len(again):
                yield f"{shard.file}: document {again[0]} of file {file} is in an earlier shard too"
            known[rows] = True
            seen[file] = known
    empty = manifest.report.get("empty_documents", 0)
    expected = manifest.totals["documents_written"] - empty
    if num_written != expected:
        yield f"documents in provenance: {num_written}, expected {expected}"
