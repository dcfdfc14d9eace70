"""The algebra of joint states: likelihoods and transitions of every combination of states."""

import string
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vfe.discrete.pomdp import POMDP


def joint_likelihood(model: POMDP, outcomes: Int[Array, " m"]) -> Float[Array, " joint"]:
    """Π_m A_m[o_m | s] of every joint state; a negative outcome is a missing one.

    **Example:** `joint_likelihood(model, jnp.array([0]))`.
    """
    whole = jnp.ones(model.states)
    for m, (table, depends) in enumerate(zip(model.A, model.A_dependencies, strict=True)):
        row = jnp.asarray(table)[jnp.maximum(outcomes[m], 0)]
        row = jnp.where(outcomes[m] >= 0, row, 1.0)
        whole = whole * spread(row, depends, len(model.states))
    return whole.ravel()


def joint_transition(model: POMDP, controls: Int[Array, " f"]) -> Float[Array, "joint joint"]:
    """Π_f B_f[s'_f | s, u_f] between joint states.

    **Example:** `joint_transition(model, jnp.array([0]))`.
    """
    count = len(model.states)
    whole = jnp.ones((1,) * 2 * count)
    for f, (table, depends) in enumerate(zip(model.B, model.B_dependencies, strict=True)):
        chosen = jnp.take(jnp.asarray(table), controls[f], axis=-1)
        rows = jax.vmap(lambda row, depends=depends: spread(row, depends, count))(chosen)
        shape = [1] * count
        shape[f] = len(table)
        whole = whole * rows.reshape(*shape, *rows.shape[1:])
    return jnp.broadcast_to(whole, model.states * 2).reshape(model.joint_size, model.joint_size)


def spread(table: Array, depends: tuple[int, ...], count: int) -> Array:
    """A table over some factors as one over all, of length one where it does not depend on them.

    **Example:** `spread(jnp.ones((2, 3)), (1, 0), 3).shape` is (3, 2, 1).
    """
    axes = np.argsort(depends)
    ordered = jnp.transpose(table, tuple(int(axis) for axis in axes))
    shape = [1] * count
    for place, f in enumerate(np.asarray(depends, int)[axes]):
        shape[f] = ordered.shape[place]
    return ordered.reshape(shape)


def ordered(belief: Array, depends: tuple[int, ...]) -> Array:
    """Beliefs (time, *factors in rising order, …) with the factors in the order of a table.

    **Example:** `ordered(jnp.ones((5, 2, 3)), (1, 0)).shape` is (5, 3, 2).
    """
    ranks = np.argsort(np.argsort(depends))
    tail = tuple(range(1 + len(depends), belief.ndim))
    return jnp.transpose(belief, (0, *(1 + ranks), *tail))


def marginal(joint: Array, factors: tuple[int, ...]) -> Array:
    """Σ of a joint belief (*states) over all factors but some, these in the order given.

    **Example:** `marginal(jnp.ones((2, 3)) / 6, (1,))`.
    """
    letters = string.ascii_letters[: joint.ndim]
    return jnp.einsum(f"{letters}->{''.join(letters[f] for f in factors)}", joint)


def over(belief: Any, factors: tuple[int, ...]) -> Array:
    """q of some factors together, in the order given, of a joint belief or the product of marginals.

    **Example:** `over((jnp.ones(2) / 2, jnp.ones(3) / 3), (1, 0)).shape` is (3, 2).
    """
    if not isinstance(belief, tuple | list):
        return marginal(jnp.asarray(belief), factors)
    whole = jnp.ones(())
    for f in factors:
        whole = jnp.multiply.outer(whole, jnp.asarray(belief[f]))
    return whole
