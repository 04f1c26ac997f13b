"""Shards to shuffled host batches: ours, Grain's, LitData's, MosaicML's and a plain read.

    python -m benchmarks.loader                  # speed against peers, start, resume, open
    python -m benchmarks.loader --table          # group size x compression: write, size, read

All contenders read the same sequences (uniform random ids: the speed of none of these depends on
them) on the same machine in one run; each peer is swept over its settings and its best counts. Each
setting runs in a process of its own, `--rounds` times in turn, and the best time counts, so that a
busy moment of the machine hurts no side alone. Peers need `pip install grain litdata
mosaicml-streaming`; those missing are named and left out. CPU time is printed beside wall time.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import resource
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from benchmarks import loader_peers
from loaders import Loader
from shard_format import naming
from shard_format.manifest import Manifest, Shard, read_manifest
from shard_format.record import RecordLayout, encode_records
from shard_format.shard_file import COMPRESSIONS, ShardOptions, write_records
from shard_format.storage import Directory

PEER_PACKAGES = {"grain": "grain", "litdata": "litdata", "mosaicml": "streaming"}
SEQUENTIAL_RANGES = (1, 64, 256, 1024, 4096)
BUFFER_SIZE = 10_000


def make_sequences(num_sequences: int, length: int) -> np.ndarray:
    """Returns uint16[N, L] of GPT-2's ids."""
    return np.random.default_rng(0).integers(0, 50_257, (num_sequences, length), dtype=np.uint16)


def write_ours(
    sequences: np.ndarray, root: Path, num_shards: int, options: ShardOptions | None = None
) -> None:
    """Writes a dataset directory, two documents a sequence."""
    directory = Directory(root)
    root.mkdir(parents=True)
    length = sequences.shape[1]
    layout = RecordLayout(sequence_length=length, token_dtype="uint16", max_segments=8)
    shards = []
    for index, rows in enumerate(np.array_split(sequences, num_shards)):
        name = naming.shard_name("train", index, num_shards)
        lengths = np.zeros((len(rows), 8), np.int64)
        lengths[:, 0], lengths[:, 1] = length // 2, length - length // 2
        blocks = [encode_records(rows, lengths, layout)]
        digest = write_records(directory.path(name), blocks, options or ShardOptions())
        shards.append(
            Shard(
                file=name,
                split="train",
                index=index,
                records=len(rows),
                documents=2 * len(rows),
                tokens=rows.size,
                truncated_tokens=0,
                max_segments=8,
                bytes=digest.bytes,
                sha256=digest.sha256,
            )
        )
    directory.write(naming.MANIFEST, make_manifest(shards, length).to_json())


def make_manifest(shards: list[Shard], length: int) -> Manifest:
    """Returns the manifest of a benchmark's dataset."""
    return Manifest(
        status="complete",
        sequence_length=length,
        token_dtype="uint16",
        pad_id=0,
        packing={"name": "concat"},
        tokenizer={"name": "benchmark"},
        source={},
        seed=0,
        options={},
        shards=tuple(shards),
        plan_fingerprint="benchmark",
    )


# Contenders. Each is timed from its first batch to its last.


def sequential_read(root: Path, records_per_call: int) -> Iterator[None]:
    """A plain read of the files in order: 1 reads one by one, with ArrayRecord's read-ahead."""
    for shard in read_manifest(Directory(root)).shards:
        path = str(root / shard.file)
        if records_per_call == 1:
            reader = ArrayRecordReader(path)
            for _ in range(shard.records):
                reader.read()
        else:
            reader = ArrayRecordReader(path, "readahead_buffer_size:0")
            for begin in range(0, shard.records, records_per_call):
                reader.read(begin, min(begin + records_per_call, shard.records))
        reader.close()
        yield


