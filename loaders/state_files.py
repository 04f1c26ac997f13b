"""States in checkpoint directories: one small JSON file a process, for any number of readers."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax


@runtime_checkable
class DirectoryToCome(Protocol):
    """A checkpoint directory that Orbax v1 creates in the background."""

    async def await_creation(self) -> os.PathLike[str]:
        """Returns the directory once it is there."""
        ...


StateDirectory = os.PathLike[str] | DirectoryToCome


def state_name() -> str:
    """Returns this process's file name."""
    return f"process_{jax.process_index()}-of-{jax.process_count()}.json"


def write_state_now(directory: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Writes a state into a directory that exists."""
    (Path(os.fspath(directory)) / state_name()).write_text(json.dumps(state, indent=1))


async def write_state(directory: StateDirectory, state: Mapping[str, Any]) -> None:
    """Writes a state into a directory that Orbax v1 is creating."""
    if isinstance(directory, DirectoryToCome):
        directory = await directory.await_creation()
    write_state_now(directory, state)


def read_state(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the state in a directory: this process's file, else any, since all hold one position.

    Raises:
        FileNotFoundError: there is none.
    """
    mine = Path(os.fspath(directory)) / state_name()
    found = [mine] if mine.exists() else sorted(mine.parent.glob("process_*-of-*.json"))
    if not found:
        raise FileNotFoundError(
            f"{directory}: no loader state (process_*-of-*.json) in this checkpoint"
        )
    return json.loads(found[0].read_text())
