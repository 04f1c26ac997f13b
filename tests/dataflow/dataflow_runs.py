"""Submits the real command to the stub, with everything on a loopback gs://."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from shardstream.shard_format.storage import open_directory

REPOSITORY = Path(__file__).parents[2]


def upload(files: Sequence[str], root: str) -> str:
    """Puts files on the store; returns the pattern that finds them."""
    for path in map(Path, files):
        open_directory(f"{root}/in").write(path.name, path.read_bytes())
    return f"{root}/in/*{Path(files[0]).suffix}"


def submit(
    endpoint: str,
    root: str,
    *flags: object,
    setup_file: Path | None = REPOSITORY / "setup.py",
    module: str = "shardstream.pipelines.preprocess",
    timeout_secs: float = 400,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Runs `python -m pipelines.preprocess --runner=DataflowRunner` (or a module) to its end."""
    command = [
        *(sys.executable, "-m", module, "--runner=DataflowRunner"),
        *("--project=my-project", "--region=us-central1", f"--dataflow_endpoint={endpoint}"),
        *(f"--temp_location={root}/tmp", f"--staging_location={root}/staging"),
        *("--output", f"{root}/out", "--no-progress"),
        *([f"--setup_file={setup_file}"] if setup_file else []),
    ]
    return subprocess.run(
        [*command, *map(str, flags)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment,
        capture_output=True,
        text=True,
        timeout=timeout_secs,
    )
