"""How much may wait in memory before it is spilled: what a process grows by comes off it.

The tokenizer's caches grow with the words a process meets: by 45 MB, of two instances for GPT-2,
between the first hundred million tokens and the first billion. What waits for its spill file is the
one thing beside them that can give way, at the price of smaller pieces, so a long job peaks where a
short one does.
"""

import functools
from collections.abc import Callable

from tokens.process_memory import resident_bytes

# Tokens gathered, for each partition that is being read, before they are written bucket by bucket:
# large enough that a bucket's piece is worth a read, small beside a shard in memory.
MOST_BYTES = 48 << 20
# However much the process has grown: pieces of a third take 1 % longer to gather (1,288 M tokens).
LEAST_BYTES = 16 << 20


class SpillLimit:
    """The bytes that a reader may let wait; any number of threads may ask.

    Args:
        resident: gives the memory of the process in bytes, None where the system doesn't tell;
            there the limit stays.
    """

    def __init__(self, resident: Callable[[], int | None] = resident_bytes) -> None:
        self._resident = resident
        self._at_first_spill: int | None = None

    def note_spill(self, waiting_bytes: int) -> None:
        """Remembers what the process takes with everything loaded and waiting.

        That is at the first spill of LEAST_BYTES or more: the source may begin with a small file.
        """
        if self._at_first_spill is None and waiting_bytes >= LEAST_BYTES:
            self._at_first_spill = self._resident()

    def bytes_for(self, num_readers: int) -> int:
        """Returns how much each of num_readers may let wait now."""
        resident = self._resident()
        if resident is None or self._at_first_spill is None:
            return MOST_BYTES
        growth = max(0, resident - self._at_first_spill)
        return max(LEAST_BYTES, MOST_BYTES - growth // num_readers)


@functools.cache
def process_limit() -> SpillLimit:
    """Returns this process's limit: a runner makes several copies of a DoFn in one."""
    return SpillLimit()
