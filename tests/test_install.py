"""The one import name, as users get it: from a wheel, from an editable install and in a checkout.

Each case runs in an interpreter of its own, most of them in a folder where the user has modules
called as our rooms are, all of which raise on import. Builds start from a copy of the sources, so
that they leave nothing in the checkout.
"""

import os
import pickle
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from shardstream.transforms.tokenize_documents import PartitionDoFn, TokenizeAndScatter

REPOSITORY = Path(__file__).parents[1]
VERSION = metadata.version("shardstream")
ROOMS = ("loaders", "pipelines", "shard_format", "sources", "tokens", "transforms")
_SOURCES = (*ROOMS, "shardstream", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md")
_OTHERS = ("LICENSE", "constraints.txt")
_PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
_NO_INDEX = ("--no-deps", "--no-build-isolation", "--no-index")
_IMPORT_ALL = """
import shardstream, sys
from shardstream import Loader, Mixture, preprocess, stream, verify
import shardstream.transforms.batch.build_dataset, shardstream.tokens.packing.options
import shardstream.sources.read
print(shardstream.__file__)
print(Loader.__module__, preprocess.__module__, verify.__module__)
"""


def _run(
    command: list[str], folder: Path, *paths: Path, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Runs a command in a folder, with PYTHONPATH of these paths alone."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done


def _python(code: str, folder: Path, *paths: Path) -> list[str]:
    """Returns the lines that code prints, started in a folder."""
    return _run([sys.executable, "-c", code], folder, *paths).stdout.splitlines()


def _modules() -> set[str]:
    """The files of the package, by the names that an installation gives them."""
    files = {
        f"shardstream/{path.relative_to(REPOSITORY).as_posix()}"
        for room in ROOMS
        for path in (REPOSITORY / room).rglob("*.py")
    }
    return files | {f"shardstream/{name}" for name in ("__init__.py", "__main__.py", "py.typed")}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of all that a checkout builds from."""
    folder = tmp_path_factory.mktemp("checkout")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for name in (*_SOURCES, *_OTHERS):
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, folder / name, ignore=ignore)
        else:
            shutil.copy(REPOSITORY / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _run([*_PIP, "wheel", *_NO_INDEX, "--wheel-dir", str(folder), str(checkout)], folder)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, installed in a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    _run([*_PIP, "install", *_NO_INDEX, "--target", str(folder), str(wheel)], folder)
    return folder


@pytest.fixture(params=["files", "folders"])
def user_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A user's project with modules of the names of our rooms; importing any of them raises."""
    for room in ROOMS:
        path = tmp_path / f"{room}.py" if request.param == "files" else tmp_path / room
        if request.param == "folders":
            path.mkdir()
            path /= "__init__.py"
        path.write_text(f"raise AssertionError('{room} of the user was imported')\n")
    return tmp_path


def test_wheel_adds_one_top_level_name_and_holds_every_module(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names} == {
        "shardstream",
        f"shardstream-{VERSION}.dist-info",
    }
    assert {name for name in names if name.startswith("shardstream/")} == _modules()


def test_installed_wheel_adds_one_top_level_name(site: Path) -> None:
    commands = {"bin"}  # where --target puts console scripts
    added = {path.name for path in site.iterdir()} - commands
    assert added == {"shardstream", f"shardstream-{VERSION}.dist-info"}
    assert (site / "shardstream" / "py.typed").is_file()


def test_sdist_holds_every_module(checkout: Path, tmp_path: Path) -> None:
    """It is what Dataflow stages for `--setup_file`, and installs on its workers."""
    _run([sys.executable, "setup.py", "-q", "sdist", "--dist-dir", str(tmp_path)], checkout)
    (found,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(found) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    rooms = {name.removeprefix("shardstream/") for name in _modules()}
    expected = {name if name.split("/")[0] in ROOMS else f"shardstream/{name}" for name in rooms}
    assert expected | {"setup.py", "pyproject.toml", *_OTHERS} <= inside
    assert not any(name.startswith(("tests/", "benchmarks/", "typings/")) for name in inside)


def test_users_own_modules_disturb_no_wheel(site: Path, user_folder: Path) -> None:
    file, homes = _python(_IMPORT_ALL, user_folder, site)
    assert Path(file) == site / "shardstream" / "__init__.py"
    assert homes == (
        "shardstream.loaders.loader shardstream.pipelines.preprocess "
        "shardstream.shard_format.verify"
    )


def test_import_costs_neither_beam_nor_jax_nor_numpy(site: Path, tmp_path: Path) -> None:
    code = """
import sys
before = set(sys.modules)
import shardstream
print(shardstream.__version__, len(set(sys.modules) - before))
print({"apache_beam", "jax", "numpy", "pyarrow", "shardstream.loaders"} & set(sys.modules))
print(sorted(set(shardstream.__all__) - set(dir(shardstream))))
try:
    shardstream.Lodaer
except AttributeError as error:
    print(error)
from shardstream import verify
print({"apache_beam", "jax", "shardstream.loaders"} & set(sys.modules), "numpy" in sys.modules)
"""
    assert _python(code, tmp_path, site)[1:] == [
        "set()",
        "[]",
        "module 'shardstream' has no attribute 'Lodaer'",
        "set() True",
    ]
    assert _python(code, tmp_path, site)[0].split()[0] == VERSION


def test_checkout_has_each_module_once(checkout: Path) -> None:
    code = """
import loaders, shardstream
from loaders import Loader
from shardstream.loaders.loader import Loader as nested
assert Loader is nested is shardstream.Loader is loaders.Loader
assert "loaders.loader" not in sys.modules
print(shardstream.__file__)
print(sys.modules[Loader.__module__].__file__)
"""
    assert _python("import sys\n" + code, checkout) == [
        str(checkout / "shardstream" / "__init__.py"),
        str(checkout / "loaders" / "loader.py"),
    ]


@pytest.mark.parametrize("command", ["preprocess", "verify", "sample", "show_batches"])
def test_commands_run_in_a_checkout(checkout: Path, command: str) -> None:
    done = _run([sys.executable, "-m", f"pipelines.{command}", "--help"], checkout)
    assert done.stdout.startswith("usage: ")


def test_editable_install_is_found_from_another_folder(
    checkout: Path, user_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    environment = tmp_path_factory.mktemp("editable")
    _run([sys.executable, "-m", "venv", "--without-pip", str(environment)], environment)
    python = str(environment / "bin" / "python")
    ours = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(_run([python, "-c", ours], environment).stdout.strip())
    # This environment's packages, but not its own editable install, whose .pth isn't read there.
    (packages / "these.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [python, *_PIP[1:], "install", *_NO_INDEX, "--ignore-installed", "-e", str(checkout)]
    _run(pip, environment)
    file, homes = _run([python, "-c", _IMPORT_ALL], user_folder).stdout.splitlines()
    assert Path(file) == checkout / "shardstream" / "__init__.py"
    assert homes.split()[0] == "shardstream.loaders.loader"


@pytest.mark.parametrize("dofn", [PartitionDoFn, TokenizeAndScatter])
def test_dofns_are_pickled_by_reference(dofn: type) -> None:
    """Workers import them under the one name, so that none of their code travels."""
    from apache_beam.internal import cloudpickle_pickler

    assert dofn.__module__ == "shardstream.transforms.tokenize_documents"
    for data in (pickle.dumps(dofn), cloudpickle_pickler.cloudpickle.dumps(dofn)):
        assert dofn.__module__.encode() in data and len(data) < 200
    assert cloudpickle_pickler.loads(cloudpickle_pickler.dumps(dofn)) is dofn
