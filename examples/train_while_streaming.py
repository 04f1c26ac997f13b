"""Trains a small transformer on the CPU while the pipeline is still writing the data.

    python -m examples.train_while_streaming
    python -m examples.train_while_streaming --steps 500 -- --dataset HuggingFaceFW/fineweb-edu \
        --config sample-10BT --tokenizer gpt2 --max_documents 100000

One process reads, tokenizes and shuffles (`python -m pipelines.preprocess --mode stream`), this one
follows its shards with `Loader(..., follow=True)`. The transformer is real but small: plain JAX,
causal attention inside documents, Adam. What to look at: the loss falls, and the share of time in
which training waited for data is close to nothing.

Without flags of its own the pipeline reads the embedded sample, 2 MB of text, several times over
and with its slowest tokenizer, so that it is busy for as long as a first look takes.
"""

import argparse
import functools
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shardstream.loaders import Loader
from shardstream.pipelines.sample import build_sample
from shardstream.shard_format.manifest import find_manifest
from shardstream.shard_format.storage import open_directory

FIELDS = ("tokens", "segment_ids", "positions", "targets", "loss_mask")
WIDTH, LAYERS, HEADS = 128, 2, 4
LEARNING_RATE, BETA_1, BETA_2 = 2e-3, 0.9, 0.99
SAMPLE_FLAGS = ["--epochs", "12", "--buffer_documents", "4000"]
SAMPLE_FLAGS += ["--tokenizer_engine", "transformers", "--threads", "1"]

Params = dict[str, Any]


def init_params(key: jax.Array, vocabulary: int, length: int) -> Params:
    """Returns the transformer's weights; the embedding also gives the logits."""
    keys = iter(jax.random.split(key, 2 + 4 * LAYERS))

    def normal(*shape: int) -> jax.Array:
        return 0.02 * jax.random.normal(next(keys), shape)

    return {
        "embedding": normal(vocabulary, WIDTH),
        "places": normal(length, WIDTH),
        "layers": [
            {
                "qkv": normal(WIDTH, 3 * WIDTH),
                "out": normal(WIDTH, WIDTH),
                "up": normal(WIDTH, 4 * WIDTH),
                "down": normal(4 * WIDTH, WIDTH),
            }
            for _ in range(LAYERS)
        ],
    }


def normalize(x: jax.Array) -> jax.Array:
    """Returns x with each vector's root mean square at 1."""
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6)


