"""`--runner=DataflowRunner` as its users type it: what is sent to Dataflow, and what never is."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from apache_beam.portability.api import beam_runner_api_pb2

from shardstream.pipelines.job.dataflow import WORKER_PACKAGES, check_secrets, worker_args
from shardstream.pipelines.job.options import parse_options
from shardstream.pipelines.job.planning import make_plan
from shardstream.shard_format.storage import open_directory
from tests.dataflow.dataflow_grpc import DataflowGrpcStub
from tests.dataflow.dataflow_runs import REPOSITORY, submit, upload
from tests.dataflow.dataflow_stub import DataflowStub
from tests.pipeline_runs import parquet_flags

TOKEN = "hf_" + "Canary0123456789abcdefghij"


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[DataflowStub]:
    with DataflowStub(tmp_path, execute=False) as running:
        yield running


def _options(job: dict[str, Any]) -> dict[str, Any]:
    return job["environment"]["sdkPipelineOptions"]["options"]


def _staged(root: str) -> dict[str, bytes]:
    """Everything that was uploaded for the job, by its last name."""
    directory = open_directory(f"{root}/staging")
    return {name.rsplit("/", 1)[-1]: directory.read(name) for name in directory.list()}


def _modules() -> set[str]:
    """The modules of the packages that setup.py names, as the sdist holds them."""
    rooms = (
        "loaders",
        "pipelines",
        "shard_format",
        "shardstream",
        "sources",
        "tokens",
        "transforms",
    )
    files = [path for name in rooms for path in (REPOSITORY / name).rglob("*")]
    return {
        path.relative_to(REPOSITORY).as_posix()
        for path in files
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_batch_job_is_what_dataflow_needs_and_nothing_else(
    gs_root: str, stub: DataflowStub, sample_files: list[str], tokenizer_directory: str
) -> None:
    pattern = upload(sample_files, gs_root)
    flags = [*parquet_flags([pattern], tokenizer_directory), "--no-wait", "--num_shards", 4]
    secret = "projects/p/secrets/hub"  # not asked for: HF_TOKEN is set here
    flags += ["--hub_token_secret", secret, "--labels=team=data", "--max_num_workers=7"]
    done = submit(stub.endpoint, gs_root, *flags, HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    job, staged = stub.posted, _staged(gs_root)
    assert f"submitted as job {next(iter(stub.jobs))}" in done.stdout
    assert job["type"] == 1  # JOB_TYPE_BATCH
    assert job["labels"]["app"] == "shardstream" and job["labels"]["mode"] == "batch"
    assert job["labels"]["team"] == "data" and len(job["labels"]["plan"]) == 16
    (pool,) = job["environment"]["workerPools"]
    assert pool["machineType"] == "n2-standard-4"
    assert pool["numThreadsPerWorker"] == 2
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 7
    (image,) = pool["sdkHarnessContainerImages"]
    assert image["useSingleCorePerContainer"]  # an SDK process a core
    names = [package["name"] for package in pool["packages"]]
    assert "pickled_main_session" not in names
    assert not _options(job).get("save_main_session")
    assert len(json.dumps(job)) < 20_000
    assert "steps" not in job

    pipeline = staged["pipeline.pb"]
    assert hashlib.sha256(pipeline).hexdigest() == _options(job)["pipelineProtoHash"]
    assert len(pipeline) < 200_000
    with tarfile.open(fileobj=io.BytesIO(staged["workflow.tar.gz"])) as sdist:
        inside = {name.partition("/")[2] for name in sdist.getnames()}
    assert _modules() <= inside
    assert {"setup.py", "README.md", "LICENSE", "pyproject.toml"} <= inside
    assert not [name for name in inside if name.startswith(("tests/", "benchmarks/", ".venv"))]
    assert f"datasets=={metadata.version('datasets')}\n" in staged["requirements.txt"].decode()

    sent = [json.dumps(job).encode(), *staged.values(), done.stdout.encode(), done.stderr.encode()]
    assert not [text for text in sent if TOKEN.encode() in text]
    out = open_directory(f"{gs_root}/out")
    assert "tokenizer/tokenizer.json" in out.list()
    assert json.loads(out.read("dataset.json"))["status"] == "incomplete"


@pytest.mark.slow
def test_stream_job_runs_on_streaming_engine(
    gs_root: str, stub: DataflowStub, sample_files: list[str], tokenizer_directory: str
) -> None:
    pattern = upload(sample_files, gs_root)
    flags = [*parquet_flags([pattern], tokenizer_directory), "--no-wait", "--mode", "stream"]
    done = submit(stub.endpoint, gs_root, *flags)
    assert done.returncode == 0, done.stderr
    job = stub.posted
    assert job["type"] == 2  # JOB_TYPE_STREAMING
    assert job["labels"]["mode"] == "stream"
    assert _options(job)["enable_streaming_engine"] and _options(job)["streaming"]
    assert "enable_streaming_engine" in job["environment"]["experiments"]


def test_hundred_thousand_files_do_not_grow_the_graph(
    gs_root: str, stub: DataflowStub, sample_files: list[str], tokenizer_directory: str
) -> None:
    """Their names wait in the output directory; `transforms.worker_inputs` reads them back."""
    from shardstream.transforms.batch.build_dataset import BuildDataset
    from shardstream.transforms.stream.build_stream import BuildStream
    from shardstream.transforms.worker_inputs import leave_file_list, source_of

    names = tuple(f"gs://bkt/corpus/part-{i:06d}-of-100000.parquet" for i in range(100_000))
    for mode, graph in (("batch", BuildDataset), ("stream", BuildStream)):
        flags = parquet_flags(sample_files, tokenizer_directory)
        more = ["--output", f"{gs_root}/{mode}", "--mode", mode, "--shuffle_via", "engine"]
        plan = make_plan(parse_options([*flags, *more]))
        whole = _with_files(plan, names)
        small = leave_file_list(whole)
        assert len(_graph(graph(small))) < 1.02 * len(_graph(graph(plan))) < 100_000
        assert source_of(small) == whole.source
        assert small.fingerprint == whole.fingerprint


def _with_files(plan: Any, names: tuple[str, ...]) -> Any:
    import dataclasses

    return dataclasses.replace(plan, source=dataclasses.replace(plan.source, data_files=names))


def _graph(transform: Any) -> bytes:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    pipeline = beam.Pipeline(options=PipelineOptions([]))
    pipeline | transform
    proto: beam_runner_api_pb2.Pipeline = pipeline.to_runner_api()
    return proto.SerializeToString()


@pytest.mark.slow
def test_submission_over_grpc_and_tls(
    gs_root: str, tmp_path: Path, sample_files: list[str], tokenizer_directory: str
) -> None:
    """The transport that production has."""
    pattern = upload(sample_files, gs_root)
    flags = [*parquet_flags([pattern], tokenizer_directory), "--no-wait"]
    with DataflowGrpcStub(tmp_path) as stub:
        roots = {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(stub.certificate)}
        done = submit(stub.endpoint, gs_root, *flags, **roots)
        assert done.returncode == 0, done.stderr
        (job,) = stub.jobs
    assert job.labels["app"] == "shardstream"
    assert job.type_.name == "JOB_TYPE_BATCH"


@pytest.mark.slow
def test_template_is_written_and_no_job_started(
    gs_root: str, stub: DataflowStub, sample_files: list[str], tokenizer_directory: str
) -> None:
    """As the launcher runs the image's entry; it must not wait for a job of its own."""
    pattern = upload(sample_files, gs_root)
    parameters = ["--dataset=parquet", f"--data_files={pattern}", "--eos=false"]
    parameters += [f"--tokenizer={tokenizer_directory}", f"--template_location={gs_root}/t.json"]
    done = submit(
        stub.endpoint,
        gs_root,
        *parameters,
        setup_file=None,
        module="shardstream.pipelines.flex_template",
        SHARDSTREAM_IMAGE="pkg.dev/p/r/shardstream:1",
    )
    assert done.returncode == 0, done.stderr
    assert f"submitted as template {gs_root}/t.json" in done.stdout
    assert not stub.jobs
    job = json.loads(open_directory(gs_root).read("t.json"))
    assert job["labels"]["app"] == "shardstream"
    (image,) = job["environment"]["workerPools"][0]["sdkHarnessContainerImages"]
    assert image["containerImage"] == "pkg.dev/p/r/shardstream:1"
    assert (
        json.loads(open_directory(f"{gs_root}/out").read("dataset.json"))["tokenizer"]["add_eos"]
        is False
    )


