"""The exact filter and smoother of a linear-Gaussian state-space model, one step after the other.

Forward, a Kalman filter in Joseph's form. The smoother does not invert the covariance of a state: it runs
backward over what the future says about each state (an information matrix J and vector h, so that
p(y_t … y_T | z_t) ∝ exp(−½ zᵀ J z + hᵀ z)), then forward over the posterior Markov chain
p(z_t | z_{t−1}, y_1 … y_T). Covariances are sums of squares throughout, singular state noise and a vague
initial state are no special cases, and energies and entropies by time come from the same numbers.
"""

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vfe.beliefs import LOG_2PI

if TYPE_CHECKING:
    from vfe.dynamics.linear.state_space import StateSpace


LARGEST_FUSED = 10


class Steps(NamedTuple):
    """What the recursions read at every step, missing elements taken out."""

    transition: Float[Array, "*time n n"]
    drive: Float[Array, "time n"]
    noise: Float[Array, "*time n n"]
    observe: Float[Array, "time k n"]
    error: Float[Array, "time k k"]
    value: Float[Array, "time k"]
    present: Float[Array, " time"]


class Predicted(NamedTuple):
    """Moments of every state given the samples before it, and given its own as well; ln p in parts."""

    predicted_mean: Float[Array, "time n"]
    predicted_covariance: Float[Array, "time n n"]
    mean: Float[Array, "time n"]
    covariance: Float[Array, "time n n"]


class Future(NamedTuple):
    """What the samples from t on say, and p(z_t | z_{t−1}, y) that follows, for every t.

    z_t = `gain` z_{t−1} + `offset` + N(0, `spread`); the noise that enters the step is
    ε_t = `error` − `feedback` z_{t−1} + N(0, M⁻¹) in units of the factor of its covariance; `narrowed`: the
    diagonal of M⁻¹.
    """

    gain: Float[Array, "time n n"]
    offset: Float[Array, "time n"]
    spread: Float[Array, "time n n"]
    error: Float[Array, "time n"]
    feedback: Float[Array, "time n n"]
    narrowed: Float[Array, "time n"]
    log_det: Float[Array, " time"]


def matvec(matrix: Array, vector: Array) -> Array:
    """Matrices times vectors, over any leading axes of either."""
    if matrix.shape[-1] > LARGEST_FUSED:
        return (matrix @ vector[..., None])[..., 0]
    return (matrix * vector[..., None, :]).sum(-1)


def product(*matrices: Array) -> Array:
    """Matrices times matrices, from the left, over any leading axes.

    Small ones as plain sums, which XLA fuses with what is around them: on a CPU the call of a routine for
    products costs ten times the product of two matrices of six by six. Stacks of them add up outer
    products, which is quicker there than summing over an inner axis.
    """
    first, *rest = matrices
    for then in rest:
        size = first.shape[-1]
        if max(*first.shape[-2:], then.shape[-1]) > LARGEST_FUSED:
            first = first @ then
        elif max(first.ndim, then.ndim) > 2:
            outer = (first[..., :, i, None] * then[..., None, i, :] for i in range(1, size))
            first = sum(outer, first[..., :, 0, None] * then[..., None, 0, :])
        else:
            first = (first[:, :, None] * then[None, :, :]).sum(1)
    return first


def transpose(matrix: Array) -> Array:
    """The last two axes exchanged."""
    return jnp.swapaxes(matrix, -1, -2)


def symmetric(matrix: Array) -> Array:
    """Without the rounding that makes the triangles differ."""
    return 0.5 * (matrix + transpose(matrix))


