"""What there is to read: the pinned source, its partitions, and where row groups begin.

A dataset of few files is split into runs of row groups, so that lanes have enough to draw from. In
one of many files a lane reads a whole file, and no footer is opened before its turn.

With a cache, what was found at a hub commit is kept, and later runs do not ask the hub: a run that
names no revision goes on with the commit that the first one pinned.
"""

import dataclasses
import hashlib
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shardstream.loaders.hub.cache import TokenCache, read_json, write_whole
from shardstream.loaders.hub.options import FetchOptions
from shardstream.loaders.hub.retry import Retry
from shardstream.sources.options import SourceOptions

if TYPE_CHECKING:  # sources.resolve imports datasets
    from shardstream.sources.partitions import Partition
    from shardstream.sources.resolve import Source, SourceFile

_log = logging.getLogger("shardstream.loaders")

_PARTITION_BYTES = 8 << 20
_FILES_PER_LANE = 4  # from so many on, files are not split
_FOOTER_THREADS = 16
_COMMIT_LENGTH = 40


@dataclasses.dataclass(frozen=True)
class Catalog:
    """The source and its partitions, in the order of the stream."""

    source: "Source"
    partitions: tuple["Partition", ...]

    def identity(self) -> dict[str, Any]:
        """Returns what determines the documents and their names."""
        identity = dict(self.source.identity)
        names = "\0".join(file.name for file in self.source.files)
        identity["files"] = hashlib.sha256(names.encode()).hexdigest()[:16]
        return identity


def open_catalog(
    options: SourceOptions, *, lanes: int, cache_dir: Path | None, fetch: FetchOptions
) -> Catalog:
    """Resolves the source and lists its partitions, from the cache where it has them.

    Raises:
        ValueError: as `sources.resolve.resolve`.
        StreamError: footers can't be read.
    """
    from shardstream.sources.resolve import resolve

    kept_at = None
    if cache_dir is not None:
        asked = json.dumps([options.as_dict(), lanes >= 1 and lanes], sort_keys=True)
        name = hashlib.sha256(asked.encode()).hexdigest()[:32]
        kept_at = cache_dir / "shardstream-tokens" / "sources" / f"{name}.json"
        if (kept := read_json(kept_at)) is not None:
            catalog = _from_json(kept)
            if options.revision is None:
                _log.info(
                    "%s: commit %s, as found by an earlier run with this cache; give a revision "
                    "to read another",
                    options.dataset,
                    catalog.source.commit,
                )
            return catalog
    source = resolve(options)
    catalog = Catalog(source, tuple(_list_partitions(source, lanes, fetch)))
    is_pinned = source.options.revision == source.commit and len(source.commit) == _COMMIT_LENGTH
    if kept_at is not None and is_pinned:
        try:
            text = json.dumps(_to_json(catalog))
        except TypeError:  # a card's reader settings that JSON can't hold
            return catalog
        kept_at.parent.mkdir(parents=True, exist_ok=True)
        write_whole(kept_at, text)
    return catalog


def _list_partitions(source: "Source", lanes: int, fetch: FetchOptions) -> list["Partition"]:
    from shardstream.sources.partitions import list_partitions, split_partition

    options, spec = source.options, source.read_spec
    retry = Retry(fetch, threading.Event())
    window = {"skip_documents": options.skip_documents, "max_documents": options.max_documents}
    coarse = retry.call(
        source.files[0].url, lambda: list(list_partitions(source.files, spec, **window))
    )
    if len(coarse) >= lanes * _FILES_PER_LANE:
        return coarse

    def split(whole: "Partition") -> list["Partition"]:
        return retry.call(
            whole.files[0].url,
            lambda: list(split_partition(whole, spec, _PARTITION_BYTES, keep_going=False)),
        )

    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        return [partition for smaller in pool.map(split, coarse) for partition in smaller]


class RowGroups:
    """Where the row groups of each parquet file begin, learnt when first asked for.

    Args:
        cache: keeps them, if there is one.
    """

    def __init__(self, cache: TokenCache | None) -> None:
        self._cache = cache
        self._known: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def first_rows(self, file: "SourceFile") -> np.ndarray:
        """Returns int64[groups + 1]: the first row of each, then the number of rows."""
        with self._lock:
            known = self._known.get(file.index)
        if known is not None:
            return known
        kept = self._cache.read_rows(file.index) if self._cache else None
        if kept is None:
            kept = _read_footer(file.url)
            if self._cache:
                self._cache.write_rows(file.index, kept)
        known = np.array(kept, np.int64)
        with self._lock:
            self._known[file.index] = known
        return known


def _read_footer(url: str) -> list[int]:
    from shardstream.sources.partitions import open_parquet

    with open_parquet(url) as parquet:
        metadata = parquet.metadata
        rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    return [0, *np.cumsum(rows, dtype=np.int64).tolist()]


def _to_json(catalog: Catalog) -> dict[str, Any]:
    partitions = []
    for partition in catalog.partitions:
        fields = {
            field.name: getattr(partition, field.name)
            for field in dataclasses.fields(partition)
            if field.name != "files"
        }
        partitions.append(fields | {"files": [file.index for file in partition.files]})
    return {"source": dataclasses.asdict(catalog.source), "partitions": partitions}


def _from_json(values: dict[str, Any]) -> Catalog:
    from shardstream.sources.partitions import Partition
    from shardstream.sources.resolve import ReadSpec, Source, SourceFile

    kept = values["source"]
    files = tuple(SourceFile(**file) for file in kept["files"])
    lists = ("data_files", "reader_option")
    options: dict[str, Any] = {k: tuple(v) if k in lists else v for k, v in kept["options"].items()}
    spec = dict(kept["read_spec"])
    for name in ("columns", "kinds"):
        spec[name] = tuple(spec.get(name, ()))
    for name in ("config", "paths", "ranges"):
        spec[name] = tuple(tuple(items) for items in spec.get(name, ()))
    source = Source(
        options=SourceOptions(**options),
        commit=kept["commit"],
        read_spec=ReadSpec(**spec),
        files=files,
        num_documents=kept["num_documents"],
    )
    partitions = []
    for fields in values["partitions"]:
        groups = fields["row_groups"]
        chosen = tuple(files[index] for index in fields["files"])
        fields = fields | {"files": chosen, "row_groups": tuple(groups) if groups else None}
        partitions.append(Partition(**fields))
    return Catalog(source, tuple(partitions))
