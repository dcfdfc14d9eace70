"""Draws of smooth noise at equal intervals."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

REACH = 6.0  # kernels end here, in units of the smoothness: what is left out is below 1e-15 of the variance


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
    reach = math.ceil(REACH * smoothness)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / smoothness) ** 2)
    kernel /= np.linalg.norm(kernel)
    white = jax.random.normal(key, (length + 2 * reach, size), jnp.float64)
    return jax.vmap(lambda one: jax.scipy.signal.fftconvolve(one, kernel, "valid"), 1, 1)(white)
