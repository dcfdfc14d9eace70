"""A linear convolution: causes smoothed by a few hidden states, seen in several channels."""

from typing import Any

import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from vfe.dynamics.levels.dynamic_model import DynamicModel
from vfe.dynamics.levels.level import Level
from vfe.dynamics.levels.noise_precision import Precision

CHANNELS = 4


def linear_convolution(
    drift: ArrayLike = ((-0.25, 1.0), (-0.5, -0.25)),
    cause: ArrayLike = ((1.0,), (0.0,)),
    observation: ArrayLike | None = None,
    *,
    observation_precision: Precision | np.ndarray | float = 1.0,
    state_precision: Precision | np.ndarray | float = 1.0,
    cause_precision: Precision | np.ndarray | float = 1.0,
    parameter_covariance: ArrayLike = 0.0,
    initial_covariance: ArrayLike = 1.0,
    **options: Any,
) -> DynamicModel:
    """A linear system driven by causes: the data are these convolved with its impulse responses.

    dx/dt = A x + B v + w,  y = C x + z.

    **Arguments:** `drift`: A (n, n), per unit of time; `cause`: B (n, c), in units of x per unit of v
    and time; `observation`: C (k, n); by default four channels, a quarter of the first two functions of
    the cosine basis (for two states); precisions of z, of w and of the causes about their prior;
    `parameter_covariance`: of {"A", "B", "C"}, each row after row, which are known unless it is given;
    `initial_covariance` of the states; `options` of `vfe.DynamicModel`: `dt`, `smoothness`, `order`,
    `cause_order`.

    **Raises:** `ValueError` for shapes that do not fit, and as `vfe.DynamicModel`.

    **Example:**
    ```python
    model = vfe.dynamics.linear_convolution(observation_precision=100.0, state_precision=100.0)
    bump = lambda t: np.exp(-((t - 12) ** 2) / 4)
    course = vfe.dynamics.simulate(model, jax.random.key(0), 32, causes=bump)
    ```

    **Source:** Friston, Trujillo-Barreto and Daunizeau 2008, section "a linear convolution model".
    """
    A, B = np.asarray(drift, float), np.asarray(cause, float)
    C = 0.25 * cosines(CHANNELS, 2) if observation is None else np.asarray(observation, float)
    n = A.shape[0] if A.ndim == 2 else 0
    if A.shape != (n, n) or not n or B.ndim != 2 or B.shape[0] != n or C.ndim != 2 or C.shape[1] != n:
        raise ValueError(
            f"linear_convolution: got drift {A.shape}, cause {B.shape} and observation {C.shape}; wanted "
            "(n, n), (n, causes) and (channels, n)."
        )
    level = Level(
        _observe,
        _flow,
        states=n,
        causes=B.shape[1],
        parameters={"A": A, "B": B, "C": C},
        parameter_covariance=np.asarray(parameter_covariance, float),
        initial_covariance=np.asarray(initial_covariance, float),
        observation_precision=observation_precision,
        state_precision=state_precision,
        cause_precision=cause_precision,
    )
    return DynamicModel([level], **options)


def _flow(x: Array, v: Array, p: dict[str, Array]) -> Array:
    return p["A"] @ x + p["B"] @ v


def _observe(x: Array, v: Array, p: dict[str, Array]) -> Array:
    return p["C"] @ x


def cosines(count: int, functions: int) -> Float[np.ndarray, "count functions"]:
    """The first functions of the orthonormal cosine basis on `count` points, as columns.

    **Example:** `cosines(4, 2)[:, 0]` is [0.5, 0.5, 0.5, 0.5].
    """
    j, k = np.arange(count)[:, None], np.arange(functions)
    return np.sqrt(np.where(k == 0, 1, 2) / count) * np.cos(np.pi * (2 * j + 1) * k / (2 * count))
