"""The loaders we measure ourselves against, each on its own format of the same sequences.

    python -m benchmarks.loader_peers --write --data DIR      # DIR/sequences.npy in their formats

Every function returns an iterator of shuffled host batches; what it yields is whatever the peer
gives its users, so no peer pays for a conversion. Needs an environment of its own with `pip install
grain array_record litdata mosaicml-streaming`, since PyTorch comes with the last two.
"""

import argparse
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.loader_race import Contenders, serve
from shardstream.shard_format.manifest import read_manifest
from shardstream.shard_format.storage import open_directory


def grain_batches(
    root: Path, batch_size: int, *, threads: int, buffer: int, workers: int, batched: bool
) -> Iterator[Any]:
    """Grain's global shuffle over the same ArrayRecord files."""
    import grain

    manifest = read_manifest(open_directory(root))
    layout = manifest.layout(manifest.shards[0])
    paths = [str(root / shard.file) for shard in manifest.shards]
    length, dtype = manifest.sequence_length, layout.tokens_dtype

    def decode(record: bytes) -> np.ndarray:
        return np.frombuffer(record, dtype, length)

    def decode_batch(records: list[bytes]) -> np.ndarray:
        block = np.frombuffer(b"".join(records), np.uint8).reshape(len(records), -1)
        return block[:, : layout.tokens_bytes].view(dtype)

    data = grain.MapDataset.source(grain.sources.ArrayRecordDataSource(paths)).seed(7).shuffle()
    data = data.repeat()
    if batched:
        data = data.batch(batch_size, drop_remainder=True, batch_fn=decode_batch)
    else:
        data = data.map(decode).batch(batch_size, drop_remainder=True)
    data = data.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffer))
    if workers:
        from absl import flags

        flags.FLAGS(["benchmark"], known_only=True)  # Grain's workers want them parsed
        data = data.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(data)


# Of processes: on a machine of many cores peers get more of them.
MANY_WORKERS = () if (os.cpu_count() or 1) < 8 else (4, 8, 15)
GRAIN_SETTINGS = [
    {"threads": threads, "buffer": buffer, "workers": workers, "batched": batched}
    for threads, buffer, workers in [
        *[(16, 500, 0), (4, 64, 0), (2, 16, 0), (0, 0, 0)],
        *[(4, 64, workers) for workers in (2, *MANY_WORKERS)],
    ]
    for batched in (True, False)
]


def write_litdata(sequences: np.ndarray, root: Path) -> None:
    """Writes LitData's token format, read in place by TokensLoader."""
    import torch
    from litdata.streaming.item_loader import TokensLoader
    from litdata.streaming.writer import BinaryWriter

    length = sequences.shape[1]
    root.mkdir(parents=True)
    writer = BinaryWriter(str(root), chunk_bytes="64MB", item_loader=TokensLoader(length))
    for index, row in enumerate(sequences):
        writer.add_item(index, torch.from_numpy(row))
    writer.done()
    writer.merge()


def litdata_batches(root: Path, batch_size: int, *, workers: int, length: int) -> Iterator[Any]:
    """LitData's loader with its shuffle (whole chunks, then inside a chunk)."""
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming.item_loader import TokensLoader

    data = StreamingDataset(
        str(root), item_loader=TokensLoader(length), shuffle=True, drop_last=True, seed=7
    )
    return iter(StreamingDataLoader(data, batch_size=batch_size, num_workers=workers))


def write_mosaic(sequences: np.ndarray, root: Path) -> None:
    """Writes MosaicML's MDS format, as LLM Foundry does: the bytes of a sequence."""
    from streaming import MDSWriter

    with MDSWriter(out=str(root), columns={"tokens": "bytes"}, size_limit="64mb") as writer:
        for row in sequences:
            writer.write({"tokens": row.tobytes()})


def mosaic_batches(root: Path, batch_size: int, *, workers: int, algorithm: str) -> Iterator[Any]:
    """MosaicML Streaming with one of its block shuffles."""
    import streaming
    import torch

    streaming.base.util.clean_stale_shared_memory()
    data = streaming.StreamingDataset(
        local=str(root), shuffle=True, shuffle_algo=algorithm, shuffle_seed=7, batch_size=batch_size
    )
    loader = torch.utils.data.DataLoader(
        data, batch_size=batch_size, num_workers=workers, drop_last=True, collate_fn=_stack
    )
    return iter(loader)


def _stack(items: list[dict[str, np.ndarray]]) -> np.ndarray:
    return np.stack([np.frombuffer(item["tokens"], np.uint16) for item in items])


LITDATA_DTYPES = ("uint16", "int32")  # as narrow as ids are, and as models take them
PEERS = {"grain": "grain", "litdata": "litdata", "mosaicml": "streaming"}


def contenders(arguments: argparse.Namespace) -> Contenders:
    """Returns, by peer that is installed, (setting, function) of every setting in its sweep."""
    root, batch_size, length = arguments.data, arguments.batch_size, arguments.length

    def tokens(batches: Iterator[Any]) -> Iterator[int]:
        return (batch_size * length for _ in batches)

    found: Contenders = {
        "grain": [
            (
                ", ".join(f"{name}={value}" for name, value in s.items()),
                lambda s=s: tokens(grain_batches(root / "ours", batch_size, **s)),
            )
            for s in GRAIN_SETTINGS
        ],
        "litdata": [
            (
                f"workers={workers}, {dtype}",
                lambda workers=workers, dtype=dtype: tokens(
                    litdata_batches(
                        root / f"litdata-{dtype}", batch_size, workers=workers, length=length
                    )
                ),
            )
            for workers in (0, 1, 2, *MANY_WORKERS)
            for dtype in LITDATA_DTYPES
        ],
        "mosaicml": [
            (
                f"workers={workers}, {algorithm}",
                lambda workers=workers, algorithm=algorithm: tokens(
                    mosaic_batches(
                        root / "mosaicml", batch_size, workers=workers, algorithm=algorithm
                    )
                ),
            )
            for workers in (0, 1, 2, *MANY_WORKERS)
            for algorithm in ("py1e", "py1s", "py1br")
        ],
    }
    return {name: settings for name, settings in found.items() if _is_installed(name)}


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(PEERS[name]) is not None


def write_all(data: Path) -> None:
    """Writes the sequences in the formats of the peers installed, unless they are there."""
    sequences = np.load(data / "sequences.npy")
    formats = [("mosaicml", write_mosaic, data / "mosaicml", "uint16")]
    formats += [
        ("litdata", write_litdata, data / f"litdata-{dtype}", dtype) for dtype in LITDATA_DTYPES
    ]
    for peer, write, root, dtype in formats:
        if _is_installed(peer) and not (root / "index.json").exists():
            shutil.rmtree(root, ignore_errors=True)
            write(sequences.astype(dtype, copy=False), root)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write_all(Path(sys.argv[-1]))
    else:
        serve(contenders)
