"""Finds new files of a source that grows: a local folder or pattern, or a dataset on the hub.

Each file found gets the next free index, in the log, before any of it is read; the index is the
`partition` of its documents for ever, whatever joins or leaves later. A file is known by its name
inside the source: one that was read once is never read again, not even where its content has
changed since (a warning says so), because its new documents could not be told from its old ones.

Local files should appear whole (`mv`, not `cp`); as a help, those changed within the last few
seconds wait for the next look.
"""

import logging
import time
from pathlib import Path

from shardstream.shard_format.commit_log import FollowedFile
from shardstream.sources.options import SourceOptions
from shardstream.sources.resolve import SourceFile, list_files
from shardstream.transforms.stream.log import StreamLog
from shardstream.transforms.stream.plan import StreamPlan
from shardstream.transforms.worker_inputs import source_of

_SETTLE_SECS = 1.0
_logger = logging.getLogger(__name__)


class SourceWatch:
    """Looks for files, remembering which are known.

    Args:
        plan: of the stream.
        log: where indices are given; this writer's.
        registers: give indices; False only takes in what another lane has registered.
    """

    def __init__(self, plan: StreamPlan, log: StreamLog, *, registers: bool) -> None:
        self._plan = plan
        self._log = log
        self._registers = registers
        self._taken = 0
        self._warned: set[str] = set()

    def next_files(self) -> list[SourceFile]:
        """Returns the registered files not returned before, those found just now included."""
        if self._registers:
            self.register()
        else:
            self._log.refresh()
        fresh = self._log.files[self._taken :]
        self._taken += len(fresh)
        return [SourceFile(**vars(file)) for file in fresh]

    def register(self) -> None:
        """Gives indices to files found just now."""
        known = {file.name: file for file in self._log.files}
        fresh = []
        for file in find_files(source_of(self._plan)):
            name = source_name(file, self._plan.source)
            if name not in known:
                index = len(self._log.files) + len(fresh)
                fresh.append(FollowedFile(index=index, url=file.url, name=name, bytes=file.bytes))
                known[name] = fresh[-1]
            elif known[name].bytes != file.bytes and name not in self._warned:
                self._warned.add(name)
                _logger.warning(
                    "%s has changed (%s bytes, %s when it joined the stream); a file is read once, "
                    "so its new content is left out. Put new documents into new files.",
                    name,
                    file.bytes,
                    known[name].bytes,
                )
        if fresh:
            self._log.commit(files=fresh)


def find_files(source: SourceOptions) -> list[SourceFile]:
    """Returns the source's files as they are now; none while hub or folder don't answer."""
    try:
        found = list_files(source)
    except ValueError as error:
        _logger.warning("looking for new files failed, next try at the next look: %s", error)
        return []
    return [file for file in found if _is_settled(file)]


def source_name(file: SourceFile, source: SourceOptions) -> str:
    """Returns what names a file inside the source: its path there, whatever the commit."""
    if file.url.startswith("hf://"):
        return file.name
    path = Path(file.url)
    folder = Path(source.dataset).absolute()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _is_settled(file: SourceFile) -> bool:
    if "://" in file.url:
        return True
    try:
        return time.time() - Path(file.url).stat().st_mtime >= _SETTLE_SECS
    except OSError:
        return False
