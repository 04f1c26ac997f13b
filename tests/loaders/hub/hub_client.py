"""Streams from a hub in a process of its own, since HF_ENDPOINT is read at import.

python -m tests.loaders.hub.hub_client    a line of JSON in, options of loaders.stream; one out
"""

import hashlib
import json
import logging.handlers
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, Self

from tests.loopback_hub import Hub, hub_environment


class HubClient:
    """Runs streams one after another; importing takes longer than all of them."""

    def __init__(self, hub: Hub, environment: Mapping[str, str] | None = None) -> None:
        inherited = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.loaders.hub.hub_client"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=inherited
            | hub_environment(hub)
            | {"JAX_PLATFORMS": "cpu"}
            | dict(environment or {}),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.communicate()

    def run(self, dataset: str, **options: Any) -> dict[str, Any]:
        """Streams to the end; returns digest, tokens, stats, error, log and seconds."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"dataset": dataset, **options}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the client died; its stderr says why"
        return json.loads(answer)


def run(options: dict[str, Any]) -> dict[str, Any]:
    """What `HubClient.run` asks for."""
    from shardstream import loaders

    digest = hashlib.sha256()
    found: dict[str, Any] = {"sequences": 0, "tokens": 0, "error": None}
    start = time.monotonic()
    kept = logging.handlers.BufferingHandler(1 << 20)
    logging.getLogger("shardstream.loaders").handlers = [kept]
    fields = ("tokens", "segment_ids")
    try:
        stream = loaders.stream(**options, output="numpy", fields=fields, audit_every=0)
    except ValueError as error:
        return found | {"error": f"ValueError: {error}"}
    with stream:
        try:
            for batch in stream:
                digest.update(batch["tokens"].tobytes() + batch["segment_ids"].tobytes())
                found["sequences"] += int((batch["segment_ids"] > 0).any(axis=1).sum())
                found["tokens"] += int((batch["segment_ids"] > 0).sum())
        except loaders.StreamError as error:
            found["error"] = str(error)
        return found | {
            "log": [record.getMessage() for record in kept.buffer],
            "digest": digest.hexdigest(),
            "stats": stream.stats(),
            "commit": stream.commit,
            "seconds": time.monotonic() - start,
        }


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
