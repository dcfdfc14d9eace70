"""Standardised errors and Fisher information of densities: what Gauss–Newton methods are made of."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float

from vfe.cascade import CascadeNormal
from vfe.densities import LOG_2PI, base_density


def located(density: Any, error: Array | None) -> Array:
    """The mean of a density, or mean + scale ∘ error for a Gaussian."""
    if error is None:
        return density.mean
    if isinstance(density, CascadeNormal):
        return density.push(error)
    factor = getattr(density, "scale_tril", None)
    if factor is not None:
        return density.loc + factor @ error
    return density.loc + density.scale * error


def standardised(density: Any, value: Array) -> Array:
    """(value − mean) / scale for a Gaussian: the inverse of `located`."""
    if isinstance(density, CascadeNormal):
        return density.errors(value)
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


def predicted(density: Any, constant_scale: bool) -> Array:
    """What parents say of an observed value, as parameters whose Fisher information is known.

    Gaussian: the mean, followed on a new last axis by ln s where the scale may depend on the parents;
    Bernoulli and categorical: logits.

    **Raises:** `ValueError` for other densities.
    """
    density = base_density(density)
    kind = type(density)
    if issubclass(kind, dist.MultivariateNormal):
        return density.loc
    if issubclass(kind, dist.Normal):
        if constant_scale:
            return density.loc
        return jnp.stack(jnp.broadcast_arrays(density.loc, jnp.log(density.scale)), -1)
    if issubclass(kind, dist.BernoulliLogits | dist.CategoricalLogits):
        return density.logits
    raise ValueError(f"a {type(density).__name__} has no Gauss–Newton form here; use solver=vfe.Descent()")


class AbstractFisherRoot(eqx.Module):
    """Rᵀ with R Rᵀ the Fisher information of `predicted`."""

    @abc.abstractmethod
    def __call__(self, rows: Float[Array, "*event n"]) -> Float[Array, "m n"]:
        """Rᵀ D for the derivative D of `predicted` along n directions."""


class DiagonalRoot(AbstractFisherRoot):
    """One weight per element: s⁻¹ of a Gaussian mean, √2 of ln s, √(p (1 − p)) of Bernoulli logits."""

    weights: Array

    def __call__(self, rows: Array) -> Array:
        return (self.weights[..., None] * rows).reshape(-1, rows.shape[-1])


class MatrixRoot(AbstractFisherRoot):
    """L⁻¹ of a full covariance L Lᵀ, with columns of zeros for missing elements."""

    inverse: Float[Array, "k k"]

    def __call__(self, rows: Array) -> Array:
        return self.inverse @ rows


class SimplexRoot(AbstractFisherRoot):
    """Bᵀ with B Bᵀ = diag(p) − p pᵀ, of categorical logits; √p of zeros for missing elements."""

    roots: Array

    def __call__(self, rows: Array) -> Array:
        root = self.roots[..., None]
        found = root * (rows - (root**2 * rows).sum(-2, keepdims=True))
        return found.reshape(-1, rows.shape[-1])


def fisher_root(density: Any, mask: Array | None, constant_scale: bool) -> AbstractFisherRoot:
    """The Fisher information of `predicted`, as a root; elements that are missing carry none."""
    density = base_density(density)
    kind = type(density)

    def kept(weights: Array, mask: Array | None) -> Array:
        return weights if mask is None else jnp.where(mask, weights, 0.0)

    if issubclass(kind, dist.MultivariateNormal):
        factor = density.scale_tril
        if mask is not None:
            both = mask[:, None] & mask[None, :]
            block = jnp.where(both, density.covariance_matrix, jnp.eye(mask.shape[0]))
            factor = jnp.linalg.cholesky(block)
        inverse = jax.scipy.linalg.solve_triangular(factor, jnp.eye(factor.shape[-1]), lower=True)
        return MatrixRoot(inverse if mask is None else jnp.where(mask, inverse, 0.0))
    if issubclass(kind, dist.Normal):
        weights = jnp.broadcast_to(1.0 / density.scale, density.loc.shape)
        if constant_scale:
            return DiagonalRoot(kept(weights, mask))
        both = jnp.stack([weights, jnp.full_like(weights, 2**0.5)], -1)
        return DiagonalRoot(kept(both, None if mask is None else mask[..., None]))
    # Roots by way of logarithms: √p has no derivative where a probability has underflown to zero.
    if issubclass(kind, dist.BernoulliLogits):
        logs = jax.nn.log_sigmoid(density.logits) + jax.nn.log_sigmoid(-density.logits)
        return DiagonalRoot(kept(jnp.exp(0.5 * logs), mask))
    roots = jnp.exp(0.5 * jax.nn.log_softmax(density.logits, -1))
    return SimplexRoot(kept(roots, None if mask is None else mask[..., None]))
