"""Exact beliefs about joint states, one time after the other."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vfe.discrete.course import Course
from vfe.discrete.pomdp import POMDP
from vfe.discrete.states.elimination import backward, chosen, forward, over_all
from vfe.discrete.states.likelihoods import joint_log_likelihood, log_likelihoods


class Forward(eqx.Module):
    """`joint`, `predicted` (time, *states); `surprise` (time,); `impossible`: where p(o_t | past) = 0.

    At such a time what was seen is passed over: the belief is the prediction, the surprise infinite.
    """

    joint: Float[Array, "time *states"]
    predicted: Float[Array, "time *states"]
    surprise: Float[Array, " time"]
    impossible: Bool[Array, " time"]


def scaled_likelihood(model: POMDP, course: Course) -> tuple[Array, Array]:
    """p(o_t | s) of every joint state, divided by its largest value; and the logarithm of that.

    **Example:** `scaled_likelihood(model, course)[0]`.
    """
    logs = joint_log_likelihood(model, log_likelihoods(model, course.weights))
    logs = logs.reshape(len(logs), -1)
    top = logs.max(1)
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    return jnp.exp(logs - top[:, None]).reshape(-1, *model.states), top


def first_prior(model: POMDP) -> Float[Array, " *states"]:
    """Π_f D_f. **Example:** `first_prior(model)`."""
    joint = jnp.ones(())
    for table in model.D:
        joint = jnp.multiply.outer(joint, jnp.asarray(table))
    return joint


def weigh(predicted: Array, likelihood: Array, top: Array) -> tuple[Array, Array, Array]:
    """The belief after what was seen, its surprise, and whether that was impossible.

    **Example:** `weigh(predicted, likelihood[t], top[t])`.
    """
    both = predicted * likelihood
    mass = both.sum()
    impossible = ~(mass > 0)
    belief = jnp.where(impossible, predicted, both / jnp.where(impossible, 1.0, mass))
    return belief, -jnp.log(mass) - top, impossible


def run_forward(model: POMDP, course: Course) -> Forward:
    """Beliefs given the outcomes so far. **Example:** `run_forward(model, course).joint`."""
    likelihood, top = scaled_likelihood(model, course)
    prior = first_prior(model)

    def go(belief: Array, now: tuple[Array, Array, Array]) -> tuple[Array, tuple[Array, ...]]:
        control, seen, largest = now
        predicted = forward(model, chosen(model, control), belief)[-1]
        belief, surprise, impossible = weigh(predicted, seen, largest)
        return belief, (belief, predicted, surprise, impossible)

    belief, surprise, impossible = weigh(prior, likelihood[0], top[0])
    first = (belief, prior, surprise, impossible)
    _, rest = jax.lax.scan(go, belief, (course.controls, likelihood[1:], top[1:]))
    return Forward(*(jnp.concatenate([a[None], b]) for a, b in zip(first, rest, strict=True)))


def run_backward(model: POMDP, course: Course, filtered: Forward) -> Float[Array, "time *states"]:
    """Beliefs given all outcomes. **Example:** `run_backward(model, course, filtered)`."""

    def go(later: Array, now: tuple[Array, ...]) -> tuple[Array, Array]:
        belief, predicted, control, here = now
        behind = backward(model, chosen(model, control), ratio(later, predicted))[0]
        # Of columns that sum to less than one (⟨ln B⟩), times after the end would tell of those before.
        belief = jnp.where(here, belief * over_all(model, behind), belief)
        return belief, belief

    last = filtered.joint[-1]
    steps = (filtered.joint[:-1], filtered.predicted[1:], course.controls, course.present[1:])
    _, earlier = jax.lax.scan(go, last, steps, reverse=True)
    return jnp.concatenate([earlier, last[None]])


def ratio(later: Array, predicted: Array) -> Array:
    """later / predicted, zero where nothing was predicted. **Example:** `ratio(smoothed, predicted)`."""
    return jnp.where(predicted > 0, later / jnp.where(predicted > 0, predicted, 1.0), 0.0)
