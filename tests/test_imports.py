"""Imports run one way: between rooms, between modules, and out to the libraries.

What imports what is read from the source, imports inside functions included, so that a rule holds
on every path and not only on the one that a test happens to take. An import for types alone
(`if TYPE_CHECKING:`) is none when the program runs and doesn't count.
"""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]

# Room → the rooms that it may import.
_MAY_IMPORT = {
    "shard_format": set(),
    "tokens": {"shard_format"},
    "sources": {"shard_format"},
    "loaders": {"shard_format", "sources", "tokens"},
    "transforms": {"shard_format", "sources", "tokens"},
    "pipelines": {"loaders", "shard_format", "sources", "tokens", "transforms"},
}
# Inner room → its neighbours that it must not reach, not even by way of others.
_MUST_NOT_REACH = {
    "loaders.order": {"loaders.shards", "loaders.store", "loaders.hub"},
    "loaders.store": {"loaders.shards", "loaders.hub"},
    "loaders.shards": {"loaders.hub"},
    "tokens.packing": {"tokens.engines"},
    "transforms.batch": {"transforms.stream"},
    "transforms.stream": {"transforms.batch"},
}
# Room → those of the large libraries that it may import. The others can be absent.
_LIBRARIES = {"apache_beam", "datasets", "jax", "obstore", "transformers"}
_MAY_USE = {
    "shard_format": set(),
    "tokens": {"transformers"},
    "sources": {"datasets"},
    "loaders": {"jax"},
    "transforms": {"apache_beam", "datasets", "transformers"},
}


def _source_files() -> dict[str, Path]:
    """Returns the file of every module of ours, by the module's name below `shardstream`."""
    files = {}
    for room in _MAY_IMPORT:
        for path in (_ROOT / room).rglob("*.py"):
            parts = path.relative_to(_ROOT).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def _statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yields the import statements below a node, but for those of types alone."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node
        return
    is_types_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    for child in node.orelse if is_types_only else ast.iter_child_nodes(node):
        yield from _statements(child)


def _imports(tree: ast.AST, modules: Iterable[str]) -> set[str]:
    """Returns which of our modules a source file imports, names below `shardstream`."""
    found = set()
    for statement in _statements(tree):
        if isinstance(statement, ast.Import):
            names = [(alias.name, alias.name) for alias in statement.names]
        else:
            assert statement.level == 0, "imports name their module in full"
            module = statement.module or ""
            names = [(f"{module}.{alias.name}", module) for alias in statement.names]
        for name, module in names:  # `from package import module` is an import of the module
            short, package = name.removeprefix("shardstream."), module.removeprefix("shardstream.")
            found.add(short if short in modules else package)
    return found & set(modules)


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    """What each of our modules imports of our modules."""
    files = _source_files()
    trees = {module: ast.parse(path.read_text()) for module, path in files.items()}
    return {module: _imports(tree, files) - {module} for module, tree in trees.items()}


def _reached(graph: dict[str, set[str]], room: str) -> set[str]:
    """Returns the modules that a room's modules import, and those that these import, and so on."""
    found: set[str] = set()
    waiting = [module for module in graph if _is_in(module, room)]
    while waiting:
        fresh = graph[waiting.pop()] - found
        found |= fresh
        waiting += fresh
    return found


def _is_in(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


@pytest.mark.parametrize("room", _MAY_IMPORT)
def test_room_imports_only_rooms_below_it(graph: dict[str, set[str]], room: str) -> None:
    wrong = {
        f"{module} imports {other}"
        for module, imports in graph.items()
        if _is_in(module, room)
        for other in imports
        if other.split(".")[0] not in _MAY_IMPORT[room] | {room}
    }
    assert wrong == set()


@pytest.mark.parametrize("room", _MUST_NOT_REACH)
def test_inner_room_does_not_reach_its_neighbours(graph: dict[str, set[str]], room: str) -> None:
    assert any(_is_in(module, room) for module in graph), "the room has moved"
    neighbours = _MUST_NOT_REACH[room]
    assert {m for m in _reached(graph, room) if any(_is_in(m, n) for n in neighbours)} == set()


def test_no_modules_import_each_other_in_a_circle(graph: dict[str, set[str]]) -> None:
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from shardstream.tokens import load", {"tokens.load"}),
        ("from shardstream.tokens.load import load_reference", {"tokens.load"}),
        ("import shardstream.tokens.load as load", {"tokens.load"}),
        ("from shardstream.tokens import TokenizerError", {"tokens"}),
        ("def f():\n    from shardstream.tokens import load", {"tokens.load"}),
        ("if TYPE_CHECKING:\n    from shardstream.tokens import load", set()),
        (
            "if typing.TYPE_CHECKING:\n    import a\nelse:\n    from shardstream import tokens",
            {"tokens"},
        ),
        ("import numpy", set()),
    ],
)
def test_imports_are_found_in_every_form(source: str, expected: set[str]) -> None:
    assert _imports(ast.parse(source), ["tokens", "tokens.load"]) == expected


_IMPORT_ALL = """
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys({absent!r}))  # None: import raises, find_spec finds nothing
package = importlib.import_module({package!r})
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
"""


@pytest.mark.parametrize("room", _MAY_USE)
def test_room_imports_where_other_libraries_are_absent(room: str) -> None:
    absent = sorted(_LIBRARIES - _MAY_USE[room])
    code = _IMPORT_ALL.format(absent=absent, package=f"shardstream.{room}")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
