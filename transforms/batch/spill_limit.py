"""How much may wait in memory before it is spilled: less, by as much as the process has grown.

The tokenizer's caches grow with the words that a process meets, for as long as a job runs. What
waits for its spill file is the one other thing that can give way, at the price of smaller pieces.
So a long job peaks where a short one does.
"""

import functools
from collections.abc import Callable

from shardstream.tokens.process_memory import resident_bytes

# Tokens gathered, for each partition that is being read, before they are written bucket by bucket:
# large enough that a bucket's piece is worth a read, small beside a shard in memory.
MOST_BYTES = 48 << 20
# However much the process has grown; a job takes hardly longer with no more than this.
LEAST_BYTES = 16 << 20


class SpillLimit:
    """How many bytes each of a process's readers may let wait; any number of threads may ask.

    Args:
        num_readers: between whom growth is shared out.
        most: bytes that may wait in a process that has not grown.
        least: bytes that may wait in any.
        resident: gives the memory of the process in bytes, None where the system doesn't tell;
            there the limit stays.
    """

    def __init__(
        self,
        num_readers: int,
        *,
        most: int = MOST_BYTES,
        least: int = LEAST_BYTES,
        resident: Callable[[], int | None] = resident_bytes,
    ) -> None:
        self._num_readers = num_readers
        self._most, self._least = most, least
        self._resident = resident
        self._at_first_spill: int | None = None

    def note_spill(self, waiting_bytes: int) -> None:
        """Remembers what the process takes with everything loaded and waiting.

        That is at the first spill of `least` or more: the source may begin with a small file.
        """
        if self._at_first_spill is None and waiting_bytes >= self._least:
            self._at_first_spill = self._resident()

    def spill_bytes(self) -> int:
        """Returns how much a reader may let wait now."""
        resident = self._resident()
        if resident is None or self._at_first_spill is None:
            return self._most
        growth = max(0, resident - self._at_first_spill)
        return max(self._least, self._most - growth // self._num_readers)


@functools.cache
def process_limit(num_readers: int) -> SpillLimit:
    """Returns this process's limit: a runner makes several copies of a DoFn in one."""
    return SpillLimit(num_readers)
