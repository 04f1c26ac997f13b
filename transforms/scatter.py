"""Sends documents to their buckets: one sort a block, one slice a bucket."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from shardstream.transforms.plan import BuildPlan


def scatter_block(batch: pa.RecordBatch, plan: BuildPlan) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yields (bucket, its documents of the batch), buckets ascending, empty ones left out."""
    if batch.num_rows == 0:  # every row of the block is a dead letter
        return
    buckets = plan.buckets_of(*document_ids(batch))
    order = np.argsort(buckets, kind="stable")
    ordered = batch.take(pa.array(order))
    found, starts = np.unique(buckets[order], return_index=True)
    ends = np.append(starts[1:], len(buckets))
    for bucket, start, end in zip(found.tolist(), starts.tolist(), ends.tolist(), strict=True):
        yield bucket, ordered.slice(start, end - start)


def document_ids(batch: pa.RecordBatch | pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Returns what names each document: (file index int32[n], row int64[n])."""
    return batch["partition"].to_numpy(), batch["row"].to_numpy()
