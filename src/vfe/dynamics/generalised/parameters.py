"""The E-step: what the errors of a whole series say of the parameters."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vfe.dynamics.generalised.states import (
    Course,
    error_jacobian,
    jacobian_at,
    mixed_derivative,
    parameter_jacobian,
)
from vfe.dynamics.levels.problem import Learned, Problem


class Evidence(NamedTuple):
    """Sums over a series: gradient, curvature and precision of parameters; the scatter of errors."""

    gradient: Float[Array, " p"]
    curvature: Float[Array, "p p"]
    precision: Float[Array, "p p"]
    squares: Float[Array, "e e"]
    uncertainty: Float[Array, "e e"]


def scatter(course: Course, parameters: int = 0) -> Evidence:
    """Σ ẽẽᵀ alone, all else zero."""
    e, pp = course.errors, jnp.zeros((parameters, parameters))
    return Evidence(pp.sum(0), pp, pp, e.T @ e, jnp.zeros((e.shape[1], e.shape[1])))


def gather(
    problem: Problem,
    course: Course,
    covariances: Float[Array, "steps u u"],
    learned: Learned,
) -> Evidence:
    """G_p = −Σ (W^p/2 + E_pᵀ Π ẽ), H_pp = −Σ (W^pp/2 + E_pᵀ Π E_p), Λ_p = Σ E_pᵀ Π E_p, Σ ẽẽᵀ, and

    Σ E_u C_u E_uᵀ + E_p C_p E_pᵀ, with W^p_k = tr(C_u E_up,kᵀ Π E_u), W^pp_kl = tr(C_u E_up,kᵀ Π E_up,l).

    **Source:** Friston, Trujillo-Barreto and Daunizeau 2008, eqs. 22 and 23.
    """
    if problem.constant:
        return _gather_constant(problem, course, covariances[0], learned)
    Pi = problem.precision_matrix(learned.log_precisions)
    p, npar = learned.p, problem.np

    def add(total: Evidence, step):
        u, error, C = step
        E_u = error_jacobian(problem, jacobian_at(problem, u, p))
        uncertainty = total.uncertainty + E_u @ C @ E_u.T
        if not npar:
            return total._replace(uncertainty=uncertainty), None
        E_p = parameter_jacobian(problem, u, p)
        weighted = (Pi @ E_p).T
        precision = weighted @ E_p
        first, second = _mean_field(Pi, E_u, mixed_derivative(problem, u, p), C)
        return Evidence(
            total.gradient - weighted @ error - first / 2,
            total.curvature - precision - second / 2,
            total.precision + precision,
            total.squares,
            uncertainty + E_p @ learned.p_covariance @ E_p.T,
        ), None

    total, _ = jax.lax.scan(add, scatter(course, npar), (course.u, course.errors, covariances))
    return total


def _gather_constant(
    problem: Problem, course: Course, C: Float[Array, "u u"], learned: Learned
) -> Evidence:
    """The same where E_u is the same everywhere, so that E_p is affine in u: by moments of ẽ and u."""
    Pi = problem.precision_matrix(learned.log_precisions)
    p, start, count = learned.p, problem.start(), len(course.u)
    E_u = error_jacobian(problem, jacobian_at(problem, start, p))
    found = scatter(course)._replace(uncertainty=count * (E_u @ C @ E_u.T))
    if not problem.np:
        return found
    zero = jnp.zeros_like(start)
    by_u = jax.jacfwd(lambda u: parameter_jacobian(problem, u, p))(zero)
    # E_p = Σ_a E_a u_a, with a last u of one.
    E = jnp.concatenate([jnp.moveaxis(by_u, 2, 0), parameter_jacobian(problem, zero, p)[None]])
    u = jnp.concatenate([course.u, jnp.ones((count, 1))], 1)
    moments, crossed = u.T @ u, course.errors.T @ u
    weighted = jnp.einsum("ef,afk->aek", Pi, E)
    shared = jnp.tensordot(moments, E, 1)
    precision = jnp.einsum("aek,ael->kl", weighted, shared)
    first, second = _mean_field(Pi, E_u, mixed_derivative(problem, start, p), C)
    return Evidence(
        -jnp.einsum("aek,ea->k", weighted, crossed) - count * first / 2,
        -precision - count * second / 2,
        precision,
        found.squares,
        found.uncertainty + jnp.einsum("aek,kl,afl->ef", E, learned.p_covariance, shared, optimize=True),
    )


def _mean_field(
    Pi: Float[Array, "e e"], E_u: Float[Array, "e u"], mixed: Float[Array, "e u p"], C: Float[Array, "u u"]
) -> tuple[Float[Array, " p"], Float[Array, "p p"]]:
    """W^p and W^pp."""
    moved = jnp.einsum("ef,fik,ij->ejk", Pi, mixed, C, optimize=True)
    return jnp.einsum("ejk,ej->k", moved, E_u), jnp.einsum("ejk,ejl->kl", moved, mixed)
