"""Variable elimination: sums over the joint states of a discrete graph, one node at a time."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vfe.beliefs import JointCategorical
from vfe.conditioning import Conditioned

LARGEST_TABLE = 2**24


def eliminate(conditioned: Conditioned) -> tuple[JointCategorical, Float[Array, ""]]:
    """The exact posterior of the hidden discrete nodes of one observation, and ln p(x).

    Nodes are summed out from the bottom up: Σ_{k_i} Π factors that contain k_i. What each sum
    normalises is q(k_i | the earlier nodes it met), so the posterior comes out as conditionals.

    **Raises:** `ValueError` where a table would have more than 2²⁴ entries; it gives the size.

    **Source:** Zhang and Poole 1994; any text on graphical models.
    """
    sizes = conditioned.discrete
    order = tuple(sizes)
    factors = [(names, -table) for names, table in conditioned.tables().values()]
    check_size(sizes, [names for names, _ in factors])
    constant = sum((t for names, t in factors if not names), jnp.zeros(()))
    factors = [(names, t) for names, t in factors if names]
    conditionals: dict[str, Array] = {}
    separators = []
    for node in reversed(order):
        mine = [f for f in factors if node in f[0]]
        factors = [f for f in factors if node not in f[0]]
        scope = tuple(n for n in order if any(n in names for names, _ in mine))
        joint = jnp.zeros([sizes[n] for n in scope])
        for names, table in mine:
            joint = joint + _spread(table, names, scope)
        message = _log_sum(joint)
        conditionals[node] = jnp.where(
            jnp.isfinite(message)[..., None],
            joint - jnp.where(jnp.isfinite(message), message, 0.0)[..., None],
            -jnp.log(sizes[node]),
        )
        separators.append((node, scope[:-1]))
        if scope[:-1]:
            factors.append((scope[:-1], message))
        else:
            constant = constant + message
    belief = JointCategorical({n: conditionals[n] for n in order}, tuple(reversed(separators)))
    return belief, constant


def _log_sum(table: Array) -> Array:
    """ln Σ exp over the last axis, with −inf where every entry is −inf and finite gradients."""
    top = jax.lax.stop_gradient(jnp.max(table, -1, keepdims=True))
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    total = jnp.exp(table - top).sum(-1)
    return jnp.where(total > 0, jnp.log(jnp.where(total > 0, total, 1.0)), -jnp.inf) + top[..., 0]


def _spread(table: Array, names: tuple[str, ...], scope: tuple[str, ...]) -> Array:
    """A table over `names` (in topological order) with axes of length one for the rest of `scope`."""
    sizes = dict(zip(names, table.shape, strict=True))
    return table.reshape([sizes.get(n, 1) for n in scope])


def check_size(sizes: dict[str, int], scopes: list[tuple[str, ...]]) -> None:
    """Refuse an elimination whose largest table would not fit."""
    remaining = [set(s) for s in scopes]
    for node in reversed(tuple(sizes)):
        scope = set().union({node}, *[s for s in remaining if node in s])
        entries = int(np.prod([sizes[n] for n in scope], dtype=object))
        if entries > LARGEST_TABLE:
            raise ValueError(
                f"exact: summing out node {node!r} needs a table of {entries:,} entries over "
                f"{sorted(scope)}; the limit is {LARGEST_TABLE:,}. Use vfe.perceive with "
                "solver=vfe.CoordinateAscent() and belief=vfe.Categorical."
            )
        remaining = [s for s in remaining if node not in s] + [scope - {node}]
