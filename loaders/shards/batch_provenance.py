"""Which documents a batch holds, looked up in the provenance files of its shards."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shardstream.loaders.shards.reader import ShardSet
from shardstream.shard_format.provenance import read_provenance

_COLUMNS = ("row", "shard", "record", "segment", "partition", "source_row", "start", "tokens")


def provenance_table(shards: ShardSet, *, rows: np.ndarray, records: np.ndarray) -> pa.Table:
    """Returns one row for each document; see Loader.provenance.

    Args:
        shards: of the split.
        rows: int64[n], rows of the batch.
        records: int64[n], the record of the split in each.
    """
    shard_of, record_of = shards.locate(records)
    tables = []
    for shard in np.unique(shard_of):
        here = shard_of == shard
        name = shards.shards[shard].file
        table = read_provenance(shards.directory, name).rename_columns({"row": "source_row"})
        table = table.filter(pc.field("record").isin(record_of[here]))
        places = pa.table({"record": record_of[here], "row": rows[here]})
        tables.append(
            table.join(places, "record").append_column(
                "shard", pa.array([name] * len(table), pa.string())
            )
        )
    together = pa.concat_tables(tables).select(_COLUMNS)
    return together.sort_by([("row", "ascending"), ("segment", "ascending")])
