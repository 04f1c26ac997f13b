"""One lane of a stream in one worker: read, tokenize, buffer, draw, write, commit, in one step.

For runners whose state dies with the process (FnApiRunner, Prism) this is the honest shape of a
stream. They run a stage at a time over all that is pending, so between steps of a graph they would
hold the whole stream in memory and publish nothing until the end, and the state that they keep
would not survive a kill. Here the stream is a loop: memory is the buffer and the shard being
written, a slow disk stops the reader, and what must survive is in the commit log. Engines with
durable state run `transforms.stream.engine` instead: the same functions, with the buffer in keyed
state.

    reader thread   partitions in turn → tokens → queue (bounded)
    this thread     queue → buffer → draw, when it is full or its time is up
    publisher       shard → commit, one at a time
"""

import math
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import pyarrow as pa

from shardstream.shard_format.commit_log import PartitionRead, ShardCommit
from shardstream.sources.partitions import Partition
from shardstream.sources.resolve import resolve
from shardstream.tokens.tokenizer import Tokenizer
from shardstream.transforms.dead_letters import check_dead_letters
from shardstream.transforms.errors import JobError
from shardstream.transforms.plan import TRAIN, VALIDATION
from shardstream.transforms.stream.buffer import ShuffleBuffer
from shardstream.transforms.stream.complete import count_source
from shardstream.transforms.stream.follow import SourceWatch
from shardstream.transforms.stream.log import StreamLog
from shardstream.transforms.stream.plan import StreamPlan
from shardstream.transforms.stream.publish import publish
from shardstream.transforms.stream.read import epoch_files, list_stream, read_stream
from shardstream.transforms.token_blocks import document_lengths
from shardstream.transforms.worker_inputs import source_of

_QUEUED_BLOCKS = 4
_STOP_POLL_SECS = 0.2
_MIN_DOCUMENTS_TO_JUDGE = 10_000  # of which too many dead letters stop a stream before its end
_EPOCH_END = "epoch end"

_Item = pa.RecordBatch | PartitionRead | str


def run_lane(plan: StreamPlan, lane: int, tokenizer: Tokenizer, executor: Executor) -> int:
    """Streams one lane to its end, or until the stop file appears; returns its partitions' number.

    Guarantees: when it returns, every document it has read is in a committed shard. When it raises
    or dies, calling it again goes on: no document is ever committed twice.
    """
    log = StreamLog(plan.directory, lane=lane)
    reader = _Reader(plan, lane, log, tokenizer, executor)
    lane_loop = _Lane(plan, lane, log, executor)
    try:
        for item in reader.items(lane_loop.wait_secs):
            if isinstance(item, pa.RecordBatch):
                lane_loop.add(item)
            elif isinstance(item, PartitionRead):
                lane_loop.partitions.append(item)
            elif item == _EPOCH_END:
                lane_loop.drain()
            lane_loop.publish_if_due()
        lane_loop.drain()
        lane_loop.check_tokens()
    finally:
        reader.close()
        lane_loop.close()
    return reader.num_partitions


class _Lane:
    """The buffers of a lane, and when they are drawn from."""

    def __init__(self, plan: StreamPlan, lane: int, log: StreamLog, executor: Executor) -> None:
        self._plan = plan
        self._log = log
        self._executor = executor
        self._buffers = {
            split: ShuffleBuffer(plan, lane, number, draws=log.draws)
            for number, split in enumerate((TRAIN, VALIDATION))
        }
        self._publisher = ThreadPoolExecutor(1, thread_name_prefix="publish")
        self._pending: Future[tuple[ShardCommit, ...]] | None = None
        self._waiting_since: float | None = None  # the oldest document not drawn for
        self._is_quiet = False  # nothing came since the last draw
        self._tokens_in = self._tokens_out = 0
        self.partitions: list[PartitionRead] = []

    def add(self, documents: pa.RecordBatch) -> None:
        if self._waiting_since is None:
            self._waiting_since = time.monotonic()
        self._is_quiet = False
        self._tokens_in += int(document_lengths(documents["tokens"], self._plan).sum())
        for split, those in self._plan.by_split(documents).items():
            self._buffers[split].add(those)

    def wait_secs(self) -> float:
        """Returns how long to wait for the next block."""
        if self._waiting_since is None:
            return _STOP_POLL_SECS
        due = self._waiting_since + self._plan.max_shard_latency_secs
        return min(_STOP_POLL_SECS, max(0.0, due - time.monotonic()))

    def publish_if_due(self) -> None:
        """Draws where a buffer is full, or where documents have waited long enough."""
        full = [split for split, buffer in self._buffers.items() if buffer.is_full]
        if full:
            self._publish([(split, self._buffers[split].draw()) for split in full])
            return
        if self._waiting_since is None:
            return
        if time.monotonic() - self._waiting_since < self._plan.max_shard_latency_secs:
            return
        if self._is_quiet:
            self.drain()
        else:
            held = [split for split, buffer in self._buffers.items() if not buffer.is_empty]
            self._publish([(split, self._buffers[split].draw()) for split in held])

    def drain(self) -> None:
        """Publishes all that is held, and what is known of partitions."""
        drawn = [
            (split, each) for split, buffer in self._buffers.items() for each in buffer.drain()
        ]
        # Nothing is read meanwhile, so all threads write: a commit for each threadful.
        for begin in range(0, len(drawn), self._plan.threads):
            self._publish(drawn[begin : begin + self._plan.threads])
        self._publish([])
        self._collect()
        self._waiting_since = None

    def check_tokens(self) -> None:
        """Holds the lane to its promise: what came in went out."""
        if self._tokens_in != self._tokens_out:
            raise JobError(
                f"the sums don't hold: {self._tokens_in} tokens were read, {self._tokens_out} went "
                "into shards. This is a bug in shardstream; please report it."
            )

    def close(self) -> None:
        self._publisher.shutdown(wait=True, cancel_futures=True)

    def _publish(self, drawn: list[tuple[str, pa.RecordBatch]]) -> None:
        """Hands documents to the publisher, once it is done with those before: we wait for it."""
        self._collect()
        partitions, self.partitions = self.partitions, []
        if drawn or partitions:
            self._pending = self._publisher.submit(
                publish, drawn, partitions, self._plan, self._log, self._executor
            )
        held = any(not buffer.is_empty for buffer in self._buffers.values())
        self._waiting_since = time.monotonic() if held else None
        self._is_quiet = True

    def _collect(self) -> None:
        if self._pending is None:
            return
        for entry in self._pending.result():
            self._tokens_out += entry.shard.tokens + entry.shard.truncated_tokens
        self._pending = None
        counts = count_source(self._log)
        if counts["documents_read"] >= _MIN_DOCUMENTS_TO_JUDGE:
            check_dead_letters(counts, plan=self._plan)


