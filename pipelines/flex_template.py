"""The Flex Template's entry: parameters as Dataflow passes them, `--name=value`, become our flags.

A template's parameters are strings. Switches arrive as `--eos=false` and lists as one string with
commas; empty means not given. The launcher asks for a job file (`--template_location`), so nothing
waits for a job here. Workers run the launcher's own image.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from shardstream.pipelines.job.failures import guarded
from shardstream.pipelines.logs import end_logs
from shardstream.pipelines.preprocess import main
from shardstream.pipelines.process import set_up_process
from shardstream.shard_format.errors import OptionError

# Set in the image, deploy/dataflow/Dockerfile.
_IMAGE = "SHARDSTREAM_IMAGE"


def to_flags(parameters: Sequence[str]) -> list[str]:
    """Returns the flags that parameters stand for; what isn't ours follows after `--`.

    Dataflow has checked the names of a template's parameters against its metadata, and the launcher
    adds flags of its own, which need not be registered: they are passed on unchecked.

    Raises:
        OptionError: a switch is neither true nor false.
    """
    from shardstream.pipelines.job.options import make_parser  # after the process is set up

    actions = make_parser().flags
    flags: list[str] = []
    others: list[str] = []
    last = others
    for parameter in parameters:
        name, equals, value = parameter.partition("=")
        action = actions.get(name)
        if not parameter.startswith("-"):  # the value of the word before
            last.append(parameter)
            continue
        last = others if action is None else flags
        if action is None or not equals:
            last.append(parameter)
        elif value == "":
            continue
        elif action.nargs == 0:
            flags += _switch(name, value, action)
        elif action.nargs == "+":
            flags += [name, *value.split(",")]
        else:
            flags.append(parameter)
    image = os.environ.get(_IMAGE)
    if image and not any(flag.startswith("--sdk_container_image") for flag in others):
        others.append(f"--sdk_container_image={image}")
    return [*flags, "--", *others]


def _switch(name: str, value: str, action: argparse.Action) -> list[str]:
    wanted = {"true": True, "false": False}.get(value.lower())
    if wanted is None:
        raise OptionError(f"{name} is {value!r}, expected true or false")
    if wanted:
        return [name]
    off = f"--no-{name.removeprefix('--')}"
    return [off] if off in action.option_strings else []


if __name__ == "__main__":
    set_up_process()
    status = guarded("shardstream build", lambda: main(to_flags(sys.argv[1:])))
    end_logs()
    sys.exit(status)
