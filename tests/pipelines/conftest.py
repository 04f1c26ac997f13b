"""Processes that tests of growing sources start, ended with the test."""

from collections.abc import Callable, Iterator

import pytest

from tests.pipelines.stream_runs import FollowRun


@pytest.fixture
def follow() -> Iterator[Callable[..., FollowRun]]:
    """Starts a stream that follows its source; see FollowRun."""
    runs: list[FollowRun] = []

    def start_run(*args: object, **kwargs: object) -> FollowRun:
        runs.append(FollowRun(*args, **kwargs))
        return runs[-1]

    yield start_run
    for run in runs:
        run.kill()
