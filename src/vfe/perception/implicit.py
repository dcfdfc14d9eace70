"""Derivatives through perception by the implicit function theorem, at its optimum."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from vfe.perception.objective import AbstractObjective


@eqx.filter_custom_jvp
def attach(vector: Float[Array, " m"], objective: AbstractObjective) -> Float[Array, " m"]:
    """The optimum λ*, with its derivative in the model and the data attached.

    0 = ∂F/∂λ (λ*, θ), so dλ*/dθ = −(∂²F/∂λ²)⁻¹ ∂²F/∂λ∂θ.

    **Source:** any text on implicit differentiation; Blondel et al. 2022.
    """
    return vector


@attach.def_jvp
def _attach_jvp(primals: Any, tangents: Any) -> Any:
    vector, objective = primals
    _, along = tangents

    def gradient(objective: AbstractObjective) -> Array:
        return objective.gradient(vector)

    zero = jax.tree.map(
        lambda p, t: t if t is not None else (jnp.zeros_like(p) if eqx.is_inexact_array(p) else None),
        eqx.filter(objective, eqx.is_inexact_array),
        along,
        is_leaf=lambda x: x is None,
    )
    _, slope = eqx.filter_jvp(gradient, (objective,), (zero,))
    curvature = jax.lax.stop_gradient(jax.hessian(objective.value)(vector))
    operator = lx.MatrixLinearOperator(0.5 * (curvature + curvature.T), lx.symmetric_tag)
    solution = lx.linear_solve(operator, slope, lx.AutoLinearSolver(well_posed=True), throw=False)
    return vector, -solution.value