@pytest.mark.parametrize(("num_shards", "machine"), [(1, "n2-highmem-4"), (100, "n2-standard-4")])
def test_machine_has_room_for_the_shards(
    gs_root: str,
    sample_files: list[str],
    tokenizer_directory: str,
    monkeypatch: pytest.MonkeyPatch,
    num_shards: int,
    machine: str,
) -> None:
    """4 GB of text: 2 GB of tokens, of which a process holds four times a shard."""
    monkeypatch.setattr(
        "shardstream.pipelines.job.planning.estimate_text_bytes", lambda _: 4 * 10**9
    )
    pattern = upload(sample_files, gs_root)
    flags = [*parquet_flags([pattern], tokenizer_directory), "--output", f"{gs_root}/out"]
    runner = ["--runner", "DataflowRunner", "--sdk_container_image=i", "--num_shards", num_shards]
    options = parse_options([*flags, *map(str, runner)])
    plan = make_plan(options, writes=False)
    with worker_args(plan, options.beam_args) as args:
        assert f"--worker_machine_type={machine}" in args
    with worker_args(plan, [*options.beam_args, "--machine_type=mine"]) as args:
        assert not [arg for arg in args if arg.startswith("--worker_machine_type")]


def test_worker_packages_are_those_of_setup_py(monkeypatch: pytest.MonkeyPatch) -> None:
    import runpy

    import setuptools

    found: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", found.update)
    runpy.run_path(str(REPOSITORY / "setup.py"))
    wanted = [*found["install_requires"], *found["extras_require"]["pipeline"]]
    wanted += found["extras_require"]["stores"]
    named = {requirement.split(">=")[0] for requirement in wanted} - {"apache-beam"}
    assert {name + extras for name, extras in WORKER_PACKAGES.items()} == named


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--output", "out"], r"--output .*: is on this machine.*expected gs://"),
        (["--output", "gs://bkt/out"], r"parquet: is on this machine.*--data_files on gs://"),
    ],
)
def test_what_workers_cannot_reach_is_refused(
    sample_files: list[str], tokenizer_directory: str, flags: list[str], message: str
) -> None:
    runner = ["--runner", "DataflowRunner", "--setup_file", "./setup.py"]
    options = parse_options([*parquet_flags(sample_files, tokenizer_directory), *flags, *runner])
    plan = make_plan(options, writes=False)
    with pytest.raises(ValueError, match=message), worker_args(plan, options.beam_args):
        pass


