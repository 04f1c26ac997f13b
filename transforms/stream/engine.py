"""A stream whose buffer is the engine's keyed state: for runners whose state is durable.

    partition → read, tokenize → (lane, block) → buffer in state → shard written
              → (0, shard) → commit → dataset.json

Flink and Dataflow bring state and timers back after a failure and pass each element on once. So the
buffer may live in state, and documents in flight survive with it. One key commits, so that commits
are made one after another.

State and log may still disagree. Dataflow stores what a step gave before the next one sees it;
Flink stores everything together now and then, and after a failure (or from a savepoint) goes back
to that moment, before shards that were committed since. Their documents are in the buffer again, or
are read again, and would be drawn into other shards. So the log has the last word. Readers and the
buffer read it when they start and leave out what it holds. The commit refuses a shard of which some
documents are committed, which happens when an attempt that was given up for dead was still alive;
the engine then starts again. A file that no commit lists is an orphan.

The graph uses only what every runner takes: bags, read-modify-write values, watermark timers. It
has no side input, not even a count: Flink can't checkpoint an element that waits for one (a
ClassCastException in Beam's DoFnOperator, with Beam 2.70 on Flink 1.19). So the step that commits
counts partitions and ends the dataset itself. Documents have the time at which their file was
found, so on a source that grows the latency timer runs with the clock; on a bounded one the
watermark jumps at its end, and so do all timers.

On runners without durable state this works as well, as in tests, with the whole stream in the
runner's memory; `transforms.stream.lane` is made for those.
"""

# pyright: reportArgumentType=false
# Beam declares what a DoFn's method is given by a parameter's default, which is of another type.

# ruff: noqa: B008 (Beam declares state, timers and trackers as argument defaults)

import pickle
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.coders import BytesCoder
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import (
    BagRuntimeState,
    BagStateSpec,
    ReadModifyWriteRuntimeState,
    ReadModifyWriteStateSpec,
    RuntimeTimer,
    TimerSpec,
    on_timer,
)
from apache_beam.transforms.window import BoundedWindow
from apache_beam.utils.timestamp import Timestamp

from shardstream.shard_format import keys
from shardstream.shard_format.commit_log import PartitionRead, ShardCommit
from shardstream.shard_format.provenance import read_provenance
from shardstream.sources.partitions import Partition
from shardstream.transforms.errors import JobError
from shardstream.transforms.scatter import document_ids
from shardstream.transforms.stream.buffer import drain, draw, is_full
from shardstream.transforms.stream.complete import complete_stream
from shardstream.transforms.stream.log import StreamLog
from shardstream.transforms.stream.plan import StreamPlan
from shardstream.transforms.stream.publish import write_stream_shard
from shardstream.transforms.stream.read import read_stream
from shardstream.transforms.token_blocks import SCHEMA, join_blocks
from shardstream.transforms.tokenize_documents import PartitionDoFn

_PARTITIONS = "partitions"


class StreamThroughState(beam.PTransform):
    """Reads partitions, shuffles their documents in keyed state, writes and commits shards.

    Input: PCollection[Partition], bounded or not.
    Output: PCollection of one str, the fingerprint, after the last commit of a bounded source;
        nothing where the stream was stopped or has no end.
    Guarantees: every document in one committed shard, as far as the engine's state is durable;
        after a start without state, what the log holds is left out.
    """

    def __init__(self, plan: StreamPlan) -> None:
        super().__init__()
        self._plan = plan

    def expand(self, partitions: beam.PCollection[Partition]) -> beam.PCollection[str]:
        """Wires reading, buffering and committing."""
        plan = self._plan
        read: Any = partitions | "ReadPartitions" >> beam.ParDo(_ReadPartition(plan)).with_outputs(
            _PARTITIONS, main="blocks"
        )  # blocks: (lane, block) · partitions: (0, pickled PartitionRead or None)
        lanes = read.blocks | "KeyByLane" >> beam.Map(_pair).with_output_types(tuple[int, bytes])
        shards = lanes | "Buffer" >> beam.ParDo(_Buffer(plan))  # (0, pickled ShardCommit)
        return (
            (shards, read[_PARTITIONS])
            | "JoinForCommit" >> beam.Flatten()
            | "KeyForCommit" >> beam.Map(_pair).with_output_types(tuple[int, bytes])
            | "Commit" >> beam.ParDo(_Commit(plan))  # fingerprint
        )


def _pair(pair: tuple[int, bytes]) -> tuple[int, bytes]:
    return pair


