"""A source of the shape of FineWeb-edu's sample-10BT on a loopback hub: what its size costs.

    python -m benchmarks.hub_shape

The shape is real: 14 parquet files with 700 row groups of 1,000 rows each, the ten columns of
FineWeb-edu, 2 GB of text a file. The text is cheap: paragraphs of the standard library's own
documentation in rotation, so a file of it is small on disk and quickly written, and the 14 files
are one file under 14 names. So this shows what footers, listings and range requests cost at that
scale; it says nothing about the speed of a network or of reading all of it.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from pydoc_data.topics import topics

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from tests.loopback_hub import Hub, hub_environment

_FILES, _ROW_GROUPS, _ROWS = 14, 700, 1000
_TEXT_BYTES = 2_900  # of a row, so that a file holds 2 GB
_REPOSITORY = "HuggingFaceFW/fineweb-edu"
_SAMPLE_SECS = 0.05


def write_file(path: Path) -> None:
    """Writes one file of the shape."""
    whole = "\n".join(topics.values())
    texts = [
        whole[begin : begin + _TEXT_BYTES]
        for begin in range(0, len(whole) - _TEXT_BYTES, len(whole) // _ROWS)
    ][:_ROWS]
    table = pa.table(
        {
            "text": texts,
            "id": [f"<urn:uuid:{i:036d}>" for i in range(len(texts))],
            "dump": ["CC-MAIN-2013-20"] * len(texts),
            "url": [f"http://example.org/{i}" for i in range(len(texts))],
            "file_path": ["s3://commoncrawl/crawl-data/CC-MAIN-2013-20/warc.gz"] * len(texts),
            "language": ["en"] * len(texts),
            "language_score": [0.97] * len(texts),
            "token_count": [700] * len(texts),
            "score": [2.7] * len(texts),
            "int_score": [3] * len(texts),
        }
    )
    with pq.ParquetWriter(path, table.schema, compression="zstd", use_dictionary=False) as writer:
        for _ in range(_ROW_GROUPS):
            writer.write_table(table)


def make_repository(root: Path) -> None:
    """Lays the files and the card that names their configuration."""
    folder = root / "datasets" / _REPOSITORY / "sample" / "10BT"
    folder.mkdir(parents=True)
    write_file(folder / "000_00000.parquet")
    for number in range(1, _FILES):
        os.link(folder / "000_00000.parquet", folder / f"{number:03d}_00000.parquet")
    card = "---\nconfigs:\n- config_name: sample-10BT\n  data_files: sample/10BT/*\n---\n"
    (root / "datasets" / _REPOSITORY / "README.md").write_text(card)


def measure(hub: Hub, arguments: Sequence[str], output: Path) -> tuple[float, int, int, int]:
    """Returns seconds, requests, bytes fetched and peak resident bytes of one command."""
    hub.reset_log()
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "shardstream", *arguments, "--output", str(output)]
        start = time.monotonic()
        process = subprocess.Popen(
            command,
            env=os.environ | hub_environment(hub, Path(home)),
            stdout=subprocess.DEVNULL,
        )
        peak = 0
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                family = [watched, *watched.children(recursive=True)]
                peak = max(peak, sum(member.memory_info().rss for member in family))
            except psutil.Error:  # it ended meanwhile
                pass
            time.sleep(_SAMPLE_SECS)
        assert process.returncode == 0, command
        return time.monotonic() - start, len(hub.requests), hub.bytes_sent(), peak


def main() -> None:
    """Prints a line a command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, nargs="+", default=[1_000, 100_000])
    args = parser.parse_args()
    from tests.real_tokenizers import gpt2_directory

    tokenizer = str(gpt2_directory())
    with tempfile.TemporaryDirectory(prefix="hub-shape-") as name:
        root = Path(name)
        make_repository(root / "hub")
        file = root / "hub" / "datasets" / _REPOSITORY / "sample/10BT/000_00000.parquet"
        print(
            f"{_FILES} files of {_ROW_GROUPS} row groups, "
            f"{_ROW_GROUPS * _ROWS * _TEXT_BYTES / 1e9:.1f} GB of text and "
            f"{file.stat().st_size / 1e6:.0f} MB on disk each"
        )
        source = ["--dataset", _REPOSITORY, "--config", "sample-10BT", "--tokenizer", tokenizer]
        commands = {"plan, all of it": ["plan", *source]}
        for count in args.documents:
            commands[f"build, {count:,} documents"] = [
                "build",
                *source,
                "--max_documents",
                str(count),
                "--no-progress",
            ]
        with Hub(root / "hub") as hub:
            for label, command in commands.items():
                seconds, requests, fetched, peak = measure(hub, command, root / "out")
                print(
                    f"{label:26} {seconds:6.1f} s  {requests:6} requests  {fetched / 1e6:8.1f} MB "
                    f"fetched  {peak / 1e9:5.2f} GB peak",
                    flush=True,
                )
                shutil.rmtree(root / "out", ignore_errors=True)


if __name__ == "__main__":
    main()
