"""Runs a pipeline on the runner asked for and says which runner it really was.

Beam's DirectRunner stands for three runners and picks one by what the pipeline holds and by what it
finds on the machine. Which one ran decides memory and threads, so it is logged and recorded.

What Beam has no option for is changed for the time of a run and put back.
"""

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import PipelineResult
from apache_beam.runners.worker import sdk_worker, statesampler

from shardstream.pipelines.process import Lent
from shardstream.shard_format.errors import OptionError

_LOCAL = (
    "DirectRunner",
    "PrismRunner",
    "FnApiRunner",
    "BundleBasedDirectRunner",
    "SwitchingDirectRunner",
)

_SAMPLING_MS = 10  # with Beam's 200, a job that takes 4.07 s took 4.25

# With bundles of the usual size, 24 partitions kept the first checkpoint waiting for 29 s.
_FLINK_STREAM = {
    "--checkpointing_interval": "10000",
    "--unaligned_checkpoint_enabled": "",  # a switch: it takes no value
    "--finish_bundle_before_checkpointing": "",
    "--max_bundle_size": "16",
    "--max_bundle_time_mills": "1000",
}


def runner_name(beam_args: Sequence[str]) -> str:
    """Returns the short name of the runner the flags ask for."""
    runner = PipelineOptions(list(beam_args)).view_as(StandardOptions).runner or "DirectRunner"
    return known_runner(runner).rsplit(".", 1)[-1]


def known_runner(name: str) -> str:
    """Returns a runner's name as Beam spells it; a dotted path of a class stays as it is.

    Raises:
        OptionError: Beam has no such runner.
    """
    names = {known.lower(): known for known in StandardOptions.KNOWN_RUNNER_NAMES}
    found = names.get(name.lower()) or names.get(f"{name.lower()}runner")
    if found is None and "." not in name:
        raise OptionError(
            f"--runner is {name}, expected one of {', '.join(names.values())}, or the path of a "
            "class, PACKAGE.MODULE.Runner"
        )
    return found or name


def tell_exceptions_once() -> None:
    """Keeps workers of this process from printing exceptions, for good; for a command's process.

    Beam's worker prints a traceback to stderr, beside logging it and sending it to the runner,
    which raises it. Bundles that were under way print theirs even after the run has ended.
    """
    sdk_worker.__dict__["print"] = lambda *_, **__: None


def is_local(beam_args: Sequence[str]) -> bool:
    """Says whether the runner keeps shuffled data in the memory of this machine."""
    return runner_name(beam_args) in _LOCAL


def find_prism() -> str | None:
    """Returns the Prism binary on this machine: $PRISM, on PATH, or where `go install` puts it."""
    candidates = [os.environ.get("PRISM"), shutil.which("prism")]
    gopath = os.environ.get("GOPATH", str(Path.home() / "go"))
    candidates.append(str(Path(gopath) / "bin" / "prism"))
    return next((path for path in candidates if path and os.access(path, os.X_OK)), None)


def pipeline_options(beam_args: Sequence[str]) -> PipelineOptions:
    """Returns Beam's options, with a Prism binary that is here already rather than a download."""
    args = list(beam_args)
    wants_prism = runner_name(args) in ("DirectRunner", "PrismRunner")
    if wants_prism and not any(arg.startswith("--prism_location") for arg in args):
        prism = find_prism()
        if prism:
            args.append(f"--prism_location={prism}")
    # Every DoFn lives in an importable module; there is nothing in __main__ to ship.
    return PipelineOptions(args, save_main_session=False)


def run(transform: beam.PTransform, beam_args: Sequence[str], *, streaming: bool = False) -> str:
    """Runs transform as a pipeline to its end; returns the name of the runner that really ran.

    Args:
        transform: the whole graph.
        beam_args: the runner's flags.
        streaming: ask the runner to pass elements on as they come, also from a bounded source.

    Raises:
        Exception: what the runner raises when the job fails; `failures` tells what it means.
    """
    options = pipeline_options(beam_args)
    if streaming:
        options.view_as(StandardOptions).streaming = True
    pipeline = beam.Pipeline(options=options)
    _ = pipeline | type(transform).__name__ >> transform
    with _bundles_end_at_once:
        with _own_signal_handlers():
            result = pipeline.run()
        result.wait_until_finish()
    return actual_runner(result, runner_name(beam_args))


def _sample_often() -> Callable[[], None]:
    """Has the workers of this process sample what they spend time on every 10 ms.

    Beam joins the sampling thread when a bundle ends, and that sleeps for up to a sixth of what the
    bundle took, 200 ms at most, which is a noticeable share of a short job. There is no option for
    it, so a default argument of Beam's is changed; a Beam that is built otherwise stays as it is.
    """
    begin = statesampler.StateSampler.__init__
    usual = begin.__defaults__
    if usual == (statesampler.DEFAULT_SAMPLING_PERIOD_MS,):
        begin.__defaults__ = (_SAMPLING_MS,)

    def undo() -> None:
        begin.__defaults__ = usual

    return undo


_bundles_end_at_once = Lent(_sample_often)  # for the time of a run


@contextlib.contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Puts back the handlers that were there: Beam's for Ctrl-C ends the job server first."""
    before = signal.getsignal(signal.SIGINT)
    yield
    if signal.getsignal(signal.SIGINT) is not before:
        signal.signal(signal.SIGINT, before)


def stream_args(beam_args: Sequence[str], *, is_bounded: bool) -> list[str]:
    """Returns the flags with those that a stream needs on Flink, unless they are given.

    Without checkpoints Flink keeps nothing through a failure. An aligned checkpoint waits until
    everything is read that was listed before it, and every checkpoint waits for the bundles under
    way, so bundles are kept small. What a bundle gave that a checkpoint has cut short would be
    passed on only with the next bundle, but the watermark at once (Beam's DoFnOperator): the end
    would overtake the last shards, the sums would not hold, and the job would start again. An idle
    source doesn't end by itself, and so a bounded stream would not end either.
    """
    args = list(beam_args)
    if runner_name(args) != "FlinkRunner":
        return args
    wanted = dict(_FLINK_STREAM)
    if is_bounded:
        wanted["--shutdown_sources_after_idle_ms"] = "5000"
    given = {arg.split("=", 1)[0] for arg in args}
    missing = {name: value for name, value in wanted.items() if name not in given}
    return args + [f"{name}={value}" if value else name for name, value in missing.items()]


def actual_runner(result: PipelineResult, asked: str) -> str:
    """Returns which runner made a result."""
    kind = f"{type(result).__module__}.{type(result).__name__}"
    if "fn_api_runner" in kind:
        return "FnApiRunner"
    if "direct_runner" in kind:
        return "BundleBasedDirectRunner"
    return "PrismRunner" if asked == "DirectRunner" else asked
