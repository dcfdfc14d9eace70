"""Tables of probabilities, checked."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from vfe.arrays import real_numbers

TOLERANCE = 1e-6
# What stands for ln 0 where an approximate belief cannot be exactly zero: ln of this.
SMALLEST = float(np.finfo(np.float64).eps)


def probabilities(name: str, value: Any) -> Any:
    """A table in double precision, whose first axis is what it is a distribution of.

    A table that is being traced (under `jax.jit`, `jax.grad` or `jax.vmap`) has no values yet and is taken
    as it is; it must be normalised by whoever made it.

    **Raises:** `ValueError` that names the table, and the column with its sum, for numbers that are
    negative, not finite, or do not sum to one over the first axis.

    **Example:** `probabilities("A[0]", [[0.9, 0.2], [0.1, 0.8]])`.
    """
    if isinstance(value, Tracer):
        return value
    table = real_numbers(name, value)
    if table.ndim < 1 or not table.size:
        raise ValueError(f"{name}: got shape {table.shape}; wanted probabilities along the first axis.")
    if not np.isfinite(table).all() or (table < 0).any():
        where = tuple(int(i) for i in np.argwhere(~(np.isfinite(table) & (table >= 0)))[0])
        raise ValueError(f"{name}: got {table[where]} at {where}; wanted probabilities, zero or more.")
    sums = table.sum(0)
    if (np.abs(sums - 1) > TOLERANCE).any():
        where = tuple(int(i) for i in np.argwhere(np.abs(sums - 1) > TOLERANCE)[0])
        raise ValueError(
            f"{name}: column {where} sums to {sums[where]:.6g}; wanted 1 over the first axis (divide by "
            "table.sum(0))."
        )
    return table / sums


def log_table(table: Any) -> Array:
    """ln of a table, −∞ where it is zero, with derivatives that are zero there.

    **Example:** `log_table(jnp.array([0.5, 0.5, 0.0]))`.
    """
    table = jnp.asarray(table)
    return jnp.log(jnp.where(table > 0, table, 1.0)) + jnp.where(table > 0, 0.0, -jnp.inf)


def entropy(table: Any, axis: Any = 0) -> Array:
    """−Σ p ln p over an axis (or several), in nats. **Example:** `entropy(jnp.array([0.5, 0.5]))`."""
    table = jnp.asarray(table)
    return -(table * jnp.log(jnp.where(table > 0, table, 1.0))).sum(axis)
