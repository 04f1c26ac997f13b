"""What every worker of a stream must know: a build plan with a buffer in place of buckets.

A stream has no number of shards; it has a buffer, from which shards are drawn, and a log to which
they are committed. Documents are named by (file index, row) as in batch mode. In epoch e of
several, the index of a file is e * num_files plus its index in the source. So the documents of each
epoch have names, keys and therefore an order of their own, and "exactly once" means once an epoch.
"""

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa

from shardstream.shard_format import keys
from shardstream.shard_format.manifest import Manifest
from shardstream.transforms.plan import TRAIN, VALIDATION, BuildPlan
from shardstream.transforms.scatter import document_ids

# The buffer fills up over this many draws, each when it holds twice as much as at the one before:
# the first shards are small and early. A 2**-5th of a buffer of 200 MB is read within a second.
RAMP_DRAWS = 5
# A draw takes one document in so many of what the buffer holds. A document then stays for this many
# draws on average; the more, the longer it stays and the more often what is kept is copied.
DRAW_DIVISOR = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamPlan(BuildPlan):
    """One stream into one dataset.

    Attributes:
        buffer_documents: documents that all lanes' buffers hold at most, give or take a block.
        buffer_bytes: of their tokens, likewise.
        shard_records: sequences in a shard; None: a quarter of the buffer's documents.
        max_shard_latency_secs: a document that was read is in a committed shard after at most about
            twice this long, however slow the stream.
        epochs: passes over the source, 0 for no end.
        follow_source: look for new files for ever, every poll_secs.
        poll_secs: between looks.
        lanes: buffers side by side; each reads partitions of its own.
    """

    buffer_documents: int
    buffer_bytes: int
    shard_records: int | None
    max_shard_latency_secs: float
    epochs: int
    follow_source: bool
    poll_secs: float
    lanes: int

    @property
    def options_record(self) -> dict[str, Any]:
        """The manifest's `options`.

        The partition size is among them: the log counts the source by partitions.
        """
        return {
            "validation_fraction": self.validation_fraction,
            "buffer_documents": self.buffer_documents,
            "buffer_bytes": self.buffer_bytes,
            "shard_records": self.shard_records,
            "max_shard_latency_secs": self.max_shard_latency_secs,
            "epochs": self.epochs,
            "follow_source": self.follow_source,
            "lanes": self.lanes,
            "partition_bytes": self.partition_bytes,
            **dataclasses.asdict(self.shard_options),
        }

    @property
    def num_files(self) -> int:
        """Files of a source that doesn't grow."""
        return self.source_identity["num_files"]

    @property
    def stop_name(self) -> str:
        """A file whose presence asks a running stream to stop; see pipelines.job.run_stream."""
        return self.work_name("stop")

    @property
    def is_stopping(self) -> bool:
        """Whether the stream has been asked to stop."""
        return self.directory.exists(self.stop_name)

    def is_validation(self, documents: pa.RecordBatch) -> np.ndarray:
        """Returns bool[n], the documents held out, the same whatever the seed and the mode."""
        file_index, row = document_ids(documents)
        return keys.split_keys(file_index, row) < np.uint64(int(self.validation_fraction * 2**64))

    def by_split(self, documents: pa.RecordBatch) -> dict[str, pa.RecordBatch]:
        """Returns the documents of each split that has some."""
        if not self.validation_fraction:
            return {TRAIN: documents} if documents.num_rows else {}
        held_out = self.is_validation(documents)
        found = {
            TRAIN: documents.filter(pa.array(~held_out)),
            VALIDATION: documents.filter(pa.array(held_out)),
        }
        return {split: those for split, those in found.items() if those.num_rows}

    def manifest(self, **changes: Any) -> Manifest:  # noqa: ANN401  (as Manifest's fields)
        """Returns the manifest that a reader follows from, unless changes say otherwise."""
        return super().manifest(**{"status": "following", "mode": "stream"} | changes)
