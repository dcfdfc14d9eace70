"""Beliefs about continuous nodes, in one vector of unconstrained coordinates."""

import abc
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.beliefs.base import AbstractBelief
from vfe.conditioning import Conditioned, Layout, Slot
from vfe.densities import LOG_2PI
from vfe.model import Model

QUADRATURE = 64


class AbstractContinuous(AbstractBelief):
    """A belief about continuous nodes, in one vector of unconstrained coordinates."""

    layout: eqx.AbstractVar[Layout]
    location: eqx.AbstractVar[Array]

    @property
    def names(self) -> tuple[str, ...]:
        return self.layout.names

    @classmethod
    @abc.abstractmethod
    def size(cls, layout: Layout) -> int:
        """How many numbers parametrise it."""

    @classmethod
    @abc.abstractmethod
    def from_vector(cls, layout: Layout, vector: Float[Array, "*batch m"]) -> "AbstractContinuous":
        """The belief with these parameters, as an encoder gives them."""

    @classmethod
    @abc.abstractmethod
    def start(cls, conditioned: Conditioned, key: PRNGKeyArray) -> "AbstractContinuous":
        """Where perception starts for one observation."""

    @abc.abstractmethod
    def factor(self) -> Float[Array, "*batch n n"] | None:
        """Lower triangular L with covariance L Lᵀ; None where there is no spread."""

    @abc.abstractmethod
    def aligned(self, layout: Layout) -> "AbstractContinuous":
        """The same belief with its nodes in the order of `layout`."""


