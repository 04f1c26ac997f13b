"""The same work done by datatrove: parquet files to one shuffled file of GPT-2 ids.

Runs datatrove's documented road to a global shuffle: `ParquetReader` into `DocumentTokenizer` with
`shuffle_documents` (each task shuffles its own), then `DocumentTokenizerMerger` with `shuffle`, one
process, which interleaves the documents of all tasks at random. Prints one line of JSON: tokens,
seconds, mtok_per_s, cpu_secs and peak_rss_bytes (the last two over the process tree, sampled;
pages that processes share count in each).

Invariant: imports nothing of this repository, so that it can run in datatrove's own environment,
whose pins are not ours. `python -m benchmarks.datatrove_peer --tokenizer DIR FILES...` makes that
environment on first use and goes on inside it.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

_REQUIREMENTS = ["datatrove[io,processing]==0.10.1", "psutil"]
_SAMPLE_SECS = 0.05


class ProcessTreeMeter:
    """Samples this process and its descendants while a `with` block runs.

    `peak_bytes` is the most resident memory seen at once, `cpu_secs` the processor time of all,
    which tells more than the clock does on a machine that others use too.
    """

    def __init__(self) -> None:
        import psutil

        self.peak_bytes = 0
        self._cpu_secs: dict[int, float] = {}  # by process id, as last seen
        self._psutil = psutil
        self._process = psutil.Process()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def cpu_secs(self) -> float:
        return sum(self._cpu_secs.values())

    def _run(self) -> None:
        while not self._stop.wait(_SAMPLE_SECS):
            resident_bytes = 0
            for process in [self._process, *self._process.children(recursive=True)]:
                try:
                    resident_bytes += process.memory_info().rss
                    times = process.cpu_times()
                except self._psutil.Error:  # it ended between the listing and the look
                    continue
                self._cpu_secs[process.pid] = times.user + times.system
            self.peak_bytes = max(self.peak_bytes, resident_bytes)


def report(
    peer: str, meter: ProcessTreeMeter, *, tokens: int, seconds: float, **more: float
) -> str:
    """The line of JSON that every peer prints."""
    figures = {
        "peer": peer,
        "tokens": tokens,
        "seconds": seconds,
        "mtok_per_s": tokens / seconds / 1e6,
        "cpu_secs": meter.cpu_secs,
        "peak_rss_bytes": meter.peak_bytes,
        **more,
    }
    rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in figures.items()}
    return json.dumps(rounded)


def datatrove_python() -> Path:
    """Returns the Python of datatrove's own environment, made (from PyPI) on first use."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    environment = root / "shardstream-bench" / "datatrove-venv"
    python = environment / "bin" / "python"
    complete = environment / "requirements-installed.txt"
    wanted = "\n".join(_REQUIREMENTS)
    if not complete.exists() or complete.read_text() != wanted:
        print(f"{environment}: installing {', '.join(_REQUIREMENTS)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        install = [python, "-m", "pip", "install", "--quiet", *_REQUIREMENTS]
        subprocess.run(install, check=True, stdout=sys.stderr)
        complete.write_text(wanted)
    return python


def run_datatrove(
    files: Sequence[Path], tokenizer: Path, *, workers: int, seed: int, text_key: str, work: Path
) -> tuple[int, dict[str, float]]:
    """Tokenizes and shuffles `files` into `work/merged`.

    Args:
        files: parquet files, all under one folder.
        tokenizer: a `tokenizer.json`.
        workers: tasks, and processes to run them.
        seed: of both shuffles.
        text_key: the column to tokenize.
        work: an empty folder.

    Returns:
        Tokens written, end-of-text ids included, and seconds by step.
    """
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.tokens import DocumentTokenizer, DocumentTokenizerMerger

    folder = Path(os.path.commonpath([file.parent for file in files]))
    paths_file = work / "paths.txt"
    paths_file.write_text("".join(f"{file.relative_to(folder)}\n" for file in files))
    start = time.perf_counter()
    LocalPipelineExecutor(
        pipeline=[
            ParquetReader(
                str(folder), paths_file=str(paths_file), text_key=text_key, read_metadata=False
            ),
            DocumentTokenizer(
                str(work / "tokenized"),
                tokenizer_name_or_path=str(tokenizer),
                eos_token="<|endoftext|>",
                shuffle_documents=True,
                seed=seed,
            ),
        ],
        tasks=workers,
        workers=workers,
        logging_dir=str(work / "logs-tokenize"),
    ).run()
    tokenized = time.perf_counter()
    LocalPipelineExecutor(
        pipeline=[
            DocumentTokenizerMerger(
                str(work / "tokenized"),
                str(work / "merged"),
                save_filename="shuffled",
                shuffle=True,
                seed=seed,
                progress=False,
            )
        ],
        tasks=1,
        logging_dir=str(work / "logs-merge"),
    ).run()
    merged = time.perf_counter()
    # The final metadata's second line is the number of tokens.
    tokens = int((work / "merged/shuffled.ds.metadata").read_text().splitlines()[1])
    return tokens, {"tokenize_secs": tokenized - start, "merge_secs": merged - tokenized}


def main() -> None:
    """Tokenizes and shuffles parquet files with datatrove and prints one line of JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="parquet files")
    parser.add_argument(
        "--tokenizer", type=Path, required=True, help="tokenizer.json or its folder"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--text-key", default="text")
    parser.add_argument("--work-root", type=Path, help="where the temporary output goes")
    args = parser.parse_args()
    if importlib.util.find_spec("datatrove") is None:
        python = datatrove_python()
        os.execv(python, [str(python), str(Path(__file__).resolve()), *sys.argv[1:]])
    tokenizer = args.tokenizer.resolve()
    if tokenizer.is_dir():
        tokenizer /= "tokenizer.json"
    import datatrove.executor
    import datatrove.pipeline.tokens  # noqa: F401  (imports are no part of the time)

    with tempfile.TemporaryDirectory(dir=args.work_root, prefix="datatrove-peer-") as work:
        start = time.perf_counter()
        with ProcessTreeMeter() as meter:
            tokens, steps = run_datatrove(
                [file.resolve() for file in args.files],
                tokenizer,
                workers=args.workers,
                seed=args.seed,
                text_key=args.text_key,
                work=Path(work),
            )
        seconds = time.perf_counter() - start
    print(report("datatrove", meter, tokens=tokens, seconds=seconds, **steps))


if __name__ == "__main__":
    main()
