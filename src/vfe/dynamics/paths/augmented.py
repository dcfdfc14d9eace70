"""States with the linear systems that stand for their smooth noise: one Markov process, seen at samples.

s = (x, ξ of w, ξ of ζ, white ζ, ξ of the data's noise), with

x' = f(c) + w,  ξ' = drift ξ + white noise,  y = g(c) + v + e,  c = (x, ζ + E η),

where w, ζ (the noise of causes) and v are linear in s, η is the prior mean of the top causes, and e is
white. Noise of causes that is white is drawn anew at every sample, and moves x as a diffusion does.
"""

from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Bool, Float

from vfe.dynamics.linear.kalman import matvec, symmetric
from vfe.dynamics.linear.smooth_noise import unit_system

TERMS = 10  # of the exponential's series, enough where the norm is at most an eighth


class Equations(Protocol):
    """What moves and what is seen, of c = (x, ζ + E η)."""

    def flow(self, c: Float[Array, " c"]) -> Float[Array, " x"]: ...

    def observe(self, c: Float[Array, " c"]) -> Float[Array, " k"]: ...


class Moved(NamedTuple):
    """One step, linear in s: s → `transition` s + `offset` + N(0, `covariance`)."""

    transition: Float[Array, "n n"]
    offset: Float[Array, " n"]
    covariance: Float[Array, "n n"]


