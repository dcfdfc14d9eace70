"""Learning without collapse: test accuracy, epoch by epoch, of ways to learn one network.

    python benchmarks/supervised_on_images.py --data mnist.npz [--epochs 5] [--batch 128]
        [--layer Dense] [--sizes 256 256] [--depth 64 --residual] [--scale 0.04]
        [--ways ...] [--seed 0]

`--data`: an .npz file of images x_train, x_test (uint8) and labels y_train, y_test. Every way starts from
the same weights with Adam (1e-3) and sees the same number of images; time is the median epoch, without the
first of each way, which compiles. `cost`: in epochs of backpropagation.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax

import vfe
from vfe.networks import Activated, Dense, dense, predict, supervised

CLASSES = 10
STEPS_PER_CALL = 32
FRESH = {"solver": vfe.Anderson(), "keep_beliefs": False, "rtol": 1e-2}
WHOLE = {**FRESH, "belief": vfe.GaussNewtonLaplace}
WAYS: dict[str, tuple[Any, dict[str, Any]]] = {
    "backpropagation": (None, {}),
    "energy, 2 steps": (None, {**FRESH, "belief": vfe.Point, "perception_steps": 2}),
    "energy, 4 steps": (None, {**FRESH, "belief": vfe.Point, "perception_steps": 4}),
    "energy, unit scale, 4 steps": (1.0, {**FRESH, "belief": vfe.Point, "perception_steps": 4}),
    "energy, unit scale, to 1e-3": (
        1.0,
        {**FRESH, "belief": vfe.Point, "perception_steps": 60, "rtol": 1e-3},
    ),
    "whole F, 1 step, stochastic trace": (
        None,
        {**WHOLE, "perception_steps": 1, "gradient": vfe.StochasticTrace()},
    ),
    "whole F, unit scale, 4 steps": (1.0, {**WHOLE, "perception_steps": 4}),
    "whole F, unit scale, 1 step, stochastic trace": (
        1.0,
        {**WHOLE, "perception_steps": 1, "gradient": vfe.StochasticTrace()},
    ),
    "whole F, learned scales, 1 step, stochastic trace": (
        vfe.learnable(1.0),
        {**WHOLE, "perception_steps": 1, "gradient": vfe.StochasticTrace()},
    ),
}


class Images:
    """Images as vectors between 0 and 1, with labels."""

    def __init__(self, path: str, train: int | None) -> None:
        with np.load(path) as file:
            parts = {n: file[n] for n in ("x_train", "y_train", "x_test", "y_test")}
        self.x = (parts["x_train"].reshape(len(parts["x_train"]), -1) / 255.0).astype(np.float32)[:train]
        self.y = parts["y_train"].astype(int)[:train]
        self.x_test = (parts["x_test"].reshape(len(parts["x_test"]), -1) / 255.0).astype(np.float32)
        self.y_test = parts["y_test"].astype(int)


def backpropagation(
    layers: list[Any], images: Images, epochs: int, batch: int, report: Callable[[list[Any]], None]
) -> None:
    """Adam on the cross-entropy of the feed-forward pass, several steps per compiled call."""
    optimiser = optax.adam(1e-3)
    memory = optimiser.init(eqx.filter(layers, eqx.is_inexact_array))

    def loss(layers: list[Any], x: Any, y: Any) -> Any:
        def one(x: Any, y: Any) -> Any:
            for layer in layers:
                x = layer(x)
            return -jax.nn.log_softmax(x)[y]

        return jax.vmap(one)(x, y).mean()

    @eqx.filter_jit
    def several(state: Any, x: Any, y: Any) -> Any:
        dynamic, static = eqx.partition(state, eqx.is_array)

        def body(dynamic: Any, seen: Any) -> tuple[Any, None]:
            layers, memory = eqx.combine(dynamic, static)
            update, memory = optimiser.update(eqx.filter_grad(loss)(layers, *seen), memory)
            return eqx.filter((eqx.apply_updates(layers, update), memory), eqx.is_array), None

        return eqx.combine(jax.lax.scan(body, dynamic, (x, y))[0], static)

    state: Any = (layers, memory)
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(len(images.x))
        whole = len(order) // batch
        groups = order[: whole * batch].reshape(whole, batch)
        for start in range(0, whole, STEPS_PER_CALL):
            index = groups[start : start + STEPS_PER_CALL]
            state = several(state, images.x[index], images.y[index])
        jax.block_until_ready(jax.tree.leaves(eqx.filter(state, eqx.is_array)))
        report(state[0])


def run(name: str, images: Images, options: argparse.Namespace, batch: int) -> tuple[list[float], float]:
    """Test accuracy after every epoch, and the median seconds of an epoch."""
    scale, settings = WAYS[name]
    scale = scale if options.scale is None else options.scale
    sizes = [images.x.shape[1], *options.sizes, CLASSES]
    kind = {"Dense": Dense, "Activated": Activated}[options.layer]
    if options.depth:
        sizes[1:-1] = options.sizes[:1] * (options.depth - 1)
    layers = dense(sizes, key=jax.random.key(options.seed), layer=kind, residual=options.residual)
    accuracy: list[float] = []
    seconds: list[float] = []
    began = [time.perf_counter()]

    def note(model: vfe.Model) -> None:
        seconds.append(time.perf_counter() - began[0])
        guess = np.asarray(predict(model, {"x": images.x_test}).argmax(-1))
        accuracy.append(100 * float((guess == images.y_test).mean()))
        print(f"  {name}: epoch {len(accuracy)}, {accuracy[-1]:.2f} %, {seconds[-1]:.1f} s", flush=True)
        began[0] = time.perf_counter()

    if name == "backpropagation":
        backpropagation(
            layers,
            images,
            options.epochs,
            batch,
            lambda layers: note(supervised(layers, inputs=sizes[0])),
        )
    else:
        vfe.learn(
            supervised(layers, inputs=sizes[0], scale=scale),
            {"x": images.x, "y": images.y},
            epochs=options.epochs,
            batch_size=batch,
            optimiser=optax.adam(1e-3),
            callback=lambda epoch, numbers, model: note(model),
            key=jax.random.key(options.seed + 1),
            **settings,
        )
    return accuracy, statistics.median(seconds[1:] or seconds)


def main() -> None:
    """Learn in every way, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, nargs="+", default=[128])
    parser.add_argument("--layer", choices=["Dense", "Activated"], default="Dense")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 256])
    parser.add_argument("--depth", type=int, help="so many layers, levels of the first of the sizes")
    parser.add_argument("--residual", action="store_true", help="z + f(z) between levels of equal size")
    parser.add_argument("--scale", type=float, help="of the hidden levels, instead of each way's own")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), metavar="WAY")
    parser.add_argument("--train", type=int, help="learn from so many images only")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    images = Images(options.data, options.train)
    print(f"{jax.devices()[0].platform}, jax {jax.__version__}")
    for batch in options.batch:
        found = {name: run(name, images, options, batch) for name in options.ways}
        base = found.get("backpropagation", ([], float("nan")))[1]
        print(f"\n| {options.layer}, batch {batch} | last | best | largest drop | s / epoch | cost |")
        print("| --- | --- | --- | --- | --- | --- |")
        for name, (accuracy, seconds) in found.items():
            drop = float(np.max(np.maximum.accumulate(accuracy) - accuracy))
            print(
                f"| {name} | {accuracy[-1]:.2f} % | {max(accuracy):.2f} % | {drop:.2f} | {seconds:.2f} | "
                f"{seconds / base:.1f} |"
            )


if __name__ == "__main__":
    main()
