"""`shardstream build`, `stream` and `plan`: a Hugging Face stream becomes a dataset directory.

`python -m pipelines.preprocess` is the first of them. Nothing heavy is imported before the process
is set up: Arrow's allocator reads its settings when pyarrow is imported.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shardstream.pipelines.job.failures import guarded
from shardstream.pipelines.logs import end_logs, set_up_logs
from shardstream.pipelines.process import borrowed_process, set_up_process

if TYPE_CHECKING:
    from shardstream.pipelines.job.options import PreprocessOptions
    from shardstream.shard_format.manifest import Manifest


def preprocess(options: "PreprocessOptions") -> "Manifest":
    """Builds a dataset, or finds that it is built already; returns its manifest.

    With `--no-wait`, and where a template is made, the manifest is that of a dataset to come. The
    settings of the process (garbage collector, switch interval, environment) are as before when it
    returns.

    Raises:
        OptionError: an option is wrong; raised before any work.
        transforms.errors.JobError: the job had to stop; its message says why.
    """
    with borrowed_process:
        from shardstream.pipelines.job.build import build

        return build(options)


def main(argv: Sequence[str] | None = None, command: str = "build") -> int:
    """Runs the command; returns its exit status: 0 done, 1 the job failed, 2 an option is wrong.

    Args:
        argv: the flags; by default those of the process.
        command: "build", "stream" (`--mode stream`) or "plan" (`--plan`).
    """
    set_up_process()
    set_up_logs()
    words = sys.argv[1:] if argv is None else argv
    return guarded(f"shardstream {command}", lambda: _run(words, command))


def _run(argv: Sequence[str], command: str) -> int:
    from shardstream.pipelines.job.options import parse_options

    options = parse_options(argv, command)
    if options.work.plan_only:
        from shardstream.pipelines.job.estimate import describe_plan

        print(describe_plan(options))
        return 0
    from shardstream.pipelines.job.runners import tell_exceptions_once
    from shardstream.pipelines.job.summary import describe_dataset, describe_stream

    tell_exceptions_once()
    manifest = preprocess(options)
    if manifest.status == "complete":
        print(describe_dataset(manifest, options.output.output))
    elif "runner" in manifest.run:
        print(describe_stream(manifest, options.output.output))
    return 0


if __name__ == "__main__":
    status = main()
    end_logs()
    sys.exit(status)