def our_batches(root: Path, batch_size: int, **options: Any) -> Iterator[Any]:
    """Our host batches, int32 as NumPy arrays."""
    options = {"buffer_size": BUFFER_SIZE, "output": "numpy"} | options
    with Loader(root, batch_size=batch_size, process_index=0, process_count=1, **options) as loader:
        yield from loader


def all_contenders(root: Path, arguments: argparse.Namespace) -> dict[str, list]:
    """Returns, by name, (setting, function) of every setting."""
    ours = root / "ours"
    found = {
        "sequential read": [
            (f"{count} records a call", lambda count=count: sequential_read(ours, count))
            for count in SEQUENTIAL_RANGES
        ]
    }
    for shuffle in ("buffer", "global", "none"):
        found[f"ours {shuffle}"] = [
            (
                f"read_threads={threads}",
                lambda threads=threads, shuffle=shuffle: our_batches(
                    ours, arguments.batch_size, shuffle=shuffle, read_threads=threads
                ),
            )
            for threads in (1, 2, 3)
        ]
    return found | loader_peers.contenders(root, arguments.batch_size, arguments.length)


def run_one(root: Path, arguments: argparse.Namespace) -> None:
    """Times one setting and prints the result as JSON; the child process of measure()."""
    name, index = arguments.one.split(":")
    _, make = all_contenders(root, arguments)[name][int(index)]
    iterator = iter(make())
    next(iterator)  # imports, worker processes and first reads are no part of the speed
    before, start = _cpu_secs(), time.perf_counter()
    batches = 0
    for _ in iterator:
        batches += 1
        if time.perf_counter() - start > arguments.seconds:
            break
    secs = time.perf_counter() - start
    tokens = batches * arguments.batch_size * arguments.length
    if name == "sequential read":
        shards = read_manifest(Directory(root / "ours")).shards
        tokens = sum(shard.tokens for shard in shards[1 : batches + 1])
    print(
        json.dumps({"rate": tokens / secs, "cpu_rate": tokens / (_cpu_secs() - before)}), flush=True
    )
    os._exit(0)  # some peers' worker processes don't end by themselves


