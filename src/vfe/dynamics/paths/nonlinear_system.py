"""NonlinearSystem: x' = f(x) + w(t) in smooth noise, seen at samples."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vfe.dynamics.linear.state_space import double


class NonlinearSystem(eqx.Module):
    """A nonlinear system in smooth noise, sampled: x' = f(x) + w(t), y_k = g(x(t_k)) + v(t_k) + e_k.

    w and v have the autocovariance sd² exp(−h² / (4 s²)) in every element, independently; e is white.

    **Arguments:** `flow`: f, (n,) → (n,), per unit of time; `observe`: g, (n,) → (k,), both in JAX; `dt`:
    time between samples; `smoothness`: s, a time, or 0 for white noise (w then has the intensity
    sd² dt); `state_sd`: of w, () or (n,); `observation_sd`: of v, () or (k,); `white_sd`: of e, () or
    (k,); `initial_mean`, `initial_covariance`: of x at the first sample, (n,) and (n, n); `order`: of
    `vfe.dynamics.smooth_noise`; `substeps`: how many steps of the flow, linear in each, from sample to
    sample.

    **Raises:** `ValueError` for functions that return another shape (both are named), values out of range.

    **Example:**
    ```python
    pendulum = vfe.dynamics.NonlinearSystem(
        flow=lambda x: jnp.stack([x[1], -jnp.sin(x[0])]), observe=lambda x: x[:1], dt=0.1, smoothness=0.2,
        state_sd=0.1, observation_sd=0.3, white_sd=0.02, initial_mean=[1.0, 0.0],
        initial_covariance=np.eye(2),
    )
    vfe.smooth(pendulum, y).mean
    ```

    **Source:** THEORY section 5 of the library; Hartikainen and Särkkä 2010 for the noise.
    """

    flow: Callable
    observe: Callable
    dt: float = eqx.field(static=True)
    smoothness: float = eqx.field(static=True)
    state_sd: Float[Array, " n"]
    observation_sd: Float[Array, " k"]
    white_sd: Float[Array, " k"]
    initial_mean: Float[Array, " n"]
    initial_covariance: Float[Array, "n n"]
    order: int = eqx.field(static=True)
    substeps: int = eqx.field(static=True)

    def __init__(
        self,
        *,
        flow: Callable,
        observe: Callable,
        dt: float,
        smoothness: float,
        state_sd: Any,
        observation_sd: Any,
        white_sd: Any,
        initial_mean: Any,
        initial_covariance: Any,
        order: int = 6,
        substeps: int = 2,
    ):
        word = "NonlinearSystem"
        if not (np.isfinite(dt) and dt > 0):
            raise ValueError(f"{word}: got dt={dt}; wanted a positive time.")
        if not (np.isfinite(smoothness) and smoothness >= 0):
            raise ValueError(f"{word}: got smoothness={smoothness}; wanted a time, or 0 for white noise.")
        if not isinstance(substeps, int) or substeps < 1:
            raise ValueError(f"{word}: got substeps={substeps!r}; wanted a whole number of at least 1.")
        with jax.enable_x64(True):
            mean = double(f"{word}: initial_mean", initial_mean)
            covariance = double(f"{word}: initial_covariance", initial_covariance)
            if mean.ndim != 1 or covariance.shape != (*mean.shape, *mean.shape):
                raise ValueError(
                    f"{word}: initial_mean has shape {mean.shape} and initial_covariance "
                    f"{covariance.shape}; wanted (n,) and (n, n)."
                )
            moved = jax.eval_shape(flow, mean)
            seen = jax.eval_shape(observe, mean)
            if getattr(moved, "shape", None) != mean.shape:
                raise ValueError(
                    f"{word}: flow returns {moved} for a state of shape {mean.shape}; wanted that shape."
                )
            if len(getattr(seen, "shape", ())) != 1:
                raise ValueError(f"{word}: observe returns {seen}; wanted an array of shape (k,).")
            self.state_sd = _positive(word, "state_sd", state_sd, mean.shape)
            self.observation_sd = _positive(word, "observation_sd", observation_sd, seen.shape)
            self.white_sd = _positive(word, "white_sd", white_sd, seen.shape)
        self.flow, self.observe = flow, observe
        self.dt, self.smoothness = float(dt), float(smoothness)
        self.initial_mean, self.initial_covariance = mean, covariance
        self.order, self.substeps = order, substeps


def _positive(word: str, name: str, value: Any, shape: tuple[int, ...]) -> Array:
    array = double(f"{word}: {name}", value)
    if array.shape not in ((), shape):
        raise ValueError(f"{word}: {name} has shape {array.shape}; wanted () or {shape}.")
    if not (np.isfinite(array).all() and (np.asarray(array) > 0).all()):
        raise ValueError(f"{word}: got {name}={value}; wanted positive numbers.")
    return jnp.broadcast_to(array, shape)
