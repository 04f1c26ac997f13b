"""What happens to records that can't be read, the same on every host that meets them.

ArrayRecord checks a hash of every chunk and fails a whole range over one bad chunk. The range is
then halved until the bad records stand alone, so the good ones around them are kept. What takes a
bad record's place depends on the dataset only: an empty row, or the next readable record of the
shard. Batches keep their shape and all hosts stay in step.
"""

import logging
import threading
from collections.abc import Callable

import numpy as np

from shardstream.shard_format.manifest import Shard

_log = logging.getLogger("shardstream.loaders")

ReadAt = Callable[[np.ndarray], list[bytes]]


class BadRecordError(RuntimeError):
    """A record can't be read, and the policy is to raise or the budget is spent."""


class BadRecords:
    """The bad records met so far, each once however often it is read.

    Args:
        policy: "raise", "skip" or "substitute".
        budget: number of different records after which one more raises an error.
    """

    def __init__(self, policy: str, budget: int) -> None:
        self.policy = policy
        self.budget = budget
        self._met: dict[tuple[str, int], str] = {}
        self._lock = threading.Lock()

    def met(self) -> list[tuple[str, int]]:
        """Returns (shard file, record) of every bad record met, sorted."""
        with self._lock:
            return sorted(self._met)

    def restore(self, records: list[tuple[str, int]]) -> None:
        """Takes over what an earlier run met, so that the budget holds for both together."""
        with self._lock:
            self._met.update({(file, int(record)): "" for file, record in records})

    def add(self, shard: Shard, record: int, error: Exception) -> None:
        """Counts a bad record.

        Raises:
            BadRecordError: policy or budget forbid going on.
        """
        where = f"{shard.file}, record {record}: can't be read ({error})."
        if self.policy == "raise":
            raise BadRecordError(
                f"{where} Fetch the shard again, or pass on_bad_record='skip' or 'substitute'."
            ) from error
        with self._lock:
            is_new = (shard.file, record) not in self._met
            self._met[shard.file, record] = str(error)
            spent = len(self._met) > self.budget
        if spent:
            raise BadRecordError(
                f"{where} That is one more than bad_record_budget={self.budget}. Fetch the shards "
                "again; Loader.bad_records() lists the records."
            ) from error
        if is_new:
            _log.warning("%s on_bad_record is %r.", where, self.policy)


def read_around(
    read_at: ReadAt, index: np.ndarray, shard: Shard, bad: BadRecords, empty: bytes
) -> list[bytes]:
    """Returns the records of a shard at index (increasing), bad ones treated as the policy says.

    Args:
        read_at: returns the records at some of the indices.
        index: int64[n].
        shard: that they are of.
        bad: the policy, and where bad records are counted.
        empty: a record of padding, in place of one that is skipped.

    Raises:
        BadRecordError: see BadRecords.add.
    """
    try:
        return read_at(index)
    except RuntimeError as error:
        if len(index) == 1 and bad.policy == "raise":
            bad.add(shard, int(index[0]), error)
    records, failed = _narrow(read_at, index)
    for place, error in failed:
        bad.add(shard, int(index[place]), error)
    for place, _ in failed:
        is_skipped = bad.policy == "skip"
        records[place] = empty if is_skipped else _substitute(read_at, int(index[place]), shard)
    return records


def _narrow(read_at: ReadAt, index: np.ndarray) -> tuple[list[bytes], list[tuple[int, Exception]]]:
    """Returns the records, b"" for each unreadable one, and those places with their errors."""
    records, failed = [b""] * len(index), []
    pending = [(0, len(index))]
    while pending:
        begin, end = pending.pop()
        try:
            records[begin:end] = read_at(index[begin:end])
        except RuntimeError as error:
            if end - begin == 1:
                failed.append((begin, error))
            else:
                middle = (begin + end) // 2
                pending += [(middle, end), (begin, middle)]
    return records, failed


def _substitute(read_at: ReadAt, record: int, shard: Shard) -> bytes:
    """Returns the next readable record of the shard, around its end."""
    for step in range(1, shard.records):
        try:
            return read_at(np.array([(record + step) % shard.records]))[0]
        except RuntimeError:
            continue
    raise BadRecordError(f"{shard.file}: no record can be read. Fetch the shard again.")
