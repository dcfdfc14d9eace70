"""Level: one level of a hierarchical dynamic model."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from numpy.typing import ArrayLike

from vfe.arrays import real_numbers
from vfe.dynamics.levels.learned_smoothness import Smoothness
from vfe.dynamics.levels.noise_precision import Precision, precision


class Level(eqx.Module):
    """What a level predicts of the one below, and how its hidden states move:

    v⁽ⁱ⁻¹⁾ = g(x, v, p) + z,  dx/dt = f(x, v, p) + w.

    x are the level's hidden states, v its causes: what the level above predicts, or at the top what the
    prior expects. The lowest level predicts the data. A static level has no flow and no states.

    **Arguments:**

    - `observe`: g, of the arrays x and v and of the parameters; plain JAX code that returns an array (k,).
    - `flow`: f, returns an array of the shape of x, per unit of time.
    - `states`: how many hidden states (starting at zero), or where they start.
    - `causes`: at the top level only, how many causes, or where they start.
    - `parameters`: any pytree of numbers, given to g and f as p: their prior mean.
    - `parameter_covariance`: of all those numbers in one vector, as a scalar, its diagonal, or a matrix;
      zero variance: known.
    - `observation_precision`, `state_precision`, `cause_precision`: of z, of w and, at the top level, of
      the causes about their prior; numbers, or `vfe.Precision` where they are learned.
    - `initial_covariance`: of the states at the first sample about where they start, as a scalar, its
      diagonal, or a matrix; `vfe.dynamics.Reference` makes no use of it.
    - `smoothness`, `state_smoothness`: of z and of w, times, or `vfe.dynamics.Smoothness` where they are
      learned; the model's if not given.

    **Raises:** `ValueError` for states without a flow and the reverse, a covariance that is not positive
    semi-definite, a smoothness below zero.

    **Example:** `vfe.Level(lambda x, v, p: x, lambda x, v, p: v - p * x, states=1, causes=1)`.

    **Source:** Friston 2008, "Hierarchical models in the brain", eq. 10.
    """

    observe: Callable
    flow: Callable | None
    states: np.ndarray
    causes: np.ndarray
    parameters: Any
    parameter_covariance: np.ndarray
    observation_precision: Precision
    state_precision: Precision
    cause_precision: Precision
    initial_covariance: np.ndarray
    smoothness: Smoothness | float | None = eqx.field(static=True)
    state_smoothness: Smoothness | float | None = eqx.field(static=True)

    def __init__(
        self,
        observe: Callable,
        flow: Callable | None = None,
        *,
        states: int | ArrayLike = 0,
        causes: int | ArrayLike = 0,
        parameters: Any = None,
        parameter_covariance: ArrayLike = 0.0,
        observation_precision: Precision | ArrayLike = 1.0,
        state_precision: Precision | ArrayLike = 1.0,
        cause_precision: Precision | ArrayLike = 1.0,
        initial_covariance: ArrayLike = 1.0,
        smoothness: Smoothness | float | None = None,
        state_smoothness: Smoothness | float | None = None,
    ):
        self.observe = observe
        self.flow = flow
        self.states = _start(states, "states")
        self.causes = _start(causes, "causes")
        self.parameters = jax.tree.map(lambda a: np.asarray(a, float), parameters)
        count = sum(a.size for a in jax.tree.leaves(self.parameters))
        self.parameter_covariance = _covariance(parameter_covariance, count, "parameter")
        self.initial_covariance = _covariance(initial_covariance, self.states.size, "initial")
        self.observation_precision = precision(observation_precision)
        self.state_precision = precision(state_precision)
        self.cause_precision = precision(cause_precision)
        self.smoothness = _time(smoothness, "smoothness")
        self.state_smoothness = _time(state_smoothness, "state_smoothness")
        if (flow is None) != (self.states.size == 0):
            raise ValueError(
                f"Level: got {self.states.size} states and {'no' if flow is None else 'a'} flow; a "
                "level with "
                "states needs flow=f(x, v, p), one without has none."
            )

    def with_smoothness(self, smoothness: float | None, state_smoothness: float | None) -> "Level":
        """This level with its own smoothness of z and of w, where they are given.

        **Example:** `level.with_smoothness(0.2, None)`.
        """
        return Level(
            self.observe,
            self.flow,
            states=self.states,
            causes=self.causes,
            parameters=self.parameters,
            parameter_covariance=self.parameter_covariance,
            observation_precision=self.observation_precision,
            state_precision=self.state_precision,
            cause_precision=self.cause_precision,
            initial_covariance=self.initial_covariance,
            smoothness=self.smoothness if smoothness is None else smoothness,
            state_smoothness=self.state_smoothness if state_smoothness is None else state_smoothness,
        )


def _start(value: int | ArrayLike, name: str) -> np.ndarray:
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        if value < 0:
            raise ValueError(f"Level: got {name}={value}; wanted how many there are, or where they start.")
        return np.zeros(int(value))
    start = np.asarray(value, float)
    if start.ndim != 1 or not np.isfinite(start).all():
        raise ValueError(
            f"Level: got {name} of shape {start.shape}; wanted a number of {name}, or a vector of "
            "finite values "
            "at which they start."
        )
    return start


def _covariance(given: ArrayLike, count: int, name: str) -> np.ndarray:
    value = np.asarray(given, float)
    if value.ndim == 0:
        value = np.full(count, float(value))
    if value.shape == (count,):
        value = np.diag(value)
    if value.shape != (count, count) or not np.isfinite(value).all() or not np.allclose(value, value.T):
        what = {"parameter": "parameters", "initial": "states"}[name]
        raise ValueError(
            f"Level: got a {name}_covariance of shape {value.shape}; wanted a scalar, ({count},) or a "
            f"symmetric ({count}, {count}) of finite numbers, for {count} {what}."
        )
    if count and np.linalg.eigvalsh(value).min() < -1e-10 * np.abs(value).max():
        raise ValueError(f"Level: got {name}_covariance with a negative eigenvalue.")
    return value


def _time(value: Smoothness | float | None, name: str) -> Smoothness | float | None:
    if value is None or isinstance(value, Smoothness):
        return value
    value = float(real_numbers(f"Level: {name}", value))
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"Level: got {name}={value}; wanted a time, zero or positive.")
    return value
