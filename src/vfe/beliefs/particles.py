"""Draws from the posterior."""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.beliefs.base import AbstractBelief
from vfe.conditioning import Layout


class ParticleMarginal(eqx.Module):
    """The draws of one node, with the draws' axis after the leading ones."""

    draws: Array
    axis: int = eqx.field(static=True)

    @property
    def mean(self) -> Array:
        return self.draws.mean(self.axis)

    @property
    def variance(self) -> Array:
        return self.draws.var(self.axis)

    @property
    def sd(self) -> Array:
        return self.draws.std(self.axis)


class Particles(AbstractBelief):
    """Draws from the posterior: no density and no entropy; every expectation is an average.

    `coordinates`: (..., chains, draws, n) unconstrained; `r_hat` and `effective_sample_size` by
    element of the coordinates, (..., n).
    """

    layout: Layout = eqx.field(static=True)
    coordinates: Float[Array, "*batch chains draws n"]
    r_hat: Float[Array, "*batch n"]
    effective_sample_size: Float[Array, "*batch n"]

    @property
    def names(self) -> tuple[str, ...]:
        return self.layout.names

    def pooled(self) -> Float[Array, "*batch draws n"]:
        """All chains' draws together."""
        c = self.coordinates
        return c.reshape(*c.shape[:-3], -1, c.shape[-1])

    def entropies(self) -> None:
        return None

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> dict[str, Array]:
        pool = self.pooled()
        count = int(np.prod(shape, dtype=int))
        index = jax.random.randint(key, (count,), 0, pool.shape[-2])
        picked = jnp.moveaxis(pool[..., index, :], -2, 0)
        return self.layout.decode(picked.reshape(*shape, *picked.shape[1:]))

    def log_density(self, values: Mapping[str, Array]) -> Array:
        raise TypeError("Particles have no density; use vfe.Laplace or a Gaussian belief for one.")

    def __getitem__(self, name: str) -> ParticleMarginal:
        self.layout.slot(name)
        pool = self.pooled()
        return ParticleMarginal(self.layout.decode(pool)[name], pool.ndim - 2)
