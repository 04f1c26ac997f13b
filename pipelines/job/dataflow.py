"""What Dataflow needs beside the graph: checks before anything is sent, and default flags.

Every default here gives way to the same flag on the command line. What is sent is kept with the job
and can be read by everyone who may see the job, so nothing secret may be in it.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    StandardOptions,
    WorkerOptions,
)

from shardstream.pipelines.job.planning import expected_shard_bytes, process_bytes
from shardstream.pipelines.job.runners import pipeline_options, runner_name
from shardstream.shard_format import naming
from shardstream.shard_format.errors import OptionError
from shardstream.sources.resolve import resolve
from shardstream.transforms.plan import BuildPlan
from shardstream.transforms.stream.plan import StreamPlan
from shardstream.transforms.worker_inputs import source_of

# Four SDK processes, one a core: with 4 GB or 8 GB each.
_STANDARD, _HIGH_MEMORY = "n2-standard-4", "n2-highmem-4"
_STANDARD_PROCESS_BYTES = 3.2e9
# Work items that an SDK process holds at a time: one computes while another waits for the store.
# Beam's own default, 12, would hold as many shards in memory.
HARNESS_THREADS = 2
# What workers import beside Beam, which the SDK's image has; setup.py's extras, said once more as
# the clone that submits need not be installed. A test holds them together.
WORKER_PACKAGES = {
    "array-record": "",
    "awkward": "",
    "datasets": "",
    "filelock": "",
    "fsspec": "[http]",
    "gigatoken": "",
    "jax": "",
    "numpy": "",
    "obstore": "",
    "pyarrow": "",
    "tokenizers": "",
    "tqdm": "",
    "transformers": "",
    "xxhash": "",
    "zstandard": "",
}
_TOKEN = re.compile(r"hf_[A-Za-z0-9]{16,}")


def is_dataflow(beam_args: Sequence[str]) -> bool:
    """Says whether the flags ask for Dataflow."""
    return runner_name(beam_args) == "DataflowRunner"


@contextlib.contextmanager
def worker_args(plan: BuildPlan, beam_args: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yields Beam's flags, with what Dataflow needs where that is the runner.

    Raises:
        OptionError: workers could not reach the output or the source, would lack our packages, or a
            flag holds a secret.
    """
    if not is_dataflow(beam_args):
        yield tuple(beam_args)
        return
    check_secrets(beam_args)
    _check_reach(plan)
    options = PipelineOptions(list(beam_args))
    with _requirements(options.view_as(SetupOptions), options.view_as(WorkerOptions)) as packages:
        yield (*beam_args, *packages, *_defaults(plan, options))


def check_secrets(beam_args: Sequence[str]) -> None:
    """Raises OptionError where a flag holds the hub's token; the message doesn't repeat it."""
    token = os.environ.get("HF_TOKEN")
    for arg in beam_args:
        if (token and token in arg) or _TOKEN.search(arg):
            raise OptionError(
                f"{arg.split('=', 1)[0] if arg.startswith('--') else 'a flag'} holds a hub token; "
                "options are kept with the job for all to see. Put it into Secret Manager and "
                "give --hub_token_secret projects/PROJECT/secrets/NAME."
            )


def submit(transform: beam.PTransform, beam_args: Sequence[str]) -> str:
    """Hands a pipeline to its engine and returns at once; returns what to call the job by."""
    options = pipeline_options(beam_args)
    pipeline = beam.Pipeline(options=options)
    _ = pipeline | type(transform).__name__ >> transform
    result = pipeline.run()
    if template := template_location(beam_args):
        return f"template {template}"
    job_id = getattr(result, "job_id", None)
    return f"job {job_id() if callable(job_id) else job_id}"


def template_location(beam_args: Sequence[str]) -> str | None:
    """Returns where a template is to be written instead of running a job; the launcher asks so."""
    return PipelineOptions(list(beam_args)).view_as(GoogleCloudOptions).template_location


def machine_type(plan: BuildPlan) -> str:
    """Returns the machine whose memory holds what four processes need for the plan's shards."""
    if isinstance(plan, StreamPlan):
        return _STANDARD  # the buffer is the engine's, a shard a quarter of it
    source = resolve(source_of(plan))
    shard = expected_shard_bytes(source, plan.tokenizer_facts, plan.num_shards)
    needed = process_bytes(shard, plan.threads)
    return _STANDARD if needed <= _STANDARD_PROCESS_BYTES else _HIGH_MEMORY


def _check_reach(plan: BuildPlan) -> None:
    if plan.directory.local_path(naming.MANIFEST) is not None:
        raise OptionError(
            f"--output {plan.directory}: is on this machine, and Dataflow's workers are not; "
            "expected gs://BUCKET/PREFIX."
        )
    if isinstance(plan, StreamPlan) and plan.follow_source:
        return  # the files are not known yet
    file = resolve(source_of(plan)).files[0]
    if "://" not in file.url:
        raise OptionError(
            f"{file.url}: is on this machine, and Dataflow's workers are not; expected a hub "
            "dataset, or --data_files on gs:// or https://."
        )


@contextlib.contextmanager
def _requirements(setup: SetupOptions, worker: WorkerOptions) -> Iterator[list[str]]:
    """Yields the flags by which workers get the packages that are installed here, same versions.

    `--setup_file` brings our own code; an image has both.
    """
    if worker.sdk_container_image:
        yield []
        return
    if not setup.setup_file:
        raise OptionError(
            "DataflowRunner without --setup_file or --sdk_container_image: workers would lack this "
            "project. Give --setup_file=./setup.py, or an image (docs/dataflow.md)."
        )
    if setup.requirements_file:
        yield []
        return
    with tempfile.TemporaryDirectory(prefix="shardstream-") as folder:
        path = Path(folder) / "requirements.txt"
        path.write_text("".join(f"{line}\n" for line in pinned_packages()))
        # Workers fetch wheels themselves, rather than each package's wheel being staged.
        yield [f"--requirements_file={path}", "--requirements_cache=skip"]


def pinned_packages() -> list[str]:
    """Returns the packages workers import, at the versions installed here: equal ids everywhere."""
    found = []
    for name, extras in WORKER_PACKAGES.items():
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{name}{extras}=={metadata.version(name)}")
    return found


def _defaults(plan: BuildPlan, options: PipelineOptions) -> list[str]:
    is_stream = isinstance(plan, StreamPlan)
    mode = "stream" if is_stream else "batch"
    given = {label.partition("=")[0] for label in options.view_as(GoogleCloudOptions).labels or []}
    labels = {"app": "shardstream", "mode": mode, "plan": plan.fingerprint[:16]}
    args = [f"--labels={name}={value}" for name, value in labels.items() if name not in given]
    if not options.view_as(WorkerOptions).machine_type:
        args.append(f"--worker_machine_type={machine_type(plan)}")
    if is_stream:
        if not options.view_as(StandardOptions).streaming:
            args.append("--streaming")
        if not options.view_as(GoogleCloudOptions).enable_streaming_engine:
            args.append("--enable_streaming_engine")
    elif not options.view_as(DebugOptions).number_of_worker_harness_threads:
        args.append(f"--number_of_worker_harness_threads={HARNESS_THREADS}")
    return args