class _Reader:
    """Reads in a thread of its own, no further ahead than the queue is long."""

    def __init__(
        self,
        plan: StreamPlan,
        lane: int,
        log: StreamLog,
        tokenizer: Tokenizer,
        executor: Executor,
    ) -> None:
        self._plan = plan
        self._lane = lane
        self._log = log
        self._tokenizer = tokenizer
        self._executor = executor
        self._queue: queue.Queue[_Item | BaseException | None] = queue.Queue(_QUEUED_BLOCKS)
        self._closed = threading.Event()
        self._stopping, self._looked = False, -math.inf
        self._thread = threading.Thread(target=self._run, name="read-stream", daemon=True)
        self.num_partitions = 0

    def items(self, wait_secs: Callable[[], float]) -> Iterator[_Item | None]:
        """Yields what the reader gives, None where it gave nothing for a while."""
        self._thread.start()
        while True:
            try:
                item = self._queue.get(timeout=wait_secs())
            except queue.Empty:
                yield None
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        self._closed.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            for item in self._read():
                if not self._put(item):
                    return
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, item: _Item | BaseException | None) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=_STOP_POLL_SECS)
                return True
            except queue.Full:
                continue
        return False

    def _read(self) -> Iterator[_Item]:
        for partitions in self._passes():
            if self._is_stopping():
                return
            yield from read_stream(
                self._own(partitions),
                self._plan,
                self._log,
                self._tokenizer,
                self._executor,
                stop=self._is_stopping,
            )
            if not self._plan.follow_source:
                yield _EPOCH_END

    def _passes(self) -> Iterator[Iterator[Partition]]:
        """Yields the partitions of each epoch, or of each batch of new files."""
        plan = self._plan
        if plan.follow_source:
            watch = SourceWatch(plan, self._log, registers=self._lane == 0)
            while not self._is_stopping():
                files = watch.next_files()
                if files:
                    yield list_stream(plan, files, files[0].index)
                else:
                    self._sleep(plan.poll_secs)
            return
        source = resolve(source_of(plan))
        if source.commit != plan.source_identity["commit"]:
            raise JobError(
                f"the source changed while the job ran: commit {source.commit}, expected "
                f"{plan.source_identity['commit']}. Run the command again."
            )
        epoch = 0
        while plan.epochs == 0 or epoch < plan.epochs:
            yield list_stream(plan, epoch_files(plan, source.files, epoch), epoch)
            epoch += 1

    def _own(self, partitions: Iterable[Partition]) -> Iterator[Partition]:
        """Yields this lane's partitions of which something is missing."""
        for partition in partitions:
            first_group = (partition.row_groups or (0, 0))[0]
            if (partition.files[0].index + first_group) % self._plan.lanes == self._lane:
                self.num_partitions += 1
                if not self._log.is_done(partition.name):
                    yield partition

    def _is_stopping(self) -> bool:
        """Looks for the plan's stop file, which may be on a store, now and then only."""
        now = time.monotonic()
        if not self._stopping and now - self._looked > _STOP_POLL_SECS:
            self._looked, self._stopping = now, self._plan.is_stopping
        return self._closed.is_set() or self._stopping

    def _sleep(self, secs: float) -> None:
        until = time.monotonic() + secs
        while time.monotonic() < until and not self._is_stopping():
            time.sleep(min(_STOP_POLL_SECS, secs))
