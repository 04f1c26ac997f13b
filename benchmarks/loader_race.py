"""A race of iterators: each setting in a process of its own, the best ones again in turn.

A contender is a name and its settings; a setting is a text and a function that returns an iterator
of token counts. `serve` is the child's side: it times one setting and prints JSON. `race` is the
parent's: one short sweep over all settings, then rounds of each contender's two best, so that a
busy moment of the machine hurts no side alone. Of a contender its best setting counts, by the
median over the rounds; the best time is told beside it.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Contenders = dict[str, list[tuple[str, Callable[[], Iterator[int]]]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """Tokens a second of a contender's best setting: median and best over the rounds."""

    setting: str
    median: float
    best: float


_FINALISTS = 2
_START_SECS = 90  # imports and worker processes of the slowest peer, on a busy machine


def race_arguments() -> argparse.ArgumentParser:
    """Returns the flags that parent and child share."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--data", type=Path, help="where to make and keep the data; else a temporary place"
    )
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    return parser


def serve(contenders: Callable[[argparse.Namespace], Contenders]) -> None:
    """Times the setting that --one names, or lists all settings."""
    parser = argparse.ArgumentParser(parents=[race_arguments()])
    parser.add_argument("--one", metavar="NAME:INDEX")
    arguments = parser.parse_args()
    found = contenders(arguments)
    if arguments.one is None:
        listed = {name: [text for text, _ in settings] for name, settings in found.items()}
        print(json.dumps(listed))
        return
    name, index = arguments.one.split(":")
    print(json.dumps(_rate(found[name][int(index)][1](), arguments.seconds)), flush=True)
    os._exit(0)  # some peers' worker processes don't end by themselves


def _rate(iterator: Iterator[int], seconds: float) -> float:
    """Returns tokens a second, from the first item on."""
    next(iterator)  # imports, worker processes and first reads are no part of the speed
    start = time.perf_counter()
    tokens, now = 0, start
    for count in iterator:
        tokens += count
        now = time.perf_counter()
        if now - start > seconds:
            break
    return tokens / (now - start)


class Field:
    """A module of contenders and the interpreter that runs it.

    Args:
        module: calls `serve`.
        python: interpreter with its packages.
        arguments: of race_arguments.
    """

    def __init__(self, module: str, python: str, arguments: argparse.Namespace) -> None:
        self._command = [python, "-m", module, "--data", str(arguments.data)]
        self._command += ["--length", str(arguments.length)]
        self._command += ["--batch_size", str(arguments.batch_size)]
        self.settings: dict[str, list[str]] = self._run([], _START_SECS) or {}

    def time(self, name: str, index: int, seconds: float) -> float | None:
        """Returns the tokens a second of a setting, None where it fails."""
        flags = ["--one", f"{name}:{index}", "--seconds", str(seconds)]
        return self._run(flags, _START_SECS + 4 * seconds)

    def _run(self, flags: list[str], timeout: float) -> Any:
        with tempfile.TemporaryFile("w+") as output:
            # In a session of its own, since some peers' worker processes outlive their parent.
            process = subprocess.Popen(
                self._command + flags,
                stdout=output,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=timeout)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            output.seek(0)
            try:
                return json.loads(output.read().strip().splitlines()[-1])
            except (ValueError, IndexError):
                return None


def sweep(fields: list[Field], seconds: float) -> dict[str, list[int]]:
    """Returns the best settings of each contender, best first."""
    best = {}
    for field in fields:
        for name, settings in field.settings.items():
            rates = {}
            for index, setting in enumerate(settings):
                rate = field.time(name, index, seconds)
                if rate is None:
                    print(f"# sweep: {name}, {setting}: failed, left out", flush=True)
                    continue
                rates[index] = rate
                print(f"# sweep: {name}, {setting}: {rate / 1e6:.1f} Mtok/s", flush=True)
            if rates:
                best[name] = sorted(rates, key=lambda index: -rates[index])[:_FINALISTS]
    return best


def race(
    fields: list[Field], finalists: dict[str, list[int]], *, rounds: int, seconds: float
) -> dict[str, Result]:
    """Returns the result of each contender."""
    rates: dict[str, dict[str, list[float]]] = {}
    for turn in range(rounds):
        for field in fields:
            for name, settings in field.settings.items():
                for index in finalists.get(name, []):
                    found = rates.setdefault(name, {}).setdefault(settings[index], [])
                    found.append(field.time(name, index, seconds) or 0.0)
        latest = ", ".join(
            f"{name} {' '.join(f'{found[-1] / 1e6:.0f}' for found in by_setting.values())}"
            for name, by_setting in rates.items()
        )
        print(f"# round {turn + 1} of {rounds}, Mtok/s: {latest}", flush=True)
    return {
        name: max(
            (_result(setting, found) for setting, found in by_setting.items()),
            key=lambda result: result.median,
        )
        for name, by_setting in rates.items()
    }


def _result(setting: str, rates: list[float]) -> Result:
    return Result(setting=setting, median=statistics.median(rates), best=max(rates))
