"""Generalised coordinates of smooth noise: covariance over orders of derivative, and a series embedded
in them."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

SHARPEST = math.exp(-8)  # a smoothness of zero, in samples: noise that is white for every purpose
# Beyond this the smoothness matrix has no inverse in double precision, whatever the scaling.
WORST_CONDITION = 1e15


def smoothness_covariance(orders: int, smoothness: float) -> Float[np.ndarray, "orders orders"]:
    """Covariance of the derivatives of unit noise with autocorrelation ρ(τ) = exp(−τ²/(4σ²)).

    V_ij = cov(e⁽ⁱ⁾, e⁽ʲ⁾) = (−1)ⁱ ρ⁽ⁱ⁺ʲ⁾(0), with ρ⁽²ᵏ⁾(0) = (−1)ᵏ (2k−1)!! / (2σ²)ᵏ.

    **Arguments:** `orders`: how many derivatives, the zeroth included; `smoothness`: σ in units of time,
    the standard deviation of the Gaussian kernel that makes such noise of white noise.

    **Raises:** `ValueError` for less than one order, or a negative or infinite smoothness.

    **Example:** `smoothness_covariance(3, 0.5)` is [[1, 0, −2], [0, 2, 0], [−2, 0, 12]].

    **Source:** Friston 2008, "Hierarchical models in the brain", eq. 54.
    """
    _check(orders, smoothness)
    rate = 1 / (2 * max(smoothness, SHARPEST) ** 2)
    covariance = np.zeros((orders, orders))
    for i in range(orders):
        for j in range(i % 2, orders, 2):
            k = (i + j) // 2
            covariance[i, j] = (-1.0) ** (i + k) * math.prod(range(1, 2 * k, 2)) * rate**k
    return covariance


def smoothness_precision(orders: int, smoothness: float) -> Float[np.ndarray, "orders orders"]:
    """R = V⁻¹, the precision over orders; computed where σ = 1, then order k is scaled by σᵏ.

    **Arguments, raises, source:** as `smoothness_covariance`; also `ValueError` where the entries cannot
    be held in double precision.

    **Example:** `smoothness_precision(3, 0.5)` is [[1.5, 0, .25], [0, .5, 0], [.25, 0, .125]].
    """
    _check(orders, smoothness)
    smoothness = max(smoothness, SHARPEST)
    unit = smoothness_covariance(orders, 1.0)
    if np.linalg.cond(unit) > WORST_CONDITION:
        raise ValueError(
            f"the covariance over {orders} orders cannot be inverted in double precision; "
            "write a lower order (6 is usual)."
        )
    # V is zero where i + j is odd, so that even and odd orders are inverted apart and stay so exactly.
    precision = np.zeros((orders, orders))
    for start in (0, 1):
        same = slice(start, None, 2)
        if unit[same, same].size:
            block = np.linalg.inv(unit[same, same])
            precision[same, same] = (block + block.T) / 2
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        scale = smoothness ** np.arange(orders, dtype=float)
        precision = precision * scale[:, None] * scale
    if not np.isfinite(precision).all() or (np.diag(precision) < np.finfo(float).tiny).any():
        raise ValueError(
            f"a smoothness of {smoothness:g} to the power {2 * (orders - 1)} is beyond double precision; "
            "write a lower order, or a smoothness nearer to the sampling interval."
        )
    return precision


def derivative_operator(orders: int, size: int) -> Float[np.ndarray, "rows rows"]:
    """D = Sh ⊗ I: maps (x, x′, x″) to (x′, x″, 0). **Example:** `derivative_operator(3, 2) @ x`."""
    return np.kron(np.eye(orders, k=1), np.eye(size))


def embedding_windows(
    length: int, orders: int, times: np.ndarray
) -> tuple[Float[np.ndarray, "windows orders orders"], np.ndarray, np.ndarray]:
    """How to read derivatives off a series: for each time its samples and which weights go with them.

    With the n samples k nearest to t, y(k_i) = Σ_j (i − x)ʲ/j! y⁽ʲ⁾(t), x the place of t among them. The
    window is centred, so it looks ahead by about n/2 samples; beyond the ends it repeats the end samples.

    **Arguments:** `length`: samples in the series; `orders`: n; `times`: in samples, the first being 1.

    **Returns:** weights of the different windows, the window of each time, and (times, n) sample indices.

    **Example:** `weights, which, samples = embedding_windows(32, 7, np.arange(1, 33))`.

    **Source:** Friston 2008, "Hierarchical models in the brain", section on generalised data.
    """
    first = np.trunc(times - (orders + 1) / 2)
    place = times - first
    samples = first[:, None] + np.arange(1, orders + 1)
    samples = np.clip(samples, 1, length).astype(int) - 1
    places, which = np.unique(place, return_inverse=True)
    powers = np.arange(orders)
    factorial = np.array([math.factorial(k) for k in powers], float)
    weights = np.empty((len(places), orders, orders))
    for number, x in enumerate(places):
        weights[number] = np.linalg.inv((np.arange(1, orders + 1)[:, None] - x) ** powers / factorial)
    return weights, which, samples


def embed(
    series: Float[Array, "time k"], orders: int, times: np.ndarray | None = None
) -> Float[Array, "times orders k"]:
    """The derivatives of a series, per sample, at the given times (at every sample by default).

    **Arguments:** `series`: (time, k); `orders`: how many derivatives, the zeroth included; `times`: in
    samples, the first being 1, possibly between samples.

    **Example:** `embed(y, 3)[:, 0]` is y.

    **Source:** see `embedding_windows`.
    """
    length = series.shape[0]
    times = np.arange(1, length + 1, dtype=float) if times is None else np.asarray(times, float)
    weights, which, samples = embedding_windows(length, orders, times)
    return jnp.einsum("tji,tik->tjk", jnp.asarray(weights)[which], series[samples])


def _check(orders: int, smoothness: float) -> None:
    if orders < 1:
        raise ValueError(f"got {orders} orders; wanted at least one, the quantity itself.")
    if not (math.isfinite(smoothness) and smoothness >= 0):
        raise ValueError(
            f"got a smoothness of {smoothness}; wanted a time, zero or positive, such as 0.5 * dt."
        )
