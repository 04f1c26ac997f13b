"""One corpus on every runner, to a local disk and to gs:// on loopback: one digest.

    python -m benchmarks.runners                              # the embedded sample
    python -m benchmarks.runners --corpus                     # the corpus's first file, GPT-2 ids
    python -m benchmarks.runners --corpus 8                   # all of it
    python -m benchmarks.runners --runners FnApiRunner Flink --to local

Each run is the user's command in a process of its own, imports included; its wall time less that of
the same command for one document (`startup`) is what the documents cost. Memory is the most that
was resident at once in the command, its engine and its workers (the store's server included, pages
that processes share counted in each). Flink is the standalone cluster of two task managers with a
job server, started once and warm: a job that isn't counted has made it load its classes (13 s on
two cores); the others bring their engine along.
Dataflow is what would be sent there, executed here from what was staged (tests/dataflow), and takes
and leaves its files on gs:// alone.
"""

import argparse
import contextlib
import dataclasses
import functools
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.corpus import build_corpus
from benchmarks.datatrove_peer import ProcessTreeMeter
from shardstream.pipelines.job.runners import find_prism
from shardstream.pipelines.sample import build_sample
from shardstream.shard_format.manifest import read_manifest
from shardstream.shard_format.storage import open_directory
from tests.runners.engines import REPOSITORY, process_flags, write_worker
from tests.store_servers import StoreServer
from tools.fetch_runners import fetch_job_server, missing_tools
from tools.flink_cluster import FlinkCluster

