"""Spills partitions: the DoFn that has them read, by threads of its own or by worker processes."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import Any

from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from shardstream.sources.partitions import Partition
from shardstream.sources.read import DeadLetter
from shardstream.transforms.batch import worker
from shardstream.transforms.batch.spill import spill_once
from shardstream.transforms.batch.worker_pool import naming_lost_workers, pool_of
from shardstream.transforms.threads import shared_executor
from shardstream.transforms.tokenize_documents import PartitionDoFn

# Threads that read: while one ends a partition, writes its files or waits for its source, the
# tokenizer's threads work on the other's. Python's lock leaves a third one nothing.
_MOST_READERS = 2


class SpillPartitions(PartitionDoFn):
    """Partition → the fields of each SpillFile it was written to, below the dataset directory."""

    def setup(self) -> None:
        """Finds the job's worker processes; without them opens the tokenizer and makes threads."""
        self._pool = pool_of(self._plan)
        if self._pool is not None:
            self._most_running = 2 * self._plan.processes  # a worker finds the next one waiting
            return
        super().setup()
        self._most_running = min(_MOST_READERS, self._plan.threads)
        self._threads: Executor = shared_executor("read", self._most_running)

    def start_bundle(self) -> None:
        """Nothing runs yet."""
        self._running: set[Future[dict[str, Any]]] = set()

    def process(self, partition: Partition) -> Iterator[Any]:
        """Begins to read a partition; yields what earlier ones came to, when they are done."""
        while len(self._running) >= self._most_running:
            yield from self._finished()
        self._running.add(self._submit(partition))

    def finish_bundle(self) -> Iterator[Any]:
        """Yields what the last partitions came to."""
        window = GlobalWindow()
        while self._running:
            for output in self._finished():
                tag = output.tag if isinstance(output, TaggedOutput) else None
                value = output if tag is None else output.value
                windowed = WindowedValue(value, window.max_timestamp(), (window,))
                yield windowed if tag is None else TaggedOutput(tag, windowed)

    def _submit(self, partition: Partition) -> Future[dict[str, Any]]:
        if self._pool is not None:
            with naming_lost_workers():
                return self._pool.submit(worker.spill, partition)
        return self._threads.submit(spill_once, self._reader, partition, self._most_running)

    def _finished(self) -> Iterator[Any]:
        """Waits until a partition is done; yields what came of all that are."""
        done, self._running = wait(self._running, return_when=FIRST_COMPLETED)
        for future in done:
            try:
                with naming_lost_workers():
                    marker = future.result()
            except BaseException:
                for other in self._running:
                    other.cancel()
                raise
            yield from self._outputs(marker)

    def _outputs(self, done: dict[str, Any]) -> Iterator[Any]:
        """Yields the partition's spill files, and the side outputs."""
        yield from done["files"].items()
        letters = [DeadLetter.from_dict(letter) for letter in done["dead_letters"]]
        yield from self.side_outputs(Counter(done["counts"]), letters)
