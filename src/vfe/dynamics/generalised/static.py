"""The D-step of a model without hidden states: each sample's causes by a regularised Newton ascent."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vfe.dynamics.generalised.local_linear import log_determinant, regularised_inverse, regularised_step
from vfe.dynamics.generalised.states import (
    Course,
    error_jacobian,
    errors,
    jacobian_at,
    mixed_derivative,
    parameter_jacobian,
    stabiliser,
)
from vfe.dynamics.levels.problem import Learned, Problem

SETTLED = np.exp(-4)


def run_static(
    problem: Problem,
    sensed: Float[Array, "time m"],
    start: Float[Array, "time u"],
    learned: Learned,
    temperature: Float[Array, ""],
    iterations: int,
    mean_field: bool,
) -> tuple[
    Course, Course, Float[Array, "time u"], Float[Array, "time u u"], Float[Array, ""], Float[Array, ""]
]:
    """Causes of every sample, from `start`, ascending L = −½ ẽᵀΠẽ − ½ tr(Π E_p C_p E_pᵀ).

    A step is kept while L rises, else the next starts from the best point with a lower temperature, which
    goes on from sample to sample.

    **Returns:** the first and the last point evaluated of each sample, the causes after the last step, the
    covariance at the first point, Σ ln |C_u| over iterations, and the temperature.
    """
    p, Cp = learned.p, learned.p_covariance
    Pi = problem.precision_matrix(learned.log_precisions)
    given = jnp.concatenate([problem.data_errors, problem.prior_errors], 1)
    size = problem.nu + given.shape[1]
    firm = stabiliser(problem)

    def evaluate(u, z):
        error = errors(problem, u, z, p)
        value = -(error @ Pi @ error) / 2
        if mean_field:
            E_p = parameter_jacobian(problem, u, p)
            value = value - jnp.einsum("ek,ef,fl,kl->", E_p, Pi, E_p, Cp, optimize=True) / 2
        return error, value

    def derivatives(u, error):
        E = error_jacobian(problem, jacobian_at(problem, u, p))
        weighted = (Pi @ E).T
        gradient = -(weighted @ error) - firm * u
        curvature = -(weighted @ E) - firm * jnp.eye(problem.nu)
        C = regularised_inverse(-curvature)
        if mean_field:
            mixed = mixed_derivative(problem, u, p)
            own = parameter_jacobian(problem, u, p)
            gradient = gradient - jnp.einsum("kl,eil,ek->i", Cp, mixed, Pi @ own, optimize=True) / 2
            curvature = curvature - jnp.einsum("kl,eil,ef,fjk->ij", Cp, mixed, Pi, mixed, optimize=True) / 2
        return gradient, curvature, (C + C.T) / 2

    def sample(temperature, inputs):
        z, u0 = inputs
        e0, _ = evaluate(u0, z)
        C0 = derivatives(u0, e0)[2]

        def iterate(state):
            u, best, best_error, highest, temperature, _, _, entropy, number, _ = state
            error, value = evaluate(u, z)
            rose = value > highest
            temperature = jnp.where(
                rose, jnp.minimum(temperature + 1, 4.0), jnp.minimum(temperature - 2, -4.0)
            )
            best, best_error = jnp.where(rose, u, best), jnp.where(rose, error, best_error)
            highest = jnp.where(rose, value, highest)
            gradient, curvature, C = derivatives(best, best_error)
            step = regularised_step(curvature, gradient, temperature, size)
            done = (gradient @ step < SETTLED) | (jnp.abs(step).sum() < SETTLED)
            entropy = entropy + log_determinant(C)
            return (
                best + step,
                best,
                best_error,
                highest,
                temperature,
                best,
                best_error,
                entropy,
                number + 1,
                done,
            )

        first = (
            u0, u0, e0, jnp.array(-jnp.inf), temperature, u0, e0, jnp.zeros(()),
            jnp.zeros((), int), jnp.zeros((), bool),
        )  # fmt: skip
        u, _, _, _, temperature, last, last_error, entropy, _, _ = jax.lax.while_loop(
            lambda s: (s[8] < iterations) & ~s[9], iterate, first
        )
        return temperature, (Course(u0, e0), Course(last, last_error), u, C0, entropy)

    temperature, (first, last, u, C, entropy) = jax.lax.scan(sample, temperature, (sensed, start))
    return first, last, u, C, entropy.sum(), temperature
