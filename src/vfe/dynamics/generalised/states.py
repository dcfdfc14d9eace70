"""The D-step: states and causes in generalised coordinates, carried through a series by local linear
steps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vfe.dynamics.generalised.forced_step import forced_step
from vfe.dynamics.generalised.local_linear import driven_exponential, log_determinant, regularised_inverse
from vfe.dynamics.levels.problem import Learned, Problem


class Course(NamedTuple):
    """States along a series, at every step of it."""

    u: Float[Array, "steps u"]
    errors: Float[Array, "steps e"]


def predictions(
    problem: Problem, u: Float[Array, " u"], p: Float[Array, " p"], J: Float[Array, "rows xv"] | None = None
) -> Float[Array, " e"]:
    """g̃ and f̃ at every order, locally linear: order i is the Jacobian at order 0 times (x⁽ⁱ⁾, v⁽ⁱ⁾)."""
    x, v = problem.orders(u)
    J = problem.jacobian(x[0], v[0], p) if J is None else J
    whole = jnp.concatenate([problem.equations(x[0], v[0], p)[None], jnp.concatenate([x, v], 1)[1:] @ J.T])
    return jnp.concatenate([whole[:, : problem.nz].ravel(), whole[:, problem.nz :].ravel()])


def errors(
    problem: Problem,
    u: Float[Array, " u"],
    sensed: Float[Array, " m"],
    p: Float[Array, " p"],
    J: Float[Array, "rows xv"] | None = None,
) -> Float[Array, " e"]:
    """ẽ; `sensed` stacks the orders of the data and of the prior expectation of the top causes.

    The last order of states has no equation: its error is zero (though its derivatives are kept).
    """
    x, _ = problem.orders(u)
    n, d, nx = problem.n, problem.d, problem.nx
    y, eta = sensed[: n * problem.ny].reshape(n, -1), sensed[n * problem.ny :].reshape(d, -1)
    eta = jnp.concatenate([eta, jnp.zeros((n - d, problem.nc))])
    given = jnp.concatenate([y, jnp.zeros((n, problem.nv - problem.nc)), -eta], 1).ravel()
    error = jnp.concatenate([given, x[1:].ravel(), jnp.zeros(nx)]) - predictions(problem, u, p, J)
    return jnp.concatenate([error[: problem.ne - nx], jnp.zeros(nx)])


def error_jacobian(problem: Problem, J: Float[Array, "rows xv"]) -> Float[Array, "e u"]:
    """E_u = ∂ẽ/∂u, second derivatives of the equations neglected; the last order of states is kept."""
    n, d, nz, nx = problem.n, problem.d, problem.nz, problem.nx
    one, some = jnp.eye(n), jnp.eye(n, d)
    shift = jnp.kron(jnp.eye(n, k=1), jnp.eye(nx))
    upper = jnp.concatenate([jnp.kron(one, J[:nz, :nx]), jnp.kron(some, J[:nz, nx:])], 1)
    lower = jnp.concatenate([jnp.kron(one, J[nz:, :nx]) - shift, jnp.kron(some, J[nz:, nx:])], 1)
    return -jnp.concatenate([upper, lower])


def at_order_zero(problem: Problem, u: Float[Array, " u"]) -> tuple[Float[Array, " x"], Float[Array, " v"]]:
    """States and causes themselves."""
    cut = problem.n * problem.nx
    return u[: problem.nx], u[cut : cut + problem.nv]


def jacobian_at(problem: Problem, u: Float[Array, " u"], p: Float[Array, " p"]) -> Float[Array, "rows xv"]:
    """Of the equations, where u is."""
    return problem.jacobian(*at_order_zero(problem, u), p)


def parameter_jacobian(
    problem: Problem, u: Float[Array, " u"], p: Float[Array, " p"]
) -> Float[Array, "e p"]:
    """E_p = ∂ẽ/∂p."""
    return -jax.jacfwd(lambda q: predictions(problem, u, q))(p)


def mixed_derivative(
    problem: Problem, u: Float[Array, " u"], p: Float[Array, " p"]
) -> Float[Array, "e u p"]:
    """E_up = ∂E_u/∂p."""
    return jax.jacfwd(lambda q: error_jacobian(problem, jacobian_at(problem, u, q)))(p)


def stabiliser(problem: Problem) -> float:
    """What is added to the curvature of states: rounding."""
    return problem.nu * np.finfo(float).eps


def run_states(
    problem: Problem,
    sensed: Float[Array, "steps m"],
    learned: Learned,
    gain: float,
    step: float,
    mean_field: bool,
) -> Course:
    """One pass over a series: at each step u moves with the flow K V_u + D u, the data with their own.

    V_u = −E_uᵀ Π ẽ − W/2, W the effect of the uncertainty of parameters (`mean_field`).

    **Arguments:** `sensed`: embedded data and prior expectations; `gain`: K; `step`: in samples.

    **Source:** Friston, Trujillo-Barreto and Daunizeau 2008, eqs. 15 to 21.
    """
    p, Cp = learned.p, learned.p_covariance
    Pi = problem.precision_matrix(learned.log_precisions)
    given = jnp.concatenate([problem.data_errors, problem.prior_errors], 1)
    nu, m = problem.nu, given.shape[1]
    firm = stabiliser(problem)
    D, data_shift = jnp.asarray(problem.state_shift), jnp.asarray(problem.data_shift)
    start = problem.start()

    def curvatures(u):
        """E_uᵀ Π, A = K V_uu + D, B = K V_u(data)."""
        E = error_jacobian(problem, jacobian_at(problem, u, p))
        weighted = (Pi @ E).T
        V = -(weighted @ E) - firm * jnp.eye(nu)
        mixed = None
        if mean_field:
            mixed = mixed_derivative(problem, u, p)
            V = V - jnp.einsum("kl,eil,ef,fjk->ij", Cp, mixed, Pi, mixed, optimize=True) / 2
        return weighted, gain * V + D, -gain * (weighted @ given), mixed

    def flow(u, error, weighted, mixed):
        gradient = -(weighted @ error) - firm * u
        if mean_field:
            own = parameter_jacobian(problem, u, p)
            gradient = gradient - jnp.einsum("kl,eil,ek->i", Cp, mixed, Pi @ own, optimize=True) / 2
        return gain * gradient + D @ u

    if problem.constant:
        J = jacobian_at(problem, start, p)
        weighted, A, B, mixed = curvatures(start)
        N = jnp.zeros((m + nu, m + nu)).at[:m, :m].set(data_shift)
        _, moves = driven_exponential(step * A, step * jnp.concatenate([B, jnp.eye(nu)], 1), step * N)
        by_flow, by_data = moves[:, m:], moves[:, :m]
        by_data = by_data - by_flow @ B

        def change(u, z):
            error = errors(problem, u, z, p, J)
            return by_flow @ flow(u, error, weighted, mixed) + by_data @ z

        # All of it is affine in u and z, and so done for the whole series at once but for the motion of u.
        zero = jnp.zeros(nu), jnp.zeros(m)
        by_u, by_z = jax.tree.map(jnp.transpose, jax.jacfwd(change, (0, 1))(*zero))
        drives = sensed @ by_z + change(*zero)
        _, u = jax.lax.scan(lambda u, drive: (u + (u @ by_u + drive), u), start, drives)
        course = Course(u, jax.vmap(lambda u, z: errors(problem, u, z, p, J))(u, sensed))

    else:
        n = problem.n
        powers = step ** jnp.arange(1, n + 1)

        def advance(u, z):
            error = errors(problem, u, z, p)
            weighted, A, B, mixed = curvatures(u)
            drives = [flow(u, error, weighted, mixed)]
            for _ in range(1, n):
                z = data_shift @ z
                drives.append(B @ z)
            return u + forced_step(step * A, jnp.stack(drives, 1) * powers), Course(u, error)

        _, course = jax.lax.scan(advance, start, sensed)
    return jax.lax.optimization_barrier(course)


def state_covariances(
    problem: Problem, course: Course, learned: Learned
) -> tuple[Float[Array, "steps u u"], Float[Array, " steps"]]:
    """C_u = (E_uᵀ Π E_u)⁻¹, zero where the fixed precision of a state's noise is e¹⁶ or more, and ln
    |C_u|."""
    Pi = problem.precision_matrix(learned.log_precisions)
    believed = jnp.asarray(problem.believed)

    def one(u):
        E = error_jacobian(problem, jacobian_at(problem, u, learned.p))
        curvature = E.T @ Pi @ E + stabiliser(problem) * jnp.eye(problem.nu)
        C = regularised_inverse(curvature)
        return jnp.where(believed[:, None] & believed, (C + C.T) / 2, 0.0)

    if problem.constant:
        steps = len(course.u)
        C = one(problem.start())
        ln = log_determinant(C)
        return jnp.broadcast_to(C, (steps, *C.shape)), jnp.broadcast_to(ln, (steps,))
    C = jax.vmap(one)(course.u)
    return C, log_determinant(C)