def prepare(model: "StateSpace", y: Array, inputs: Array) -> Steps:
    """The model along the series: inputs and offsets added up; a missing element leaves the density.

    A missing element gets a row of zeros in C, and variance one without correlation in R: what is left
    is the density of the others, under the sub-block of the covariance.
    """
    present = ~jnp.isnan(y)
    value = jnp.where(present, y, 0.0)
    expected = matvec(model.observation_input, inputs) + model.observation_offset
    both = present[:, :, None] & present[:, None, :]
    identity = jnp.eye(y.shape[1])
    return Steps(
        transition=model.transition,
        drive=matvec(model.transition_input, inputs) + model.transition_offset,
        noise=model.transition_covariance,
        observe=jnp.where(present[:, :, None], model.observation, 0.0),
        error=jnp.where(both, model.observation_covariance, identity),
        value=jnp.where(present, value - expected, 0.0),
        present=present.sum(-1).astype(y.dtype),
    )


def correct(
    mean: Array, covariance: Array, observe: Array, error: Array, value: Array
) -> tuple[Array, Array, Array, Array]:
    """One sample: moments after it, 2 × its surprise without the constant, I − K C (Joseph's form)."""
    innovation = value - matvec(observe, mean)
    shared = product(covariance, observe.T)
    total = product(observe, shared) + error
    if observe.shape[0] == 1:
        gain = shared / total
        energy = jnp.log(total[0, 0]) + innovation[0] ** 2 / total[0, 0]
    else:
        factor = jnp.linalg.cholesky(total)
        both = jnp.concatenate([shared.T, innovation[:, None]], 1)
        white = jax.lax.linalg.triangular_solve(factor, both, left_side=True, lower=True)
        gain = jax.lax.linalg.triangular_solve(
            factor, white[:, :-1], left_side=True, lower=True, transpose_a=True
        ).T
        energy = 2 * jnp.log(jnp.diagonal(factor)).sum() + (white[:, -1] ** 2).sum()
    left = jnp.eye(mean.shape[0]) - product(gain, observe)
    after = product(left, covariance, left.T) + product(gain, error, gain.T)
    return mean + matvec(gain, innovation), symmetric(after), energy, left


def filter_moments(model: "StateSpace", steps: Steps) -> tuple[Predicted, Float[Array, " time"]]:
    """Moments of the states given the samples so far, and the surprise of each sample, in nats."""

    def later(array: Array) -> Array:
        """The entry of the next step, for the prediction into it."""
        return jnp.concatenate([array[1:], array[-1:]])

    moving = steps.transition.ndim == 3, steps.noise.ndim == 3

    def step(carry: tuple[Array, Array], now: tuple) -> tuple[tuple[Array, Array], tuple]:
        mean, covariance = carry
        transition, drive, noise, observe, error, value = now
        transition = transition if moving[0] else steps.transition
        noise = noise if moving[1] else steps.noise
        corrected, spread, energy, _ = correct(mean, covariance, observe, error, value)
        following = matvec(transition, corrected) + drive
        wide = symmetric(product(transition, spread, transition.T) + noise)
        return (following, wide), (mean, covariance, corrected, spread, energy)

    along = (
        later(steps.transition) if moving[0] else None,
        later(steps.drive),
        later(steps.noise) if moving[1] else None,
        steps.observe,
        steps.error,
        steps.value,
    )
    start = (model.initial_mean, model.initial_covariance)
    _, (*moments, energy) = jax.lax.scan(step, start, along)
    return Predicted(*moments), 0.5 * (energy + steps.present * LOG_2PI)


def factorise(covariance: Float[Array, "*time n n"]) -> Float[Array, "*time n n"]:
    """A lower triangular Γ with Γ Γᵀ equal to a covariance that may be singular.

    The column of an element that earlier ones determine is zero.
    """
    size = covariance.shape[-1]
    diagonal = jnp.diagonal(covariance, axis1=-2, axis2=-1)
    smallest = 8 * size * jnp.finfo(covariance.dtype).eps * diagonal

    def column(j: Array, factor: Array) -> Array:
        row = jnp.take(factor, j, axis=-2)
        rest = jnp.take(covariance, j, axis=-1) - matvec(factor, row)
        pivot = jnp.take(rest, j, axis=-1)
        kept = pivot > jnp.take(smallest, j, axis=-1)
        scale = jnp.where(kept, jax.lax.rsqrt(jnp.where(kept, pivot, 1.0)), 0.0)
        below = jnp.arange(size) >= j
        return factor.at[..., :, j].set(jnp.where(below, rest * scale[..., None], 0.0))

    return jax.lax.fori_loop(0, size, column, jnp.zeros_like(covariance))


