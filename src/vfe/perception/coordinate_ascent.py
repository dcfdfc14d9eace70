"""Closed-form updates of one factor at a time, for conjugate neighbours: F never rises."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from vfe.averages import expected_energies
from vfe.beliefs import Categorical, DiagonalGaussian, Laplace, MeanField, NodeGaussian
from vfe.conditioning import Conditioned
from vfe.declared import why_not_quadratic
from vfe.expectation import Taylor
from vfe.perception.loop import AbstractBeliefSolver, Progress, move
from vfe.perception.objective import AbstractObjective


class CoordinateAscent(AbstractBeliefSolver):
    """q_i ∝ exp(−⟨E⟩_{q without i}), one factor after the other.

    A discrete factor: logits_k = −⟨E⟩ with the node held at k. A Gaussian factor of an energy declared
    quadratic: precision ⟨∂²E/∂z_i²⟩, mean where ⟨∂E/∂z_i⟩ = 0. Each update minimises F exactly over
    its factor, so F never rises.

    For `vfe.Categorical`, `vfe.NodeGaussian`, `vfe.DiagonalGaussian`, and `vfe.MeanField` of them.

    **Example:** `vfe.perceive(model, data, belief=vfe.NodeGaussian, solver=vfe.CoordinateAscent())`.

    **Source:** Bishop 2006, section 10.1.
    """

    @property
    def monotone(self) -> bool:
        return True

    def check(self, conditioned: Conditioned, belief: Any) -> None:
        continuous = belief.continuous if isinstance(belief, MeanField) else belief
        if not isinstance(continuous, Categorical | DiagonalGaussian | NodeGaussian):
            raise ValueError(
                f"CoordinateAscent updates factors: got a {type(belief).__name__}; use vfe.Categorical, "
                "vfe.NodeGaussian, vfe.DiagonalGaussian, or vfe.MeanField."
            )
        reason = why_not_quadratic(conditioned)
        if reason is not None:
            raise ValueError(
                f"CoordinateAscent: no closed-form update, because {reason}; use solver=vfe.Descent()."
            )

    def init(self, objective: AbstractObjective, vector: Float[Array, " m"]) -> Any:
        return jnp.zeros(())

    def step(self, objective: AbstractObjective, progress: Progress) -> Progress:
        belief = objective.belief(progress.vector)
        if isinstance(belief, MeanField):
            discrete = _discrete(objective, belief.discrete, belief.continuous)
            belief = MeanField(_continuous(objective, belief.continuous, discrete), discrete)
        elif isinstance(belief, Categorical):
            belief = _discrete(objective, belief, None)
        else:
            belief = _continuous(objective, belief, None)
        vector, _ = ravel_pytree(belief)
        still = jnp.all(vector == progress.vector)
        return move(objective, progress, vector, progress.memory, still)


def _continuous(objective: AbstractObjective, belief: Any, discrete: Categorical | None) -> Any:
    """One sweep of exact updates over the nodes (or elements) of a Gaussian belief."""
    c = objective.conditioned
    probabilities = None if discrete is None else discrete.probabilities()

    def energy(u: Array) -> Array:
        return c.energies(u, probabilities=probabilities).total(c.weight, c.shared)

    layout = c.layout
    curvature = jax.hessian(energy)(belief.location)
    slope = jax.grad(energy)(belief.location) - curvature @ belief.location
    location = belief.location
    if isinstance(belief, DiagonalGaussian):
        diagonal = jnp.diagonal(curvature)

        def sweep(j: Array, m: Array) -> Array:
            return m.at[j].add(-(curvature[j] @ m + slope[j]) / diagonal[j])

        location = jax.lax.fori_loop(0, layout.size, sweep, location)
        return DiagonalGaussian(layout, location, -0.5 * jnp.log(diagonal))
    block = np.zeros(layout.size, int)
    for number, s in enumerate(layout.slots):
        block[s.where] = number
        rows = curvature[s.where]
        move = jnp.linalg.solve(rows[:, s.where], rows @ location + slope[s.where])
        location = location.at[s.where].add(-move)
    kept = jnp.where(block[:, None] == block[None, :], curvature, 0.0)
    factor = Laplace.from_precision(layout, location, kept).factor()
    return NodeGaussian.from_factor(layout, location, factor)


def _discrete(objective: AbstractObjective, belief: Categorical, continuous: Any) -> Categorical:
    """One sweep of exact updates over the discrete nodes."""
    c = objective.conditioned
    for name in belief.names:
        logits = belief.logits[name]
        states = logits.shape[-1]

        def cost(
            state: Array,
            name: str = name,
            belief: Categorical = belief,
            like: Array = logits,
            states: int = states,
        ) -> Array:
            held = jnp.where(jnp.arange(states) == state, 0.0, -jnp.inf)
            trial = Categorical({**belief.logits, name: jnp.broadcast_to(held, like.shape)}, belief.order)
            whole = trial if continuous is None else MeanField(continuous, trial)
            energies = expected_energies(c, whole, Taylor(), objective.key)
            if like.ndim == 1:
                return energies.total(c.weight, c.shared)
            local = {**energies.observed, **{f"{n} ": e for n, e in energies.hidden.items()}}
            return sum((e for n, e in local.items() if n.strip() not in c.shared), jnp.zeros(()))

        costs = jax.vmap(cost, out_axes=-1)(jnp.arange(states))
        new = jax.nn.log_softmax(-costs, -1)
        belief = Categorical({**belief.logits, name: new}, belief.order)
    return belief
