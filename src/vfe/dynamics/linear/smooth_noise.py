"""Smooth noise as a linear system, and linear systems under it as state-space models.

Noise with the autocovariance sd² exp(−h² / (4 s²)) has a spectrum ∝ exp(−(s ω)²). Replacing the exponential
in its denominator by the first terms of its series gives a rational spectrum, which is that of a linear
system driven by white noise. With that system's states in the model, an exact filter of white noise is one
of smooth noise.
"""

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from vfe.double_precision import released
from vfe.dynamics.linear.state_space import StateSpace, double

HIGHEST_ORDER = 10
HALVINGS, DOUBLINGS = 10, 40


@functools.cache
def unit_system(order: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """F, g and h of z' = F z + g · white, w = hᵀ z, whose autocovariance is close to exp(−t² / 2).

    The coordinates are those in which z is stationary with unit covariance, F + Fᵀ = −g gᵀ.
    """
    from scipy.linalg import solve_continuous_lyapunov, solve_triangular

    # exp(ω² / 2) ≈ Σ_j (ω² / 2)^j / j!, with ω² = −r²; the stable half of its roots are the poles.
    series = np.zeros(2 * order + 1)
    for j in range(order + 1):
        series[2 * order - 2 * j] = (-0.5) ** j / math.factorial(j)
    roots = np.roots(series)
    poles = np.real(np.poly(roots[roots.real < 0]))
    companion = np.eye(order, k=1)
    companion[-1] = -poles[:0:-1]
    drive = np.eye(order)[-1]
    stationary = solve_continuous_lyapunov(companion, -np.outer(drive, drive))
    factor = np.linalg.cholesky(stationary)
    white = solve_triangular(factor, drive, lower=True)
    turning = solve_triangular(factor, companion @ factor, lower=True)
    # What rounding adds to the symmetric part, which the unit covariance fixes, is taken out.
    drift = 0.5 * (turning - turning.T) - 0.5 * np.outer(white, white)
    return drift, white, factor[0] / np.linalg.norm(factor[0])


class SmoothNoise(eqx.Module):
    """Noise w = hᵀ z of a linear system z' = F z + g · white noise, z stationary with unit covariance.

    `drift`: F (order, order); `white`: g (order,); `output`: h (order,), whose length is the noise's sd.
    """

    drift: Float[Array, "order order"]
    white: Float[Array, " order"]
    output: Float[Array, " order"]

    def autocovariance(self, lags: Any) -> Float[Array, " lags"]:
        """Cov(w(t), w(t + lag)), at lags (lags,) in the unit of time of the smoothness.

        **Example:** `vfe.dynamics.smooth_noise(1.0, 0.5).autocovariance(np.arange(3.0))`.
        """
        with jax.enable_x64(True):
            lags = jnp.abs(double("autocovariance: lags", lags))
            found = _autocovariance(self.drift, self.output, lags)
        return released(found)


@jax.jit
def _autocovariance(drift: Array, output: Array, lags: Array) -> Array:
    return jax.lax.map(lambda lag: jax.scipy.linalg.expm(drift * lag) @ output, lags) @ output


def smooth_noise(sd: Any, smoothness: Any, *, order: int = 8) -> SmoothNoise:
    """Smooth noise as a linear system of white noise: autocovariance ≈ sd² exp(−h² / (4 s²)).

    **Arguments:** `sd`: standard deviation; `smoothness`: s, a time; `order`: how many states stand for
    it, 1 to 10. The autocovariance is within 2e-2, 4e-3, 9e-4 and 2e-4 of the exact one (in units of
    sd²) at orders 4, 6, 8 and 10.

    **Raises:** `ValueError` for an sd or a smoothness that is not positive, and other orders.

    **Example:** `vfe.dynamics.smooth_noise(2.0, 0.1).autocovariance([0.0, 0.1])`.

    **Source:** Hartikainen and Särkkä 2010, section 3.
    """
    if not isinstance(order, int) or not 1 <= order <= HIGHEST_ORDER:
        raise ValueError(f"smooth_noise: got order={order!r}; wanted a whole number from 1 to 10.")
    _check_positive("smooth_noise", sd=sd, smoothness=smoothness)
    drift, white, output = unit_system(order)
    with jax.enable_x64(True):
        length = math.sqrt(2) * double("smoothness", smoothness)
        return SmoothNoise(
            jnp.asarray(drift) / length,
            jnp.asarray(white) / jnp.sqrt(length),
            double("sd", sd) * jnp.asarray(output),
        )


def smooth_noise_state_space(
    drift: Any,
    observation: Any,
    *,
    dt: float,
    smoothness: Any,
    state_sd: Any,
    observation_sd: Any,
    white_sd: Any,
    order: int = 8,
    initial_mean: Any = None,
    initial_covariance: Any = None,
) -> StateSpace:
    """A linear system in smooth noise, sampled: x' = A x + w(t), y_k = C x(t_k) + v(t_k) + e_k.

    w and v have the autocovariance sd² exp(−h² / (4 s²)) in every element, independently, and e is white.
    The states of the model are x and then the systems that stand for w and v.

    **Arguments:** `drift`: A (n, n), per unit of time; `observation`: C (k, n); `dt`: time between
    samples; `smoothness`: s, a time, or 0 for white noise (w then has the intensity sd² dt);
    `state_sd`: of w, () or (n,); `observation_sd`: of v, () or (k,); `white_sd`: of e, () or (k,);
    `order`: of `vfe.dynamics.smooth_noise`; `initial_mean`, `initial_covariance`: of x at the first
    sample, (n,) and (n, n), independent of the noise; by default x is at rest since long before (w and
    x then depend on each other), which needs a stable drift.

    **Raises:** `ValueError` for a dt, sd or smoothness out of range, shapes that do not fit, or a drift
    that is not stable where no initial covariance is given.

    **Example:**
    ```python
    model = vfe.dynamics.smooth_noise_state_space(
        [[-0.5]], [[1.0]], dt=0.1, smoothness=0.2, state_sd=1.0, observation_sd=0.5, white_sd=0.03
    )
    vfe.smooth(model, y).mean[:, 0]
    ```

    **Source:** Hartikainen and Särkkä 2010; van Loan 1978 for the covariance of one step.
    """
    word = "smooth_noise_state_space"
    with jax.enable_x64(True):
        drift, observation = double(f"{word}: drift", drift), double(f"{word}: observation", observation)
        n = drift.shape[-1] if drift.ndim == 2 else 0
        k = observation.shape[0] if observation.ndim == 2 else 0
        if drift.shape != (n, n) or observation.shape != (k, n) or not n or not k:
            raise ValueError(
                f"{word}: drift has shape {drift.shape} and observation {observation.shape}; wanted (n, n) "
                "and (k, n)."
            )
        _check_positive(word, dt=dt, state_sd=state_sd, observation_sd=observation_sd, white_sd=white_sd)
        state_sd = _each(word, "state_sd", state_sd, n)
        observation_sd = _each(word, "observation_sd", observation_sd, k)
        white_sd = _each(word, "white_sd", white_sd, k)
        white = not isinstance(smoothness, Tracer) and np.ndim(smoothness) == 0 and smoothness == 0
        if white:
            noises: list[SmoothNoise] = []
            whole, seen = drift, observation
            intensity = jnp.diag(state_sd**2 * dt)
            white_sd = jnp.sqrt(white_sd**2 + observation_sd**2)
        else:
            noises = [smooth_noise(sd, smoothness, order=order) for sd in (*state_sd, *observation_sd)]
            whole, intensity, seen = _joined(drift, observation, noises, n)
        if initial_covariance is None:
            _check_stable(word, drift)
        transition, covariance = discretise(whole, intensity, dt)
        size = whole.shape[0]
        mean, start = jnp.zeros(size), jnp.eye(size)
        if initial_mean is not None:
            mean = mean.at[:n].set(double(f"{word}: initial_mean", initial_mean))
        if initial_covariance is None:
            start = stationary_covariance(transition, covariance)
        else:
            given = double(f"{word}: initial_covariance", initial_covariance)
            start = start.at[:n, :n].set(given)
        return StateSpace(
            initial_mean=mean,
            initial_covariance=start,
            transition=transition,
            transition_covariance=covariance,
            observation=seen,
            observation_covariance=jnp.diag(white_sd**2),
        )


def _joined(
    drift: Array, observation: Array, noises: list[SmoothNoise], n: int
) -> tuple[Array, Array, Array]:
    """One linear system of x and the noises: its drift, the intensity of its white noise, what is seen."""
    k, order = observation.shape[0], noises[0].white.shape[0]
    size = n + order * len(noises)
    whole = jnp.zeros((size, size)).at[:n, :n].set(drift)
    intensity = jnp.zeros((size, size))
    seen = jnp.zeros((k, size)).at[:, :n].set(observation)
    for i, noise in enumerate(noises):
        own = slice(n + i * order, n + (i + 1) * order)
        whole = whole.at[own, own].set(noise.drift)
        intensity = intensity.at[own, own].set(jnp.outer(noise.white, noise.white))
        if i < n:
            whole = whole.at[i, own].set(noise.output)
        else:
            seen = seen.at[i - n, own].set(noise.output)
    return whole, intensity, seen


def discretise(drift: Array, intensity: Array, dt: Any) -> tuple[Array, Array]:
    """The step over dt of z' = F z + white noise of a given intensity: exp(F dt), and its covariance.

    A short step by van Loan's matrix exponential, doubled ten times: sums of squares, without the growing
    exponentials that the whole step would need where the noise is much quicker than dt.
    """
    size, short = drift.shape[0], dt / 2**HALVINGS
    block = jnp.block([[drift, intensity], [jnp.zeros((size, size)), -drift.T]]) * short
    exponential = jax.scipy.linalg.expm(block)
    step = exponential[:size, :size]
    return _doubled(step, exponential[:size, size:] @ step.T, HALVINGS)


def stationary_covariance(transition: Array, covariance: Array) -> Array:
    """P = A P Aᵀ + Q of a stable system, by doubling."""
    return _doubled(transition, covariance, DOUBLINGS)[1]


def _doubled(step: Array, covariance: Array, times: int) -> tuple[Array, Array]:
    """2^`times` steps as one."""

    def twice(_: Any, both: tuple[Array, Array]) -> tuple[Array, Array]:
        step, covariance = both
        following = covariance + step @ covariance @ step.T
        return step @ step, 0.5 * (following + following.T)

    return jax.lax.fori_loop(0, times, twice, (step, 0.5 * (covariance + covariance.T)))


def _each(word: str, name: str, value: Any, count: int) -> Array:
    array = double(f"{word}: {name}", value)
    if array.shape not in ((), (count,)):
        raise ValueError(f"{word}: {name} has shape {array.shape}; wanted () or {(count,)}.")
    return jnp.broadcast_to(array, (count,))


def _check_positive(word: str, **values: Any) -> None:
    for name, value in values.items():
        array = double(f"{word}: {name}", value) if not isinstance(value, Tracer) else value
        if not isinstance(array, Tracer) and not (
            np.isfinite(array).all() and (np.asarray(array) > 0).all()
        ):
            zero = " (smooth_noise_state_space takes 0 for white noise)" if name == "smoothness" else ""
            raise ValueError(f"{word}: got {name}={value}; wanted a positive number{zero}.")


def _check_stable(word: str, drift: Array) -> None:
    if isinstance(drift, Tracer):
        return
    largest = np.linalg.eigvals(np.asarray(drift)).real.max()
    if largest >= 0:
        raise ValueError(
            f"{word}: the drift is not stable (largest real part of its eigenvalues {largest:.3g}), so "
            "that x has no stationary covariance; give initial_covariance=."
        )
