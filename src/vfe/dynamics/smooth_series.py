"""Draws of smooth noise at equal intervals."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


def smooth_series(
    key: PRNGKeyArray, length: int, size: int, smoothness: float
) -> Float[Array, "length size"]:
    """Unit noise whose samples have the autocorrelation exp(−h² / (4 s²)), h in samples.

    White noise under a Gaussian kernel of standard deviation s, drawn beyond both ends, so that every
    sample has unit variance.

    **Arguments:** `length`, `size`: samples and channels; `smoothness`: s, in samples, above zero.

    **Example:** `smooth_series(jax.random.key(0), 64, 2, 0.5)`.

    **Source:** Friston 2008, "Hierarchical models in the brain", section on smooth noise.
    """
    reach = int(6 * smoothness) + 1
    lags = jnp.arange(-reach, reach + 1)
    kernel = jnp.exp(-(lags**2) / (2 * smoothness**2))
    kernel = kernel / jnp.sqrt((kernel**2).sum())
    white = jax.random.normal(key, (length + 2 * reach, size), jnp.float64)
    return jax.vmap(lambda one: jnp.convolve(one, kernel, mode="valid"), 1, 1)(white)
