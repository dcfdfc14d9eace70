"""How likely what was seen is under every state: the one form that all observations take."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vfe.discrete.pomdp import POMDP
from vfe.discrete.states.joint import spread
from vfe.discrete.tables import SMALLEST, log_table


def log_likelihoods(model: POMDP, weights: tuple[Any, ...], *, floor: bool = False) -> tuple[Array, ...]:
    """Σ_k ln Σ_o w[t, k, o] A[o | s] of every modality, (time, *states it depends on).

    Only ones: nothing was seen, and the logarithm is zero. With `floor` ln 0 counts as ln `SMALLEST`, which
    approximate beliefs need.

    **Arguments:** `weights`: by modality, (time, readings, outcomes).

    **Example:** `log_likelihoods(model, (jnp.eye(2)[:, None],))`.
    """
    found = []
    for table, weight in zip(model.A, weights, strict=True):
        table, weight = jnp.asarray(table), jnp.asarray(weight)
        likelihood = jnp.tensordot(weight, table, 1, precision=jax.lax.Precision.HIGHEST)
        lead = (*weight.shape[:-1], *[1] * (table.ndim - 1))
        if floor:
            likelihood = jnp.maximum(likelihood, SMALLEST * weight.max(-1).reshape(lead))
        missing = (weight == 1).all(-1).reshape(lead)
        found.append(jnp.where(missing, 0.0, log_table(likelihood)).sum(1))
    return tuple(found)


def joint_log_likelihood(model: POMDP, logs: tuple[Array, ...]) -> Float[Array, "time *states"]:
    """Σ over modalities of log-likelihoods, of every joint state.

    **Example:** `joint_log_likelihood(model, log_likelihoods(model, weights))`.
    """
    whole = jnp.zeros((len(logs[0]), *model.states))
    for table, depends in zip(logs, model.A_dependencies, strict=True):
        whole = whole + jax.vmap(lambda row, d=depends: spread(row, d, len(model.states)))(table)
    return whole
