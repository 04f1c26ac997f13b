"""How many rows files have: from footers where there are any, otherwise by reading them."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from shardstream.sources.parquet_rows import open_parquet
from shardstream.sources.read import count_rows
from shardstream.sources.spec import ReadSpec, SourceFile

_THREADS = 16


def num_rows_of(files: Sequence[SourceFile], spec: ReadSpec) -> list[int]:
    """Returns the rows of each file."""

    def count(file: SourceFile) -> int:
        if spec.module != "parquet":
            return count_rows(file, spec)
        with open_parquet(file.url) as parquet:
            return parquet.metadata.num_rows

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(count, files))