class _ReadPartition(PartitionDoFn):
    """Partition → (lane, Arrow IPC bytes of documents); aside its tally, and None to count it."""

    _plan: StreamPlan

    def setup(self) -> None:
        super().setup()
        self._log = StreamLog(self._plan.directory)

    def process(self, partition: Partition) -> Iterator[Any]:
        plan = self._plan
        yield TaggedOutput(_PARTITIONS, (0, pickle.dumps(None)))
        if self._log.is_done(partition.name):
            return
        for item in read_stream(
            [partition], plan, self._log, self._reader.tokenizer, self._reader.executor
        ):
            if isinstance(item, PartitionRead):
                yield TaggedOutput(_PARTITIONS, (0, pickle.dumps(item)))
                continue
            ids = document_ids(item)
            lanes = keys.bucket_of(keys.document_keys(plan.seed, *ids), plan.lanes)
            for lane in range(plan.lanes):
                piece = item.filter(pa.array(lanes == lane))
                if piece.num_rows:
                    yield lane, piece.serialize().to_pybytes()


class _Buffer(beam.DoFn):
    """(lane, block) → (0, pickled ShardCommit), for shards that are written but not committed."""

    BLOCKS = BagStateSpec("blocks", BytesCoder())
    META = ReadModifyWriteStateSpec(
        "meta", BytesCoder()
    )  # pickled (documents, bytes, draws, quiet)
    END = TimerSpec("end", TimeDomain.WATERMARK)
    LATENCY = TimerSpec("latency", TimeDomain.WATERMARK)

    def __init__(self, plan: StreamPlan) -> None:
        self._plan = plan

    def setup(self) -> None:
        self._log = StreamLog(self._plan.directory)

    def process(
        self,
        element: tuple[int, bytes],
        window: BoundedWindow = beam.DoFn.WindowParam,
        timestamp: Timestamp = beam.DoFn.TimestampParam,
        blocks: BagRuntimeState = beam.DoFn.StateParam(BLOCKS),
        meta: ReadModifyWriteRuntimeState = beam.DoFn.StateParam(META),
        end: RuntimeTimer = beam.DoFn.TimerParam(END),
        latency: RuntimeTimer = beam.DoFn.TimerParam(LATENCY),
    ) -> Iterator[tuple[int, bytes]]:
        lane, data = element
        documents, nbytes, draws, _ = _read_meta(meta)
        end.set(window.max_timestamp())
        if documents == 0:
            self._set_latency(latency, timestamp, window)
        block = _decode(data)
        blocks.add(data)
        documents, nbytes = documents + block.num_rows, nbytes + block["tokens"].nbytes
        meta.write(pickle.dumps((documents, nbytes, draws, False)))
        if is_full(documents, nbytes, draws, self._plan):
            yield from self._draw(lane, blocks, meta, draws)

    @on_timer(LATENCY)
    def wait_no_longer(
        self,
        lane: int = beam.DoFn.KeyParam,
        window: BoundedWindow = beam.DoFn.WindowParam,
        timestamp: Timestamp = beam.DoFn.TimestampParam,
        blocks: BagRuntimeState = beam.DoFn.StateParam(BLOCKS),
        meta: ReadModifyWriteRuntimeState = beam.DoFn.StateParam(META),
        latency: RuntimeTimer = beam.DoFn.TimerParam(LATENCY),
    ) -> Iterator[tuple[int, bytes]]:
        """Draws from what has waited long; all of it where nothing came since the last draw."""
        documents, _, draws, is_quiet = _read_meta(meta)
        if documents == 0:
            return
        if is_quiet:
            yield from self._drain(lane, blocks, meta, draws)
            return
        yield from self._draw(lane, blocks, meta, draws, is_quiet=True)
        if _read_meta(meta)[0]:
            self._set_latency(latency, timestamp, window)

    @on_timer(END)
    def drain_at_end(
        self,
        lane: int = beam.DoFn.KeyParam,
        blocks: BagRuntimeState = beam.DoFn.StateParam(BLOCKS),
        meta: ReadModifyWriteRuntimeState = beam.DoFn.StateParam(META),
    ) -> Iterator[tuple[int, bytes]]:
        """Writes all that is left when the source has ended."""
        yield from self._drain(lane, blocks, meta, _read_meta(meta)[2])

    def _draw(
        self,
        lane: int,
        blocks: BagRuntimeState,
        meta: ReadModifyWriteRuntimeState,
        draws: int,
        *,
        is_quiet: bool = False,
    ) -> Iterator[tuple[int, bytes]]:
        drawn, kept = draw(_take_all(blocks), self._plan, lane, draws)
        if kept.num_rows:
            blocks.add(kept.serialize().to_pybytes())
        held = kept.num_rows, kept["tokens"].nbytes if kept.num_rows else 0
        meta.write(pickle.dumps((*held, draws + 1, is_quiet)))
        yield from self._write([drawn])

    def _drain(
        self, lane: int, blocks: BagRuntimeState, meta: ReadModifyWriteRuntimeState, draws: int
    ) -> Iterator[tuple[int, bytes]]:
        drawn = drain(_take_all(blocks), self._plan, lane, draws)
        meta.write(pickle.dumps((0, 0, draws + 1, True)))
        yield from self._write(drawn)

    def _write(self, drawn: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, bytes]]:
        for documents in drawn:
            # What was committed after the moment to which the engine has gone back.
            missing = documents.filter(pa.array(~self._log.holds(*document_ids(documents))))
            for split, those in self._plan.by_split(missing).items():
                yield 0, pickle.dumps(write_stream_shard(split, those, self._plan))

    def _set_latency(
        self, timer: RuntimeTimer, timestamp: Timestamp, window: BoundedWindow
    ) -> None:
        due = max(timestamp, Timestamp.of(0)) + self._plan.max_shard_latency_secs
        if due < window.max_timestamp():
            timer.set(due)


