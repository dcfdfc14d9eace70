"""What every scheme of learning costs and reaches, beside backpropagation.

    python benchmarks/schemes.py [--data mnist.npz] [--depth 4] [--width 256] [--batch 256] [--only WORD]

One training step each, the optimiser's included, from the same weights on the same batch, in one process
and in interleaved blocks; a markdown table with the median and the quartiles of the ratio to
backpropagation (Equinox and optax, the same layers), and what `vfe.networks.relaxation` says of the scheme
on a sample: the relaxed share, the gradient left (median), and over the layers the smallest cosine of the
weights' gradient with the equilibrium's and with backpropagation's. Every scheme stops as `vfe.learn` does
by default, after at most as many steps as its name says. Plain gradient steps on the activities are as long
as the largest curvature at the equilibrium allows, 1 / λ. `--trained`: backpropagation steps made before.
Other libraries: peers.py.
"""

import argparse
import dataclasses
import statistics
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from tasks import CLASSES, INPUTS, backpropagation, data, load, train
from timing import interleaved, ratio

import vfe
from vfe.conditioning import condition
from vfe.learning.plan import Plan
from vfe.learning.step import steps
from vfe.learning.trainable import split, trainable
from vfe.networks import dense, relaxation, supervised
from vfe.perception.perceive import Settings

RTOL, ATOL = 1e-3, 1e-4  # of `vfe.learn`


@dataclasses.dataclass(frozen=True)
class Scheme:
    """How a minibatch is perceived, and which gradient is taken then."""

    solver: Any
    perception_steps: int
    belief: Any = vfe.Point
    gradient: Any = dataclasses.field(default_factory=vfe.ExpectationMaximisation)


def schemes(rate: float) -> dict[str, Scheme]:
    """Every scheme by name; `rate`: the length of plain gradient steps on activities."""
    found = {f"Anderson, {n} steps": Scheme(vfe.Anderson(), n) for n in (2, 4, 8)}
    found |= {f"ErrorCoordinates, {n} steps": Scheme(vfe.ErrorCoordinates(), n) for n in (1, 3)}
    found |= {
        f"gradient steps on activities, {n}": Scheme(vfe.Descent(optax.sgd(rate)), n) for n in (5, 20, 100)
    }
    found["L-BFGS on activities, 10 steps"] = Scheme(vfe.Descent(), 10)
    found["ODE flow (Tsit5), 4 intervals"] = Scheme(vfe.GradientFlow(diffrax.Tsit5()), 4)
    whole = vfe.GaussNewtonLaplace
    found["whole F, Anderson, 4 steps"] = Scheme(vfe.Anderson(), 4, whole)
    found["whole F, one random direction, Anderson, 4 steps"] = Scheme(
        vfe.Anderson(), 4, whole, vfe.StochasticTrace()
    )
    return found


def training_step(
    scheme: Scheme, model: vfe.Model, seen: dict[str, Any], optimiser: optax.GradientTransformation
) -> Callable[[], Any]:
    """The step that `vfe.learn(keep_beliefs=False)` makes, on the whole of `seen` as one minibatch."""
    conditioned, _ = condition(model, seen)
    count = len(seen["y"])
    settings = Settings(scheme.perception_steps, RTOL, ATOL, None)
    plan = Plan(
        scheme.belief, scheme.solver, settings, scheme.gradient, None, optimiser, 1, None, count, False
    )
    learned, fixed = split(model, trainable(model), scheme.belief)
    state = {"learned": learned, "optimiser": optimiser.init(learned), "store": None}
    index, zero, off = jnp.arange(count)[None], jnp.asarray(0), jnp.asarray(False)
    return lambda: steps(plan, state, fixed, conditioned, None, index, jax.random.key(0), zero, off)


def smallest(cosines: list[float]) -> str:
    """The smallest cosine over the layers; a dash where a layer has no gradient to compare."""
    return "—" if np.isnan(cosines).any() else f"{min(cosines):.3f}"


def measure(options: argparse.Namespace, depth: int, trained: int, source: Any) -> None:
    """One table: what the schemes reach, and their cost in backpropagation steps."""
    sizes = [INPUTS, *[options.width] * (depth - 1), CLASSES]
    layers = dense(sizes, key=jax.random.key(0), activation=jnp.tanh, gain=1.0, residual=depth > 20)
    layers = train(layers, trained, options.batch, source)
    model = supervised(layers, inputs=INPUTS)
    seen = data(options.batch, 10_000, source)
    optimiser = optax.adam(1e-3)
    memory = optimiser.init(eqx.filter(layers, eqx.is_inexact_array))
    step = backpropagation(optimiser)
    arrays = {n: jnp.asarray(a) for n, a in seen.items()}
    functions: dict[str, Callable[[], Any]] = {
        "backpropagation": lambda: step(layers, memory, arrays["x"], arrays["y"])
    }

    def report(scheme: Scheme) -> Any:
        return relaxation(
            model,
            seen,
            belief=scheme.belief,
            solver=scheme.solver,
            perception_steps=scheme.perception_steps,
            rtol=RTOL,
            atol=ATOL,
            observations=options.observations,
        )

    still = report(Scheme(vfe.Anderson(), 0))
    every = schemes(1.0 / float(still.activities.largest.max()))
    chosen = {n: s for n, s in every.items() if any(word in n for word in options.only)}
    if not chosen:
        raise SystemExit(f"--only {' '.join(options.only)}: no such scheme; there are {', '.join(every)}.")
    reports = {name: report(scheme) for name, scheme in chosen.items()}
    for name, scheme in chosen.items():
        functions[name] = training_step(scheme, model, seen, optimiser)
    seconds = interleaved(functions, options.blocks)
    base = seconds["backpropagation"]
    conditions = [float(np.median(s.condition)) for s in (still.errors, still.activities)]
    print(
        f"\ndepth {depth}, width {options.width}, batch {options.batch}, after {trained} training steps; "
        f"backpropagation {1e3 * statistics.median(base):.2f} ms; condition {conditions[0]:.3g} in errors, "
        f"{conditions[1]:.3g} in activities\n"
    )
    print("| scheme | cost | quartiles | relaxed share | gradient left | cos equilibrium | cos backprop |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, found in reports.items():
        low, middle, high = ratio(seconds[name], base)
        numbers = found.layers().values()
        cosines = (
            smallest([layer[f"reached_{place}"] for layer in numbers])
            for place in ("equilibrium", "backpropagation")
        )
        print(
            f"| {name} | {middle:.2f} | {low:.2f} – {high:.2f} | {float(found.mean_share):.3f} "
            f"| {float(np.nanmedian(found.residual)):.1e} | {' | '.join(cosines)} |"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--depth", type=int, nargs="+", default=[4])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--trained", type=int, nargs="+", default=[0, 200])
    parser.add_argument("--blocks", type=int, default=15)
    parser.add_argument("--observations", type=int, default=64, help="the sample of the relaxed share")
    parser.add_argument(
        "--only", nargs="+", default=[""], help="schemes with one of these words in their name"
    )
    parser.add_argument("--data", help="an .npz file with x_train (N, ...) and y_train (N,)")
    options = parser.parse_args()
    source = load(options.data)
    print(f"{jax.devices()[0].platform}, jax {jax.__version__}")
    for depth in options.depth:
        for trained in options.trained:
            measure(options, depth, trained, source)


if __name__ == "__main__":
    main()
