"""Beliefs about continuous and discrete nodes together."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.beliefs.base import AbstractBelief
from vfe.beliefs.continuous import AbstractContinuous
from vfe.beliefs.discrete import Categorical, CategoricalMarginal, entropy_of, take


class MeanField(AbstractBelief):
    """q(z, k) = q(z) q(k): continuous and discrete nodes, independent of each other."""

    continuous: AbstractContinuous
    discrete: Categorical

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.discrete.names, *self.continuous.names)

    def entropies(self) -> dict[str, Array] | None:
        above = self.continuous.entropies()
        return None if above is None else {**self.discrete.entropies(), **above}

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> dict[str, Array]:
        one, two = jax.random.split(key)
        return {**self.discrete.sample(one, shape), **self.continuous.sample(two, shape)}

    def log_density(self, values: Mapping[str, Array]) -> Array:
        return self.discrete.log_density(values) + self.continuous.log_density(values)

    def __getitem__(self, name: str) -> Any:
        return self.discrete[name] if name in self.discrete.names else self.continuous[name]


class MixtureMarginal(eqx.Module):
    """The marginal of a continuous node under an enumerated belief: a mixture over the states."""

    probabilities: Float[Array, "*batch states"]
    parts: Any

    def _weights(self, like: Array) -> Array:
        p = self.probabilities
        return p.reshape(*p.shape, *[1] * (like.ndim - p.ndim))

    @property
    def mean(self) -> Array:
        """Σ_k q(k) ⟨z⟩_k."""
        means = self.parts.mean
        return (self._weights(means) * means).sum(self.probabilities.ndim - 1)

    @property
    def variance(self) -> Array:
        """Σ_k q(k) (variance_k + ⟨z⟩_k²) − ⟨z⟩², by element."""
        means, axis = self.parts.mean, self.probabilities.ndim - 1
        spread = self.parts.variance + (means - jnp.expand_dims(self.mean, axis)) ** 2
        return (self._weights(means) * spread).sum(axis)

    @property
    def sd(self) -> Array:
        return jnp.sqrt(self.variance)


class EnumeratedBelief(AbstractBelief):
    """q(l, z) = q(l) q(z | l): one belief about the rest per state of a discrete node.

    `conditional` has the states as the last of its leading axes.
    """

    node: str = eqx.field(static=True)
    log_probabilities: Float[Array, "*batch states"]
    conditional: AbstractBelief

    @property
    def names(self) -> tuple[str, ...]:
        return (self.node, *self.conditional.names)

    @property
    def probabilities(self) -> Array:
        """q(l), (..., states)."""
        return jnp.exp(self.log_probabilities)

    def entropies(self) -> dict[str, Array] | None:
        """S(l) and Σ_l q(l) S(z_i | l)."""
        inner = self.conditional.entropies()
        if inner is None:
            return None
        p = self.probabilities
        return {self.node: entropy_of(p), **{n: (p * s).sum(-1) for n, s in inner.items()}}

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> dict[str, Array]:
        one, two = jax.random.split(key)
        lead = self.log_probabilities.shape[:-1]
        states = jax.random.categorical(one, self.log_probabilities, shape=(*shape, *lead))
        axis = len(shape) + len(lead)

        def pick(values: Array) -> Array:
            index = states.reshape(*states.shape, *[1] * (values.ndim - states.ndim))
            return jnp.squeeze(jnp.take_along_axis(values, index, axis=axis), axis)

        inner = self.conditional.sample(two, shape)
        return {self.node: states, **{n: pick(v) for n, v in inner.items()}}

    def log_density(self, values: Mapping[str, Array]) -> Array:
        states = jnp.asarray(values[self.node])
        inner = {n: jnp.expand_dims(jnp.asarray(values[n]), states.ndim) for n in self.conditional.names}
        logs = self.conditional.log_density(inner)
        return take(self.log_probabilities, states) + take(logs, states)

    def __getitem__(self, name: str) -> Any:
        if name == self.node:
            return CategoricalMarginal(self.probabilities)
        marginal = self.conditional[name]
        if isinstance(marginal, CategoricalMarginal):
            p = self.probabilities[..., None]
            return CategoricalMarginal((p * marginal.probabilities).sum(-2))
        return MixtureMarginal(self.probabilities, marginal)
