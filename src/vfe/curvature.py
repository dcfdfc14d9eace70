"""The Gauss–Newton curvature of E in standardised errors, through the smaller of output and error space.

With z = g(parents) + s ∘ e, E = ½ |e|² + Σ_i ln |s_i| + L(e), and its curvature is H = I + Jᵀ J, J how the
observed nodes' predictions move with e in units of their noise. All that F needs of H is here: entropies
by level, and the second-order part of the energies by node.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vfe.beliefs import LOG_2PI, GaussNewtonLaplace
from vfe.beliefs.gaussian import upper_root
from vfe.conditionals import Gaussian
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
        elif not (isinstance(node, Gaussian) and node.has_constant_noise):
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


def spread(
    conditioned: Conditioned, errors: Float[Array, " n"]
) -> tuple[Energies, dict[str, Float[Array, ""]]]:
    """½ tr(H_i H⁻¹) by node, and S(e_i | errors above) by level, of q(e) = N(errors, H⁻¹).

    Hidden nodes have H_i = I on their own errors, observed ones H_o = J_oᵀ J_o; the terms sum to n / 2.
    By levels from the top down S_i = ½ n_i (1 + ln 2π) + ½ (ln |S_{>i}| − ln |S_{≥i}|), S_{≥i} = I + Σ_{k ≥ i}
    J_k J_kᵀ over the level and those below it.
    """
    layout = conditioned.layout
    parts = conditioned.sensitivity(lambda e: conditioned.push(layout.unpack(e)), errors)
    jacobian = jnp.concatenate([*parts.values(), jnp.zeros((0, layout.size))])
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
    else:
        root = upper_root(jnp.eye(layout.size) + jacobian.T @ jacobian)
        half = jax.scipy.linalg.solve_triangular(
            root, jnp.eye(layout.size), lower=False
        )  # H⁻¹ = halfᵀ half
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
    return Energies(observed, hidden), entropies


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
