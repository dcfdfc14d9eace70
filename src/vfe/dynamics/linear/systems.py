"""Ready-made linear systems in continuous time, and sums of them: what a series may be made of."""

import abc
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from vfe.dynamics.linear.state_space import StateSpace


class Dynamics(NamedTuple):
    """How one part moves over given intervals, and how it is seen: y gains `observation` · z."""

    transition: Float[Array, "time n n"]
    transition_covariance: Float[Array, "time n n"]
    observation: Float[Array, " n"]
    initial_mean: Float[Array, " n"]
    initial_covariance: Float[Array, "n n"]


class AbstractSystem(eqx.Module):
    """A part of a series. Its numbers are learned by `vfe.fit`, those in `positive` by their logs.

    `spread`: the standard deviation of the prior of each number that is learned (of its logarithm, for
    positive ones), around the value given; `noise`: whether estimates of a series leave it out.
    """

    noise: ClassVar[bool] = False
    positive: ClassVar[tuple[str, ...]] = ()
    spread: ClassVar[dict[str, float]] = {}

    @property
    @abc.abstractmethod
    def states(self) -> tuple[str, ...]:
        """What its hidden states are called."""

    @abc.abstractmethod
    def dynamics(self, intervals: Float[Array, " time"]) -> Dynamics:
        """Its matrices over the intervals between samples."""


class LocalLevel(AbstractSystem):
    """A level that wanders: ż = w(t), white noise; z(t + τ) ~ N(z(t), τ s²).

    **Arguments:** `rate`: s, in units of the series per root of time; `initial_mean` and `initial_sd`: of
    the level at the first sample.

    **Raises:** `ValueError` for scales that are not positive.

    **Example:** `vfe.dynamics.LocalLevel(rate=38.0, initial_mean=1000.0, initial_sd=500.0)`.

    **Source:** Harvey 1989, chapter 2.
    """

    rate: Array
    initial_mean: Array
    initial_sd: Array
    positive = ("rate",)
    spread: ClassVar = {"rate": 2.0}

    def __init__(self, rate: Any, initial_mean: Any = 0.0, initial_sd: Any = 1e3) -> None:
        self.rate = number("LocalLevel: rate", rate, positive=True)
        self.initial_mean = number("LocalLevel: initial_mean", initial_mean)
        self.initial_sd = number("LocalLevel: initial_sd", initial_sd, positive=True)

    @property
    def states(self) -> tuple[str, ...]:
        return ("level",)

    def dynamics(self, intervals: Float[Array, " time"]) -> Dynamics:
        one = jnp.ones((intervals.shape[0], 1, 1))
        noise = self.rate**2 * intervals[:, None, None]
        mean = jnp.asarray(self.initial_mean)[None]
        return Dynamics(one, noise, jnp.ones(1), mean, jnp.asarray(self.initial_sd**2)[None, None])


class LocalTrend(AbstractSystem):
    """A level with a slope that wanders: ż₁ = z₂, ż₂ = w(t), an integrated random walk.

    z(t + τ) = [[1, τ], [0, 1]] z(t) + N(0, s² [[τ³/3, τ²/2], [τ²/2, τ]]): as a smoother, a cubic spline.

    **Arguments:** `rate`: s, in units of the series per time^1.5; `initial_mean` and `initial_sd`: of level
    and slope at the first sample, two numbers each.

    **Raises:** `ValueError` for scales that are not positive.

    **Example:** `vfe.dynamics.LocalTrend(rate=0.1, initial_mean=(315.0, 0.0), initial_sd=(10.0, 1.0))`.

    **Source:** Wahba 1978; Durbin and Koopman 2012, section 3.9.
    """

    rate: Array
    initial_mean: Array
    initial_sd: Array
    positive = ("rate",)
    spread: ClassVar = {"rate": 2.0}

    def __init__(self, rate: Any, initial_mean: Any = (0.0, 0.0), initial_sd: Any = (1e3, 1e3)) -> None:
        self.rate = number("LocalTrend: rate", rate, positive=True)
        self.initial_mean = number("LocalTrend: initial_mean", initial_mean, shape=(2,))
        self.initial_sd = number("LocalTrend: initial_sd", initial_sd, positive=True, shape=(2,))

    @property
    def states(self) -> tuple[str, ...]:
        return ("level", "slope")

    def dynamics(self, intervals: Float[Array, " time"]) -> Dynamics:
        t = intervals
        zero, one = jnp.zeros_like(t), jnp.ones_like(t)
        noise = self.rate**2 * _rows([[t**3 / 3, t**2 / 2], [t**2 / 2, t]])
        first = jnp.diag(jnp.asarray(self.initial_sd) ** 2)
        mean = jnp.asarray(self.initial_mean)
        return Dynamics(_rows([[one, t], [zero, one]]), noise, jnp.array([1.0, 0.0]), mean, first)


