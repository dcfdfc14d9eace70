"""Whitened residuals and standardised errors of densities: what Gauss–Newton methods are made of."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array

from vfe.densities import LOG_2PI


def located(density: Any, error: Array | None) -> Array:
    """The mean of a density, or mean + scale ∘ error for a Gaussian."""
    if error is None:
        return density.mean
    factor = getattr(density, "scale_tril", None)
    if factor is not None:
        return density.loc + factor @ error
    return density.loc + density.scale * error


def standardised(density: Any, value: Array) -> Array:
    """(value − mean) / scale for a Gaussian: the inverse of `located`."""
    factor = getattr(density, "scale_tril", None)
    if factor is not None:
        return jax.scipy.linalg.solve_triangular(factor, value - density.loc, lower=True)
    return (value - density.loc) / density.scale


def log_size(density: Any, shape: tuple[int, ...]) -> Array:
    """ln |s| + ½ n ln 2π: the energy of a Gaussian at its mean."""
    count = int(np.prod(shape, dtype=int))
    factor = getattr(density, "scale_tril", None)
    if factor is not None:
        logs = jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)))
    else:
        logs = jnp.sum(jnp.broadcast_to(jnp.log(density.scale), shape))
    return logs + 0.5 * count * LOG_2PI


def whitened(density: Any, value: Array, mask: Array | None) -> Array:
    """A vector whose Jacobian J in the parents gives the Fisher curvature Jᵀ J of −ln p(value).

    Gaussian: L⁻¹ (value − mean); Bernoulli: √(p (1 − p)) logits; categorical: Bᵀ logits with
    B Bᵀ = diag(p) − p pᵀ (p held fixed).

    **Raises:** `ValueError` for other densities.
    """
    while isinstance(density, dist.Independent):
        density = density.base_dist
    if isinstance(density, dist.MultivariateNormal):
        if mask is None:
            return standardised(density, value)
        both = mask[:, None] & mask[None, :]
        # numpyro's lazy_property is a plain attribute once read; its annotation says otherwise.
        covariance: Array = density.covariance_matrix  # pyright: ignore[reportAssignmentType]
        block = jnp.where(both, covariance, jnp.eye(mask.shape[0]))
        residual = jnp.where(mask, value - density.loc, 0.0)
        return jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(block), residual, lower=True)
    if isinstance(density, dist.Normal):
        result = standardised(density, value)
    elif isinstance(density, dist.BernoulliLogits):
        p = jax.lax.stop_gradient(jax.nn.sigmoid(density.logits))
        result = jnp.sqrt(p * (1 - p)) * density.logits
    elif isinstance(density, dist.CategoricalLogits):
        p = jax.lax.stop_gradient(jax.nn.softmax(density.logits, -1))
        result = jnp.sqrt(p) * (density.logits - (p * density.logits).sum(-1, keepdims=True))
        mask = None if mask is None else mask[..., None]
    else:
        raise ValueError(
            f"a {type(density).__name__} has no Gauss–Newton form here; use solver=vfe.Descent()"
        )
    return result if mask is None else jnp.where(mask, result, 0.0)