class AbstractGaussian(AbstractContinuous):
    """q(u) = N(u; location, L Lᵀ) over unconstrained coordinates u."""

    @abc.abstractmethod
    def factor(self) -> Float[Array, "*batch n n"]:
        """Lower triangular L with covariance L Lᵀ."""

    @abc.abstractmethod
    def log_diagonal(self) -> Float[Array, "*batch n"]:
        """ln diag L: all that the entropy needs."""

    @classmethod
    @abc.abstractmethod
    def from_factor(cls, layout: Layout, location: Array, factor: Array) -> "AbstractGaussian":
        """The belief with this mean and (as far as its family allows) this factor."""

    @classmethod
    def from_moments(cls, model: Model, mean: Mapping[str, Any], covariance: Any) -> "AbstractGaussian":
        """A belief from the means of its nodes and their joint covariance.

        **Arguments:** `model`, for the shapes; `mean`: an array per node, with any leading axes, each
        flattened in row-major order into the rows of `covariance`, (..., n, n), *in the order of
        this dictionary*.

        **Raises:** `ValueError` for shapes that do not fit, a covariance that is not positive
        definite, or one that couples nodes (elements) which the family keeps independent.

        **Example:** `vfe.JointGaussian.from_moments(model, {"z": jnp.zeros(2)}, jnp.eye(2))`.
        """
        entries = [(n, model.describe(n).shape, model.describe(n).support, False) for n in mean]
        layout = Layout.of(entries)
        parts = []
        for s in layout.slots:
            if not s.support.is_real:
                raise ValueError(
                    f"from_moments: node {s.name!r} has a {s.support.name} support; give Gaussians "
                    "over its unconstrained coordinates with from_factor."
                )
            value = jnp.asarray(mean[s.name], float)
            cut = value.ndim - len(s.shape)
            if cut < 0 or value.shape[cut:] != s.shape:
                raise ValueError(
                    f"from_moments: the mean of {s.name!r} has shape {value.shape}; wanted "
                    f"{('...', *s.shape)}."
                )
            parts.append(value.reshape(*value.shape[:cut], -1))
        location = jnp.concatenate(parts, -1)
        matrix = jnp.asarray(covariance, float)
        if matrix.shape[-2:] != (layout.size, layout.size):
            raise ValueError(
                f"from_moments: the covariance has shape {matrix.shape}; the means have "
                f"{layout.size} elements together."
            )
        factor = jnp.linalg.cholesky(matrix)
        belief = cls.from_factor(layout, location, factor)
        if not isinstance(factor, Tracer):
            if not np.isfinite(np.asarray(factor)).all():
                raise ValueError("from_moments: the covariance is not positive definite.")
            kept = belief.factor()
            if not np.allclose(np.asarray(kept), np.asarray(factor), atol=1e-6 * np.abs(factor).max()):
                raise ValueError(
                    f"from_moments: the covariance couples elements that a {cls.__name__} keeps "
                    "independent; use vfe.JointGaussian."
                )
        return belief

    def entropies(self) -> dict[str, Array]:
        """S_i = ½ n_i (1 + ln 2π) + Σ_{j in i} ln L_jj."""
        logs = self.log_diagonal()
        return {
            s.name: (0.5 * (1 + LOG_2PI) + logs[..., s.where])
            .reshape(*logs.shape[:-1], *s.coordinates[: int(s.repeated)], -1)
            .sum(-1)
            for s in self.layout.slots
        }

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> dict[str, Array]:
        noise = jax.random.normal(key, (*shape, *self.location.shape), self.location.dtype)
        return self.layout.decode(self.displaced(noise))

    def displaced(self, noise: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
        """location + L noise."""
        return self.location + jnp.einsum("...ij,...j->...i", self.factor(), noise)

    def elementwise(self, u: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
        """ln q(u_j | u_1 … u_{j−1}) of every element: their sum is ln q(u)."""
        residual = u - self.location
        factor = jnp.broadcast_to(self.factor(), (*residual.shape, self.layout.size))
        white = jax.scipy.linalg.solve_triangular(factor, residual[..., None], lower=True)[..., 0]
        return -0.5 * white**2 - self.log_diagonal() - 0.5 * LOG_2PI

    def log_density(self, values: Mapping[str, Array]) -> Array:
        """ln N(u; location, L Lᵀ) − ln |det dz/du| at u = coordinates of the values."""
        u = self.layout.encode(values)
        return self.elementwise(u).sum(-1) - self.layout.log_jacobian(u)

    def aligned(self, layout: Layout) -> "AbstractGaussian":
        """The same density with its nodes in the order of `layout`."""
        if self.layout == layout:
            return self
        if sorted(self.names) != sorted(layout.names) or self.layout.size != layout.size:
            raise ValueError(
                f"the belief is about {list(self.names)}; the hidden continuous nodes are "
                f"{list(layout.names)}."
            )
        index = np.concatenate(
            [np.arange(self.layout.slot(n).start, self.layout.slot(n).stop) for n in layout.names]
        )
        factor = self.factor()
        covariance = (factor @ jnp.swapaxes(factor, -1, -2))[..., index[:, None], index[None, :]]
        return type(self).from_factor(layout, self.location[..., index], jnp.linalg.cholesky(covariance))

    def covariance(self) -> Float[Array, "*batch n n"]:
        """The covariance of all coordinates together, in the order of `names`."""
        factor = self.factor()
        return factor @ jnp.swapaxes(factor, -1, -2)

    def __getitem__(self, name: str) -> "GaussianMarginal":
        slot = self.layout.slot(name)
        return GaussianMarginal(slot, self.location[..., slot.where], self.factor()[..., slot.where, :])


class GaussianMarginal(eqx.Module):
    """The marginal of one continuous node under a Gaussian belief."""

    slot: Slot = eqx.field(static=True)
    location: Float[Array, "*batch k"]
    rows: Float[Array, "*batch k n"]

    def _shaped(self, flat: Array) -> Array:
        return flat.reshape(*flat.shape[:-1], *self.slot.coordinates)

    def _moments(self) -> tuple[Array, Array]:
        """Mean and variance of the value, whose support may be constrained."""
        support, location = self.slot.support, self._shaped(self.location)
        if support.is_real:
            return location, self._shaped((self.rows**2).sum(-1))
        if support.kind == "simplex":
            half = jax.random.normal(jax.random.key(0), (2048, self.rows.shape[-1]), self.location.dtype)
            u = self.location + jnp.einsum("...kn,sn->s...k", self.rows, jnp.concatenate([half, -half]))
            values = support.decode(self._shaped(u))
            return values.mean(0), values.var(0)
        spread = self._shaped((self.rows**2).sum(-1))
        if support.kind == "positive":
            above = jnp.exp(location + 0.5 * spread)
            return support.lower + above, jnp.expm1(spread) * above**2
        nodes, weights = np.polynomial.hermite_e.hermegauss(QUADRATURE)
        shape = (-1, *[1] * location.ndim)
        values = support.decode(location + jnp.sqrt(spread) * jnp.asarray(nodes, float).reshape(shape))
        shares = jnp.asarray(weights / weights.sum(), float)
        mean = jnp.tensordot(shares, values, 1)
        return mean, jnp.tensordot(shares, (values - mean) ** 2, 1)

    @property
    def mean(self) -> Array:
        """⟨z⟩, (*leading axes, *event): in closed form, by quadrature in an interval, and over 4096 fixed
        draws in a simplex."""
        return self._moments()[0]

    @property
    def mode(self) -> Array:
        """The value at the mode of the unconstrained coordinates."""
        return self.slot.support.decode(self._shaped(self.location))

    @property
    def variance(self) -> Array:
        """⟨(z − ⟨z⟩)²⟩ by element, in squared units of z."""
        return self._moments()[1]

    @property
    def sd(self) -> Array:
        """The standard deviation by element, in units of z."""
        return jnp.sqrt(self.variance)

    @property
    def covariance(self) -> Float[Array, "*batch k k"]:
        """The covariance of the flattened unconstrained coordinates."""
        return self.rows @ jnp.swapaxes(self.rows, -1, -2)