class Oscillator(AbstractSystem):
    """A damped rotation driven by white noise, at rest in the mean: a rhythm with phase and amplitude.

    ż = [[−γ, −2πf], [2πf, −γ]] z + w(t); over an interval τ, z turns by 2πfτ and shrinks by e^{−γτ}, and
    noise of variance a² (1 − e^{−2γτ}) keeps the stationary variance of both states at a². The series sees
    the first state; amplitude |z|, phase atan2(z₂, z₁).

    **Arguments:** `frequency`: f, in cycles per unit of time; `damping`: γ, per unit of time (the rhythm
    forgets its phase within 1 / γ); `amplitude`: a, the standard deviation, in units of the series.

    **Raises:** `ValueError` for numbers that are not positive.

    **Example:** `vfe.dynamics.Oscillator(frequency=1.1, damping=0.5, amplitude=0.2)`.

    **Source:** Harvey 1989 (stochastic cycles); Matsuda and Komaki 2017.
    """

    frequency: Array
    damping: Array
    amplitude: Array
    positive = ("frequency", "damping", "amplitude")
    spread: ClassVar = {"frequency": 0.5, "damping": 2.0, "amplitude": 2.0}

    def __init__(self, frequency: Any, damping: Any, amplitude: Any) -> None:
        self.frequency = number("Oscillator: frequency", frequency, positive=True)
        self.damping = number("Oscillator: damping", damping, positive=True)
        self.amplitude = number("Oscillator: amplitude", amplitude, positive=True)

    @property
    def states(self) -> tuple[str, ...]:
        return ("rhythm", "quadrature")

    def dynamics(self, intervals: Float[Array, " time"]) -> Dynamics:
        angle = 2 * jnp.pi * self.frequency * intervals
        keep = jnp.exp(-self.damping * intervals)
        c, s = keep * jnp.cos(angle), keep * jnp.sin(angle)
        size = self.amplitude**2
        noise = -size * jnp.expm1(-2 * self.damping * intervals)
        eye = jnp.eye(2)
        return Dynamics(
            _rows([[c, -s], [s, c]]),
            noise[:, None, None] * eye,
            jnp.array([1.0, 0.0]),
            jnp.zeros(2),
            size * eye,
        )


class Autoregression(AbstractSystem):
    """z_t = Σ_j φ_j z_{t−j} + N(0, s²): a series in steps of one interval that must not vary.

    **Arguments:** `coefficients`: φ (order,), for the last value first; `innovation_sd`: s; `initial_sd`:
    of the first value and of each one before it.

    **Raises:** `ValueError` for scales that are not positive; for intervals that vary, when it meets them.

    **Example:** `vfe.dynamics.Autoregression([1.4, -0.7], innovation_sd=15.0)`.

    **Source:** Yule 1927.
    """

    coefficients: Array
    innovation_sd: Array
    initial_sd: Array
    positive = ("innovation_sd",)
    spread: ClassVar = {"coefficients": 1.0, "innovation_sd": 2.0}

    def __init__(self, coefficients: Any, innovation_sd: Any, initial_sd: Any = None) -> None:
        self.coefficients = number("Autoregression: coefficients", coefficients, shape=None)
        if np.ndim(self.coefficients) != 1 or not np.size(self.coefficients):
            raise ValueError(
                f"Autoregression: coefficients has shape {np.shape(self.coefficients)}; wanted (order,), "
                "such as [0.5]."
            )
        self.innovation_sd = number("Autoregression: innovation_sd", innovation_sd, positive=True)
        wide = 10.0 * self.innovation_sd if initial_sd is None else initial_sd
        self.initial_sd = number("Autoregression: initial_sd", wide, positive=True)

    @property
    def states(self) -> tuple[str, ...]:
        order = self.coefficients.shape[0]
        return ("value", *(f"value {j} before" for j in range(1, order)))

    def dynamics(self, intervals: Float[Array, " time"]) -> Dynamics:
        varies = not isinstance(intervals, Tracer) and np.ptp(intervals) > 1e-6 * np.max(intervals)
        if varies:
            raise ValueError(
                "Autoregression: the intervals between samples vary; wanted equal ones. Leave rows of NaN "
                "where samples are missing, or use vfe.dynamics.Oscillator or LocalLevel."
            )
        n = self.coefficients.shape[0]
        companion = jnp.eye(n, k=-1).at[0].set(self.coefficients)
        first = jnp.zeros(n).at[0].set(1.0)
        steps = jnp.ones((intervals.shape[0], 1, 1))
        noise = self.innovation_sd**2 * jnp.outer(first, first)
        return Dynamics(
            steps * companion, steps * noise, first, jnp.zeros(n), self.initial_sd**2 * jnp.eye(n)
        )


