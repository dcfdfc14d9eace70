"""The M-step: log-precisions ascend F given the errors of a whole series (Fisher scoring with priors)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vfe.dynamics.generalised.local_linear import inverse_tolerance, regularised_step
from vfe.dynamics.levels.problem import Problem

LARGEST_CHANGE = 2.0
SETTLED = np.exp(-4)


class Scored(NamedTuple):
    """Log-precisions after an M-step; `change` is the last iteration's."""

    log_precisions: Float[Array, " h"]
    covariance: Float[Array, "h h"]
    before: Float[Array, " h"]
    change: Float[Array, " h"]


def score_precisions(
    problem: Problem,
    log_precisions: Float[Array, " h"],
    scatter: Float[Array, "e e"],
    steps: int,
    temperature: Float[Array, ""],
    iterations: Float[Array, ""] | int,
) -> Scored:
    """λ ← λ + clip(Δλ, ±2), Δλ the regularised step on

    L_j = −½ tr(P_j (S − N Σ)) − [hC⁻¹(λ − hE)]_j,  L_jl = −(N/2) tr(P_j Σ P_l Σ) − [hC⁻¹]_jl,

    P_j = exp(λ_j) Π_j, Σ = Π⁻¹. Every Π_j is R ⊗ Q_j on the rows of one noise, so that the traces are taken
    in the basis in which R is diagonal.

    **Arguments:** `scatter`: S, the sum over N = `steps` of ẽẽᵀ and of its uncertainty.

    **Source:** Friston, Trujillo-Barreto and Daunizeau 2008, eq. 24.
    """
    nh = problem.nh
    prior = 1 / jnp.asarray(problem.log_precision_variance)
    mean = jnp.asarray(problem.log_precision_mean)
    folded = []
    for block in problem.blocks:
        values = jnp.linalg.eigvalsh(jnp.asarray(block.orders))
        n, k = problem.n, len(block.fixed)
        own = scatter[block.rows[:, None], block.rows].reshape(n, k, n, k)
        folded.append((jnp.asarray(values), jnp.einsum("ab,aibj->ij", block.orders, own)))

    def derivatives(h):
        gradient, curvature = -prior * (h - mean), -jnp.diag(prior)
        precisions = [block.precision(h) for block in problem.blocks]
        norms = [
            jnp.abs(block.orders).sum(1).max() * jnp.abs(Pi).sum(1).max()
            for block, Pi in zip(problem.blocks, precisions, strict=True)
        ]
        firm = inverse_tolerance(jnp.stack(norms).max(), problem.ne)
        for block, Pi, (values, S) in zip(problem.blocks, precisions, folded, strict=True):
            if not len(block.components):
                continue
            P = jnp.exp(h[block.own])[:, None, None] * block.components
            one = firm * jnp.eye(len(Pi))
            inverse = jax.vmap(lambda r, Pi=Pi, one=one: r * jnp.linalg.inv(r * Pi + one))(values)
            PS = jnp.einsum("jab,rbc->rjac", P, inverse)
            first = -(jnp.einsum("jab,ba->j", P, S) - steps * jnp.einsum("rjaa->j", PS)) / 2
            second = -steps / 2 * jnp.einsum("rjab,rlba->jl", PS, PS)
            gradient = gradient.at[block.own].add(first)
            curvature = curvature.at[block.own, block.own].add(second)
        return gradient, curvature

    def iterate(state):
        scored, number, _ = state
        h = scored.log_precisions
        gradient, curvature = derivatives(h)
        change = jnp.clip(
            regularised_step(curvature, gradient, temperature), -LARGEST_CHANGE, LARGEST_CHANGE
        )
        settled = (gradient @ change < SETTLED) | (jnp.abs(change).sum() < SETTLED)
        return Scored(h + change, -jnp.linalg.inv(curvature), h, change), number + 1, settled

    start = Scored(log_precisions, jnp.zeros((nh, nh)), log_precisions, jnp.zeros(nh))
    state = jax.lax.while_loop(
        lambda s: (s[1] < iterations) & ~s[2], iterate, (start, jnp.zeros((), int), jnp.zeros((), bool))
    )
    return state[0]
