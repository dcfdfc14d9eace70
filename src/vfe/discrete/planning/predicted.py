"""What is predicted from a belief about states: the next states, and averages over them.

A belief is an array (*states) over joint states, or a tuple of arrays (states,), one for every factor.
"""

import math
import string
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Int

from vfe.discrete.pomdp import POMDP
from vfe.discrete.states.elimination import move, move_factors
from vfe.discrete.states.joint import marginal, over

Belief = Array | tuple[Array, ...]


def next_states(model: POMDP, belief: Any, controls: Int[Array, " factors"]) -> Any:
    """The belief one step on, in the form it came in: for factors, Σ_s Π_g q(s_g) B_f[s'_f | s, u_f].

    **Example:** `next_states(model, tuple(model.D), jnp.array([0]))`.
    """
    if not isinstance(belief, tuple):
        return move(model, belief, controls)
    return move_factors(model, belief, controls)


def joint(model: POMDP, belief: Any) -> Array:
    """q of all factors together. **Example:** `joint(model, tuple(model.D)).shape`."""
    return over(belief, tuple(range(len(model.states)))) if isinstance(belief, tuple) else belief


def by_factor(belief: Any) -> tuple[Array, ...]:
    """q of every factor alone. **Example:** `by_factor(jnp.ones((2, 3)) / 6)`."""
    if isinstance(belief, tuple):
        return belief
    return tuple(marginal(belief, (f,)) for f in range(belief.ndim))


def expected(table: Any, belief: Any, depends: tuple[int, ...]) -> Array:
    """Σ_s q(s) table[…, s] over the factors a table depends on, its last axes.

    **Example:** `expected(model.A[0], tuple(model.D), model.A_dependencies[0])`.
    """
    table = jnp.asarray(table)
    if isinstance(belief, tuple):
        for f in reversed(depends):
            table = table @ belief[f]
        return table
    weights = over(belief, depends)
    return jnp.tensordot(table, weights, axes=weights.ndim)


def likelihoods(model: POMDP) -> Array:
    """p(o_1 … o_M | s) of every joint outcome and joint state: (outcomes, states), in C order.

    **Example:** `likelihoods(model).shape`.
    """
    count = len(model.states)
    operands, terms = [], []
    states = string.ascii_lowercase[:count]
    for m, (table, depends) in enumerate(zip(model.A, model.A_dependencies, strict=True)):
        operands.append(jnp.asarray(table))
        terms.append(string.ascii_uppercase[m] + "".join(states[f] for f in depends))
    everything = jnp.ones(model.states, dtype=jnp.result_type(float))
    outcomes = string.ascii_uppercase[: len(model.A)]
    whole = jnp.einsum(f"{','.join(terms)},{states}->{outcomes}{states}", *operands, everything)
    return whole.reshape(math.prod(model.outcomes), model.joint_size)