class Components(eqx.Module):
    """A series as a sum of systems: y(t_k) = offset + Σ_i c_iᵀ z_i(t_k) + N(0, s²).

    **Arguments:** `parts`: systems such as `vfe.dynamics.Oscillator`; `observation_sd`: s; `offset`: a
    number that stays as it is.

    **Raises:** `ValueError` for no parts, or a scale that is not positive.

    **Example:**
    ```python
    rhythm = vfe.dynamics.Oscillator(frequency=0.1, damping=0.02, amplitude=30.0)
    model = vfe.dynamics.Components([rhythm], observation_sd=5.0, offset=50.0)
    vfe.smooth(model.state_space(intervals=1.0), y[:, None])
    ```

    **Source:** Harvey 1989 (structural time series).
    """

    parts: tuple[AbstractSystem, ...]
    observation_sd: Array
    offset: Array

    def __init__(self, parts: Sequence[AbstractSystem], observation_sd: Any, offset: Any = 0.0) -> None:
        if isinstance(parts, AbstractSystem):
            raise TypeError("Components: got one system; wanted a list of them, such as [system].")
        self.parts = tuple(parts)
        for part in self.parts:
            if not isinstance(part, AbstractSystem):
                raise TypeError(
                    f"Components: got a {type(part).__name__} as a part; wanted vfe.dynamics.LocalLevel, "
                    "LocalTrend, Oscillator, Autoregression or your own AbstractSystem."
                )
        if not self.parts:
            raise ValueError("Components: no parts; wanted at least one.")
        self.observation_sd = number("Components: observation_sd", observation_sd, positive=True)
        self.offset = number("Components: offset", offset)

    @property
    def states(self) -> tuple[str, ...]:
        """The names of all hidden states, part by part: "0 level", "1 rhythm", …"""
        return tuple(f"{i} {name}" for i, part in enumerate(self.parts) for name in part.states)

    def state_space(self, intervals: Any) -> StateSpace:
        """The same as a `vfe.StateSpace`.

        **Arguments:** `intervals`: the time to each sample from the one before, one number, or (time,), of
        which the first is not used.

        **Raises:** `ValueError` for intervals that are not positive, or of another shape.
        """
        with jax.enable_x64(True):
            taken = _intervals(intervals)
            several = jnp.atleast_1d(jnp.asarray(taken))
            found = [part.dynamics(several) for part in self.parts]
            transition, noise = (_blocks([d[i] for d in found]) for i in (0, 1))
            fixed = taken.ndim == 0
            return StateSpace(
                initial_mean=jnp.concatenate([d.initial_mean for d in found]),
                initial_covariance=jax.scipy.linalg.block_diag(*[d.initial_covariance for d in found]),
                transition=transition[0] if fixed else transition,
                transition_covariance=noise[0] if fixed else noise,
                observation=jnp.concatenate([d.observation for d in found])[None],
                observation_covariance=jnp.asarray(self.observation_sd)[None, None] ** 2,
                observation_offset=jnp.asarray(self.offset)[None],
            )


def number(name: str, value: Any, positive: bool = False, shape: tuple[int, ...] | None = ()) -> Any:
    """A float64 number or array, checked unless it is being traced. `shape` None: any."""
    if isinstance(value, Tracer):
        return value
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: got {value!r}; wanted numbers.") from error
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; wanted {shape or 'one number'}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} is {value!r}; wanted finite numbers.")
    if positive and not (array > 0).all():
        raise ValueError(
            f"{name} is {value!r}; wanted {'a positive number' if shape == () else 'positive numbers'}."
        )
    return array


def _intervals(intervals: Any) -> Any:
    """One interval, or (time,) with the second in the place of the first, which nothing depends on."""
    if isinstance(intervals, Tracer):
        return intervals
    taken = number("state_space: intervals", intervals, shape=None)
    if taken.ndim > 1 or not taken.size:
        raise ValueError(f"state_space: intervals has shape {taken.shape}; wanted one number, or (time,).")
    if taken.size > 1:
        taken = np.concatenate([taken[1:2], taken[1:]])
    return number("state_space: intervals", taken, positive=True, shape=None)


def _rows(rows: list[list[Array]]) -> Float[Array, "time n n"]:
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def _blocks(blocks: list[Array]) -> Array:
    return jax.vmap(lambda *each: jax.scipy.linalg.block_diag(*each))(*blocks)
