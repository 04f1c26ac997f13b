"""Which documents a shard holds, and where: one row a segment, in the order of records.

    record int64 · segment int32 · partition int32 · row int64 · start int64 · tokens int32

The column `partition` holds the index of the document's source file (`file_index` in the code), and
`row` its row in that file. `start` is the place of the segment's first token inside its document
(BOS and EOS are counted), and `tokens` is the number of its tokens. Together with the lengths in
the records, this leads from any token of a batch back to its row in the source, and from a row to
all of its tokens, without any knowledge of how packing worked.
"""

import pyarrow as pa
import pyarrow.parquet as pq

from shardstream.shard_format import naming
from shardstream.shard_format.storage import Directory

SCHEMA = pa.schema(
    [
        ("record", pa.int64()),
        ("segment", pa.int32()),
        ("partition", pa.int32()),
        ("row", pa.int64()),
        ("start", pa.int64()),
        ("tokens", pa.int32()),
    ]
)
# Sorted columns become runs of small differences: 5 to 7 bytes a segment on real text.
_DELTA = {name: "DELTA_BINARY_PACKED" for name in ("record", "row", "start", "tokens")}


def write_provenance(directory: Directory, shard: str, table: pa.Table) -> None:
    """Publishes the provenance of a shard; table has SCHEMA, sorted by record and segment."""
    with directory.publishing(naming.provenance_name(shard)) as private:
        pq.write_table(
            table.cast(SCHEMA),
            private,
            compression="zstd",
            use_dictionary=["segment", "partition"],  # pyright: ignore[reportArgumentType] (names)
            column_encoding=_DELTA,
        )


def read_provenance(directory: Directory, shard: str) -> pa.Table:
    """Returns the provenance of a shard, with SCHEMA."""
    name = naming.provenance_name(shard)
    path = directory.local_path(name)
    return pq.read_table(path or pa.BufferReader(directory.read(name)), schema=SCHEMA)