def observed_information(steps: Steps) -> tuple[Float[Array, "time n n"], Float[Array, "time n"]]:
    """Cᵀ R⁻¹ C and Cᵀ R⁻¹ y: what each sample says about its own state."""
    factor = jnp.linalg.cholesky(steps.error)
    both = jnp.concatenate([steps.observe, steps.value[..., None]], -1)
    white = jax.lax.linalg.triangular_solve(factor, both, left_side=True, lower=True)
    observe, value = white[..., :-1], white[..., -1]
    return product(transpose(observe), observe), matvec(transpose(observe), value)


def absorb(information: Array, factor: Array) -> tuple[Array, Array, Array, Array]:
    """The noise of one step meets what is known after it: M = I + Γᵀ J Γ.

    **Returns:** L⁻¹ for M = L Lᵀ, M⁻¹ Γᵀ J, I − J Γ M⁻¹ Γᵀ, and J seen through the noise,
    (J⁻¹ + Q)⁻¹, as a sum of squares.
    """
    size = information.shape[-1]
    mixed = product(information, factor)
    lower = jnp.linalg.cholesky(jnp.eye(size) + symmetric(product(factor.T, mixed)))
    inverse = jax.lax.linalg.triangular_solve(lower, jnp.eye(size), left_side=True, lower=True)
    feedback = product(inverse.T, product(inverse, mixed.T))
    left = jnp.eye(size) - product(factor, feedback).T
    through = product(left, information, left.T) + product(feedback.T, feedback)
    return inverse, feedback, left, through


def look_back(model: "StateSpace", steps: Steps) -> Future:
    """From the last sample to the first: p(z_t | z_{t−1}, y_1 … y_T), and p(z_1 | y_1 … y_T)."""
    seen, said = observed_information(steps)
    noise, start = factorise(steps.noise), factorise(model.initial_covariance)
    moving = steps.transition.ndim == 3, steps.noise.ndim == 3

    def step(carry: tuple[Array, Array], now: tuple) -> tuple[tuple[Array, Array], tuple]:
        information, vector = carry
        transition, factor, drive, seen, said = now
        transition = transition if moving[0] else steps.transition
        factor = factor if moving[1] else noise
        # What the sample itself says joins what those after it say.
        information, vector = information + seen, vector + said
        inverse, feedback, left, through = absorb(information, factor)
        before = product(transition.T, through, transition)
        said_before = matvec(transition.T, matvec(left, vector - matvec(information, drive)))
        return (symmetric(before), said_before), (inverse, feedback, left, information, vector)

    along = (
        steps.transition[1:] if moving[0] else None,
        noise[1:] if moving[1] else None,
        steps.drive[1:],
        seen[1:],
        said[1:],
    )
    nothing = (jnp.zeros_like(seen[0]), jnp.zeros_like(said[0]))
    (information, vector), parts = jax.lax.scan(step, nothing, along, reverse=True)
    information, vector = information + seen[0], vector + said[0]
    first = (*absorb(information, start)[:3], information, vector)
    parts = jax.tree.map(lambda one, rest: jnp.concatenate([one[None], rest]), first, parts)
    return posterior_steps(model, steps, noise, start, *parts)


