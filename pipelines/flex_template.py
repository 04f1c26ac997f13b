"""The Flex Template's entry: parameters as Dataflow passes them, `--name=value`, become our flags.

A template's parameters are strings. Switches arrive as `--eos=false` and lists as one string with
commas; empty means not given. The launcher asks for a job file (`--template_location`), so nothing
waits for a job here. Workers run the launcher's own image.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from shardstream.pipelines.job.options import make_parser
from shardstream.pipelines.logs import end_logs
from shardstream.pipelines.preprocess import main

# Set in the image, deploy/dataflow/Dockerfile.
_IMAGE = "SHARDSTREAM_IMAGE"


def to_flags(parameters: Sequence[str]) -> list[str]:
    """Returns the flags that parameters stand for; what isn't ours passes as it is.

    Raises:
        ValueError: a switch is neither true nor false.
    """
    actions = {
        option: action for action in make_parser()._actions for option in action.option_strings
    }
    flags: list[str] = []
    for parameter in parameters:
        name, equals, value = parameter.partition("=")
        action = actions.get(name)
        if action is None or not equals:
            flags.append(parameter)
        elif value == "":
            continue
        elif action.nargs == 0:
            flags += _switch(name, value, action)
        elif action.nargs == "+":
            flags += [name, *value.split(",")]
        else:
            flags.append(parameter)
    image = os.environ.get(_IMAGE)
    if image and not any(flag.startswith("--sdk_container_image") for flag in flags):
        flags.append(f"--sdk_container_image={image}")
    return flags


def _switch(name: str, value: str, action: argparse.Action) -> list[str]:
    wanted = {"true": True, "false": False}.get(value.lower())
    if wanted is None:
        raise ValueError(f"{name} is {value!r}, expected true or false")
    if wanted:
        return [name]
    off = f"--no-{name.removeprefix('--')}"
    return [off] if off in action.option_strings else []


if __name__ == "__main__":
    try:
        status = main(to_flags(sys.argv[1:]))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    end_logs()
    sys.exit(status)
