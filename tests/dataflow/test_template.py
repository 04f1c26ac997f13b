"""The image and the Flex Template, as far as they can be checked without a container daemon."""

import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from shardstream.pipelines.flex_template import to_flags
from shardstream.pipelines.job.options import make_parser, parse_options
from tests.dataflow.dataflow_runs import REPOSITORY

DEPLOY = REPOSITORY / "deploy/dataflow"
PARAMETERS: list[dict[str, Any]] = json.loads((DEPLOY / "metadata.json").read_text())["parameters"]
GIVEN = {
    "dataset": "HuggingFaceFW/fineweb-edu",
    "output": "gs://my-bucket/fineweb",
    "tokenizer": "/opt/shardstream/tokenizer",
    "data_files": "gs://my-bucket/a/*.parquet,gs://my-bucket/b/*.parquet",
    "eos": "false",
    "validation_fraction": "0.01",
    "hub_token_secret": "projects/p/secrets/hub-token",
}
BAD = {
    "dataset": "a/b/c",
    "output": "/local/out",
    "data_files": "/local/a.parquet",
    "sequence_length": "0",
    "validation_fraction": "1",
    "eos": "yes",
    "hub_token_secret": "hf_abcdefghijklmnopqrst",
    "num_shards": "1000000",
}


def _instructions() -> list[tuple[str, str]]:
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


def test_parameters_are_the_commands_flags() -> None:
    actions = {action.dest: action for action in make_parser()._actions}
    for parameter in PARAMETERS:
        action = actions[parameter["name"]]
        assert bool(parameter.get("isOptional")) != action.required, parameter["name"]
        if "enumOptions" in parameter:
            offered = {option["value"] for option in parameter["enumOptions"]}
            assert offered == set(action.choices), parameter["name"]
        if "defaultValue" in parameter:
            default = parameter["defaultValue"]
            assert default == str(action.default).lower() or default == str(action.default)
        if action.nargs == 0:
            assert parameter["paramType"] == "BOOLEAN"
    required = {action.dest for action in actions.values() if action.required}
    assert required <= {parameter["name"] for parameter in PARAMETERS}


def test_regexes_take_what_is_right_and_refuse_what_is_not() -> None:
    regexes = {p["name"]: p["regexes"] for p in PARAMETERS if "regexes" in p}
    defaults = {p["name"]: p["defaultValue"] for p in PARAMETERS if "defaultValue" in p}
    for name, value in (defaults | GIVEN).items():
        assert all(re.fullmatch(regex, value) for regex in regexes.get(name, [])), name
    for name, value in BAD.items():
        assert not all(re.fullmatch(regex, value) for regex in regexes[name]), name


def test_parameters_become_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDSTREAM_IMAGE", "europe-docker.pkg.dev/p/r/shardstream:1")
    own = [f"--{name}={value}" for name, value in GIVEN.items()]
    theirs = ["--runner=DataflowRunner", "--template_location=gs://b/t.json"]
    theirs += ["--of_the_launcher=1"]  # which Beam for Python need not know
    options = parse_options(to_flags([*own, "--config=", "--overwrite=false", *theirs]))
    assert options.source.data_files == ("gs://my-bucket/a/*.parquet", "gs://my-bucket/b/*.parquet")
    assert options.source.config is None
    assert not options.tokenizer.add_eos and not options.output.overwrite
    assert options.work.hub_token_secret == "projects/p/secrets/hub-token"
    image = "--sdk_container_image=europe-docker.pkg.dev/p/r/shardstream:1"
    assert options.beam_args == (*theirs, image)
    words = ["--output", "o", "--runner", "r", "--dataset", "d"]
    assert to_flags(words) == ["--output", "o", "--dataset", "d", "--", "--runner", "r", image]
    with pytest.raises(ValueError, match="--eos is 'yes', expected true or false"):
        to_flags(["--eos=yes"])


def test_dockerfile_copies_files_that_exist_and_every_package() -> None:
    copied = set()
    for word, rest in _instructions():
        if word == "COPY" and not rest.startswith("--from"):
            *sources, _ = rest.split()
            copied.update(sources)
    assert all((REPOSITORY / source).exists() for source in copied), copied
    packages = {path.parent.name for path in REPOSITORY.glob("*/__init__.py")}
    assert packages <= copied
    environment = [rest for word, rest in _instructions() if word in ("ENV", "ARG")]
    assert not [rest for rest in environment if "TOKEN=" in rest or "SECRET" in rest]
    beam = next(rest for word, rest in _instructions() if rest.startswith("BEAM="))
    assert (
        f"apache-beam=={beam.removeprefix('BEAM=')}\n"
        in (REPOSITORY / "constraints.txt").read_text()
    )


@pytest.mark.slow
def test_dockerfile_commands_run(tmp_path: Path, tokenizer_directory: str) -> None:
    """Its copies, the wheel, and the tokenizer, in a folder in place of an image."""
    for word, rest in _instructions():
        if word == "COPY" and not rest.startswith("--from") and "src/" in rest:
            *sources, target = rest.split()
            folder = tmp_path / target
            folder.mkdir(parents=True, exist_ok=True)
            for source in sources:
                path = REPOSITORY / source
                inside = f"{path}/." if path.is_dir() else str(path)
                subprocess.run(["cp", "-r", inside, str(folder)], check=True)
    runs = [rest for word, rest in _instructions() if word == "RUN"]
    wheel = next(shlex.split(run) for run in runs if run.startswith("pip wheel"))
    offline = ["--no-build-isolation", "--no-index"]
    command = [sys.executable, "-m", *wheel, *offline]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (made,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(made).namelist()
    assert {"shardstream/transforms/plan.py", "shardstream/pipelines/flex_template.py"} <= set(
        names
    )
    installed = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
    subprocess.run([*install, "--target", str(installed), str(made)], check=True)

    bake = next(run for run in runs if "bake_tokenizer.py" in run)
    assert bake.split()[-2].strip('"') == "$TOKENIZER_REVISION"
    target = tmp_path / "tokenizer"
    done = subprocess.run(
        [sys.executable, DEPLOY / "bake_tokenizer.py", tokenizer_directory, "main", target],
        cwd=tmp_path,
        env=os.environ
        | {"PYTHONPATH": str(installed), "SHARDSTREAM_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (target / "tokenizer.json").exists()
    assert len(list((tmp_path / "cache/certificates").glob("*.npz"))) >= 2
