"""Gauss–Newton on the prediction errors: perception at hardly any dependence on depth."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vfe.perception.loop import AbstractErrorSolver, Progress, attempt
from vfe.perception.objective import AbstractObjective


class ErrorCoordinates(AbstractErrorSolver):
    """Damped Gauss–Newton in standardised errors e, z_i = g_i(z_{i+1}) + s_i ∘ e_i.

    e ← e − (I + Jᵀ J + δ I)⁻¹ ∂E/∂e, J how the observed nodes' predictions move, in units of their noise
    (the root of their Fisher information). The damping δ grows until a step lowers E, so E never rises.
    Gaussian hidden nodes; Gaussian, Bernoulli or categorical observed ones; a Point or Laplace belief.

    **Arguments:** `tries`: how many steps in a row may be refused, each raising δ tenfold.

    **Example:** `vfe.perceive(model, {"x": x}, solver=vfe.ErrorCoordinates())`.

    **Source:** Papaspiliopoulos et al. 2007 (the non-centred form); Nocedal and Wright 2006, chapter 10.
    """

    tries: int = eqx.field(static=True, default=12)

    @property
    def monotone(self) -> bool:
        return True

    def init(self, objective: AbstractObjective, vector: Float[Array, " m"]) -> Any:
        return jnp.zeros((), vector.dtype), jnp.zeros((), int)

    def step(self, objective: AbstractObjective, progress: Progress) -> Progress:
        c, e = objective.conditioned, progress.vector
        # Where a term counts several times (a minibatch for the whole data), its error counts as longer.
        stretch = jnp.sqrt(c.multiplicity())
        gradient = progress.gradient / stretch
        parts = c.sensitivity(lambda e: c.push(c.layout.unpack(e)), e)
        jacobian = jnp.concatenate([*parts.values(), jnp.zeros((0, e.shape[0]))]) / stretch
        rows, size = jacobian.shape
        if rows < size:
            small, spread = jacobian @ jacobian.T, jacobian
        else:
            small, spread = jacobian.T @ jacobian, None

        damping, failures = progress.memory
        ridge = 1.0 + damping
        matrix = small + ridge * jnp.eye(small.shape[0])
        if spread is None:
            change = jax.scipy.linalg.solve(matrix, gradient, assume_a="pos")
        else:
            inner = jax.scipy.linalg.solve(matrix, spread @ gradient, assume_a="pos")
            change = (gradient - spread.T @ inner) / ridge
        vector = e - change / stretch
        new, accepted = attempt(objective, progress, vector)
        eased = jnp.where(damping < 1e-3, 0.0, 0.1 * damping)
        damping = jnp.where(accepted, eased, jnp.maximum(10.0 * damping, 0.1))
        failures = jnp.where(accepted, 0, failures + 1)
        # Rounding is reached where nothing moves at all, or no damping helps.
        stalled = (failures >= self.tries) | jnp.all(vector == progress.vector)
        return Progress(new.vector, new.value, new.gradient, stalled, (damping, failures))
