"""The example runs as its docstring says, in processes of its own."""

import re
import subprocess
import sys

import pytest


@pytest.mark.slow  # 25 s
def test_training_beside_the_pipeline_learns_and_hardly_waits() -> None:
    command = [sys.executable, "-m", "examples.train_while_streaming", "--steps", "60"]
    done = subprocess.run(
        [*command, "--sequence_length", "64"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = re.search(
        r"loss ([\d.]+) -> ([\d.]+) in 60 steps, (\d+) of them while the pipeline was writing\n"
        r"the first batch came [\d.]+ s after the pipeline's start\n"
        r"waiting for data since: ([\d.]+) % of",
        done.stdout,
    )
    assert found is not None, done.stdout
    before, after, while_writing, waited = map(float, found.groups())
    assert before > 8.5  # ln 8192 is 9.01
    assert after < 0.85 * before
    assert while_writing >= 10
    assert waited < 50
