"""Splits a source into partitions, the units that workers read side by side.

A parquet file splits into runs of row groups of about `partition_bytes` of text; its footer, which
one worker a file opens, says where. Other formats can't be entered in the middle: a file is a
partition. How a source is split never shows in the output: documents are named by (file, row in the
file).
"""

from collections.abc import Iterator

from shardstream.sources.count import num_rows_of
from shardstream.sources.errors import SourceError
from shardstream.sources.parquet_rows import has_bad_footer, is_local, open_parquet, text_bytes_of
from shardstream.sources.spec import Partition, ReadSpec, SourceFile

__all__ = [
    "DEFAULT_PARTITION_BYTES",
    "Partition",
    "list_partitions",
    "open_parquet",
    "split_partition",
]

DEFAULT_PARTITION_BYTES = 64 << 20


def list_partitions(
    files: tuple[SourceFile, ...],
    spec: ReadSpec,
    *,
    skip_documents: int = 0,
    max_documents: int | None = None,
) -> Iterator[Partition]:
    """Yields coarse partitions: a file each, or what holds the wanted window of the stream.

    Parquet footers are opened only where a window needs row counts, and no further than it reaches.
    """
    if not spec.ranges:
        yield from _list_window(files, spec, skip_documents, max_documents)
        return
    if len(files) < max(end for _, end, _, _ in spec.ranges):
        raise SourceError(
            "a sliced split can't grow: expected all of its files at once. Give --split without "
            "a slice, or no --follow_source."
        )
    skip, left = skip_documents, max_documents
    for number, (begin, end, first_row, end_row) in enumerate(spec.ranges):
        own = files[begin:end]
        is_last = number == len(spec.ranges) - 1
        if is_last or (skip == 0 and left is None):
            rows = None if end_row is None else max(0, end_row - first_row - skip)
            take = rows if left is None else left if rows is None else min(left, rows)
            if take != 0:
                yield from _list_window(own, spec, first_row + skip, take)
            continue
        rows = max(0, min(end_row or 2**62, _num_rows(own, spec)) - first_row)
        passed = min(skip, rows)
        take = rows - passed if left is None else min(left, rows - passed)
        if take:
            yield from _list_window(own, spec, first_row + passed, take)
        skip -= passed
        left = None if left is None else left - take
        if left == 0:
            return


def _num_rows(files: tuple[SourceFile, ...], spec: ReadSpec) -> int:
    return sum(num_rows_of(files, spec))


def _list_window(
    files: tuple[SourceFile, ...], spec: ReadSpec, skip: int, left: int | None
) -> Iterator[Partition]:
    if skip == 0 and left is None:
        yield from (Partition(files=(file,)) for file in files)
        return
    if spec.module != "parquet":
        # Nobody knows how many rows a file has before it is read: one reader walks the stream.
        yield Partition(files=files, skip_documents=skip, max_documents=left)
        return
    for file in files:
        with open_parquet(file.url) as parquet:
            rows = parquet.metadata.num_rows
        if skip >= rows:
            skip -= rows
            continue
        take = rows - skip if left is None else min(rows - skip, left)
        whole = skip == 0 and take == rows
        yield Partition(
            files=(file,),
            skip_documents=skip,
            max_documents=None if whole else take,
        )
        skip = 0
        if left is not None:
            left -= take
            if left == 0:
                return


def split_partition(
    partition: Partition,
    spec: ReadSpec,
    partition_bytes: int = DEFAULT_PARTITION_BYTES,
    *,
    keep_going: bool = True,
) -> Iterator[Partition]:
    """Yields the partitions a coarse one splits into; itself, where it can't be split.

    Args:
        partition: to split.
        spec: of the source.
        partition_bytes: of text in a partition.
        keep_going: a parquet file with a damaged footer isn't split, and its reader says what is
            lost; otherwise it raises.
    """
    if spec.module != "parquet" or len(partition.files) != 1:
        yield partition
        return
    try:
        groups = _describe_row_groups(partition.files[0].url, spec, tries=3 if keep_going else 1)
    except SourceError as error:
        if partition.is_window or not keep_going or not has_bad_footer(error):
            raise
        yield partition
        return
    window_begin = partition.skip_documents
    window_end = sum(group["rows"] for group in groups)
    if partition.max_documents is not None:
        window_end = min(window_end, window_begin + partition.max_documents)
    run: list[dict[str, int]] = []
    for group in groups:
        if group["first_row"] + group["rows"] <= window_begin or group["first_row"] >= window_end:
            continue
        if run and sum(g["text_bytes"] for g in run) + group["text_bytes"] > partition_bytes:
            yield _partition_of(partition.files[0], run, window_begin, window_end)
            run = []
        if group["rows"]:
            run.append(group)
    if run:
        yield _partition_of(partition.files[0], run, window_begin, window_end)


def _describe_row_groups(url: str, spec: ReadSpec, *, tries: int) -> list[dict[str, int]]:
    try:
        with open_parquet(url) as parquet:
            metadata = parquet.metadata
    except SourceError:
        if tries == 1 or is_local(url):
            raise
        # A body shorter than promised looks the same; the next one may be whole.
        return _describe_row_groups(url, spec, tries=tries - 1)
    groups, first_row = [], 0
    for index in range(metadata.num_row_groups):
        rows = metadata.row_group(index).num_rows
        text_bytes = text_bytes_of(metadata, index, spec)
        groups.append(
            {"index": index, "rows": rows, "first_row": first_row, "text_bytes": text_bytes}
        )
        first_row += rows
    return groups


def _partition_of(
    file: SourceFile, run: list[dict[str, int]], window_begin: int, window_end: int
) -> Partition:
    first_row, end_row = run[0]["first_row"], run[-1]["first_row"] + run[-1]["rows"]
    begin, end = max(window_begin, first_row), min(window_end, end_row)
    return Partition(
        files=(file,),
        row_groups=(run[0]["index"], run[-1]["index"] + 1),
        first_row=first_row,
        skip_documents=begin - first_row,
        max_documents=None if end == end_row else end - begin,
        text_bytes=sum(group["text_bytes"] for group in run),
    )
