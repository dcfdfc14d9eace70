"""ColouredNoise: smooth noise as a part of a series."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vfe.dynamics.linear.smooth_noise import HIGHEST_ORDER, unit_system
from vfe.dynamics.linear.systems import AbstractSystem, Dynamics, number


class ColouredNoise(AbstractSystem):
    """Smooth noise: a part of a series with the autocovariance a² exp(−h² / (4 s²)), mean zero.

    A linear system of white noise stands for it, as in `vfe.dynamics.smooth_noise`; its autocovariance is
    within 9e-4 a² of that at order 8. Estimates of a series leave it out, as they do observation noise.

    **Arguments:** `sd`: a, in units of the series; `smoothness`: s, a time; `order`: how many states.

    **Raises:** `ValueError` for numbers that are not positive, and orders outside 1 to 10.

    **Example:**
    ```python
    rhythm = vfe.dynamics.Oscillator(frequency=0.1, damping=0.05, amplitude=30.0)
    vfe.dynamics.Components([rhythm, vfe.dynamics.ColouredNoise(5.0, smoothness=0.5)], observation_sd=1.0)
    ```

    **Source:** Hartikainen and Särkkä 2010, section 3.
    """

    sd: Array
    smoothness: Array
    order: int = eqx.field(static=True)
    positive = ("sd", "smoothness")
    noise = True
    spread: ClassVar = {"sd": 2.0, "smoothness": 1.0}

    def __init__(self, sd: Any, smoothness: Any, order: int = 8) -> None:
        self.sd = number("ColouredNoise: sd", sd, positive=True)
        self.smoothness = number("ColouredNoise: smoothness", smoothness, positive=True)
        if not isinstance(order, int) or not 1 <= order <= HIGHEST_ORDER:
            raise ValueError(f"ColouredNoise: got order={order!r}; wanted a whole number from 1 to 10.")
        self.order = order

    @property
    def states(self) -> tuple[str, ...]:
        return tuple(f"noise {i}" for i in range(self.order))

    def dynamics(self, intervals: Float[Array, " time"]) -> Dynamics:
        drift, _, output = unit_system(self.order)
        scaled = intervals / (jnp.sqrt(2.0) * self.smoothness)
        step = jax.vmap(lambda one: jax.scipy.linalg.expm(jnp.asarray(drift) * one))(scaled)
        # The states are stationary with unit covariance.
        rest = jnp.eye(self.order)
        noise = rest - step @ jnp.swapaxes(step, -1, -2)
        noise = 0.5 * (noise + jnp.swapaxes(noise, -1, -2))
        return Dynamics(step, noise, self.sd * jnp.asarray(output), jnp.zeros(self.order), rest)
