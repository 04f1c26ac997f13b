"""Runs a pipeline on the runner asked for and says which runner it really was.

Beam's DirectRunner stands for three runners and picks one by what the pipeline holds and by what it
finds on the machine; which one ran decides memory and threads, so it is logged and recorded.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import PipelineResult

_LOCAL = (
    "DirectRunner",
    "PrismRunner",
    "FnApiRunner",
    "BundleBasedDirectRunner",
    "SwitchingDirectRunner",
)


def runner_name(beam_args: Sequence[str]) -> str:
    """Returns the short name of the runner the flags ask for."""
    runner = PipelineOptions(list(beam_args)).view_as(StandardOptions).runner or "DirectRunner"
    return runner.rsplit(".", 1)[-1]


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


def run(transform: beam.PTransform, beam_args: Sequence[str]) -> str:
    """Runs transform as a pipeline to its end; returns the name of the runner that really ran.

    Raises:
        Exception: whatever the runner raises when the job fails.
    """
    pipeline = beam.Pipeline(options=pipeline_options(beam_args))
    pipeline | type(transform).__name__ >> transform
    result = pipeline.run()
    result.wait_until_finish()
    return actual_runner(result, runner_name(beam_args))


def actual_runner(result: PipelineResult, asked: str) -> str:
    """Returns which runner made a result."""
    kind = f"{type(result).__module__}.{type(result).__name__}"
    if "fn_api_runner" in kind:
        return "FnApiRunner"
    if "direct_runner" in kind:
        return "BundleBasedDirectRunner"
    return "PrismRunner" if asked == "DirectRunner" else asked
