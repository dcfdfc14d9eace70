"""Perception along the geodesic: steps in the natural parameters of a belief."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from vfe.beliefs import DiagonalGaussian, JointGaussian, Laplace, NodeGaussian
from vfe.perception.loop import AbstractSolver, Progress, descends
from vfe.perception.objective import Objective


class Hessian(eqx.Module):
    """⟨∂²E/∂z²⟩ itself: may be indefinite away from the optimum, where steps are halved."""

    def average(self, objective: Objective, belief: Any) -> Float[Array, "n n"]:
        """The mean curvature of E under the belief."""

        def energy(location: Array) -> Array:
            return objective.mean_energy(_moved(belief, location))

        return jax.hessian(energy)(belief.location)


class GaussNewton(eqx.Module):
    """⟨Jᵀ J⟩ of all whitened prediction errors: never indefinite, and cheaper.

    For Gaussian hidden nodes, and Gaussian, Bernoulli or categorical observed ones. The optimum is
    the same: only the way there, and the covariance's last approximation, differ.
    """

    def average(self, objective: Objective, belief: Any) -> Float[Array, "n n"]:
        """The mean Gauss–Newton curvature of E under the belief."""
        c = objective.conditioned

        def errors(u: Array) -> Array:
            above = c.errors(u)
            parts = [above[s.name].reshape(-1) for s in c.layout.slots]
            return jnp.concatenate([*parts, c.residuals(u)])

        def curvature(u: Array) -> Array:
            jacobian = jax.jacfwd(errors)(u)
            return jacobian.T @ jacobian

        found, _ = objective.expectation.average(curvature, belief.location, belief.factor(), objective.key)
        return found


class NaturalGradient(AbstractSolver):
    """η ← η − ρ ∇_m F, η natural and m mean parameters of a Gaussian belief.

    precision ← (1 − ρ) precision + ρ ⟨∂²E/∂z²⟩, mean ← mean − ρ precision⁻¹ ⟨∂E/∂z⟩ (with the new
    precision). A full joint Gaussian reaches the posterior of a linear-Gaussian model in one step
    with ρ = 1. A step that would raise F, or leave the precision indefinite, is halved.

    **Arguments:** `step_size`: ρ, in (0, 1]; `curvature`: `vfe.Hessian()` (default) or
    `vfe.GaussNewton()`, which takes ⟨Jᵀ J⟩ for ⟨∂²E/∂z²⟩; `tries`: how often a step may be halved.

    **Example:** `vfe.perceive(model, data, belief=vfe.JointGaussian, solver=vfe.NaturalGradient())`.

    **Source:** Amari 1998; Khan and Rue 2021 (Bayesian learning rule), equation 11.
    """

    step_size: float = eqx.field(static=True, default=1.0)
    curvature: Any = Hessian()
    tries: int = eqx.field(static=True, default=8)

    @property
    def monotone(self) -> bool:
        return True

    def check(self, objective: Objective, belief: Any) -> None:
        if not isinstance(belief, JointGaussian | NodeGaussian | DiagonalGaussian):
            raise ValueError(
                f"NaturalGradient moves Gaussian beliefs: got a {type(belief).__name__}; use "
                "vfe.JointGaussian, vfe.NodeGaussian or vfe.DiagonalGaussian."
            )
        if not 0 < self.step_size <= 1:
            raise ValueError(f"NaturalGradient: step_size must be in (0, 1]; got {self.step_size}.")

    def init(self, objective: Objective, vector: Float[Array, " m"]) -> Any:
        return jnp.asarray(self.step_size, vector.dtype)

    def step(self, objective: Objective, progress: Progress) -> tuple[Array, Any, Array]:
        belief = objective.belief(progress.vector)
        factor, layout = belief.factor(), belief.layout

        def energy(location: Array) -> Array:
            return objective.mean_energy(_moved(belief, location))

        slope = jax.grad(energy)(belief.location)
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
        identity = jnp.eye(layout.size)
        inverse = jax.scipy.linalg.solve_triangular(factor, identity, lower=True)
        old = inverse.T @ inverse

        def propose(rho: Array) -> Array:
            precision = (1 - rho) * old + rho * curvature
            new = Laplace.from_precision(layout, belief.location, precision)
            move = new.factor() @ (new.factor().T @ slope)
            moved = type(belief).from_factor(layout, belief.location - rho * move, new.factor())
            return ravel_pytree(moved)[0]

        evaluate = jax.value_and_grad(objective.value)

        def going(carry: Any) -> Array:
            _, _, tries, accepted = carry
            return ~accepted & (tries < self.tries)

        def body(carry: Any) -> Any:
            _, rho, tries, _ = carry
            vector = propose(rho)
            accepted = descends(progress, vector, *evaluate(vector))
            return vector, jnp.where(accepted, rho, 0.5 * rho), tries + 1, accepted

        vector, rho, _, accepted = jax.lax.while_loop(
            going, body, (progress.vector, progress.memory, jnp.zeros((), int), jnp.zeros((), bool))
        )
        vector = jnp.where(accepted, vector, progress.vector)
        still = jnp.all(vector == progress.vector)
        return vector, jnp.minimum(2 * rho, self.step_size), ~accepted | still


def _moved(belief: Any, location: Array) -> Any:
    return eqx.tree_at(lambda b: b.location, belief, location)