def _cpu_secs() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(root: Path, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Returns, by contender, its best setting's tokens a second, by wall and by CPU time."""
    best: dict[str, dict[str, Any]] = {}
    missing = [
        name for name, package in PEER_PACKAGES.items() if not importlib.util.find_spec(package)
    ]
    for round_index in range(arguments.rounds):
        for name, settings in all_contenders(root, arguments).items():
            if name in missing:
                continue
            for index, (setting, _) in enumerate(settings):
                found = _in_process(root, arguments, f"{name}:{index}")
                if found is None:
                    if round_index == 0:
                        print(f"# {name}, {setting}: failed, left out", flush=True)
                    continue
                if found["rate"] > best.get(name, {"rate": 0})["rate"]:
                    best[name] = found | {"setting": setting}
        print(f"# round {round_index + 1} of {arguments.rounds} done", file=sys.stderr, flush=True)
    for name in missing:
        print(f"{name:16} not installed")
    return best


def _in_process(root: Path, arguments: argparse.Namespace, one: str) -> dict[str, float] | None:
    command = [sys.executable, "-m", "benchmarks.loader", "--one", one, "--data", str(root)]
    command += ["--length", str(arguments.length), "--batch_size", str(arguments.batch_size)]
    command += ["--seconds", str(arguments.seconds)]
    with tempfile.TemporaryFile("w+") as output:
        # In a session of its own, since some peers' worker processes outlive their parent.
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.DEVNULL, start_new_session=True
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20 + 4 * arguments.seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        output.seek(0)
        try:
            return json.loads(output.read().strip().splitlines()[-1])
        except (ValueError, IndexError):
            return None


def compare(root: Path, arguments: argparse.Namespace) -> None:
    """Prints the table of speeds and the ratios that the README states."""
    best = measure(root, arguments)
    print(f"\n{'contender':16} {'Mtok/s':>8} {'Mtok/CPU-s':>11}  best setting")
    for name, found in best.items():
        rates = f"{found['rate'] / 1e6:8.1f} {found['cpu_rate'] / 1e6:11.1f}"
        print(f"{name:16} {rates}  {found['setting']}")
    goals = [("ours buffer", "sequential read", 0.8), ("ours buffer", "grain", 10)]
    goals += [
        ("ours global", "grain", 5),
        ("ours buffer", "litdata", 4),
        ("ours buffer", "mosaicml", 20),
    ]
    for ours, peer, goal in goals:
        if ours in best and peer in best:
            ratio = best[ours]["rate"] / best[peer]["rate"]
            print(f"{ours} / {peer}: {ratio:.2f} (goal {goal})")


def measure_start(root: Path, arguments: argparse.Namespace) -> None:
    """Prints the time to the first batch, to resume, and to open a large manifest."""
    with tempfile.TemporaryDirectory(dir=root) as temporary:
        many, wide = Path(temporary) / "10M", Path(temporary) / "100k"
        ours = read_manifest(Directory(root / "ours"))
        _link_records(root / "ours", ours, many, 10_000_000)
        shards = [
            dataclasses.replace(
                ours.shards[0], file=naming.shard_name("train", i, 100_000), index=i
            )
            for i in range(100_000)
        ]
        Directory(wide).write(
            naming.MANIFEST, make_manifest(shards, ours.sequence_length).to_json()
        )
        options = {"batch_size": arguments.batch_size, "process_index": 0, "process_count": 1}
        options |= {"buffer_size": BUFFER_SIZE, "output": "numpy"}
        for shuffle in ("buffer", "global"):
            secs = _best(lambda s=shuffle: _first_batch(root / "ours", None, shuffle=s, **options))
            print(f"first batch, {shuffle}: {secs:.3f} s (goal 0.5)")
        for shuffle in ("buffer", "global"):
            with Loader(many, shuffle=shuffle, **options) as loader:
                loader.skip(loader.steps_per_epoch // 2)
                state = loader.get_state()
            secs = _best(lambda s=shuffle, at=state: _first_batch(many, at, shuffle=s, **options))
            print(
                f"resume at step {state['step']} of 10M records, {shuffle}: {secs:.3f} s "
                f"(goal 0.3), state {len(json.dumps(state))} bytes (goal 4096)"
            )
        secs = _best(lambda: _open(wide, **options))
        print(f"open 100,000 shards: {secs:.3f} s (goal 1)")


def _link_records(source: Path, manifest: Manifest, target: Path, num_records: int) -> None:
    """Makes a dataset of about num_records out of links to a small one's shards."""
    target.mkdir()
    count = -(-num_records // manifest.shards[0].records)
    shards = []
    for index in range(count):
        shard = manifest.shards[index % len(manifest.shards)]
        name = naming.shard_name("train", index, count)
        os.link(source / shard.file, target / name)
        shards.append(dataclasses.replace(shard, file=name, index=index))
    made = make_manifest(shards, manifest.sequence_length)
    Directory(target).write(naming.MANIFEST, made.to_json())


def _first_batch(path: Path, state: dict | None, **options: Any) -> float:
    """Returns seconds from a state (or from nothing) to the first batch."""
    start = time.perf_counter()
    with Loader(path, **options) as loader:
        opened = time.perf_counter()
        if state is not None:
            start = opened  # opening is a figure of its own
            loader.set_state(state)
        next(loader)
        return time.perf_counter() - start


def _open(path: Path, **options: Any) -> float:
    start = time.perf_counter()
    Loader(path, **options).close()
    return time.perf_counter() - start


def _best(run: Any, times: int = 5) -> float:
    return min(run() for _ in range(times))


def options_table(sequences: np.ndarray, directory: Path, batch_size: int) -> None:
    """Prints, for each group size and compression, write, size and read figures."""
    num_tokens = sequences.size
    print(
        f"{'group':>5} {'compression':11} {'write MB/s':>10} {'size':>6} {'sequential':>10}", end=""
    )
    print(f" {'buffer':>8} {'global':>8}   (Mtok/s; size: share of the tokens' bytes)")
    for compression in COMPRESSIONS:
        for group_size in (1, 8, 64, 256):
            root = directory / f"{compression}-{group_size}"
            options = ShardOptions(group_size=group_size, compression=compression)
            start = time.perf_counter()
            write_ours(sequences, root, 8, options)
            write = sequences.nbytes / 1e6 / (time.perf_counter() - start)
            shards = read_manifest(Directory(root)).shards
            size = sum(shard.bytes for shard in shards) / sequences.nbytes
            rates = [_rate(lambda r=root: sequential_read(r, 1024), num_tokens)]
            epochs = max(1, 2**26 // num_tokens)  # so that the start weighs little
            for shuffle in ("buffer", "global"):
                options_of_loader = {
                    "shuffle": shuffle,
                    "epochs": epochs,
                    "buffer_size": min(BUFFER_SIZE, len(sequences) // 3),
                }
                rates.append(
                    _rate(
                        lambda r=root, o=options_of_loader: our_batches(r, batch_size, **o),
                        num_tokens * epochs,
                    )
                )
            print(
                f"{group_size:5} {compression:11} {write:10.0f} {size:6.2f} {rates[0]:10.0f} "
                f"{rates[1]:8.0f} {rates[2]:8.0f}",
                flush=True,
            )
            shutil.rmtree(root)


def _rate(make: Any, num_tokens: int) -> float:
    def run() -> float:
        start = time.perf_counter()
        for _ in make():
            pass
        return time.perf_counter() - start

    return num_tokens / 1e6 / _best(run, 2)


def real_sequences(num_sequences: int, length: int) -> np.ndarray:
    """Returns uint16[N, L] of the Python files installed here, words numbered as they appear.

    Ids of real text in real order, so that compression has to do with what it will meet.
    """
    vocabulary: dict[str, int] = {}
    parts, found = [], 0
    for directory in (Path(os.__file__).parent, *map(Path, site.getsitepackages())):
        for path in sorted(directory.rglob("*.py")):
            if found >= num_sequences * length:
                break
            words = path.read_text(errors="replace").split(" ")
            ids = [vocabulary.setdefault(word, len(vocabulary)) for word in words]
            parts.append(np.minimum(ids, 50_256).astype(np.uint16))
            found += len(ids)
    together = np.concatenate(parts)
    needed = min(num_sequences, len(together) // length)
    return together[: needed * length].reshape(needed, length)


def main() -> None:
    """Runs the benchmark named by the flags."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="where to make the data; a temporary directory")
    parser.add_argument("--sequences", type=int, default=65_536)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="at most, for each measurement")
    parser.add_argument("--table", action="store_true", help="group size x compression")
    parser.add_argument("--tokens", type=Path, help="with --table: .npy uint16[N, L] of real ids")
    parser.add_argument("--skip_peers", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(arguments.data, arguments)
    with tempfile.TemporaryDirectory(dir=arguments.data) as temporary:
        root = Path(temporary)
        if arguments.table:
            real = np.load(arguments.tokens) if arguments.tokens else None
            sequences = (
                real if real is not None else real_sequences(arguments.sequences, arguments.length)
            )
            options_table(sequences, root, arguments.batch_size)
            return
        sequences = make_sequences(arguments.sequences, arguments.length)
        write_ours(sequences, root / "ours", arguments.shards)
        for name, write in (
            ("litdata", loader_peers.write_litdata),
            ("mosaic", loader_peers.write_mosaic),
        ):
            if not arguments.skip_peers:
                try:
                    write(sequences, root / name)
                except ImportError as error:
                    print(f"# {name}: {error}")
        compare(root, arguments)
        measure_start(root, arguments)


if __name__ == "__main__":
    main()
