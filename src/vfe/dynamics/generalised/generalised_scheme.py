"""Generalised filtering: states, parameters and log-precisions move together, at every step of a series."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vfe.dynamics.generalised.forced_step import forced_step
from vfe.dynamics.generalised.local_linear import driven_exponential, log_determinant, regularised_inverse
from vfe.dynamics.generalised.outcome import Outcome
from vfe.dynamics.generalised.states import (
    Course,
    error_jacobian,
    errors,
    jacobian_at,
    mixed_derivative,
    parameter_jacobian,
)
from vfe.dynamics.levels.problem import Learned, Problem

COUNTED = 8.0  # errors of a higher log-precision are left out of F
FIRST_CURVATURE = 32.0
SMALL_RISE = 1.0


class Slow(NamedTuple):
    """b = (p, λ), its motion, and its running curvature (zero before the first step of all)."""

    value: Float[Array, " b"]
    motion: Float[Array, " b"]
    curvature: Float[Array, "b b"]


class Bin(NamedTuple):
    """What is kept of one sample."""

    u: Float[Array, " u"]
    errors: Float[Array, " e"]
    value: Float[Array, " b"]
    covariance: Float[Array, "up up"]
    precision_curvature: Float[Array, "h h"]


def check_diagonal(problem: Problem) -> None:
    """Raises `ValueError` where a precision is not one number per row: known, or one log-precision."""
    for block in problem.blocks:
        parts = [block.fixed, *block.components]
        used = np.array([np.diag(part) != 0 for part in parts]).sum(0)
        level = all(len(np.unique(np.diag(q)[np.diag(q) != 0])) == 1 for q in block.components)
        if any((part - np.diag(np.diag(part))).any() for part in parts) or (used != 1).any() or not level:
            raise ValueError(
                f"generalised_filter: the precision of {block.name} must be diagonal, every entry either "
                "known (fixed=) or the exponential of one log-precision (components= of zeros and ones "
                "that do "
                "not overlap); vfe.dem takes others."
            )


def precision_parts(problem: Problem) -> Float[Array, "parts e e"]:
    """What every log-precision scales, then what is known of Π."""
    parts = jnp.zeros((problem.nh + 1, problem.ne, problem.ne))
    for block in problem.blocks:
        rows = block.rows[:, None], block.rows
        parts = parts.at[-1, *rows].set(jnp.kron(block.orders, block.fixed))
        for j, component in enumerate(block.components):
            parts = parts.at[block.first + j, *rows].set(jnp.kron(block.orders, component))
    return parts


def run_bins(
    problem: Problem, sensed: Float[Array, "steps m"], slow: Slow, caution: Float[Array, ""], substeps: int
) -> tuple[Slow, Bin]:
    """One sweep: u̇ = Du − L_u, ḃ′ = −N ḃ − C_b (L_b + H_b), each advanced by a local linear step.

    **Arguments:** `caution`: ξ, C_b = (B + e^ξ diag B)⁻¹.

    **Source:** Friston, Stephan, Li and Daunizeau 2010, "Generalised filtering".
    """
    npar, nh, nu, n = problem.np, problem.nh, problem.nu, problem.n
    bins = len(sensed) // substeps
    prior_p, prior_h = jnp.asarray(problem.prior_precision), 1 / jnp.asarray(problem.log_precision_variance)
    mean_h = jnp.asarray(problem.log_precision_mean)
    given = jnp.concatenate([problem.data_errors, problem.prior_errors], 1)
    D, data_shift = jnp.asarray(problem.state_shift), jnp.asarray(problem.data_shift)
    owners = jnp.zeros((nh, problem.ne))
    for block in problem.blocks:
        for j, component in enumerate(block.components):
            owned = jnp.tile(jnp.diag(component) != 0, n).astype(float)
            owners = owners.at[block.first + j, block.rows].set(owned)
    parts = precision_parts(problem)
    rate = jnp.array([[0.0, 1.0], [-1.0, -float(bins)]]) / substeps
    _, moves = driven_exponential(rate, jnp.eye(2) / substeps, jnp.zeros((2, 2)))
    powers = float(substeps) ** jnp.arange(1, n + 1)

    def advance(state, z):
        u, slow, fresh = state
        p, h = slow.value[:npar], slow.value[npar:]
        Pi = parts[-1] + jnp.tensordot(jnp.exp(h), parts[:-1], 1)
        error = errors(problem, u, z, p)
        E = jnp.concatenate(
            [error_jacobian(problem, jacobian_at(problem, u, p)), parameter_jacobian(problem, u, p)], 1
        )
        weighted = (Pi @ E).T
        both = weighted @ E
        both = both.at[nu:, nu:].add(prior_p)
        C = regularised_inverse(both)
        C = (C + C.T) / 2
        gradient = weighted @ error
        # Π_a is Π on the rows that log-precision a owns.
        own = owners * (Pi @ error)
        squared = own @ error
        L_h = (squared - owners.sum(1)) / 2 + prior_h * (h - mean_h)
        L_hh = jnp.diag(squared / 2 + prior_h)
        L_hp = own @ E[:, nu:]
        L_b = jnp.concatenate([gradient[nu:] + prior_p @ p, L_h])
        L_bb = jnp.block([[both[nu:, nu:], L_hp.T], [L_hp, L_hh]])
        spread = jnp.einsum("ei,ij,ej->e", weighted.T, C, E, optimize=True)
        H_h = owners @ spread / 2
        H_p = jnp.zeros(npar)
        if npar:
            mixed = mixed_derivative(problem, u, p)
            H_p = jnp.einsum("ei,ij,ejk->k", weighted.T, C[:, :nu], mixed, optimize=True)
        first = L_bb + FIRST_CURVATURE * jnp.eye(npar + nh)
        curvature = jnp.where(fresh, first, (1 - 1 / bins) * slow.curvature + L_bb / bins)
        held = curvature + jnp.exp(caution) * jnp.diag(jnp.diag(curvature))
        force = jnp.linalg.solve(held, L_b + jnp.concatenate([H_p, H_h])) if npar + nh else L_b
        flow = jnp.stack([slow.motion, -bins * slow.motion - force])
        moved = moves @ flow

        drives = [D @ u - gradient[:nu]]
        by_data = -(weighted[:nu] @ given)
        for _ in range(1, n):
            z = data_shift @ z
            drives.append(by_data @ z)
        step = forced_step((D - both[:nu, :nu]) / substeps, jnp.stack(drives, 1) / powers)
        kept = Bin(u, error, slow.value, C, L_hh)
        following = Slow(slow.value + moved[0], slow.motion + moved[1], curvature)
        return (u + step, following, jnp.zeros((), bool)), kept

    start = (problem.start(), slow, ~slow.curvature.any())
    (_, slow, _), kept = jax.lax.scan(advance, start, sensed)
    return slow, jax.tree.map(lambda a: a[::substeps], kept)


def summarise(problem: Problem, kept: Bin) -> tuple[Learned, Float[Array, ""]]:
    """Averages over a sweep, weighted by their precisions, and the log-evidence bound."""
    npar, nu, bins = problem.np, problem.nu, len(kept.u)
    prior_p, prior_h = jnp.asarray(problem.prior_precision), 1 / jnp.asarray(problem.log_precision_variance)
    mean_h = jnp.asarray(problem.log_precision_mean)
    p_t, h_t = kept.value[:, :npar], kept.value[:, npar:]
    precisions = jnp.linalg.inv(kept.covariance[:, nu:, nu:])
    p = jnp.linalg.solve(precisions.sum(0), jnp.einsum("tij,tj->i", precisions, p_t))
    C_p = jnp.linalg.inv(precisions.sum(0) + (1 - bins) * prior_p)
    summed = kept.precision_curvature.sum(0)
    h = jnp.linalg.solve(summed, jnp.einsum("tij,tj->i", kept.precision_curvature, h_t))
    C_h = jnp.linalg.inv(summed + (1 - bins) * jnp.diag(prior_h))

    initial = jnp.zeros(problem.ne)
    for block in problem.blocks:
        initial = initial.at[block.rows].set(
            jnp.tile(jnp.log(jnp.diag(block.precision(mean_h))), problem.n)
        )
    counted = (initial < COUNTED).astype(float)
    mask = counted[:, None] * counted
    # Π is linear in exp λ, and every entry is one log-precision's or known.
    parts = precision_parts(problem) * mask
    square = jnp.einsum("te,jef,tf->tj", kept.errors, parts, kept.errors, optimize=True)
    scales = jnp.concatenate([jnp.exp(h_t), jnp.ones((bins, 1))], 1)
    owned = (jnp.diagonal(parts[:-1], axis1=1, axis2=2) != 0).sum(1)
    mean = h_t.mean(0)
    ln = bins * log_determinant(problem.precision_matrix(mean) * mask) + owned @ (h_t - mean).sum(0)
    value = (ln - (square * scales).sum()) / 2
    value = value - bins * problem.n * problem.ny / 2 * np.log(2 * np.pi)
    deviation = h - mean_h
    value = value - p @ prior_p @ p / 2 - deviation @ (prior_h * deviation) / 2
    value = value + (log_determinant(prior_p @ C_p) + log_determinant(prior_h[:, None] * C_h)) / 2
    return Learned(p, C_p, h, C_h), value


def filter_generalised(
    problem: Problem, sensed: Float[Array, "steps m"], substeps: int, sweeps: int
) -> Outcome:
    """Sweeps until F rises by less than a nat five times, or falls however cautious the slow states are."""
    npar, nh, nu = problem.np, problem.nh, problem.nu
    b = npar + nh
    slow = Slow(
        jnp.concatenate([jnp.zeros(npar), jnp.asarray(problem.log_precision_mean)]),
        jnp.zeros(b),
        jnp.zeros((b, b)),
    )
    if not b:
        sweeps = 1

    def once(slow, caution):
        slow, kept = run_bins(problem, sensed, slow, caution, substeps)
        learned, value = summarise(problem, kept)
        return slow, kept, learned, value

    shapes = jax.eval_shape(once, slow, jnp.zeros(()))
    blank = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def iterate(state):
        number, slow, caution, highest, small, stored, _, _, history, _ = state
        moved, kept, learned, value = once(slow, caution)
        fell = (value < highest) & (number >= 4)
        small = jnp.where(fell, small, small + (value - highest < SMALL_RISE))
        value_now = jnp.where(fell, stored, moved.value)
        stored = value_now
        caution = jnp.where(fell, jnp.maximum(caution + 2, 2.0), jnp.maximum(caution - 1, -8.0))
        highest = jnp.where(fell, highest, value)
        done = (caution > 6) | (small > 0)
        history = history.at[number].set(highest)
        return (
            number + 1,
            moved._replace(value=value_now),
            caution,
            highest,
            small,
            stored,
            kept,
            learned,
            history,
            done,
        )

    state = (
        jnp.zeros((), int), slow, jnp.zeros(()), jnp.array(-jnp.inf), jnp.array(-4), slow.value,
        blank[1], blank[2],
        jnp.full(sweeps, jnp.nan), jnp.zeros((), bool),
    )  # fmt: skip
    state = jax.lax.while_loop(lambda s: (s[0] < sweeps) & ~s[9], iterate, state)
    number, _, _, _, _, _, kept, learned, history, _ = state
    C = kept.covariance[:, :nu, :nu]
    return Outcome(
        Course(kept.u, kept.errors),
        C,
        log_determinant(C),
        learned,
        learned,
        history,
        number,
        kept.value[:, :npar],
        kept.value[:, npar:],
    )
