"""An open shard that is read by ranges and by record numbers, each by the reader that suits it."""

import threading

import numpy as np

from shard_format.shard_file import ShardFile

# From here on a run of neighbours is read as a range; shorter ones are left to the other reader, so
# that random access doesn't open every shard twice.
_RANGE_RECORDS = 32


class OpenShard:
    """A local shard; its files are opened when first needed.

    Args:
        path: of the file.
        record_bytes: see ShardFile.
        num_records: see ShardFile.
    """

    def __init__(self, path: str, *, record_bytes: int, num_records: int) -> None:
        self._path, self._record_bytes, self._num_records = path, record_bytes, num_records
        self._files: dict[bool, ShardFile] = {}
        self._lock = threading.Lock()

    def read_at(self, indices: np.ndarray) -> np.ndarray:
        """Returns uint8[n, record_bytes], the records at indices, in their order.

        Raises:
            ValueError: the file is cut short or of another run.
            RuntimeError: ArrayRecord found a corrupt chunk.
        """
        first, last = int(indices[0]), int(indices[-1])
        is_run = last - first + 1 == len(indices) and (np.diff(indices) == 1).all()
        if is_run and len(indices) >= _RANGE_RECORDS:
            return self._file(by_record=False).read(first, last + 1)
        return self._file(by_record=True).read_at(indices)

    def _file(self, *, by_record: bool) -> ShardFile:
        with self._lock:
            if by_record not in self._files:
                self._files[by_record] = ShardFile(
                    self._path,
                    record_bytes=self._record_bytes,
                    num_records=self._num_records,
                    by_record=by_record,
                )
            return self._files[by_record]

    def close(self) -> None:
        """Closes the files; the next read opens them again."""
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()