RUNNERS = ("FnApiRunner", "Prism", "Flink", "Spark", "Dataflow")
_ONE_DOCUMENT = ("--max_documents", "1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What every runner is given."""

    files: tuple[str, ...]
    tokenizer: str
    num_shards: int

    def flags(self, *more: object) -> list[str]:
        """The pipeline's flags."""
        source = ["--dataset", "parquet", "--data_files", *self.files]
        shape = ["--tokenizer", self.tokenizer, "--num_shards", self.num_shards, "--no-progress"]
        return [*source, *map(str, [*shape, *more])]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """What one run came to."""

    runner: str
    to: str
    seconds: float
    startup: float
    tokens: int
    peak_bytes: int
    digest: str

    def __str__(self) -> str:
        work = self.seconds - self.startup
        # Of little work beside much startup the difference tells nothing.
        rate = f"{self.tokens / work / 1e6:6.2f}" if work > self.startup / 4 else "     -"
        return (
            f"{self.runner:12} {self.to:6} {self.seconds:8.1f} s {self.startup:8.1f} s startup "
            f"{self.tokens / self.seconds / 1e6:7.2f} Mtok/s ({rate} without startup) "
            f"{self.peak_bytes / 1e9:6.2f} GB   {self.digest[:16]}"
        )


def run_command(job: Job, engine: Sequence[str], more: Sequence[str], root: str) -> float:
    """Runs the user's command into root/out; returns its seconds."""
    flags = [*job.flags(*more), *engine, "--output", f"{root}/out"]
    command = [sys.executable, "-m", "shardstream.pipelines.preprocess", *flags]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    started = time.perf_counter()
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return time.perf_counter() - started


def run_on_dataflow(job: Job, folder: Path, more: Sequence[str], root: str) -> float:
    """Posts the job to a stub of Dataflow that executes it, into root/out; returns the seconds."""
    from tests.dataflow.dataflow_runs import submit, upload
    from tests.dataflow.dataflow_stub import DataflowStub

    # Its workers see nothing of this disk; the tokenizer travels with the job.
    there = dataclasses.replace(job, files=(upload(job.files, root),))
    with DataflowStub(Path(tempfile.mkdtemp(dir=folder)), execute=True) as stub:
        started = time.perf_counter()
        done = submit(stub.endpoint, root, *there.flags(*more))
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        return time.perf_counter() - started


def engine_flags(runner: str, worker: Path, end: contextlib.ExitStack) -> list[str]:
    """Returns the flags of a runner, with its engine started where it isn't brought along."""
    if runner == "Flink":
        cluster = end.enter_context(FlinkCluster())
        return [*cluster.beam_args, *process_flags(worker)]
    if runner == "Spark":
        jar = f"--spark_job_server_jar={fetch_job_server('spark')}"
        master = ["--runner=SparkRunner", "--spark_master_url=local[2]", jar]
        return [*master, *process_flags(worker), "--sdk_worker_parallelism=2"]
    return [f"--runner={'PrismRunner' if runner == 'Prism' else runner}"]


def missing(runner: str) -> str | None:
    """Returns why a runner can't run here, None where it can."""
    if runner in ("Flink", "Spark"):
        return missing_tools()
    if runner in ("Prism", "Dataflow") and find_prism() is None:
        return "Prism isn't built"
    if runner == "Dataflow" and importlib.util.find_spec("tests.dataflow.dataflow_runs") is None:
        return "tests/dataflow isn't here"
    return None


def measure(runner: str, to: str, root: str, run: Callable[[list[str], str], float]) -> Row:
    """Runs a job for one document, then for all; `run` takes further flags and where to."""
    startup = run(list(_ONE_DOCUMENT), f"{root}/one")
    with ProcessTreeMeter() as meter:
        seconds = run([], f"{root}/all")
    manifest = read_manifest(open_directory(f"{root}/all/out"))
    return Row(
        runner=runner,
        to=to,
        seconds=seconds,
        startup=startup,
        tokens=manifest.totals["tokens_in"],
        peak_bytes=meter.peak_bytes,
        digest=manifest.fingerprint,
    )


def _job(num_files: int, folder: Path) -> Job:
    if num_files == 0:
        sample = build_sample(folder / "sample")
        files = tuple(map(str, sample.parquet_files))
        return Job(files=files, tokenizer=str(sample.tokenizer_directory), num_shards=4)
    from tests.real_tokenizers import gpt2_directory

    files = tuple(map(str, build_corpus(400).parquet_files[:num_files]))
    return Job(files=files, tokenizer=str(gpt2_directory()), num_shards=4 * len(files))


def main() -> int:
    """Prints a line a run; returns 1 where digests differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--corpus",
        type=int,
        nargs="?",
        const=1,
        default=0,
        metavar="N",
        help="the corpus's first N files (1), GPT-2 ids; else the embedded sample",
    )
    parser.add_argument("--runners", nargs="+", choices=RUNNERS, default=RUNNERS)
    parser.add_argument("--to", nargs="+", choices=("local", "gs"), default=("local", "gs"))
    args = parser.parse_args()
    digests = set()
    with tempfile.TemporaryDirectory(prefix="runners-") as name, contextlib.ExitStack() as end:
        folder = Path(name)
        roots = {"local": str(folder)}
        if "gs" in args.to:
            store = end.enter_context(StoreServer("gs"))
            os.environ.update(store.environment)
            roots["gs"] = store.root("runners")
        job = _job(args.corpus, folder)
        worker = write_worker(folder)
        for runner in args.runners:
            reason = missing(runner)
            if reason:
                print(f"{runner:12} left out: {reason}", flush=True)
                continue
            with contextlib.ExitStack() as engine:
                if runner == "Dataflow":
                    run = functools.partial(run_on_dataflow, job, folder)
                else:
                    run = functools.partial(run_command, job, engine_flags(runner, worker, engine))
                if runner == "Flink":
                    run(list(_ONE_DOCUMENT), f"{folder}/{runner}/warm")
                for to in ("gs",) if runner == "Dataflow" else args.to:
                    if to in roots:
                        row = measure(runner, to, f"{roots[to]}/{runner}", run)
                        digests.add(row.digest)
                        print(row, flush=True)
    print(f"{len(digests)} digest{'' if len(digests) == 1 else 's'}: {', '.join(sorted(digests))}")
    return 0 if len(digests) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