def attend(layer: Params, x: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns f32[B, L, WIDTH]: what each token takes from those the mask lets it see."""
    batch, length, _ = x.shape
    qkv = (x @ layer["qkv"]).reshape(batch, length, 3, HEADS, WIDTH // HEADS)
    query, key, value = jnp.moveaxis(qkv, 2, 0)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / (WIDTH // HEADS) ** 0.5
    weights = jax.nn.softmax(jnp.where(mask[:, None], scores, -1e9), axis=-1)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(x.shape) @ layer["out"]


def mean_loss(params: Params, batch: dict[str, jax.Array]) -> jax.Array:
    """Returns the cross-entropy of the next token, over the places that have one."""
    segments, length = batch["segment_ids"], batch["tokens"].shape[1]
    same_document = segments[:, :, None] == segments[:, None, :]
    mask = same_document & np.tri(length, dtype=bool)
    x = params["embedding"][batch["tokens"]] + params["places"][batch["positions"]]
    for layer in params["layers"]:
        x = x + attend(layer, normalize(x), mask)
        x = x + jax.nn.gelu(normalize(x) @ layer["up"]) @ layer["down"]
    logits = normalize(x) @ params["embedding"].T
    of_target = jnp.take_along_axis(logits, batch["targets"][..., None], axis=-1)[..., 0]
    losses = jax.nn.logsumexp(logits, axis=-1) - of_target
    counts = batch["loss_mask"]
    return (losses * counts).sum() / jnp.maximum(counts.sum(), 1)


@functools.partial(jax.jit, donate_argnums=(0, 1))
def train_step(
    params: Params, moments: tuple[Params, Params], step: jax.Array, batch: dict[str, jax.Array]
) -> tuple[Params, tuple[Params, Params], jax.Array]:
    """Returns (params, moments, loss) after one step of Adam."""
    loss, grads = jax.value_and_grad(mean_loss)(params, batch)
    first = jax.tree.map(lambda m, g: BETA_1 * m + (1 - BETA_1) * g, moments[0], grads)
    second = jax.tree.map(lambda v, g: BETA_2 * v + (1 - BETA_2) * g * g, moments[1], grads)
    rate = LEARNING_RATE * jnp.sqrt(1 - BETA_2**step) / (1 - BETA_1**step)
    params = jax.tree.map(
        lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-8), params, first, second
    )
    return params, (first, second), loss


def open_stream(process: subprocess.Popen, output: Path, **options: Any) -> Loader:
    """Returns a loader that follows the pipeline's output, once there is something to follow."""
    while find_manifest(open_directory(output)) is None:
        if process.poll() is not None:
            raise SystemExit(f"the pipeline ended with status {process.returncode}; see above")
        time.sleep(0.05)
    return Loader(output, follow=True, fields=FIELDS, **options)


def train(
    loader: Loader, process: subprocess.Popen, vocabulary: int, steps: int, started: float
) -> None:
    """Trains for `steps` batches or to the stream's end, and prints how it goes."""
    params = init_params(jax.random.key(0), vocabulary, loader.sequence_length)
    moments = (jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params))
    waited, while_writing, losses = [], 0, []
    first_batch = started
    for step in range(1, steps + 1):
        asked = time.monotonic()
        batch = next(loader, None)
        if batch is None:
            print("the stream has ended")
            break
        waited.append(time.monotonic() - asked)
        if step == 1:
            first_batch = time.monotonic()
        params, moments, loss = train_step(params, moments, jnp.float32(step), batch)
        losses.append(float(loss))  # waits for the step, so that waiting for data is told apart
        while_writing += process.poll() is None
        if step == 1 or step % 20 == 0:
            state = "is writing" if process.poll() is None else "has ended"
            print(f"step {step:4d}  loss {losses[-1]:.3f}  the pipeline {state}", flush=True)
    total = time.monotonic() - first_batch
    tokens = len(losses) * loader.rows.size * loader.sequence_length
    print(
        f"loss {losses[0]:.3f} -> {np.mean(losses[-10:]):.3f} in {len(losses)} steps, "
        f"{while_writing} of them while the pipeline was writing\n"
        f"the first batch came {first_batch - started:.1f} s after the pipeline's start\n"
        f"waiting for data since: {100 * sum(waited[1:]) / total:.2f} % of {total:.1f} s "
        f"({tokens / total:,.0f} tokens/s)"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Starts the pipeline, trains beside it, and stops it in good order."""
    parser = argparse.ArgumentParser(prog="python -m examples.train_while_streaming")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--sequence_length", type=int, default=128)
    parser.add_argument("--output", type=Path, help="dataset directory; a temporary one by default")
    parser.add_argument("pipeline", nargs="*", help="flags of pipelines.preprocess, behind --")
    flags = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        output = flags.output or Path(folder) / "stream"
        source = flags.pipeline
        if not source:
            sample = build_sample(Path(folder) / "sample")
            source = ["--dataset", str(sample.directory / "data"), *SAMPLE_FLAGS]
            source += ["--tokenizer", str(sample.tokenizer_directory)]
        command = [
            sys.executable,
            "-m",
            "shardstream.pipelines.preprocess",
            "--mode",
            "stream",
            *source,
        ]
        command += ["--sequence_length", str(flags.sequence_length), "--output", str(output)]
        started = time.monotonic()
        process = subprocess.Popen([*command, "--no-progress"])
        try:
            with open_stream(process, output, batch_size=flags.batch_size) as loader:
                manifest = find_manifest(open_directory(output))
                assert manifest is not None
                vocabulary = manifest.tokenizer["vocab_size"]
                train(loader, process, vocabulary, flags.steps, started)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)  # what it has read is committed first
            process.wait()
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
