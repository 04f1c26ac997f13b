"""Arrow IPC files and streams, as `Dataset.save_to_disk` and Arrow itself write them."""

from collections.abc import Iterator

import pyarrow as pa

from shardstream.shard_format.messages import first_line
from shardstream.sources.errors import is_damage
from shardstream.sources.open_files import open_stream
from shardstream.sources.rows import Fault, Lost, Rows, missing_columns, pick
from shardstream.sources.spec import ReadSpec, SourceFile


def read_arrow(file: SourceFile, spec: ReadSpec) -> Iterator[Rows | Lost]:
    """Yields a file's rows, a record batch at a time; only the wanted columns are decoded."""
    schema = arrow_schema(file.url)
    if schema is None:
        return
    fault = missing_columns(schema.names, spec)
    # One column is enough to count the rows of a file that lacks what is wanted.
    wanted = [schema.names.index(root) for root in spec.roots] if fault is None else [0]
    options = pa.ipc.IpcReadOptions(included_fields=wanted)
    with open_stream(file.url, unpack=False) as stream:
        batches = _batches(pa.PythonFile(stream, "r"), options)
        while True:
            try:
                batch = next(batches, None)
                if batch is not None:
                    batch.validate()
            except Exception as error:
                if not is_damage(error):
                    raise
                yield Lost(1, Fault("unreadable", f"the rest of the file: {first_line(error)}"))
                return
            if batch is None:
                return
            if fault is not None:
                yield Lost(batch.num_rows, fault)
            else:
                yield Rows(pick(pa.Table.from_batches([batch]), spec), {})


def arrow_schema(url: str) -> pa.Schema | None:
    """Returns a file's schema, None where it is empty."""
    with open_stream(url, unpack=False) as stream:
        if not stream.read(1):
            return None
        stream.seek(0)
        return _open(pa.PythonFile(stream, "r"), None).schema


def _open(
    source: pa.NativeFile, options: pa.ipc.IpcReadOptions | None
) -> pa.ipc.RecordBatchStreamReader | pa.ipc.RecordBatchFileReader:
    try:
        return pa.ipc.open_stream(source, options=options)
    except (OSError, pa.ArrowInvalid):
        return pa.ipc.open_file(source, options=options)


def _batches(source: pa.NativeFile, options: pa.ipc.IpcReadOptions) -> Iterator[pa.RecordBatch]:
    reader = _open(source, options)
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
    else:
        yield from reader
