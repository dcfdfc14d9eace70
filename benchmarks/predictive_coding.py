"""What equilibrium costs: perception and one parameter gradient beside one of backpropagation.

    python benchmarks/predictive_coding.py [--data mnist.npz] [--depth 4 16] [--width 256] [--batch 256]

The same network, batch and gradient of the parameters, in one process, in interleaved blocks; medians and
quartiles of the ratio. `left`: the norm of ∂E/∂z over all activities of the batch at the activities
returned, relative to that at the feed-forward pass. `--data`: arrays x_train, y_train of images; without
it, random inputs labelled by a fixed nonlinear teacher. `--trained`: backpropagation steps made before.
"""

import argparse
import dataclasses
import statistics
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from tasks import CLASSES, INPUTS, cross_entropy, data, load, train
from timing import interleaved, ratio

import vfe
from vfe.conditioning import Conditioned, condition
from vfe.networks import dense, supervised
from vfe.perception.together import relax


def activity_gradient(c: Conditioned, location: Any) -> Any:
    """‖∂E/∂z‖ over the whole batch."""
    gradients = c.over(lambda one, u: jax.grad(one.energy)(u), location)
    return jnp.sqrt(jnp.sum(gradients**2))


def perceive_and_differentiate(c: Conditioned, solver: Any, steps: int) -> Any:
    """∂E/∂parameters at the activities that `steps` steps of perception reach, and those activities."""
    belief, _ = relax(c, solver, jax.random.key(0), max_steps=steps, rtol=0.0, atol=0.0)
    location = jax.lax.stop_gradient(belief.location)
    learned, fixed = eqx.partition(c.model, eqx.is_inexact_array)

    def energy(learned: Any) -> Any:
        live = dataclasses.replace(c, model=eqx.combine(learned, fixed))
        return live.over(lambda one, u: one.energy(u), location).mean()

    return jax.grad(energy)(learned), location


def measure(
    depth: int, width: int, batch: int, trained: int, blocks: int, source: dict[str, np.ndarray] | None
) -> None:
    """One table: the gradient left, and the cost in backpropagation steps."""
    sizes = [INPUTS, *[width] * (depth - 1), CLASSES]
    layers = dense(sizes, key=jax.random.key(0), activation=jnp.tanh, gain=1.0, residual=depth > 20)
    layers = train(layers, trained, batch, source)
    seen = data(batch, 10_000, source)
    c, _ = condition(supervised(layers, inputs=INPUTS), seen)
    backprop = eqx.filter_jit(eqx.filter_grad(cross_entropy))
    functions: dict[str, Callable[[], Any]] = {
        "backpropagation": lambda: backprop(layers, seen["x"], seen["y"])
    }
    left = {}
    norm = eqx.filter_jit(activity_gradient)
    before = float(norm(c, c.over(lambda one: one.start())))
    passes = vfe.ErrorCoordinates(direct=0, iterations=3, forcing=1e-3)
    tried = [("Anderson", vfe.Anderson(), n) for n in (1, 2, 3, 4, 6, 8, 12)]
    tried += [("Gauss–Newton, 3 CG", passes, n) for n in (1, 2, 4)]
    tried += [("Gauss–Newton, exact", vfe.ErrorCoordinates(), n) for n in (1, 2, 4)]
    for title, solver, steps in tried:
        name = f"{title}, {steps} steps"
        run = eqx.filter_jit(lambda c, s=solver, n=steps: perceive_and_differentiate(c, s, n))
        functions[name] = lambda run=run: run(c)
        left[name] = float(norm(c, run(c)[1])) / before
    seconds = interleaved(functions, blocks)
    base = seconds["backpropagation"]
    print(
        f"\ndepth {depth}, width {width}, batch {batch}, after {trained} steps of training; "
        f"backpropagation {1e3 * statistics.median(base):.2f} ms"
    )
    print(f"{'':<30}{'left':>10}{'cost':>8}   quartiles")
    for name, value in left.items():
        low, middle, high = ratio(seconds[name], base)
        print(f"{name:<30}{value:>10.1e}{middle:>8.2f}   {low:.2f} – {high:.2f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--depth", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--trained", type=int, nargs="+", default=[0, 200])
    parser.add_argument("--blocks", type=int, default=25)
    parser.add_argument("--data", help="an .npz file with x_train (N, ...) and y_train (N,)")
    options = parser.parse_args()
    source = load(options.data)
    print(f"{jax.devices()[0].platform}, jax {jax.__version__}")
    for depth in options.depth:
        for trained in options.trained:
            measure(depth, options.width, options.batch, trained, options.blocks, source)


if __name__ == "__main__":
    main()
