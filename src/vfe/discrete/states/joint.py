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


def move(model: POMDP, joint: Float[Array, " *states"], controls: Int[Array, " f"]) -> Array:
    """Σ_s Π_f B_f[s'_f | s, u_f] q(s), one factor after the other: no table of pairs of joint states.

    **Example:** `move(model, jnp.ones(model.states) / model.joint_size, jnp.array([0]))`.
    """
    before = string.ascii_lowercase[: joint.ndim]
    after = string.ascii_uppercase[: joint.ndim]
    operands, terms = [joint], [before]
    for f, (table, depends) in enumerate(zip(model.B, model.B_dependencies, strict=True)):
        operands.append(jnp.take(jnp.asarray(table), controls[f], axis=-1))
        terms.append(after[f] + "".join(before[g] for g in depends))
    return jnp.einsum(f"{','.join(terms)}->{after}", *operands, optimize="greedy")


def move_factors(model: POMDP, factors: Any, controls: Int[Array, " f"]) -> tuple[Array, ...]:
    """Σ B_f[s'_f | s, u_f] Π_g q(s_g), by factor: the prediction of a product, as a product.

    **Example:** `vfe.discrete.move_factors(model, model.D, jnp.array([0]))`.
    """
    found = []
    for f, (table, depends) in enumerate(zip(model.B, model.B_dependencies, strict=True)):
        chosen = jnp.take(jnp.asarray(table), controls[f], axis=-1)
        for g in reversed(depends):
            chosen = chosen @ factors[g]
        found.append(chosen)
    return tuple(found)
