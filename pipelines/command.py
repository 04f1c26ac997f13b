"""`shardstream COMMAND`: the one program, with a command for each thing that people do.

A command's module is imported when that command runs, and only after the process is set up, so
`--help`, `--version` and `verify` cost neither Beam nor JAX.
"""

import difflib
import importlib
import sys
from collections.abc import Sequence

from shardstream.pipelines.job.failures import guarded
from shardstream.pipelines.logs import end_logs
from shardstream.pipelines.process import set_up_process
from shardstream.shard_format.errors import OptionError

_ROOM = "shardstream.pipelines"
# Command: its module, the rest of the arguments of that module's main, and what it does.
COMMANDS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "build": ("preprocess", ("build",), "turn a Hugging Face dataset into shuffled shards"),
    "stream": ("preprocess", ("stream",), "the same, with shards that appear while it is read"),
    "plan": ("preprocess", ("plan",), "say what a build would do and cost, without running it"),
    "verify": ("verify", (), "check that a dataset directory is whole and adds up"),
    "show": ("show_batches", (), "print the first batches, as a trainer would get them"),
    "inspect": ("inspect_dataset", (), "tell what a dataset directory holds, finished or not"),
    "sample": ("sample", (), "write the embedded sample: a small corpus and its tokenizer"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status: 0 done, 1 it failed, 2 an option is wrong."""
    words = sys.argv[1:] if argv is None else list(argv)
    status = guarded("shardstream", lambda: _run(words))
    if argv is None:
        end_logs()
    return status


def help_text() -> str:
    """Returns what `shardstream --help` prints."""
    lines = [f"  {name:9}{text}" for name, (_, _, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: shardstream COMMAND ...",
            "",
            "Hugging Face streams to shuffled ArrayRecord shards on Beam, and a JAX loader.",
            "",
            "commands:",
            *lines,
            "",
            "'shardstream COMMAND --help' lists the flags of a command; --version the version.",
        ]
    )


def _run(words: list[str]) -> int:
    if not words:
        raise OptionError(f"no command, expected one of {', '.join(COMMANDS)}")
    name, *rest = words
    if name in ("-h", "--help", "help"):
        print(help_text())
    elif name == "--version":
        print(f"shardstream {_version()}")
    elif name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, 1)
        advice = f"did you mean {close[0]}?" if close else f"expected {', '.join(COMMANDS)}"
        raise OptionError(f"unknown command {name!r}; {advice}")
    else:
        set_up_process()
        module, arguments, _ = COMMANDS[name]
        return importlib.import_module(f"{_ROOM}.{module}").main(rest, *arguments)
    return 0


def _version() -> str:
    from shardstream import __version__

    return __version__


if __name__ == "__main__":
    sys.exit(main())
