"""The spread of a Gaussian node: a scalar, a diagonal or a full covariance, fixed or learnable."""

import abc
from collections.abc import Callable
from typing import Any, cast

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.core import Tracer
from jaxtyping import Array, Float

from vfe.maps import Fixed, Learnable, released


class AbstractNoise(eqx.Module):
    """How a Gaussian node scatters about its mean."""

    @abc.abstractmethod
    def density(self, mean: Array, parents: tuple[Array, ...]) -> dist.Distribution:
        """The Gaussian density of one value, with this spread, about `mean`."""


class IndependentNoise(AbstractNoise):
    """Independent elements, with log-precisions that broadcast against the mean.

    ln p(z) = Σ_j ½ (ln Π_j − Π_j (z_j − m_j)² − ln 2π), Π = exp(log_precision).
    """

    log_precision: Any

    def density(self, mean: Array, parents: tuple[Array, ...]) -> dist.Distribution:
        log_precision = released(self.log_precision)
        try:
            fits = jnp.broadcast_shapes(log_precision.shape, mean.shape) == mean.shape
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                f"the scale has shape {log_precision.shape}, which does not broadcast to the mean's "
                f"{mean.shape}"
            )
        return dist.Normal(mean, jnp.broadcast_to(jnp.exp(-0.5 * log_precision), mean.shape))


class FullNoise(AbstractNoise):
    """A full covariance Σ = L Lᵀ, L lower triangular with a positive diagonal.

    Stored without constraints, as ln diag L and the part of L below the diagonal.
    """

    log_diagonal: Any
    below: Any

    @property
    def factor(self) -> Float[Array, "n n"]:
        below = released(self.below)
        return jnp.tril(below, -1) + jnp.diag(jnp.exp(released(self.log_diagonal)))

    def density(self, mean: Array, parents: tuple[Array, ...]) -> dist.Distribution:
        factor = self.factor
        if mean.shape != factor.shape[:1]:
            raise ValueError(
                f"the covariance has shape {factor.shape} and the mean {mean.shape}; a covariance "
                "(n, n) wants a mean (n,)"
            )
        return dist.MultivariateNormal(mean, scale_tril=factor)


class InverseRoot(eqx.Module):
    """The scale Π(z)^(−½) that belongs to a precision Π(z)."""

    precision: Callable[..., Array]

    def __call__(self, *parents: Array) -> Array:
        return self.precision(*parents) ** -0.5


class DependentNoise(AbstractNoise):
    """A scale that is a function of the parents, s(z) > 0, elementwise."""

    scale: Callable[..., Array]

    def density(self, mean: Array, parents: tuple[Array, ...]) -> dist.Distribution:
        return dist.Normal(mean, jnp.broadcast_to(self.scale(*parents), mean.shape))


def _concrete(array: Array) -> np.ndarray | None:
    return None if isinstance(array, Tracer) else np.asarray(array)


def _positive(array: Array, word: str) -> None:
    numbers = _concrete(array)
    if numbers is not None and not (np.isfinite(numbers).all() and (numbers > 0).all()):
        worst = numbers[~(np.isfinite(numbers) & (numbers > 0))].ravel()[0]
        raise ValueError(
            f"gaussian: the {word} must be finite and positive; got {worst}. "
            "Give a standard deviation as scale=, a variance matrix as covariance=."
        )


def _cholesky(matrix: Array, word: str) -> Array:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"gaussian: the {word} has shape {matrix.shape}; wanted (n, n).")
    numbers = _concrete(matrix)
    if numbers is not None:
        if not np.isfinite(numbers).all():
            raise ValueError(f"gaussian: the {word} has elements that are not finite.")
        if not np.allclose(numbers, numbers.T, rtol=1e-5, atol=1e-8 * np.abs(numbers).max()):
            raise ValueError(f"gaussian: the {word} is not symmetric.")
    factor = jnp.linalg.cholesky(matrix)
    numbers = _concrete(factor)
    if numbers is not None and not np.isfinite(numbers).all():
        smallest = np.linalg.eigvalsh(np.asarray(matrix, dtype=np.float64)).min()
        raise ValueError(
            f"gaussian: the {word} is not positive definite (its least eigenvalue is "
            f"{smallest:.3g}). Add a small multiple of the identity, or check the sign."
        )
    return factor


def _unmarked(value: Any) -> tuple[Array, bool]:
    learn = isinstance(value, Learnable)
    value = value.value if isinstance(value, Learnable | Fixed) else value
    array = jnp.asarray(value)
    return (array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)), learn


def _hold(array: Array, learn: bool) -> Any:
    return array if learn else Fixed(array)


def _full(factor: Array, learn: bool) -> FullNoise:
    return FullNoise(
        log_diagonal=_hold(jnp.log(jnp.diag(factor)), learn),
        below=_hold(jnp.tril(factor, -1), learn),
    )


def make_noise(scale: Any, covariance: Any, precision: Any) -> AbstractNoise:
    """One of scale, covariance (matrix) and precision (scalar, vector or matrix) as a noise."""
    given = [
        name
        for name, value in (("scale", scale), ("covariance", covariance), ("precision", precision))
        if value is not None
    ]
    if len(given) > 1:
        raise ValueError(f"gaussian: got {' and '.join(given)}; give only one of them.")
    if covariance is not None:
        matrix, learn = _unmarked(covariance)
        return _full(_cholesky(matrix, "covariance"), learn)
    if precision is not None:
        if callable(precision):
            return DependentNoise(InverseRoot(cast(Callable[..., Array], precision)))
        array, learn = _unmarked(precision)
        if array.ndim == 2:
            _cholesky(array, "precision")
            return _full(_cholesky(jnp.linalg.inv(array), "inverse of the precision"), learn)
        _positive(array, "precision")
        return IndependentNoise(_hold(jnp.log(array), learn))
    if callable(scale):
        return DependentNoise(cast(Callable[..., Array], scale))
    array, learn = _unmarked(1.0 if scale is None else scale)
    _positive(array, "scale")
    return IndependentNoise(_hold(-2.0 * jnp.log(array), learn))
