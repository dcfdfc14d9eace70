"""What one training step costs in other libraries of predictive coding, beside backpropagation and vfe.

    python benchmarks/peers.py [--data mnist.npz] [--epochs 1] [--steps 20] [--batch 128] [--only WORD]

The same network (784-256-256-10, tanh), weights to begin with, Adam (1e-3) and minibatches everywhere; one
process, interleaved blocks; a markdown table with the median and the quartiles of the ratio to
backpropagation (Equinox and optax), and with `--data` the test accuracy after `--epochs`. Libraries take
`--steps` gradient steps of length `--rate` on activities that start at the feed-forward pass, as their own
examples for MNIST do; each step is one compiled call (see peer_libraries.py). Only what is installed is
run, vfe included, and the versions are printed: a library that needs another jax runs in an environment of
its own, with backpropagation measured anew there. (Tried: fabricpc and ngclearn beside vfe; pcx alone, as
it asks for jax below 0.5.)
"""

import argparse
import importlib.metadata
import importlib.util
import platform
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from peer_libraries import FOUND_IN, Parameters, Task, libraries
from timing import interleaved, ratio

SIZES = (784, 256, 256, 10)


def initial_parameters(seed: int) -> Parameters:
    """Weights of variance 1 / inputs, and no biases."""
    rng = np.random.default_rng(seed)
    return [
        ((rng.normal(size=(i, o)) / np.sqrt(i)).astype(np.float32), np.zeros(o, np.float32))
        for i, o in pairwise(SIZES)
    ]


def load(path: str | None, batch: int) -> dict[str, Any]:
    """Images of a file, or random inputs labelled by a teacher, enough for some minibatches."""
    if path is not None:
        with np.load(path) as file:
            x = {
                n: (file[n].reshape(-1, SIZES[0]) / 255.0).astype(np.float32) for n in ("x_train", "x_test")
            }
            return x | {n: file[n].astype(int) for n in ("y_train", "y_test")}
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20 * batch, SIZES[0])).astype(np.float32)
    return {"x_train": x, "y_train": (np.tanh(x) @ rng.normal(size=(SIZES[0], SIZES[-1]))).argmax(-1)}


def accuracy(parameters: Parameters, x: np.ndarray, y: np.ndarray) -> float:
    """Of the feed-forward pass, in percent."""
    for w, b in parameters[:-1]:
        x = np.tanh(x @ np.asarray(w) + np.asarray(b))
    w, b = parameters[-1]
    return 100 * float(((x @ np.asarray(w) + np.asarray(b)).argmax(-1) == y).mean())


def trained(network: Any, data: dict[str, Any], epochs: int, batch: int) -> float:
    """Test accuracy after some epochs of the same minibatches."""
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(len(data["y_train"]))
        for rows in order[: len(order) // batch * batch].reshape(-1, batch):
            jax.block_until_ready(network.step(jnp.asarray(rows)))
    return accuracy(network.parameters(), data["x_test"], data["y_test"])


def clock(network: Any, count: int, batch: int) -> Callable[[], Any]:
    """One training step on the next minibatch at every call."""
    order = np.random.default_rng(0).permutation(count)
    every = [jnp.asarray(rows) for rows in order[: count // batch * batch].reshape(-1, batch)[:20]]
    at = iter(range(10**9))
    return lambda: network.step(every[next(at) % len(every)])


def version(package: str) -> str:
    """The version installed, if it is (vfe may be on the path alone)."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "from its folder"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", help="an .npz file: x_train, y_train, x_test, y_test; uint8 images")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20, help="on activities")
    parser.add_argument("--rate", type=float, default=0.05, help="the length of a step on activities")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[""], help="ways with one of these words")
    options = parser.parse_args()
    data = load(options.data, options.batch)
    task = Task(
        SIZES,
        jnp.asarray(data["x_train"]),
        jnp.asarray(data["y_train"]),
        options.batch,
        options.steps,
        options.rate,
    )
    begin = initial_parameters(options.seed)
    ways = libraries()
    base = "backpropagation"
    chosen = [n for n in ways if n == base or any(word in n for word in options.only)]
    functions = {n: clock(ways[n](task, begin), len(task.y), options.batch) for n in chosen}
    seconds = interleaved(functions, options.blocks)
    right = dict.fromkeys(chosen, "")
    if options.data is not None:
        for name in chosen:
            began = time.perf_counter()
            right[name] = f"{trained(ways[name](task, begin), data, options.epochs, options.batch):.2f} %"
            print(f"{name}: {right[name]}, {time.perf_counter() - began:.0f} s", flush=True)
    found = [p for p in ("jax", "equinox", "optax", *FOUND_IN) if importlib.util.find_spec(p)]
    versions = ", ".join(f"{p} {version(p)}" for p in found)
    print(
        f"\nPython {platform.python_version()}, {versions}; {jax.devices()[0].platform}; batch "
        f"{options.batch}, {options.steps} steps of {options.rate} on activities; backpropagation "
        f"{1e3 * statistics.median(seconds[base]):.2f} ms\n"
    )
    print(f"| way | cost | quartiles | test accuracy, {options.epochs} epochs |\n| --- | --- | --- | --- |")
    for name in chosen:
        low, middle, high = ratio(seconds[name], seconds[base])
        print(f"| {name} | {middle:.2f} | {low:.2f} – {high:.2f} | {right[name]} |")


if __name__ == "__main__":
    main()
