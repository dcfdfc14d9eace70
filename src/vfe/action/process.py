"""Process: the world as it is, which an agent acts on and need not know."""

import functools
import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from vfe.arrays import real_numbers
from vfe.dynamics.levels.dependence import depends_on
from vfe.dynamics.levels.noise_precision import matrix


class Slopes(eqx.Module):
    """Jacobians of g and f, per sample, in states, causes and action."""

    g_x: Float[Array, "y x"]
    g_v: Float[Array, "y v"]
    g_a: Float[Array, "y a"]
    f_x: Float[Array, "x x"]
    f_v: Float[Array, "x v"]
    f_a: Float[Array, "x a"]


class Process(eqx.Module):
    """The world in continuous time, moved by causes and by action:

    y = g(x, v, a) + z,  dx/dt = f(x, v, a) + w.

    It is no model: nothing is believed here. An agent has a `vfe.DynamicModel` of its own, which may
    differ.

    **Arguments:**

    - `observe`: g, of the arrays x, v and a; plain JAX code that returns the sensations (k,).
    - `flow`: f, of the same; returns an array of the shape of x, per unit of time.
    - `states`: where the hidden states start; `causes`: how many causes move them from outside, a series
      given to `vfe.act`; `actions`: where action starts, or how many there are (starting at zero).
    - `observation_precision`, `state_precision`: of z and w, scalars, vectors or matrices; infinite: none.
    - `smoothness`: of z and w, a time; half a sampling interval if not given.

    **Raises:** `ValueError` for functions whose shapes do not fit, precisions that are not positive, a
    smoothness that is not above zero.

    **Example:** `vfe.Process(lambda x, v, a: x, lambda x, v, a: v + a - x, states=[0.0], causes=1,
    actions=1)`.

    **Source:** Friston, Daunizeau, Kilner and Kiebel 2010, "Action and behavior: a free-energy
    formulation", eq. 11.
    """

    observe: Callable
    flow: Callable
    states: np.ndarray
    actions: np.ndarray
    observation_sd: np.ndarray
    state_sd: np.ndarray
    causes: int = eqx.field(static=True)
    data_size: int = eqx.field(static=True)
    smoothness: float | None = eqx.field(static=True)
    constant: bool = eqx.field(static=True)

    def __init__(
        self,
        observe: Callable,
        flow: Callable,
        *,
        states: ArrayLike,
        actions: int | ArrayLike,
        causes: int = 0,
        observation_precision: ArrayLike = math.inf,
        state_precision: ArrayLike = math.inf,
        smoothness: float | None = None,
    ):
        self.observe, self.flow = observe, flow
        self.states = _vector(states, "states")
        counted = isinstance(actions, int | np.integer)
        self.actions = np.zeros(max(int(actions), 0)) if counted else _vector(actions, "actions")
        if not self.actions.size or not isinstance(causes, int | np.integer) or causes < 0:
            raise ValueError(
                f"Process: got actions={actions!r} and causes={causes!r}; wanted at least one action and "
                "a whole number of causes, zero or more."
            )
        self.causes = int(causes)
        self.smoothness = (
            None if smoothness is None else float(real_numbers("Process: smoothness", smoothness))
        )
        if self.smoothness is not None and not (math.isfinite(self.smoothness) and self.smoothness > 0):
            raise ValueError(f"Process: got smoothness={smoothness}; wanted a time above zero.")
        v = np.zeros(self.causes)
        with jax.enable_x64(True):
            self._shape(flow, "flow", v, self.states.shape)
            self.data_size = self._shape(observe, "observe", v, None)[0]
            moved = depends_on(functools.partial(_jacobians, observe, flow), self.states, v, self.actions)
        self.constant = not any(moved)
        self.observation_sd = _deviation(observation_precision, self.data_size, "observation_precision")
        self.state_sd = _deviation(state_precision, self.states.size, "state_precision")

    def _shape(
        self, function: Callable, name: str, v: np.ndarray, wanted: tuple[int, ...] | None
    ) -> tuple[int, ...]:
        arguments = f"x {self.states.shape}, v {v.shape}, a {self.actions.shape}"
        try:
            made = jax.eval_shape(function, self.states, v, self.actions)
            real = jnp.issubdtype(getattr(made, "dtype", bool), jnp.number) and not jnp.iscomplexobj(made)
            shape = getattr(made, "shape", None) if real else None
        except Exception as error:
            raise ValueError(f"Process: {name} fails for {arguments}: {error}") from error
        if shape is None or (shape != wanted if wanted is not None else len(shape) != 1):
            described = "(k,)" if wanted is None else f"{wanted}, the shape of its states"
            got = "no array of real numbers" if shape is None else f"shape {shape}"
            raise ValueError(f"Process: {name} returns {got} for {arguments}; wanted {described}.")
        return shape

    def slopes(
        self, x: Float[Array, " x"], v: Float[Array, " v"], a: Float[Array, " a"], dt: float
    ) -> Slopes:
        """Jacobians at a point, the flow's per sample of length dt."""
        g_x, g_v, g_a, f_x, f_v, f_a = _jacobians(self.observe, self.flow, x, v, a)
        return Slopes(g_x, g_v, g_a, dt * f_x, dt * f_v, dt * f_a)


def _jacobians(observe: Callable, flow: Callable, x: Array, v: Array, a: Array) -> tuple[Array, ...]:
    found = []
    for one in (observe, flow):
        rows = jax.eval_shape(one, x, v, a).shape[0]
        # Derivatives in no cause at all are an empty matrix, which jacfwd does not make in every loop.
        in_causes = jax.jacfwd(one, 1)(x, v, a) if v.size else jnp.zeros((rows, 0))
        found += [jax.jacfwd(one, 0)(x, v, a), in_causes, jax.jacfwd(one, 2)(x, v, a)]
    return tuple(found)


def _vector(value: ArrayLike, name: str) -> np.ndarray:
    start = real_numbers(f"Process: {name}", value)
    if start.ndim != 1 or not start.size or not np.isfinite(start).all():
        raise ValueError(
            f"Process: got {name} {value}; wanted a vector of finite numbers, where they start."
        )
    return start


def _deviation(value: ArrayLike, size: int, name: str) -> Float[np.ndarray, "k k"]:
    """A square root of the covariance; an infinite precision has none."""
    given = real_numbers(f"Process: {name}", value)
    if given.ndim < 2 and given.shape in ((), (size,)) and (given > 0).all():
        return np.diag(np.broadcast_to(1 / np.sqrt(given), (size,)))
    precision = matrix(given, size, f"Process: {name}")
    if size and np.linalg.eigvalsh(precision).min() <= 0:
        raise ValueError(
            f"Process: got {name}={value}; wanted positive numbers, or numpy.inf for no noise."
        )
    return np.linalg.cholesky(np.linalg.inv(precision))
