"""Ten classes of 784 inputs, from a file or made up, and backpropagation on them."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax

INPUTS, CLASSES = 784, 10


def load(path: str | None) -> dict[str, np.ndarray] | None:
    """Images and labels, x_train (N, ...) of 0 … 255 and y_train (N,), of an .npz file."""
    if path is None:
        return None
    with np.load(path) as file:
        x = file["x_train"].reshape(len(file["x_train"]), -1)
        return {"x": (x / 255.0).astype(np.float32), "y": file["y_train"].astype(int)}


def data(batch: int, seed: int, source: dict[str, np.ndarray] | None) -> dict[str, np.ndarray]:
    """Inputs with labels: of a file, or random ones that a network can learn."""
    rng = np.random.default_rng(seed)
    if source is not None:
        pick = rng.integers(0, len(source["y"]), batch)
        return {n: a[pick] for n, a in source.items()}
    x = rng.normal(size=(batch, INPUTS)).astype(np.float32)
    teacher = np.random.default_rng(0).normal(size=(INPUTS, CLASSES))
    return {"x": x, "y": (np.tanh(x) @ teacher).argmax(-1)}


def cross_entropy(layers: list[Any], x: Any, y: Any) -> Any:
    """The loss of backpropagation: that of the feed-forward pass."""

    def one(x: Any, y: Any) -> Any:
        for layer in layers:
            x = layer(x)
        return -jax.nn.log_softmax(x)[y]

    return jax.vmap(one)(x, y).mean()


def backpropagation(optimiser: optax.GradientTransformation) -> Any:
    """One compiled step: (layers, memory, x, y) ↦ layers and memory after it."""

    @eqx.filter_jit
    def step(layers: Any, memory: Any, x: Any, y: Any) -> Any:
        gradient = eqx.filter_grad(cross_entropy)(layers, x, y)
        update, memory = optimiser.update(gradient, memory)
        return eqx.apply_updates(layers, update), memory

    return step


def train(layers: list[Any], steps: int, batch: int, source: dict[str, np.ndarray] | None) -> list[Any]:
    """Some steps of Adam by backpropagation."""
    optimiser = optax.adam(1e-3)
    memory = optimiser.init(eqx.filter(layers, eqx.is_inexact_array))
    step = backpropagation(optimiser)
    for i in range(steps):
        seen = data(batch, 1 + i, source)
        layers, memory = step(layers, memory, seen["x"], seen["y"])
    return layers
