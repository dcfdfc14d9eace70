"""Nonlinear systems that move by themselves: two wells, the Lorenz attractor, and a song of two of them."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from vfe.dynamics.levels.dynamic_model import DynamicModel
from vfe.dynamics.levels.level import Level
from vfe.dynamics.levels.noise_precision import Precision


def double_well(
    rate: float = 0.125,
    *,
    states: ArrayLike = (1.0,),
    observation_precision: Precision | np.ndarray | float = 7.389,
    state_precision: Precision | np.ndarray | float = 100.0,
    cause_precision: Precision | np.ndarray | float = 0.125,
    initial_covariance: ArrayLike = 1.0,
    **options: Any,
) -> DynamicModel:
    """A state with two places of rest, pushed between them by a cause, seen through its square.

    dx/dt = r (16 x / (1 + x²) − x / 2 + 2 v) + w,  y = x² / 16 + z.

    Without a push x rests at ±√31 ≈ ±5.57. The data do not tell the sign of x.

    **Arguments:** `rate`: r, per unit of time; `states`, `initial_covariance`: where x starts;
    precisions of z, w and v; `options` of `vfe.DynamicModel`: `dt`, `smoothness`, `order`,
    `cause_order`.

    **Raises:** `ValueError` for a rate that is not positive, and as `vfe.DynamicModel`.

    **Example:**
    ```python
    push = lambda t: 8 * np.sin(np.pi * t / 16)
    vfe.dynamics.simulate(vfe.dynamics.double_well(), jax.random.key(0), 64, causes=push).states
    ```

    **Source:** Friston, Trujillo-Barreto and Daunizeau 2008, section "a double-well".
    """
    _positive("double_well", rate=rate)
    level = Level(
        lambda x, v, p: x**2 / 16,
        lambda x, v, p: rate * (16 * x / (1 + x**2) - x / 2 + 2 * v),
        states=np.asarray(states, float),
        causes=1,
        observation_precision=observation_precision,
        state_precision=state_precision,
        cause_precision=cause_precision,
        initial_covariance=np.asarray(initial_covariance, float),
    )
    return DynamicModel([level], **options)


def lorenz(
    prandtl: float = 10.0,
    rayleigh: float = 28.0,
    geometry: float = 8 / 3,
    *,
    rate: float = 1.0,
    coupling: float = 1.0,
    observation: ArrayLike = ((1.0, 1.0, 1.0),),
    states: ArrayLike = (1.0, 1.0, 20.0),
    parameter_covariance: ArrayLike = 0.0,
    observation_precision: Precision | np.ndarray | float = 1.0,
    state_precision: Precision | np.ndarray | float = 1.0,
    initial_covariance: ArrayLike = 1.0,
    **options: Any,
) -> DynamicModel:
    """The Lorenz attractor, seen through linear combinations of its states.

    dx₁/dt = r σ (x₂ − x₁) + w₁,  dx₂/dt = r (ρ x₁ − x₂ − c x₁ x₃) + w₂,
    dx₃/dt = r (c x₁ x₂ − β x₃) + w₃,  y = C x + z.

    **Arguments:** `prandtl`: σ; `rayleigh`: ρ; `geometry`: β: parameters in this order, known unless
    `parameter_covariance` is given; `rate`: r, per unit of time; `coupling`: c, the inverse of the unit
    of x; `observation`: C (k, 3), by default their sum; `states`, `initial_covariance`: where x starts;
    precisions of z and w; `options` of `vfe.DynamicModel`: `dt` (0.01 to 0.03 divided by r is usual),
    `smoothness`, `order`.

    **Raises:** `ValueError` for a rate or coupling that is not positive, and as `vfe.DynamicModel`.

    **Example:** `vfe.dynamics.simulate(vfe.dynamics.lorenz(dt=0.01), jax.random.key(0), 500).data`.

    **Source:** Lorenz 1963.
    """
    _positive("lorenz", rate=rate, coupling=coupling)
    seen = np.asarray(observation, float)
    if seen.ndim != 2 or seen.shape[1] != 3:
        raise ValueError(f"lorenz: got an observation of shape {seen.shape}; wanted (channels, 3).")

    def flow(x: Array, v: Array, p: Array) -> Array:
        return rate * _attractor(x, p[1], p[0], p[2], coupling)

    level = Level(
        lambda x, v, p: jnp.asarray(seen) @ x,
        flow,
        states=np.asarray(states, float),
        parameters=np.array([prandtl, rayleigh, geometry]),
        parameter_covariance=np.asarray(parameter_covariance, float),
        observation_precision=observation_precision,
        state_precision=state_precision,
        initial_covariance=np.asarray(initial_covariance, float),
    )
    return DynamicModel([level], **options)


def birdsong(
    rates: tuple[float, float] = (4.0, 0.5),
    *,
    rayleigh: float = 32.0,
    states: tuple[ArrayLike, ArrayLike] = ((1.0, 1.0, 8.0), (1.0, 1.0, 8.0)),
    parameter_covariance: tuple[ArrayLike, ArrayLike] = (0.0, 0.0),
    observation_precision: Precision | np.ndarray | float = np.e,
    state_precision: tuple[Precision | np.ndarray | float, Precision | np.ndarray | float] = (1.0, 1.0),
    cause_precision: Precision | np.ndarray | float = np.e**8,
    initial_covariance: tuple[ArrayLike, ArrayLike] = (1.0, 1.0),
    dt: float = 1 / 64,
    **options: Any,
) -> DynamicModel:
    """A singer of two levels: a slow Lorenz attractor sets the Rayleigh number of a quick one, which sings.

    With L(x, ρ) = (σ (x₂ − x₁), (ρ − x₃) x₁ − x₂, x₁ x₂ − β x₃):

    above, dx⁽²⁾/dt = r₂ L(x⁽²⁾, 32) + w⁽²⁾,  v = x₃⁽²⁾ + z⁽²⁾,
    below, dx⁽¹⁾/dt = r₁ L(x⁽¹⁾, v − 4) + w⁽¹⁾,  y = (x₂⁽¹⁾, x₃⁽¹⁾) + z⁽¹⁾.

    The two data are heard as the loudness (its size) and the pitch of a chirp. Where v is low the quick
    attractor comes to rest: the slow one sings phrases of chirps.

    **Arguments:** `rates`: (r₁, r₂) per unit of time (here seconds); `rayleigh`: that of the upper
    level; `states`, `initial_covariance`: where both levels start; `parameter_covariance`: of (σ, β) =
    (10, 8/3) at each level, which are known unless it is given; precisions of z⁽¹⁾, of (w⁽¹⁾, w⁽²⁾),
    and of z⁽²⁾ (`cause_precision`); `dt` and `options` of `vfe.DynamicModel`: `smoothness`, `order`,
    `cause_order`.

    **Raises:** `ValueError` for rates that are not positive, and as `vfe.DynamicModel`.

    **Example:** `vfe.dynamics.simulate(vfe.dynamics.birdsong(), jax.random.key(0), 256).data`.

    **Source:** Kiebel, Daunizeau and Friston 2008, "A hierarchy of time-scales and the brain"; Friston and
    Kiebel 2009, "Attractors in song".
    """
    _positive("birdsong", first_rate=rates[0], second_rate=rates[1])

    def flow(x: Array, v: Array, p: Array, number: int) -> Array:
        rho = v[0] - 4 if number == 0 else jnp.asarray(rayleigh)
        return rates[number] * _attractor(x, rho, p[0], p[1])

    heard = (lambda x, v, p: x[1:], lambda x, v, p: x[2:])
    levels = [
        Level(
            heard[number],
            functools.partial(flow, number=number),
            states=np.asarray(states[number], float),
            parameters=np.array([10.0, 8 / 3]),
            parameter_covariance=np.asarray(parameter_covariance[number], float),
            observation_precision=(observation_precision, cause_precision)[number],
            state_precision=state_precision[number],
            initial_covariance=np.asarray(initial_covariance[number], float),
        )
        for number in range(2)
    ]
    return DynamicModel(levels, dt=dt, **options)


def _attractor(
    x: Float[Array, "3"], rho: Any, sigma: Any, beta: Any, coupling: Any = 1.0
) -> Float[Array, "3"]:
    product = coupling * x[0]
    return jnp.stack(
        [sigma * (x[1] - x[0]), rho * x[0] - x[1] - product * x[2], product * x[1] - beta * x[2]]
    )


def _positive(word: str, **values: float) -> None:
    for name, value in values.items():
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{word}: got {name.replace('_', ' ')} {value}; wanted a positive number.")
