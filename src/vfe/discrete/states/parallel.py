"""Exact beliefs about joint states at all times at once, by products that are associative."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vfe.discrete.course import Course
from vfe.discrete.pomdp import POMDP
from vfe.discrete.states.forward_backward import Forward, first_prior, ratio, scaled_likelihood, weigh
from vfe.discrete.states.joint import joint_transition
from vfe.discrete.tables import log_table


def parallel_forward(model: POMDP, course: Course) -> Forward:
    """As `run_forward`, by a scan over products of p(o_t, s_t | s_t−1), tables of N × N joint states.

    Every column of a product is scaled by itself, so that a state of the past that is by now most unlikely
    does not underflow.

    **Example:** `parallel_forward(model, course).joint`.

    **Source:** Särkkä and García-Fernández 2021, section II; Hassan, Särkkä and García-Fernández 2021.
    """
    likelihood, top = scaled_likelihood(model, course)
    length, shape = len(top), model.states
    flat = likelihood.reshape(length, -1)
    prior = first_prior(model).ravel()
    first, surprise, impossible = weigh(prior, flat[0], top[0])
    moves = _transitions(model, course)
    _, (products, scales) = jax.lax.associative_scan(_then, _scaled(flat[1:, :, None] * moves))
    weights = scales + log_table(first)
    most = weights.max(1, keepdims=True)
    weights = jnp.exp(weights - jnp.where(jnp.isfinite(most), most, 0.0))
    beliefs = jnp.einsum("tij,tj->ti", products, weights)
    mass = beliefs.sum(1, keepdims=True)
    beliefs = beliefs / jnp.where(mass > 0, mass, 1.0)
    before = jnp.concatenate([first[None], beliefs[:-1]])
    predicted = jnp.einsum("tij,tj->ti", moves, before)
    joint, later, excluded = jax.vmap(weigh)(predicted, flat[1:], top[1:])
    return Forward(
        jnp.concatenate([first[None], joint]).reshape(length, *shape),
        jnp.concatenate([prior[None], predicted]).reshape(length, *shape),
        jnp.concatenate([surprise[None], later]),
        jnp.concatenate([impossible[None], excluded]),
    )


def parallel_backward(model: POMDP, course: Course, filtered: Forward) -> Float[Array, "time *states"]:
    """As `run_backward`, by a scan over products of p(s_t | s_t+1, o_1 … o_t).

    **Example:** `parallel_backward(model, course, parallel_forward(model, course))`.
    """
    length, shape = len(filtered.surprise), model.states
    joint = filtered.joint.reshape(length, -1)
    predicted = filtered.predicted.reshape(length, -1)
    moves = _transitions(model, course)
    kernels = jnp.swapaxes(moves, 1, 2) * joint[:-1, :, None]
    kernels = ratio(kernels, jnp.broadcast_to(predicted[1:, None, :], kernels.shape))
    products = jax.lax.associative_scan(lambda later, now: now @ later, kernels, reverse=True)
    earlier = jnp.einsum("tij,j->ti", products, joint[-1])
    return jnp.concatenate([earlier, joint[-1:]]).reshape(length, *shape)


def _transitions(model: POMDP, course: Course) -> Float[Array, "steps joint joint"]:
    return jax.vmap(lambda u: joint_transition(model, u))(course.controls)


Scaled = tuple[Array, tuple[Array, Array]]


def _scaled(tables: Array) -> Scaled:
    """A table whose columns have 1 as their largest entry, with its logarithm, and that of the scales."""
    top = tables.max(-2)
    scaled = tables / jnp.where(top > 0, top, 1.0)[..., None, :]
    return log_table(scaled), (scaled, log_table(top))


def _then(before: Scaled, after: Scaled) -> Scaled:
    logs, (_, scale) = before
    _, (tables, scales) = after
    weights = scales[..., :, None] + logs
    most = weights.max(-2)
    most = jnp.where(jnp.isfinite(most), most, 0.0)
    product = jnp.matmul(tables, jnp.exp(weights - most[..., None, :]))
    logs, (product, more) = _scaled(product)
    return logs, (product, scale + most + more)
