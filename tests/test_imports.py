"""Imports run one way: each room imports without what it must not need."""

import subprocess
import sys

import pytest

_CODE = """
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys({forbidden!r}))  # None: import raises, find_spec finds nothing
package = importlib.import_module({package!r})
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
"""
_ROOMS = {"loaders", "pipelines", "shard_format", "sources", "tokens", "transforms"}
_LIBRARIES = {"apache_beam", "datasets", "jax", "obstore", "transformers"}


@pytest.mark.parametrize(
    ("room", "rooms", "libraries"),
    [
        ("shard_format", set(), set()),
        ("tokens", {"shard_format"}, {"transformers"}),
        ("sources", {"shard_format"}, {"datasets"}),
        ("loaders", {"shard_format", "sources", "tokens"}, {"jax"}),
        ("loaders.order", {"loaders", "loaders.order", "shard_format"}, {"jax"}),
        (
            "loaders.shards",
            {"loaders", "loaders.order", "loaders.shards", "loaders.store", "shard_format"},
            {"jax"},
        ),
        (
            "transforms",
            {"shard_format", "sources", "tokens"},
            {"apache_beam", "datasets", "transformers"},
        ),
        (
            "transforms.batch",
            {"transforms", "transforms.batch", "shard_format", "sources", "tokens"},
            {"apache_beam", "datasets", "transformers"},
        ),
        (
            "transforms.stream",
            {"transforms", "transforms.stream", "shard_format", "sources", "tokens"},
            {"apache_beam", "datasets", "transformers"},
        ),
    ],
)
def test_room_imports_without_what_it_must_not_need(
    room: str, rooms: set[str], libraries: set[str]
) -> None:
    inner = {
        "loaders.order",
        "loaders.shards",
        "loaders.store",
        "loaders.hub",
        "transforms.batch",
        "transforms.stream",
    }
    if "." not in room:
        rooms = rooms | {name for name in inner if name.startswith(f"{room}.")}
    others = (_ROOMS | inner) - rooms - {room}
    others = {name for name in others if name.split(".")[0] not in (others - {name})}
    forbidden = {f"shardstream.{name}" for name in others} | (_LIBRARIES - libraries)
    code = _CODE.format(forbidden=forbidden, package=f"shardstream.{room}")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
