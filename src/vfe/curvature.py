"""The Gauss–Newton curvature of E in standardised errors, through the smaller of output and error space.

With z = g(parents) + s ∘ e, E = ½ |e|² + Σ_i ln |s_i| + L(e), and its curvature is H = I + Jᵀ J, J how the
observed nodes' predictions move with e in units of their noise. All that F needs of H is here: entropies
by level, and the second-order part of the energies by node.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.beliefs import LOG_2PI, GaussNewtonLaplace
from vfe.beliefs.gaussian import upper_root
from vfe.conditionals import AbstractGaussianNode
from vfe.conditioning import Conditioned, Energies


def check_gauss_newton(conditioned: Conditioned) -> None:
    """Refuse a model whose curvature is not I + Jᵀ J in the errors.

    **Raises:** `ValueError` that names the node and what to use instead.
    """
    reason = None
    for name in conditioned.hidden:
        node = conditioned.model.nodes[name]
        if name in conditioned.discrete:
            reason = f"node {name!r} is hidden and discrete (enumerate it: vfe.Enumerated)"
        elif not (isinstance(node, AbstractGaussianNode) and node.has_constant_noise):
            reason = f"node {name!r} is hidden and not a vfe.gaussian of constant scale"
        elif name in conditioned.partial:
            reason = f"some elements of node {name!r}, which has children, are missing"
    for name in conditioned.observed:
        if name in conditioned.model.nodes and conditioned.model.describe(name).plate is not None:
            reason = f"the observed node {name!r} lives in a plate"
    if conditioned.repeats is not None:
        reason = "latents are shared by all observations"
    if reason is not None:
        raise ValueError(f"GaussNewtonLaplace: {reason}; use belief=vfe.Laplace.")


@jax.custom_jvp
def log_determinant(matrix: Float[Array, "n n"]) -> Float[Array, ""]:
    """ln |S| of a positive definite matrix, with d ln |S| = tr(S⁻¹ dS).

    The rule avoids the derivative of the Cholesky factor, which costs several times as much.
    """
    return 2 * jnp.log(jnp.diagonal(jnp.linalg.cholesky(matrix))).sum()


@log_determinant.defjvp
def _log_determinant_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (matrix,), (change,) = primals, tangents
    inverse = jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(matrix), True), jnp.eye(matrix.shape[0]))
    return log_determinant(matrix), jnp.sum(inverse * change)


class Spread(eqx.Module):
    """What the curvature H = I + Jᵀ J of q(e) = N(e*, H⁻¹) adds to F.

    `energies`: ½ tr(H_i H⁻¹) by node, H_i = I on its own errors for a hidden node and J_oᵀ J_o for an
    observed one: n / 2 together; `entropies`: S(e_i | errors above) by level; `log_determinant`: ln |H|.
    Only the last carries derivatives: the energies' sum is constant and that of the entropies is
    ½ n (1 + ln 2π) − ½ ln |H|, so F needs no other.
    """

    energies: Energies
    entropies: dict[str, Float[Array, ""]]
    log_determinant: Float[Array, ""]


def spread(
    conditioned: Conditioned, errors: Float[Array, " n"], probe: PRNGKeyArray | None = None
) -> Spread:
    """The `Spread` around these errors, through the smaller of output space and error space.

    With a `probe` the derivative of ln |H| is estimated without bias from one random direction ξ of ±1 in
    output space, d ln |H| = 2 tr(S⁻¹ J dJᵀ) = 2 ⟨ξᵀ dJ Jᵀ S⁻¹ ξ⟩; the value stays exact. Where errors are
    fewer than outputs the derivative is exact all the same.

    By levels from the top down S_i = ½ n_i (1 + ln 2π) + ½ (ln |S_{>i}| − ln |S_{≥i}|), with S_{≥i} the sum
    I + Σ_{k ≥ i} J_k J_kᵀ over the level and those below it.
    """
    layout = conditioned.layout

    def push(e: Array) -> Array:
        return conditioned.push(layout.unpack(e))

    parts = conditioned.sensitivity(push, errors)
    live = jnp.concatenate([*parts.values(), jnp.zeros((0, layout.size))])
    jacobian = jax.lax.stop_gradient(live)
    rows = jacobian.shape[0]
    hidden: dict[str, Array] = {}
    entropies: dict[str, Array] = {}
    if rows < layout.size:
        grams = [jacobian[:, s.where] @ jacobian[:, s.where].T for s in layout.slots]
        below = jnp.cumsum(jnp.stack(grams)[::-1], 0)[::-1] + jnp.eye(rows)
        factors = jnp.linalg.cholesky(below)
        logs = 2 * jnp.log(jnp.diagonal(factors, axis1=-2, axis2=-1)).sum(-1)
        logs = jnp.concatenate([logs, jnp.zeros(1)])
        inverse = jax.scipy.linalg.cho_solve((factors[0], True), jnp.eye(rows))
        for k, s in enumerate(layout.slots):
            count = s.stop - s.start
            entropies[s.name] = 0.5 * (count * (1 + LOG_2PI) + logs[k + 1] - logs[k])
            hidden[s.name] = 0.5 * (count - jnp.sum(inverse * grams[k]))
        seen = 0.5 * (1.0 - jnp.diagonal(inverse))
        if probe is None:
            whole = log_determinant(jnp.eye(rows) + live @ live.T)
        else:
            signs = jax.random.rademacher(probe, (rows,), errors.dtype)
            along = jacobian.T @ (inverse @ signs)
            moving = conditioned.linear_sensitivity(push, errors)(along)
            slope = 2 * jnp.sum(signs * moving)
            whole = logs[0] + slope - jax.lax.stop_gradient(slope)
    else:
        whole = log_determinant(jnp.eye(layout.size) + live.T @ live)
        root = upper_root(jnp.eye(layout.size) + jacobian.T @ jacobian)
        # H⁻¹ = halfᵀ half.
        half = jax.scipy.linalg.solve_triangular(root, jnp.eye(layout.size), lower=False)
        variances = (half**2).sum(0)
        seen = 0.5 * ((jacobian @ half.T) ** 2).sum(-1)
        log_diagonal = jnp.log(jnp.diagonal(root))
        for s in layout.slots:
            count = s.stop - s.start
            entropies[s.name] = 0.5 * count * (1 + LOG_2PI) - log_diagonal[s.where].sum()
            hidden[s.name] = 0.5 * variances[s.where].sum()
    observed, start = {}, 0
    for name, part in parts.items():
        observed[name] = seen[start : start + part.shape[0]].sum()
        start += part.shape[0]
    return Spread(Energies(observed, hidden), entropies, whole)


def curved(conditioned: Conditioned, location: Float[Array, " n"]) -> GaussNewtonLaplace:
    """The belief around a mode, z ≈ μ + T (e − e*), T = ∂z/∂e: H_z = T⁻ᵀ (I + Jᵀ J) T⁻¹."""
    layout = conditioned.layout
    errors = flat_errors(conditioned, location)

    def push(e: Array) -> Array:
        return conditioned.push(layout.unpack(e))

    parts = conditioned.sensitivity(push, errors)
    jacobian = jnp.concatenate([*parts.values(), jnp.zeros((0, layout.size))])
    root = upper_root(jnp.eye(layout.size) + jacobian.T @ jacobian)
    # Every level depends on those above it only, so T is lower triangular (by levels) like its inverse.
    tangent = jax.jacfwd(push)(errors)
    found = jnp.linalg.solve(tangent.T, root)
    return GaussNewtonLaplace(layout, location, jnp.triu(found))


def second_order(conditioned: Conditioned, belief: GaussNewtonLaplace) -> Energies:
    """½ tr(H_i C) by node, for a belief's own covariance C and the Gauss–Newton curvature at its mode."""
    layout, factor = conditioned.layout, belief.factor()
    slopes = jax.jacfwd(lambda u: flat_errors(conditioned, u))(belief.location) @ factor
    seen = conditioned.sensitivity(lambda u: u, belief.location)
    return Energies(
        {n: 0.5 * jnp.sum((rows @ factor) ** 2) for n, rows in seen.items()},
        {s.name: 0.5 * jnp.sum(slopes[s.where] ** 2) for s in layout.slots},
    )


def flat_errors(conditioned: Conditioned, location: Float[Array, " n"]) -> Float[Array, " n"]:
    """The standardised errors of all hidden nodes, in one vector."""
    found = conditioned.errors(location)
    return jnp.concatenate([*(found[n].reshape(-1) for n in conditioned.layout.names), jnp.zeros(0)])
