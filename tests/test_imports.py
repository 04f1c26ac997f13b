"""Imports run one way: each package imports without what it must not need."""

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


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        (
            "shard_format",
            {"apache_beam", "jax", "datasets", "transformers", "loaders", "tokens", "obstore"},
        ),
        ("tokens", {"apache_beam", "jax", "datasets", "loaders", "transforms", "sources"}),
        ("sources", {"apache_beam", "jax", "transformers", "loaders", "transforms", "tokens"}),
        (
            "loaders",
            {"apache_beam", "datasets", "transformers", "transforms", "pipelines", "obstore"},
        ),
        ("transforms", {"jax", "loaders", "pipelines"}),
    ],
)
def test_package_imports_without_what_it_must_not_need(package: str, forbidden: set[str]) -> None:
    code = _CODE.format(forbidden=forbidden, package=package)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