def test_job_without_our_packages_is_refused(
    gs_root: str, sample_files: list[str], tokenizer_directory: str
) -> None:
    pattern = upload(sample_files, gs_root)
    flags = [*parquet_flags([pattern], tokenizer_directory), "--output", f"{gs_root}/out"]
    options = parse_options([*flags, "--runner", "DataflowRunner"])
    plan = make_plan(options)
    assert plan.threads == 1 and plan.shuffle_via == "engine"
    with (
        pytest.raises(ValueError, match="Give --setup_file="),
        worker_args(plan, options.beam_args),
    ):
        pass


@pytest.mark.parametrize("flag", [f"--dataflow_service_options=token={TOKEN}", TOKEN])
def test_token_in_flags_is_refused_and_not_repeated(flag: str) -> None:
    with pytest.raises(ValueError, match="--hub_token_secret") as caught:
        check_secrets(["--runner=DataflowRunner", flag])
    assert TOKEN not in str(caught.value)


def test_no_wait_needs_a_runner_that_stays(
    tmp_path: Path, sample_files: list[str], tokenizer_directory: str
) -> None:
    flags = [*parquet_flags(sample_files, tokenizer_directory), "--output", str(tmp_path)]
    with pytest.raises(ValueError, match="--no-wait with DirectRunner"):
        make_plan(parse_options([*flags, "--no-wait"]))
