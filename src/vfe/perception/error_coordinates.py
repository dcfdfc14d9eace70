"""Gauss–Newton on the prediction errors: perception at hardly any dependence on depth."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vfe.conditioning import Conditioned
from vfe.perception.loop import AbstractErrorSolver, Progress, attempt
from vfe.perception.objective import AbstractObjective


class ErrorCoordinates(AbstractErrorSolver):
    """Damped Gauss–Newton in standardised errors e, z_i = g_i(z_{i+1}) + s_i ∘ e_i.

    e ← e − (I + Jᵀ J + δ I)⁻¹ ∂E/∂e, J how the observed nodes' predictions move, in units of their noise
    (the root of their Fisher information). The damping δ grows until a step lowers E, so E never rises.
    Gaussian hidden nodes; Gaussian, Bernoulli or categorical observed ones; a Point or Laplace belief.

    Where the smaller of output space and error space has at most `direct` dimensions, the linear system is
    solved there exactly, through J; else by conjugate gradients in the errors, each iteration one pass down
    the linearised hierarchy and one up, until the linear model leaves `forcing` times ∂E/∂e.

    **Arguments:** `tries`: how many steps in a row may be refused, each raising δ tenfold; `direct`; and
    for conjugate gradients `iterations`, at most, and `forcing`. For deep networks with few outputs
    `direct=0` costs a few passes instead of one per output.

    **Example:** `vfe.perceive(model, {"x": x}, solver=vfe.ErrorCoordinates())`.

    **Source:** Papaspiliopoulos et al. 2007 (the non-centred form); Nocedal and Wright 2006, chapters 7
    (inexact Newton) and 10.
    """

    tries: int = eqx.field(static=True, default=12)
    direct: int = eqx.field(static=True, default=256)
    iterations: int = eqx.field(static=True, default=20)
    forcing: float = eqx.field(static=True, default=1e-2)

    def __check_init__(self) -> None:
        if self.tries < 1 or self.iterations < 1 or self.direct < 0 or not 0 <= self.forcing < 1:
            raise ValueError(
                f"ErrorCoordinates: got tries={self.tries}, direct={self.direct}, iterations="
                f"{self.iterations}, forcing={self.forcing}; wanted tries and iterations of at least 1, "
                "direct of at least 0, and forcing in [0, 1)."
            )

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
        damping, failures = progress.memory
        curvature = _Curvature(c, e, stretch, self.direct)
        change = curvature.solve(1.0 + damping, gradient, self.forcing, self.iterations)
        vector = e - change / stretch
        new, accepted = attempt(objective, progress, vector)
        eased = jnp.where(damping < 1e-3, 0.0, 0.1 * damping)
        damping = jnp.where(accepted, eased, jnp.maximum(10.0 * damping, 0.1))
        failures = jnp.where(accepted, 0, failures + 1)
        # Rounding is reached where nothing moves at all, or no damping helps.
        stalled = (failures >= self.tries) | jnp.all(vector == progress.vector)
        return Progress(new.vector, new.value, new.gradient, stalled, (damping, failures))


class _Curvature:
    """ridge · I + Jᵀ J at some errors, as something to solve with."""

    def __init__(self, conditioned: Conditioned, errors: Array, stretch: Array, direct: int) -> None:
        def push(e: Array) -> Array:
            return conditioned.push(conditioned.layout.unpack(e))

        self.size = errors.shape[0]
        rows = jax.eval_shape(lambda e: conditioned.linear_sensitivity(push, e)(e), errors).shape[0]
        self.in_outputs = rows < self.size
        self.small = min(rows, self.size) <= direct
        if self.small:
            parts = conditioned.sensitivity(push, errors)
            self.jacobian = jnp.concatenate([*parts.values(), jnp.zeros((0, self.size))]) / stretch
        else:
            apply = conditioned.linear_sensitivity(push, errors)
            self.down = lambda v: apply(v / stretch)
            transposed = jax.linear_transpose(self.down, errors)
            self.up = lambda r: transposed(r)[0]

    def solve(self, ridge: Array, right: Array, forcing: float, iterations: int) -> Array:
        """(ridge · I + Jᵀ J)⁻¹ right, by way of ridge · I + J Jᵀ where outputs are fewer than errors."""
        if self.small:
            j = self.jacobian
            if not self.in_outputs:
                return jax.scipy.linalg.solve(j.T @ j + ridge * jnp.eye(self.size), right, assume_a="pos")
            gram = j @ j.T + ridge * jnp.eye(j.shape[0])
            return (right - j.T @ jax.scipy.linalg.solve(gram, j @ right, assume_a="pos")) / ridge

        # In error space, whatever is smaller: an iteration is one pass down and one up in both, and only
        # here is the residual that of the step itself, not σ² times it.
        apply = lambda v: ridge * v + self.up(self.down(v))  # noqa: E731
        return jax.scipy.sparse.linalg.cg(apply, right, tol=forcing, maxiter=iterations)[0]