def posterior_steps(
    model: "StateSpace",
    steps: Steps,
    noise: Array,
    start: Array,
    inverse: Array,
    feedback: Array,
    left: Array,
    information: Array,
    vector: Array,
) -> Future:
    """p(z_t | z_{t−1}, y) for all t at once, from what each sample and those after it say.

    `inverse`, `feedback`, `left`: of `absorb`, with `information` and `vector` those of y_t … y_T.
    """
    count, size = vector.shape
    # The initial state is a step from nowhere: its drive is the prior mean.
    drive = jnp.concatenate([model.initial_mean[None], steps.drive[1:]])
    transition = jnp.broadcast_to(steps.transition, (count, size, size)).at[0].set(0.0)
    factor = jnp.broadcast_to(noise, (count, size, size)).at[0].set(start)
    square = product(inverse, transpose(factor))
    spread = product(transpose(square), square)
    white = matvec(inverse, matvec(transpose(factor), vector - matvec(information, drive)))
    return Future(
        gain=product(transpose(left), transition),
        offset=matvec(transpose(left), drive) + matvec(spread, vector),
        spread=spread,
        error=matvec(transpose(inverse), white),
        feedback=product(feedback, transition),
        narrowed=(inverse**2).sum(-2),
        log_det=-2 * jnp.log(jnp.diagonal(inverse, axis1=-2, axis2=-1)).sum(-1),
    )


def smooth_moments(future: Future) -> tuple[Array, Array, Array]:
    """Means, covariances and Cov(z_t, z_{t+1}) given the whole series."""

    def step(carry: tuple[Array, Array], now: tuple) -> tuple[tuple[Array, Array], tuple]:
        mean, covariance = carry
        gain, offset, spread = now
        cross = product(covariance, gain.T)
        found = (matvec(gain, mean) + offset, symmetric(product(gain, cross) + spread))
        return found, (*found, cross)

    nothing = (jnp.zeros_like(future.offset[0]), jnp.zeros_like(future.spread[0]))
    _, (mean, covariance, cross) = jax.lax.scan(step, nothing, (future.gain, future.offset, future.spread))
    return mean, covariance, cross[1:]


class Terms(NamedTuple):
    """Energies and entropies of the path by time, in nats; `elements`: of the state, given those before."""

    observation: Float[Array, " time"]
    elements: Float[Array, "time n"]
    entropy: Float[Array, " time"]

    @property
    def state(self) -> Float[Array, " time"]:
        return self.elements.sum(-1)


def path_terms(model: "StateSpace", steps: Steps, future: Future, mean: Array, covariance: Array) -> Terms:
    """⟨−ln p(y_t | z_t)⟩, ⟨−ln p(z_t | z_{t−1})⟩ and S(z_t | z_{t−1}) under the exact smoothing density.

    Where the noise of the state is singular, its density is that of the elements which earlier ones do not
    determine.
    """
    noise, start = factorise(steps.noise), factorise(model.initial_covariance)
    count, size = mean.shape
    pivots = jnp.diagonal(noise, axis1=-2, axis2=-1)
    pivots = jnp.broadcast_to(pivots, (count, size)).at[0].set(jnp.diagonal(start))
    free = (pivots > 0).astype(mean.dtype)
    log = jnp.log(jnp.where(pivots > 0, pivots, 1.0))
    before = jnp.concatenate([jnp.zeros((1, size)), mean[:-1]])
    spread = jnp.concatenate([jnp.zeros((1, size, size)), covariance[:-1]])
    error = future.error - matvec(future.feedback, before)
    squares = error**2 + future.narrowed - (1.0 - free)
    squares = squares + (product(future.feedback, spread) * future.feedback).sum(-1)
    factor = jnp.linalg.cholesky(steps.error)
    both = jnp.concatenate([steps.observe, steps.value[..., None]], -1)
    white = jax.lax.linalg.triangular_solve(factor, both, left_side=True, lower=True)
    observe, left = white[..., :-1], white[..., -1] - matvec(white[..., :-1], mean)
    missed = (left**2).sum(-1) + (product(observe, covariance) * observe).sum((-1, -2))
    log_det = jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)).sum(-1)
    return Terms(
        observation=0.5 * (steps.present * LOG_2PI + missed) + log_det,
        elements=0.5 * (free * LOG_2PI + squares) + log,
        entropy=0.5 * (free.sum(-1) * (LOG_2PI + 1) - future.log_det) + log.sum(-1),
    )
