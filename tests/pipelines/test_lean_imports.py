"""No process of ours imports torch, TensorFlow and the like where they happen to be installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline_runs import needs_prism, parquet_flags

_FRAMEWORKS = ("torch", "tensorflow", "torchvision", "triton", "flax", "keras")


@pytest.fixture
def frameworks(tmp_path: Path) -> Path:
    """A folder of packages with these names, as installed, that fail when they are imported."""
    folder = tmp_path / "frameworks"
    for name in _FRAMEWORKS:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"raise RuntimeError('imported {name}')\n")
        metadata = folder / f"{name}-9.9.9.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9.9\n")
    return folder


@pytest.mark.parametrize("command", ["build", "stream", "plan"])
@pytest.mark.parametrize("runner", ["FnApiRunner", pytest.param("PrismRunner", marks=needs_prism)])
def test_commands_and_workers_import_no_framework(
    tmp_path: Path,
    frameworks: Path,
    sample_files: list[str],
    tokenizer_directory: str,
    command: str,
    runner: str,
) -> None:
    flags = [*parquet_flags(sample_files, tokenizer_directory), "--output", str(tmp_path / "out")]
    if command == "build":
        flags += ["--processes", "2", "--partition_mb", "1"]
    path = os.pathsep.join([str(frameworks), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "shardstream", command, *flags, "--runner", runner],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_a_framework_that_the_user_s_process_holds_stays_usable() -> None:
    code = (
        "import json as torch, sys; sys.modules['torch'] = torch\n"
        "from shardstream.transforms.lean_imports import leave_frameworks_out\n"
        "leave_frameworks_out()\n"
        "import torch, importlib.util\n"
        "assert importlib.util.find_spec('tensorflow') is None\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
