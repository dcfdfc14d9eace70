"""The exact filter and smoother of a linear-Gaussian state-space model, all steps at once.

Every step is an element (A, b, C, η, J): p(z_t | z_{t−1}, y_t) = N(A z_{t−1} + b, C), and
p(y_t | z_{t−1}) ∝ exp(−½ zᵀ J z + ηᵀ z). Joining neighbours is associative, so that doubling the reach
log₂ T times gives every prefix (the filter) or every suffix (what the future says). The rounds are one
loop with one body, which compiles once however long the series is.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vfe.beliefs import LOG_2PI
from vfe.dynamics.linear.kalman import (
    Future,
    Predicted,
    Steps,
    absorb,
    correct,
    factorise,
    matvec,
    observed_information,
    posterior_steps,
    product,
    symmetric,
    transpose,
)

if TYPE_CHECKING:
    from vfe.dynamics.linear.state_space import StateSpace


Run = TypeVar("Run", bound=tuple)


class Element(NamedTuple):
    """One step, or a run of steps joined: see the top of this file."""

    gain: Float[Array, "time n n"]
    offset: Float[Array, "time n"]
    spread: Float[Array, "time n n"]
    vector: Float[Array, "time n"]
    information: Float[Array, "time n n"]


def elements(model: "StateSpace", steps: Steps) -> Element:
    """Every step as an element; the first one starts from the prior and forgets what was before."""

    def one(transition: Array, drive: Array, noise: Array, observe: Array, error: Array, value: Array):
        offset, spread, _, left = correct(drive, noise, observe, error, value)
        innovation = value - matvec(observe, drive)
        factor = jnp.linalg.cholesky(product(observe, noise, observe.T) + error)
        both = jnp.concatenate([product(observe, transition), innovation[:, None]], 1)
        white = jax.lax.linalg.triangular_solve(factor, both, left_side=True, lower=True)
        seen, missed = white[:, :-1], white[:, -1]
        return Element(
            product(left, transition), offset, spread, matvec(seen.T, missed), product(seen.T, seen)
        )

    count, size = steps.drive.shape
    transition = jnp.broadcast_to(steps.transition, (count, size, size)).at[0].set(0.0)
    noise = jnp.broadcast_to(steps.noise, (count, size, size)).at[0].set(model.initial_covariance)
    drive = steps.drive.at[0].set(model.initial_mean)
    return jax.vmap(one)(transition, drive, noise, steps.observe, steps.error, steps.value)


def join(first: Element, then: Element) -> Element:
    """Two runs of steps, one after the other, as one."""
    size = first.offset.shape[-1]
    seen = product(then.information, first.spread)
    both = jnp.concatenate([then.information, jnp.eye(size) + 0 * seen], -1)
    solved = jnp.linalg.solve(jnp.eye(size) + seen, both)
    through, left = solved[..., :size], solved[..., size:]
    gain = product(then.gain, transpose(left))
    spread = product(gain, first.spread, transpose(then.gain)) + then.spread
    before = transpose(first.gain)
    return Element(
        product(gain, first.gain),
        matvec(gain, first.offset + matvec(first.spread, then.vector)) + then.offset,
        symmetric(spread),
        matvec(before, matvec(left, then.vector - matvec(then.information, first.offset))) + first.vector,
        symmetric(product(before, through, first.gain)) + first.information,
    )


def _double(runs: Run, neighbour: Callable[[Array, Array], Array], join: Callable[[Run, Run], Run]) -> Run:
    """Join every run with the one `neighbour` names, twice as far away every round."""
    count = jax.tree.leaves(runs)[0].shape[0]
    here = jnp.arange(count)

    def one_round(number: Array, runs: Run) -> Run:
        other = neighbour(here, 2**number)
        there = (other >= 0) & (other < count)
        far = jax.tree.map(lambda a: a[jnp.clip(other, 0, count - 1)], runs)
        return jax.tree.map(
            lambda new, old: jnp.where(there.reshape(-1, *[1] * (old.ndim - 1)), new, old),
            join(runs, far),
            runs,
        )

    return jax.lax.fori_loop(0, (count - 1).bit_length(), one_round, runs)


def filter_moments(model: "StateSpace", steps: Steps) -> tuple[Predicted, Float[Array, " time"]]:
    """As `kalman.filter_moments`."""
    runs = _double(
        elements(model, steps), lambda here, reach: here - reach, lambda run, far: join(far, run)
    )
    mean, covariance = runs.offset, runs.spread

    def before(first: Array, rest: Array) -> Array:
        return jnp.concatenate([first[None], rest])

    count, size = mean.shape
    transition = jnp.broadcast_to(steps.transition, (count, size, size))[1:]
    noise = jnp.broadcast_to(steps.noise, (count, size, size))[1:]
    predicted = before(model.initial_mean, matvec(transition, mean[:-1]) + steps.drive[1:])
    wide = product(transition, covariance[:-1], transpose(transition)) + noise
    wide = before(model.initial_covariance, symmetric(wide))
    mean, covariance, energy, _ = jax.vmap(correct)(
        predicted, wide, steps.observe, steps.error, steps.value
    )
    return Predicted(predicted, wide, mean, covariance), 0.5 * (energy + steps.present * LOG_2PI)


def look_back(model: "StateSpace", steps: Steps) -> Future:
    """As `kalman.look_back`."""
    runs = _double(elements(model, steps), lambda here, reach: here + reach, join)
    seen, said = observed_information(steps)

    def of_the_future(array: Array) -> Array:
        return jnp.concatenate([array[1:], jnp.zeros_like(array[:1])])

    information = of_the_future(runs.information) + seen
    vector = of_the_future(runs.vector) + said
    noise, start = factorise(steps.noise), factorise(model.initial_covariance)
    factor = jnp.broadcast_to(noise, information.shape).at[0].set(start)
    inverse, feedback, left, _ = jax.vmap(absorb)(information, factor)
    return posterior_steps(model, steps, noise, start, inverse, feedback, left, information, vector)


class Chained(NamedTuple):
    """A run of steps of the posterior chain: z_t = gain z_s + offset + N(0, spread)."""

    gain: Float[Array, "time n n"]
    offset: Float[Array, "time n"]
    spread: Float[Array, "time n n"]


def smooth_moments(future: Future) -> tuple[Array, Array, Array]:
    """As `kalman.smooth_moments`."""

    def follow(run: Chained, far: Chained) -> Chained:
        spread = product(run.gain, far.spread, transpose(run.gain)) + run.spread
        return Chained(
            product(run.gain, far.gain), matvec(run.gain, far.offset) + run.offset, symmetric(spread)
        )

    steps = Chained(future.gain, future.offset, future.spread)
    runs = _double(steps, lambda here, reach: here - reach, follow)
    cross = product(runs.spread[:-1], transpose(future.gain[1:]))
    return runs.offset, runs.spread, cross
