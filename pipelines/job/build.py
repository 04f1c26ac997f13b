"""One build from its plan to its manifest: what `preprocess` does once options are read."""

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from importlib import metadata

from shardstream.pipelines.job.card import make_card
from shardstream.pipelines.job.dataflow import submit, template_location, worker_args
from shardstream.pipelines.job.failures import planning, running
from shardstream.pipelines.job.options import PreprocessOptions
from shardstream.pipelines.job.output_state import OutputState, prepare_output, remove_work
from shardstream.pipelines.job.planning import make_plan
from shardstream.pipelines.job.progress import Progress
from shardstream.pipelines.job.run_stream import run_stream
from shardstream.pipelines.job.runners import run
from shardstream.shard_format import naming
from shardstream.shard_format.manifest import Manifest, read_manifest
from shardstream.tokens.tokenizer import open_tokenizer
from shardstream.transforms.batch.build_dataset import BuildDataset
from shardstream.transforms.batch.worker_pool import worker_processes
from shardstream.transforms.hub_token import use_hub_token
from shardstream.transforms.plan import BuildPlan
from shardstream.transforms.stream.build_stream import BuildStream
from shardstream.transforms.stream.plan import StreamPlan
from shardstream.transforms.worker_inputs import leave_file_list


def build(options: PreprocessOptions) -> Manifest:
    """Builds a dataset, or finds that it is built already; returns its manifest.

    With `--no-wait`, and where a template is made, the manifest is that of a dataset to come.

    Raises:
        OptionError: an option is wrong; raised before any work.
        transforms.errors.JobError: the job had to stop; its message says why.
    """
    use_hub_token(options.work.hub_token_secret)
    with contextlib.ExitStack() as stack:
        with planning():
            plan = make_plan(options)
            beam_args = stack.enter_context(worker_args(plan, options.beam_args))
            state = prepare_output(plan, overwrite=options.output.overwrite)
        return _build(plan, state, options, beam_args)


def _build(
    plan: BuildPlan, state: OutputState, options: PreprocessOptions, beam_args: Sequence[str]
) -> Manifest:
    if state is OutputState.DONE:
        print(f"{plan.directory}: already complete, nothing to do")
        return finish(plan, read_manifest(plan.directory))
    if state is OutputState.CONTINUE:
        print(f"{plan.directory}: goes on with an interrupted build of the same plan", flush=True)
    started = time.monotonic()
    tokenizer = open_tokenizer(plan.tokenizer)
    with plan.directory.publishing_folder(naming.TOKENIZER_DIRECTORY) as folder:
        tokenizer.save(folder)
    plan = leave_file_list(plan)
    if not options.work.wait or template_location(beam_args):
        graph = BuildStream(plan) if isinstance(plan, StreamPlan) else BuildDataset(plan)
        print(
            f"{plan.directory}: submitted as {submit(graph, beam_args)}. The same command, run "
            "when it has ended, prints the summary and removes temporary files."
        )
        return read_manifest(plan.directory, allow=("incomplete", "following", "complete"))
    with running():
        runner = _run(plan, options, beam_args)
    return finish(plan, record_run(plan, runner, time.monotonic() - started))


def _run(plan: BuildPlan, options: PreprocessOptions, beam_args: Sequence[str]) -> str:
    """Runs the graph of a plan to its end; returns the name of the runner that really ran."""
    if isinstance(plan, StreamPlan):
        return run_stream(plan, beam_args, progress=options.work.progress)
    with worker_processes(plan), Progress(plan, enabled=options.work.progress):
        return run(BuildDataset(plan), beam_args)


def finish(plan: BuildPlan, manifest: Manifest) -> Manifest:
    """Writes the card and removes temporary files, also for a run killed just here.

    Returns the manifest.
    """
    if manifest.status == "complete" and not plan.directory.exists(naming.CARD):
        plan.directory.write(naming.CARD, make_card(manifest).encode())
    remove_work(plan)
    return manifest


def record_run(plan: BuildPlan, runner: str, seconds: float) -> Manifest:
    """Adds to a manifest what may differ between equal builds; returns it."""
    manifest = read_manifest(plan.directory, allow=("complete", "following"))
    tokenizer = open_tokenizer(plan.tokenizer)
    manifest = dataclasses.replace(
        manifest,
        run={
            **manifest.run,
            "runner": runner,
            "seconds": round(seconds, 3),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "engine": tokenizer.engine_name,
            "engine_version": tokenizer.engine_version,
            "shuffle_via": plan.shuffle_via,
            "threads": plan.threads,
            "processes": plan.processes,
            "code_version": _code_version(),
        },
    )
    plan.directory.write(naming.MANIFEST, manifest.to_json())
    return manifest


def _code_version() -> str:
    try:
        return metadata.version("shardstream")
    except metadata.PackageNotFoundError:
        return "unknown (not installed)"
