"""Perception along the geodesic: steps in the natural parameters of a belief."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from vfe.beliefs import DiagonalGaussian, JointGaussian, Laplace, NodeGaussian
from vfe.beliefs.gaussian import precision_of
from vfe.conditioning import Conditioned
from vfe.perception.loop import AbstractBeliefSolver, Progress, attempt
from vfe.perception.objective import AbstractObjective


class Hessian(eqx.Module):
    """⟨∂²E/∂z²⟩ itself: may be indefinite away from the optimum, where steps are halved."""

    def average(self, objective: AbstractObjective, belief: Any) -> Float[Array, "n n"]:
        """The mean curvature of E under the belief."""

        def energy(location: Array) -> Array:
            return objective.mean_energy(_moved(belief, location))

        return jax.hessian(energy)(belief.location)


class GaussNewton(eqx.Module):
    """⟨Jᵀ J⟩ of all whitened prediction errors: never indefinite, and cheaper.

    For Gaussian hidden nodes, and Gaussian, Bernoulli or categorical observed ones. The optimum is
    the same: only the way there, and the covariance's last approximation, differ.

    **Arguments:** `samples`: how many draws the average takes where it is Monte Carlo (an even
    number; by default as many as F takes): the curvature varies less than E, and costs more.
    """

    samples: int | None = eqx.field(static=True, default=None)

    def average(self, objective: AbstractObjective, belief: Any) -> Float[Array, "n n"]:
        """The mean Gauss–Newton curvature of E under the belief."""
        c = objective.conditioned

        def errors(u: Array) -> Array:
            above = c.errors(u)
            parts = [above[s.name].reshape(-1) for s in c.layout.slots]
            return jnp.concatenate([*parts, jnp.zeros(0)]) * jnp.sqrt(c.multiplicity())

        def curvature(u: Array) -> Array:
            parts = [jax.jacfwd(errors)(u), *c.sensitivity(lambda u: u, u).values()]
            return sum(part.T @ part for part in parts)  # pyright: ignore[reportReturnType]

        found, _ = objective.expectation.average(curvature, belief, objective.key)
        return found


class NaturalGradient(AbstractBeliefSolver):
    """η ← η − ρ ∇_m F, η natural and m mean parameters of a Gaussian belief.

    precision ← (1 − ρ) precision + ρ ⟨∂²E/∂z²⟩, mean ← mean − ρ precision⁻¹ ⟨∂E/∂z⟩ (with the new
    precision). A full joint Gaussian reaches the posterior of a linear-Gaussian model in one step
    with ρ = 1. A step that would raise F, or leave the precision indefinite, is halved.

    **Arguments:** `step_size`: ρ, in (0, 1]; `curvature`: `vfe.Hessian()` (default) or
    `vfe.GaussNewton()`, which takes ⟨Jᵀ J⟩ for ⟨∂²E/∂z²⟩; `tries`: how many steps in a row may be
    refused, each halving ρ.

    **Example:** `vfe.perceive(model, data, belief=vfe.JointGaussian, solver=vfe.NaturalGradient())`.

    **Source:** Amari 1998; Khan and Rue 2021 (Bayesian learning rule), equation 11.
    """

    step_size: float = eqx.field(static=True, default=1.0)
    curvature: Any = Hessian()
    tries: int = eqx.field(static=True, default=8)

    @property
    def monotone(self) -> bool:
        return True

    def check(self, conditioned: Conditioned, belief: Any) -> None:
        if not isinstance(belief, JointGaussian | NodeGaussian | DiagonalGaussian):
            raise ValueError(
                f"NaturalGradient moves Gaussian beliefs: got a {type(belief).__name__}; use "
                "vfe.JointGaussian, vfe.NodeGaussian or vfe.DiagonalGaussian."
            )
        if not 0 < self.step_size <= 1:
            raise ValueError(f"NaturalGradient: step_size must be in (0, 1]; got {self.step_size}.")

    def init(self, objective: AbstractObjective, vector: Float[Array, " m"]) -> Any:
        return jnp.asarray(self.step_size, vector.dtype), jnp.zeros((), int)

    def step(self, objective: AbstractObjective, progress: Progress) -> Progress:
        belief = objective.belief(progress.vector)
        layout = belief.layout

        # The entropy does not depend on the location, so this part of ∂F/∂λ is ⟨∂E/∂z⟩.
        slope = objective.belief(progress.gradient).location
        curvature = self.curvature.average(objective, belief)
        block = np.zeros(layout.size, int)
        for number, s in enumerate(layout.slots):
            block[s.where] = number
        if isinstance(belief, DiagonalGaussian):
            block = np.arange(layout.size)
        if isinstance(belief, JointGaussian):
            block = np.zeros(layout.size, int)
        same = block[:, None] == block[None, :]
        curvature = jnp.where(same, 0.5 * (curvature + curvature.T), 0.0)
        old = precision_of(belief)

        rho, failures = progress.memory
        precision = (1 - rho) * old + rho * curvature
        new = Laplace.from_precision(layout, belief.location, precision)
        factor = new.factor()
        change = factor @ (factor.T @ slope)
        moved = type(belief).from_factor(layout, belief.location - rho * change, factor)
        vector, _ = ravel_pytree(moved)
        kept, accepted = attempt(objective, progress, vector)
        rho = jnp.where(accepted, jnp.minimum(2 * rho, self.step_size), 0.5 * rho)
        failures = jnp.where(accepted, 0, failures + 1)
        stalled = (failures >= self.tries) | jnp.all(vector == progress.vector)
        return Progress(kept.vector, kept.value, kept.gradient, stalled, (rho, failures))


def _moved(belief: Any, location: Array) -> Any:
    return eqx.tree_at(lambda b: b.location, belief, location)
