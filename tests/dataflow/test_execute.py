"""Jobs posted to Dataflow, executed from what was staged: on Prism, by the SDK container's boot."""

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shardstream.pipelines.job.runners import find_prism
from shardstream.pipelines.verify import main as verify
from shardstream.shard_format import naming
from shardstream.shard_format.manifest import find_manifest, read_manifest
from shardstream.shard_format.storage import open_directory
from tests.dataflow.dataflow_runs import REPOSITORY, submit, upload
from tests.dataflow.dataflow_stub import CANCELLED, FAILED, DataflowStub
from tests.dataflow.execute_job import find_boot
from tests.pipeline_runs import build, parquet_flags

pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(
        find_prism() is None or find_boot() is None,
        reason="no Go toolchain: executed Dataflow jobs need Prism and the container's boot",
    ),
]


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[DataflowStub]:
    with DataflowStub(tmp_path, execute=True) as running:
        yield running


def _files(root: str) -> dict[str, bytes]:
    """All files of a dataset but dataset.json, which names runner and time."""
    directory = open_directory(root)
    return {name: directory.read(name) for name in directory.list() if name != naming.MANIFEST}


def _once_posted(stub: DataflowStub, call: Callable[[str], object]) -> None:
    """Calls with the id of the first job, when it is there; gives up after minutes."""
    until = time.monotonic() + 300
    while not stub.jobs and time.monotonic() < until:
        time.sleep(0.1)
    call(next(iter(stub.jobs)))


def test_batch_job_gives_the_local_dataset_byte_for_byte(
    gs_root: str,
    tmp_path: Path,
    stub: DataflowStub,
    sample_files: list[str],
    tokenizer_directory: str,
) -> None:
    """The tokenizer it names is gone when workers start, as on a machine that isn't ours."""
    flags = ["--num_shards", 4, "--validation_fraction", 0.1, "--sequence_length", 256]
    local = build(tmp_path / "out", *parquet_flags(sample_files, tokenizer_directory), *flags)
    pattern = upload(sample_files, gs_root)
    hidden = tmp_path / "submitter"
    shutil.copytree(tokenizer_directory, hidden)
    remote = [*parquet_flags([pattern], str(hidden)), *flags]
    thread = threading.Thread(target=_once_posted, args=(stub, lambda _: shutil.rmtree(hidden)))
    thread.start()
    done = submit(stub.endpoint, gs_root, *remote)
    thread.join()
    assert done.returncode == 0, done.stderr
    assert not hidden.exists()
    assert "complete, fingerprint" in done.stdout and "DataflowRunner" in done.stdout
    out = f"{gs_root}/out"
    there = read_manifest(open_directory(out))
    assert there.fingerprint == local.fingerprint
    assert _files(out) == _files(str(tmp_path / "out"))
    assert verify([out]) == 0
    assert there.run["shuffle_via"] == "engine" and there.run["threads"] == 1


def test_stream_job_commits_every_document_once(
    gs_root: str, stub: DataflowStub, twelve_documents: list[str], tokenizer_directory: str
) -> None:
    pattern = upload(twelve_documents, gs_root)
    flags = [*parquet_flags([pattern], tokenizer_directory), "--mode", "stream"]
    done = submit(stub.endpoint, gs_root, *flags, "--shard_records", 2, "--sequence_length", 64)
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(open_directory(f"{gs_root}/out"))
    assert manifest.totals["documents_written"] == 12
    assert len(manifest.shards) > 1
    assert verify([f"{gs_root}/out"]) == 0


def test_sdist_without_our_packages_fails_the_job_and_names_them(
    gs_root: str,
    tmp_path: Path,
    stub: DataflowStub,
    sample_files: list[str],
    tokenizer_directory: str,
) -> None:
    """What DirectRunner can't find: the code is here, but not in what was staged."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "setup.py").write_text(
        "from setuptools import setup\nsetup(name='shardstream', version='0.1.0', packages=[])\n"
    )
    pattern = upload(sample_files[:1], gs_root)
    flags = parquet_flags([pattern], tokenizer_directory)
    done = submit(stub.endpoint, gs_root, *flags, setup_file=broken / "setup.py")
    assert done.returncode == 1
    assert "No module named 'shardstream" in done.stderr
    (job,) = stub.jobs.values()
    assert job["currentState"] == FAILED
    assert find_manifest(open_directory(f"{gs_root}/out")).status == "incomplete"


def test_cancelled_job_ends_the_command(
    gs_root: str, stub: DataflowStub, sample_files: list[str], tokenizer_directory: str
) -> None:
    pattern = upload(sample_files, gs_root)
    flags = parquet_flags([pattern], tokenizer_directory)

    def cancel(job_id: str) -> None:
        path = f"/v1b3/projects/p/locations/l/jobs/{job_id}"
        stub.answer("PUT", path, {"requestedState": CANCELLED})

    thread = threading.Thread(target=_once_posted, args=(stub, cancel))
    thread.start()
    done = submit(stub.endpoint, gs_root, *flags)
    thread.join()
    assert done.returncode == 1
    assert "CANCELLED" in done.stderr


def test_sdist_has_all_that_a_fresh_environment_imports(tmp_path: Path) -> None:
    """Built and installed as on a worker; every module then imports, none from the clone."""
    command = [sys.executable, "setup.py", "-q", "sdist", "--dist-dir", str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    (sdist,) = tmp_path.glob("*.tar.gz")
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    pip += ["--no-index", "--target", str(target), str(sdist)]
    subprocess.run(pip, cwd=tmp_path, check=True, capture_output=True)
    code = """
import importlib, pathlib, pkgutil
site = pathlib.Path(sys.path[0])
found = [name for _, name, _ in pkgutil.walk_packages([str(site)])]
for name in found:
    module = importlib.import_module(name)
    assert pathlib.Path(module.__file__).is_relative_to(site), module.__file__
print(len(found), sorted({name.split(".")[1] for name in found if "." in name}))
"""
    run = f"import sys; sys.path.insert(0, {str(target)!r})\n{code}"
    done = subprocess.run(
        [sys.executable, "-P", "-c", run],
        cwd=tmp_path,
        env={"PATH": "/usr/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    count = int(done.stdout.split()[0])
    modules = sum(1 for path in target.rglob("*.py"))
    assert count == modules > 80
    assert "loaders" in done.stdout and "transforms" in done.stdout