class _Commit(beam.DoFn):
    """(0, pickled ShardCommit, PartitionRead or None) → fingerprint; one key, so all in a row."""

    PARTITIONS = BagStateSpec("partitions", BytesCoder())  # that no commit tells of yet
    COUNT = ReadModifyWriteStateSpec("count", BytesCoder())  # pickled number of partitions
    END = TimerSpec("end", TimeDomain.WATERMARK)

    def __init__(self, plan: StreamPlan) -> None:
        self._plan = plan

    def setup(self) -> None:
        self._log = StreamLog(self._plan.directory)

    def process(
        self,
        element: tuple[int, bytes],
        window: BoundedWindow = beam.DoFn.WindowParam,
        partitions: BagRuntimeState = beam.DoFn.StateParam(PARTITIONS),
        count: ReadModifyWriteRuntimeState = beam.DoFn.StateParam(COUNT),
        end: RuntimeTimer = beam.DoFn.TimerParam(END),
    ) -> None:
        result = pickle.loads(element[1])
        if result is None:
            count.write(pickle.dumps(_read_count(count) + 1))
            end.set(window.max_timestamp())
        elif isinstance(result, PartitionRead):  # waits for the next shard to come along
            partitions.add(element[1])
        else:
            self._commit([result], partitions)

    @on_timer(END)
    def complete(
        self,
        partitions: BagRuntimeState = beam.DoFn.StateParam(PARTITIONS),
        count: ReadModifyWriteRuntimeState = beam.DoFn.StateParam(COUNT),
    ) -> Iterator[str]:
        """Commits what ended after the last shard; ends the dataset if the source has ended."""
        self._commit([], partitions)
        if not self._plan.is_stopping and not self._plan.follow_source:
            yield complete_stream(self._plan, _read_count(count)).fingerprint

    def _commit(self, shards: list[ShardCommit], partitions: BagRuntimeState) -> None:
        # A bundle that is tried again brings what may be committed already.
        self._log.refresh()
        known = {entry.shard.file for entry in self._log.shards}
        shards = [entry for entry in shards if entry.shard.file not in known]
        for entry in shards:
            self._refuse_committed(entry)
        reads = [pickle.loads(data) for data in partitions.read()]
        if shards or reads:
            self._log.commit(shards, reads)
        partitions.clear()

    def _refuse_committed(self, entry: ShardCommit) -> None:
        """Raises JobError where the log holds documents of a shard that it doesn't list."""
        documents = document_ids(read_provenance(self._plan.directory, entry.shard.file))
        committed = int(self._log.holds(*documents).sum())
        if committed:
            raise JobError(
                f"{self._plan.directory}: {committed} documents of {entry.shard.file} are in "
                "committed shards, expected none: another attempt at this job was still "
                "committing. The engine starts this one again from what is committed; where it "
                "doesn't, run the command again."
            )


def _decode(data: bytes) -> pa.RecordBatch:
    return pa.ipc.read_record_batch(pa.py_buffer(data), SCHEMA)


def _take_all(blocks: BagRuntimeState) -> pa.RecordBatch:
    documents = join_blocks(_decode(data) for data in blocks.read())
    blocks.clear()
    return documents


def _read_meta(meta: ReadModifyWriteRuntimeState) -> tuple[int, int, int, bool]:
    data = meta.read()
    return pickle.loads(data) if data else (0, 0, 0, False)


def _read_count(count: ReadModifyWriteRuntimeState) -> int:
    data = count.read()
    return pickle.loads(data) if data else 0
