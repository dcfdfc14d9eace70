"""Minibatches of data that share latents: stochastic variational inference.

A minibatch of B out of N observations stands for all of them: its terms are multiplied by N / B, and
what it says of the shared nodes is blended into what the earlier ones said.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vfe.beliefs import AbstractGaussian, DiagonalGaussian, Laplace
from vfe.beliefs.gaussian import precision_of
from vfe.conditioning import Conditioned, Layout
from vfe.free_energy import default_expectation
from vfe.learning.gradient import TotalDerivative
from vfe.learning.store import rows_of
from vfe.perception.descent import Descent
from vfe.perception.gradient_flow import GradientFlow
from vfe.perception.loop import AbstractSolver, run
from vfe.perception.objective import Objective, pose
from vfe.perception.perceive import Settings

FORGETTING = 0.7


def refuse_minibatches(conditioned: Conditioned, family: Any, solver: Any, gradient: Any) -> None:
    """Refuse what cannot be done with minibatches of data that share latents.

    **Raises:** `ValueError` that names the nodes, and what to use instead.
    """
    if conditioned.discrete:
        raise ValueError(
            f"learn: the nodes {list(conditioned.discrete)} are discrete and hidden beside shared "
            "latents, which minibatches do not support; leave batch_size out."
        )
    name = getattr(family, "__name__", type(family).__name__)
    if not (isinstance(family, type) and issubclass(family, AbstractGaussian)):
        raise ValueError(
            f"learn: {name} has no spread by which what one minibatch says of the shared nodes could be "
            "weighed against the others; use vfe.Laplace or a Gaussian belief, or leave batch_size out."
        )
    local = [s.name for s in conditioned.layout.slots if s.repeated]
    if local and family is not DiagonalGaussian:
        raise ValueError(
            f"learn: under {name} every observation's {local} would be coupled with every other's "
            "through the shared latents, so a minibatch cannot stand for the rest; use "
            "belief=vfe.DiagonalGaussian, or leave batch_size out."
        )
    if local and isinstance(solver, AbstractSolver) and not isinstance(solver, Descent | GradientFlow):
        raise ValueError(
            f"learn: {type(solver).__name__} moves the beliefs about {local} and about what is shared "
            "at once; minibatches want solver=vfe.Descent() or vfe.GradientFlow()."
        )
    if isinstance(gradient, TotalDerivative):
        raise ValueError(
            "learn: the belief about shared latents is no minimum for a single minibatch, which "
            "vfe.TotalDerivative assumes; use vfe.ExpectationMaximisation(), or leave batch_size out."
        )


def narrow(conditioned: Conditioned, index: Int[Array, " batch"]) -> Conditioned:
    """Some of the observations in the place of all: their terms are multiplied by N / B."""
    size, count = index.shape[0], conditioned.repeats
    assert count is not None  # only data sets that share latents come here
    if size == count:
        return conditioned
    return dataclasses.replace(
        conditioned,
        observed=rows_of(conditioned.observed, index),
        masks=rows_of(conditioned.masks, index),
        weight=conditioned.weight * (count / size),
        repeats=size,
    )


def narrowed(belief: Any, index: Int[Array, " batch"]) -> Any:
    """The belief about some of the observations and about what all share."""
    small = _narrow_layout(belief.layout, index.shape[0])
    if small == belief.layout:
        return belief
    where = _places(belief.layout, index)
    return type(belief)(small, *[a[where] for a in jax.tree.leaves(belief)])


def widened(store: dict[str, Any], index: Int[Array, " batch"], belief: Any) -> dict[str, Any]:
    """The store after a visit: the beliefs about the minibatch and what is shared, in their places."""
    old = store["belief"]
    if old.layout == belief.layout:
        return {"belief": belief, "visits": store["visits"] + 1}
    where = _places(old.layout, index)
    pairs = zip(jax.tree.leaves(old), jax.tree.leaves(belief), strict=True)
    leaves = [a.at[where].set(b) for a, b in pairs]
    return {"belief": type(old)(old.layout, *leaves), "visits": store["visits"] + 1}


def blended(before: Any, after: Any, visits: Array) -> Any:
    """What earlier visits and this one say of the shared nodes, together.

    η ← (1 − ρ) η + ρ η̂, η the natural parameters of the shared nodes' belief, η̂ those
    which the minibatch alone would give, and ρ = (1 + t)^(−0.7) after t visits: with conjugate nodes a
    natural-gradient step on F of the whole data set, with a gradient that is right on average.

    **Source:** Hoffman et al. 2013, Stochastic variational inference.
    """
    rate = (1.0 + visits) ** -FORGETTING
    if not isinstance(before, DiagonalGaussian):
        return _together(before, after, rate)
    shared = [jnp.full(s.stop - s.start, not s.repeated) for s in after.layout.slots]
    return _by_element(before, after, jnp.where(jnp.concatenate(shared), rate, 1.0))


def settled(
    conditioned: Conditioned, belief: Any, solver: Any, settings: Settings, key: PRNGKeyArray
) -> Any:
    """Beliefs about single observations, fitted once more with the blended belief about the rest held.

    Without this they would fit what the minibatch alone says of the shared nodes.
    """
    local = [s.name for s in conditioned.layout.slots if s.repeated]
    if not local:
        return belief
    expectation = settings.expectation or default_expectation(conditioned, belief)
    objective, vector = pose(conditioned, belief, expectation, key)
    flags = np.concatenate([np.full(s.stop - s.start, s.repeated) for s in conditioned.layout.slots])
    places = np.flatnonzero(np.tile(flags, vector.shape[0] // flags.size))

    def whole(v: Array) -> Any:
        return objective.unravel(vector.at[places].set(v))

    part = Objective(conditioned, expectation, key, whole)
    chosen = Descent() if solver is None else solver
    found, _ = run(part, chosen, vector[places], settings.max_steps, settings.rtol, settings.atol)
    found = jnp.where(jnp.all(jnp.isfinite(found)), found, vector[places])
    return jax.lax.stop_gradient(whole(found))


def _by_element(old: DiagonalGaussian, new: DiagonalGaussian, rate: Float[Array, " n"]) -> DiagonalGaussian:
    before, after = jnp.exp(-2 * old.log_scale), jnp.exp(-2 * new.log_scale)
    precision = (1 - rate) * before + rate * after
    location = ((1 - rate) * before * old.location + rate * after * new.location) / precision
    return DiagonalGaussian(old.layout, location, -0.5 * jnp.log(precision))


def _together(old: AbstractGaussian, new: AbstractGaussian, rate: Array) -> AbstractGaussian:
    before, after = precision_of(old), precision_of(new)
    precision = (1 - rate) * before + rate * after
    linear = (1 - rate) * before @ old.location + rate * after @ new.location
    blended = Laplace.from_precision(old.layout, jnp.linalg.solve(precision, linear), precision)
    if isinstance(old, Laplace):
        return blended
    return type(old).from_factor(old.layout, blended.location, blended.factor())


def _narrow_layout(layout: Layout, size: int) -> Layout:
    return Layout.of(
        [
            (s.name, (size, *s.shape[1:]) if s.repeated else s.shape, s.support, s.repeated)
            for s in layout.slots
        ]
    )


def _places(layout: Layout, index: Int[Array, " batch"]) -> Int[Array, " n"]:
    """Where in the coordinates of the whole data set those of a minibatch lie."""
    parts = [jnp.zeros(0, int)]
    for s in layout.slots:
        if not s.repeated:
            parts.append(jnp.arange(s.start, s.stop))
            continue
        width = (s.stop - s.start) // s.shape[0]
        parts.append((s.start + index[:, None] * width + jnp.arange(width)).reshape(-1))
    return jnp.concatenate(parts)
