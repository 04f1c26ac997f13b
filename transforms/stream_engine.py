"""A stream whose buffer is the engine's keyed state: for runners whose state is durable.

    partition → read, tokenize → (lane, block) → buffer in state → shard written → (0, shard) →
    commit

Flink and Dataflow bring state and timers back after a failure and pass each element on once. So the
buffer may live in state, documents in flight survive with it, and a shard is committed only after
its name has gone through the engine's own commit: the keyed step behind the buffer makes the engine
store it first. A bundle that is tried again draws again and may write another file; the file of the
attempt that the engine dropped is an orphan. One key commits, so commits stand in a row.

Only what every runner takes: bags, read-modify-write values, watermark timers. Documents have the
time at which their file was found, so on a source that grows the latency timer runs with the clock;
on a bounded one the watermark jumps at its end, and so do all timers.

On runners without durable state this works as well (tests do it), with the whole stream in the
runner's memory; transforms.stream_lane is made for those.
"""

# ruff: noqa: B008 (Beam declares state, timers and trackers as argument defaults)

import pickle
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.coders import BytesCoder
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
from apache_beam.utils.timestamp import Timestamp

from shard_format import keys
from shard_format.commit_log import PartitionRead, ShardCommit
from sources.partitions import Partition
from transforms.build_shard import join_blocks
from transforms.scatter import document_ids
from transforms.stream_buffer import drain, draw, is_full
from transforms.stream_log import StreamLog
from transforms.stream_plan import StreamPlan
from transforms.stream_publish import write_stream_shard
from transforms.stream_read import read_stream
from transforms.token_blocks import SCHEMA
from transforms.tokenize_documents import PartitionDoFn

_PARTITIONS = "partitions"


class StreamThroughState(beam.PTransform):
    """Reads partitions, shuffles their documents in keyed state, writes and commits shards.

    Input: PCollection[Partition], bounded or not.
    Output: PCollection[int], the number of shards committed by each commit.
    Guarantees: every document in one committed shard, as far as the engine's state is durable;
        after a start without state, what the log holds is left out.
    """

    def __init__(self, plan: StreamPlan) -> None:
        super().__init__()
        self._plan = plan

    def expand(self, partitions: beam.PCollection[Partition]) -> beam.PCollection[int]:
        """Wires reading, buffering and committing."""
        plan = self._plan
        read = partitions | "ReadPartitions" >> beam.ParDo(_ReadPartition(plan)).with_outputs(
            _PARTITIONS, main="blocks"
        )  # blocks: (lane, block) · partitions: (0, pickled PartitionRead)
        lanes = read.blocks | "KeyByLane" >> beam.Map(_pair).with_output_types(tuple[int, bytes])
        shards = lanes | "Buffer" >> beam.ParDo(_Buffer(plan))  # (0, pickled ShardCommit)
        return (
            (shards, read[_PARTITIONS])
            | "JoinForCommit" >> beam.Flatten()
            | "KeyForCommit" >> beam.Map(_pair).with_output_types(tuple[int, bytes])
            | "Commit" >> beam.ParDo(_Commit(plan))  # number of shards
        )


def _pair(pair: tuple[int, bytes]) -> tuple[int, bytes]:
    return pair


class _ReadPartition(PartitionDoFn):
    """Partition → (lane, Arrow IPC bytes of documents), and its tally aside."""

    _plan: StreamPlan

    def setup(self) -> None:
        super().setup()
        self._log = StreamLog(self._plan.directory)

    def process(self, partition: Partition) -> Iterator[Any]:
        plan = self._plan
        if self._log.is_done(partition.name):
            return
        for item in read_stream([partition], plan, self._log, self._tokenizer, self._executor):
            if isinstance(item, PartitionRead):
                yield beam.pvalue.TaggedOutput(_PARTITIONS, (0, pickle.dumps(item)))
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

    def process(
        self,
        element: tuple[int, bytes],
        window: Any = beam.DoFn.WindowParam,
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
        window: Any = beam.DoFn.WindowParam,
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
        parts = drain(_take_all(blocks), self._plan, lane, draws)
        meta.write(pickle.dumps((0, 0, draws + 1, True)))
        yield from self._write(parts)

    def _write(self, parts: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, bytes]]:
        for part in parts:
            for split, documents in self._plan.by_split(part).items():
                yield 0, pickle.dumps(write_stream_shard(split, documents, self._plan))

    def _set_latency(self, timer: RuntimeTimer, timestamp: Timestamp, window: Any) -> None:
        due = max(timestamp, Timestamp.of(0)) + self._plan.max_shard_latency_secs
        if due < window.max_timestamp():
            timer.set(due)


class _Commit(beam.DoFn):
    """(0, pickled ShardCommit or PartitionRead) → number of shards committed; one key, in a row."""

    PARTITIONS = BagStateSpec("partitions", BytesCoder())
    END = TimerSpec("end", TimeDomain.WATERMARK)

    def __init__(self, plan: StreamPlan) -> None:
        self._plan = plan

    def setup(self) -> None:
        self._log = StreamLog(self._plan.directory, documents=False)

    def process(
        self,
        element: tuple[int, bytes],
        window: Any = beam.DoFn.WindowParam,
        partitions: BagRuntimeState = beam.DoFn.StateParam(PARTITIONS),
        end: RuntimeTimer = beam.DoFn.TimerParam(END),
    ) -> Iterator[int]:
        result = pickle.loads(element[1])
        if isinstance(result, PartitionRead):  # waits for the next shard to come along
            partitions.add(element[1])
            end.set(window.max_timestamp())
            return
        yield self._commit([result], partitions)

    @on_timer(END)
    def commit_at_end(
        self, partitions: BagRuntimeState = beam.DoFn.StateParam(PARTITIONS)
    ) -> Iterator[int]:
        """Tells of partitions behind the last shard."""
        yield self._commit([], partitions)

    def _commit(self, shards: list[ShardCommit], partitions: BagRuntimeState) -> int:
        # A bundle that is tried again brings what may be committed already.
        self._log.refresh()
        known = {entry.shard.file for entry in self._log.shards}
        shards = [entry for entry in shards if entry.shard.file not in known]
        reads = [pickle.loads(data) for data in partitions.read()]
        if shards or reads:
            self._log.commit(shards, reads)
        partitions.clear()
        return len(shards)


def _decode(data: bytes) -> pa.RecordBatch:
    return pa.ipc.read_record_batch(pa.py_buffer(data), SCHEMA)


def _take_all(blocks: BagRuntimeState) -> pa.RecordBatch:
    documents = join_blocks(_decode(data) for data in blocks.read())
    blocks.clear()
    return documents


def _read_meta(meta: ReadModifyWriteRuntimeState) -> tuple[int, int, int, bool]:
    data = meta.read()
    return pickle.loads(data) if data else (0, 0, 0, False)
