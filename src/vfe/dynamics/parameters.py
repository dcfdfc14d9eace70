"""The E-step: what the errors of a whole series say of the parameters."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vfe.dynamics.problem import Learned, Problem
from vfe.dynamics.states import (
    Course,
    error_jacobian,
    jacobian_at,
    mixed_derivative,
    parameter_jacobian,
)


class Evidence(NamedTuple):
    """Sums over a series: gradient, curvature and precision of parameters; the scatter of errors."""

    gradient: Float[Array, " p"]
    curvature: Float[Array, "p p"]
    precision: Float[Array, "p p"]
    squares: Float[Array, "e e"]
    uncertainty: Float[Array, "e e"]


def gather(
    problem: Problem,
    course: Course,
    covariances: Float[Array, "steps u u"],
    learned: Learned,
    uncertain: bool = True,
) -> Evidence:
    """G_p = −Σ (W^p/2 + E_pᵀ Π ẽ), H_pp = −Σ (W^pp/2 + E_pᵀ Π E_p), Λ_p = Σ E_pᵀ Π E_p, Σ ẽẽᵀ, and

    Σ E_u C_u E_uᵀ + E_p C_p E_pᵀ, with W^p_k = tr(C_u E_up,kᵀ Π E_u), W^pp_kl = tr(C_u E_up,kᵀ Π E_up,l).

    **Source:** Friston, Trujillo-Barreto and Daunizeau 2008, eqs. 22 and 23.
    """
    Pi = problem.precision_matrix(learned.log_precisions)
    p, npar, ne = learned.p, problem.np if uncertain else 0, problem.ne

    def local(u):
        E_u = error_jacobian(problem, jacobian_at(problem, u, p))
        if not npar:
            return E_u, None
        return E_u, mixed_derivative(problem, u, p)

    def mean_field(E_u, mixed, C):
        if mixed is None:
            return jnp.zeros(0), jnp.zeros((0, 0))
        spread = jnp.einsum("ef,fik->eik", Pi, mixed)
        moved = jnp.einsum("eik,ij->ejk", spread, C)
        return jnp.einsum("ejk,ej->k", moved, E_u), jnp.einsum("ejk,ejl->kl", moved, mixed)

    once = local(course.u[0]) if problem.constant else None

    def add(total: Evidence, step):
        u, error, C = step
        E_u, mixed = local(u) if once is None else once
        squares = total.squares + jnp.outer(error, error)
        uncertainty = total.uncertainty
        if once is None:
            uncertainty = uncertainty + E_u @ C @ E_u.T
        if not npar:
            return total._replace(squares=squares, uncertainty=uncertainty), None
        E_p = parameter_jacobian(problem, u, p)
        weighted = (Pi @ E_p).T
        precision = weighted @ E_p
        gradient, curvature = total.gradient - weighted @ error, total.curvature - precision
        if once is None:
            first, second = mean_field(E_u, mixed, C)
            gradient, curvature = gradient - first / 2, curvature - second / 2
        uncertainty = uncertainty + E_p @ learned.p_covariance @ E_p.T
        return Evidence(gradient, curvature, total.precision + precision, squares, uncertainty), None

    start = Evidence(
        jnp.zeros(npar),
        jnp.zeros((npar, npar)),
        jnp.zeros((npar, npar)),
        jnp.zeros((ne, ne)),
        jnp.zeros((ne, ne)),
    )
    steps = (course.u, course.errors, covariances)
    total, _ = jax.lax.scan(add, start, steps)
    if once is not None:
        E_u, mixed = once
        C = covariances[0]
        first, second = mean_field(E_u, mixed, C)
        count = len(course.u)
        total = total._replace(
            gradient=total.gradient - count * first / 2,
            curvature=total.curvature - count * second / 2,
            uncertainty=total.uncertainty + count * (E_u @ C @ E_u.T),
        )
    return total