class Augmented(eqx.Module):
    """The process. Its first `core` states influence each other; the rest are noise of the data.

    `drift`, `intensity`: of the core, without the flow; `flowing`, `looking`: c of s, for the flow (where
    white ζ has no place) and at a sample; `diffusing`: factor of the white ζ in c; `entering`: c of η;
    `seen`: v of s; `error`: covariance of e; `fresh`: which states are drawn anew; `tail_drift`,
    `tail_intensity`: of one system of the data's noise, of which there are (n − core) / order; `names`: of
    the noise that each state is, or is moved by.
    """

    equations: Any
    drift: Float[Array, "core core"]
    intensity: Float[Array, "core core"]
    flowing: Float[Array, "c n"]
    looking: Float[Array, "c n"]
    diffusing: Float[Array, "c white"]
    entering: Float[Array, "c r"]
    seen: Float[Array, "k n"]
    error: Float[Array, "k k"]
    fresh: Bool[Array, " core"]
    tail_drift: Float[Array, "order order"]
    tail_intensity: Float[Array, "order order"]
    mean: Float[Array, " n"]
    covariance: Float[Array, "n n"]
    names: tuple[str, ...] = eqx.field(static=True)
    states: int = eqx.field(static=True)
    constant: bool = eqx.field(static=True)

    @property
    def core(self) -> int:
        return self.drift.shape[0]

    def coordinates(self, s: Float[Array, " n"], eta: Float[Array, " r"]) -> Float[Array, " c"]:
        """c at a sample."""
        return _with(matvec(self.looking, s), self.entering, eta)

    def move(
        self,
        s: Float[Array, " n"],
        before: Float[Array, " r"],
        after: Float[Array, " r"],
        time: Float[Array, ""],
    ) -> Moved:
        """The step over `time`, linearised at s, with η going straight from `before` to `after`."""
        size, core = s.shape[0], self.core
        at = matvec(self.flowing, s)
        c = _with(at, self.entering, before)
        slope = jax.jacfwd(self.equations.flow)(c)
        drive = self.equations.flow(c) - matvec(slope, at)
        # Beside the core, 1 and the time since the step began: what they move is the offset.
        block = jnp.zeros((core + 2, core + 2)).at[:core, :core].set(self.drift).at[-1, -2].set(1.0)
        block = block.at[: self.states, :core].add(slope @ self.flowing[:, :core])
        block = block.at[: self.states, -2].set(drive)
        if before.size:
            rate = (after - before) / jnp.where(time > 0, time, 1.0)
            block = block.at[: self.states, -1].set(slope @ (self.entering @ rate))
        intensity = jnp.zeros_like(block).at[:core, :core].set(self.intensity)
        if self.diffusing.shape[1]:
            felt = slope @ self.diffusing
            intensity = intensity.at[: self.states, : self.states].add(felt @ felt.T)
        step, spread = discretise_forward(block, intensity, time)
        kept = jnp.where(self.fresh, 0.0, 1.0)
        transition = jnp.zeros((size, size)).at[:core, :core].set(step[:core, :core] * kept[:, None])
        covariance = jnp.zeros((size, size)).at[:core, :core].set(spread[:core, :core])
        covariance = covariance.at[jnp.arange(core), jnp.arange(core)].add(1.0 - kept)
        offset = jnp.zeros(size).at[:core].set(step[:core, -2] * kept)
        if size > core:
            one, own = discretise_forward(self.tail_drift, self.tail_intensity, time)
            order = one.shape[0]
            many = jnp.eye((size - core) // order)
            transition = transition.at[core:, core:].set(jnp.kron(many, one))
            covariance = covariance.at[core:, core:].set(jnp.kron(many, own))
        return Moved(transition, offset, covariance)

    def look(
        self, s: Float[Array, " n"], eta: Float[Array, " r"]
    ) -> tuple[Float[Array, "k n"], Float[Array, " k"]]:
        """What is seen near s: its matrix over all states, and its offset."""
        c = self.coordinates(s, eta)
        slope = jax.jacfwd(self.equations.observe)(c) @ self.looking
        return slope + self.seen, self.equations.observe(c) - matvec(slope, s)


def _with(c: Array, entering: Array, eta: Array) -> Array:
    return c + matvec(entering, eta) if eta.size else c


def discretise_forward(
    drift: Float[Array, "n n"], intensity: Float[Array, "n n"], time: Float[Array, ""]
) -> tuple[Float[Array, "n n"], Float[Array, "n n"]]:
    """exp(F t) and the covariance of the step over t of z' = F z + white noise of a given intensity.

    By the series of both for a step of norm an eighth or less, doubled as often as it takes: products of
    n by n only, where van Loan's exponential is of 2n by 2n. Not for reverse-mode derivatives.
    """
    size = drift.shape[0]
    norm = jnp.abs(drift * time).sum(0).max()
    doublings = jnp.clip(jnp.ceil(jnp.log2(8 * jnp.maximum(norm, 1e-300))), 0, 60).astype(int)
    short = drift * (time / 2.0**doublings)
    step = jnp.eye(size)
    for k in range(TERMS, 0, -1):
        step = jnp.eye(size) + short @ step / k
    term = intensity * (time / 2.0**doublings)
    covariance = term
    for k in range(2, TERMS + 1):
        moved = short @ term
        term = (moved + moved.T) / k
        covariance = covariance + term

    def twice(_: Any, both: tuple[Array, Array]) -> tuple[Array, Array]:
        step, covariance = both
        return step @ step, symmetric(covariance + step @ covariance @ step.T)

    return jax.lax.fori_loop(0, doublings, twice, (step, covariance))


class Noise(NamedTuple):
    """Noise of the covariance factor factorᵀ on some rows, smooth (a time above zero) or white (zero)."""

    factor: np.ndarray | Array
    smoothness: float
    name: str
    scale: float | Array = 1.0  # of the smoothness, where that is being learned


def augmented(
    equations: Any,
    *,
    names: list[str],
    moving: list[Noise],
    causing: list[Noise],
    observing: Noise,
    error: np.ndarray,
    inputs: np.ndarray,
    mean: np.ndarray,
    covariance: np.ndarray,
    order: int,
    constant: bool,
) -> Augmented:
    """Put together the process of x (`names` are those of its noise) and its noise: of w, ζ and the data.

    `factor`s have as many rows as x, ζ and y; white w has the intensity factor factorᵀ; `error`: what is
    white beside `observing`; `inputs`: ζ of η; `mean`, `covariance`: of x at the first sample.
    """
    drift_1, white_1, output_1 = unit_system(order)
    states, tall = len(names), inputs.shape[0]
    names = list(names)
    drifts, intensities, felt, caused, fresh = [], [], [], [], []
    intensity_x = np.zeros((states, states))
    # Factors of precisions that are being learned are traced.
    traced = any(isinstance(noise.factor, jax.Array) for noise in (*moving, *causing, observing))
    xp: Any = jnp if traced else np
    stack: Any = jax.scipy.linalg.block_diag if traced else scipy.linalg.block_diag

    def add(noise: Noise, to_x: bool, to_c: bool) -> None:
        factor, smoothness, name, scale = noise
        count = factor.shape[1]
        if not count:
            return
        if smoothness > 0:
            length = np.sqrt(2) * smoothness * scale
            drifts.append(xp.kron(np.eye(count), drift_1 / length))
            intensities.append(xp.kron(np.eye(count), np.outer(white_1, white_1) / length))
            output = xp.kron(factor, output_1)
        else:
            drifts.append(np.zeros((count, count)))
            intensities.append(np.zeros((count, count)))
            output = factor
        size = output.shape[1]
        felt.append(output if to_x else np.zeros((states, size)))
        caused.append(output if to_c else np.zeros((tall, size)))
        fresh.append(np.full(size, smoothness == 0))
        names.extend([name] * size)

    for noise in moving:
        if noise.smoothness > 0:
            add(noise, True, False)
        else:
            intensity_x = intensity_x + noise.factor @ noise.factor.T
    for noise in causing:
        add(noise, False, True)
    core = states + sum(len(d) for d in drifts)
    felt = xp.concatenate([np.zeros((states, states)), *felt], 1)
    drift = xp.concatenate([felt, stack(np.zeros((0, states)), *drifts)])
    shown = xp.concatenate([np.zeros((tall, states)), *caused], 1)
    looking = xp.concatenate([np.eye(states, core), shown])
    new = np.concatenate([np.zeros(states, bool), *fresh])
    factor, smoothness, name, scale = observing
    if smoothness > 0:
        seen = xp.kron(factor, output_1)
        length = np.sqrt(2) * smoothness * scale
    else:
        seen, length = np.zeros((len(factor), 0)), 1.0
        error = error + factor @ factor.T
    size = core + seen.shape[1]
    names.extend([name] * (size - core))
    looking = xp.concatenate([looking, np.zeros((len(looking), size - core))], 1)
    flowing = xp.where(np.concatenate([new, np.zeros(size - core, bool)]), 0.0, looking)
    start = xp.concatenate([covariance, np.zeros((states, size - states))], 1)
    start = xp.concatenate([start, np.eye(size)[states:]])
    arrays = {
        "drift": drift,
        "intensity": xp.concatenate(
            [
                xp.concatenate([intensity_x, np.zeros((states, core - states))], 1),
                stack(np.zeros((0, states)), *intensities),
            ]
        ),
        "flowing": flowing,
        "looking": looking,
        "diffusing": looking[:, :core][:, new],
        "entering": np.concatenate([np.zeros((states, inputs.shape[1])), inputs]),
        "seen": xp.concatenate([np.zeros((len(factor), core)), seen], 1),
        "error": error,
        "tail_drift": drift_1 / length,
        "tail_intensity": np.outer(white_1, white_1) / length,
        "mean": xp.concatenate([mean, np.zeros(size - states)]),
        "covariance": start,
    }
    return Augmented(
        equations=equations,
        fresh=jnp.asarray(new),
        names=tuple(names),
        states=states,
        constant=constant,
        **{name: jnp.asarray(array, jnp.float64) for name, array in arrays.items()},
    )
