"""The least of a smooth function of a few numbers, and its curvature there: what fits to a series share."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from vfe.free_energy import FreeEnergy, Kind


class Minimum(NamedTuple):
    """Where L-BFGS ended: place, value, largest element of the gradient, curvature, and how it went.

    `least`: the smallest eigenvalue of the curvature, not positive at a saddle; −1 if it is not finite.
    """

    place: np.ndarray
    value: float
    gradient: float
    curvature: np.ndarray
    least: float
    steps: int
    message: str


@functools.lru_cache(maxsize=16)
def _derivatives(function: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Value with slope, and curvature; kept, so that the next series of a shape compiles nothing."""
    return eqx.filter_jit(jax.value_and_grad(function)), eqx.filter_jit(jax.hessian(function))


def minimum(
    function: Callable[..., Any], start: np.ndarray, *arguments: Any, max_steps: int, gtol: float
) -> Minimum:
    """Minimise function(u, *arguments) over u (k,), a JAX function compiled once, in float64.

    **Source:** Nocedal and Wright 2006, algorithm 7.5; `scipy.optimize.minimize`.
    """
    from scipy.optimize import minimize

    with jax.enable_x64(True):
        slope, curved = _derivatives(function)

        def both(u: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = slope(jnp.asarray(u), *arguments)
            # Where the function leaves float64, the line search is told to step back.
            return (float(value), np.asarray(gradient)) if np.isfinite(value) else (np.inf, 0 * u)

        options = {"maxiter": max_steps, "ftol": 1e-15, "gtol": gtol}
        found = minimize(both, start, jac=True, method="L-BFGS-B", options=options)
        curvature = np.asarray(curved(jnp.asarray(found.x), *arguments))
    curvature = 0.5 * (curvature + curvature.T)
    least = float(np.linalg.eigvalsh(curvature).min()) if np.isfinite(curvature).all() else -1.0
    left = float(np.abs(found.jac).max())
    return Minimum(found.x, float(found.fun), left, curvature, least, int(found.nit), str(found.message))


def laplace_free_energy(
    surprise: np.ndarray, place: np.ndarray, centre: np.ndarray, spread: np.ndarray, curvature: np.ndarray
) -> FreeEnergy:
    """F of a series whose parameters θ are integrated out by Laplace's method, sample by sample.

    q(θ) = N(θ*, H⁻¹), prior N(centre, spread²) on each parameter;
    F = −ln p(y | θ*) − ln p(θ*) + ½ ln |H| − ½ k ln 2π.
    What the spread of q adds to the energy of the data, ½ tr(H⁻¹ ∂²(−ln p(y | θ))), is laid evenly on
    the samples.

    **Arguments:** `surprise`: −ln p(y_t | past, θ*) (time,); the others (k,) and (k, k), in the coordinates
    of the fit.

    **Source:** MacKay 2003, chapter 27.
    """
    covariance, k = np.linalg.inv(curvature), len(place)
    own = 0.5 * np.sum(np.diag(covariance) / spread**2)
    prior = 0.5 * np.sum(((place - centre) / spread) ** 2 + 2 * np.log(spread) + np.log(2 * np.pi))
    entropy = 0.5 * k * (1 + np.log(2 * np.pi)) - 0.5 * np.linalg.slogdet(curvature)[1]
    surprise = np.asarray(surprise, float)
    return FreeEnergy(
        observed={"y": surprise + (0.5 * k - own) / len(surprise)},  # pyright: ignore[reportArgumentType]
        hidden={"parameters": np.asarray(prior + own)},  # pyright: ignore[reportArgumentType]
        entropies={"parameters": np.asarray(entropy)},  # pyright: ignore[reportArgumentType]
        error=None,
        weight=np.ones(()),  # pyright: ignore[reportArgumentType]
        kind=Kind.approximation,
        shared=("parameters",),
        order=("parameters", "y"),
    )
