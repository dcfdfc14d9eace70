"""Beliefs about scalar discrete nodes."""

import abc
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vfe.beliefs.base import AbstractBelief
from vfe.conditioning import Conditioned, outer


class CategoricalMarginal(eqx.Module):
    """The marginal of one discrete node."""

    probabilities: Float[Array, "*batch states"]

    @property
    def mode(self) -> Int[Array, "*batch"]:
        """The most probable state."""
        return jnp.argmax(self.probabilities, -1)

    @property
    def mean(self) -> Float[Array, "*batch"]:
        """⟨k⟩ over the states 0 … K − 1."""
        return (self.probabilities * jnp.arange(self.probabilities.shape[-1])).sum(-1)

    @property
    def entropy(self) -> Float[Array, "*batch"]:
        """−Σ_k q(k) ln q(k), in nats."""
        return entropy_of(self.probabilities)


def entropy_of(probabilities: Array) -> Array:
    """−Σ_k p ln p over the last axis, with 0 ln 0 = 0 and finite gradients."""
    safe = jnp.where(probabilities > 0, probabilities, 1.0)
    return -(probabilities * jnp.log(safe)).sum(-1)


class AbstractDiscrete(AbstractBelief):
    """A belief about scalar discrete nodes."""

    @abc.abstractmethod
    def weigh(self) -> Callable[[tuple[str, ...]], Array]:
        """A function from names to their joint probabilities (for one observation)."""

    @abc.abstractmethod
    def leading_axes(self) -> tuple[int, ...]:
        """The leading axes: one belief per index."""


class Categorical(AbstractDiscrete):
    """q(k) = Π_i softmax(logits_i): discrete nodes, independent of each other.

    **Arguments:** `logits`: (..., K) per node, in topological order.

    **Example:** `vfe.Categorical.from_probabilities({"s": jnp.asarray([0.2, 0.8])})["s"].mode`.
    """

    logits: dict[str, Float[Array, "*batch states"]]
    order: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, logits: Mapping[str, Any], order: tuple[str, ...] | None = None):
        self.logits = {n: jnp.asarray(v, float) for n, v in logits.items()}
        self.order = tuple(logits) if order is None else order

    @classmethod
    def from_probabilities(cls, probabilities: Mapping[str, Any]) -> "Categorical":
        """The belief with these probabilities per node, which must sum to one.

        **Raises:** `ValueError` where they are negative or do not.
        """
        for n, p in probabilities.items():
            if not isinstance(p, Tracer):
                numbers = np.asarray(p)
                if (numbers < 0).any() or not np.allclose(numbers.sum(-1), 1, atol=1e-5):
                    raise ValueError(f"Categorical: the probabilities of {n!r} must sum to one.")
        return cls({n: jnp.log(jnp.asarray(p, float)) for n, p in probabilities.items()})

    @classmethod
    def start(cls, conditioned: Conditioned, key: PRNGKeyArray) -> "Categorical":
        """Nearly uniform: a little noise breaks the symmetry between states."""
        logits = {}
        repeats = conditioned.repeats
        for i, (n, k) in enumerate(conditioned.discrete.items()):
            shape = (k,) if repeats is None or conditioned.model.describe(n).shared else (repeats, k)
            logits[n] = 0.1 * jax.random.normal(jax.random.fold_in(key, i), shape)
        return cls(logits)

    @property
    def names(self) -> tuple[str, ...]:
        return self.order

    def probabilities(self) -> dict[str, Array]:
        """q(k) per node, (..., K)."""
        return {n: jax.nn.softmax(self.logits[n], -1) for n in self.order}

    def weigh(self) -> Callable[[tuple[str, ...]], Array]:
        found = self.probabilities()
        return lambda names: outer(found, names)

    def leading_axes(self) -> tuple[int, ...]:
        return self.logits[self.names[0]].shape[:-1]

    def entropies(self) -> dict[str, Array]:
        return {n: entropy_of(p) for n, p in self.probabilities().items()}

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> dict[str, Array]:
        return {
            n: jax.random.categorical(
                jax.random.fold_in(key, i),
                self.logits[n],
                shape=(*shape, *self.logits[n].shape[:-1]),
            )
            for i, n in enumerate(self.order)
        }

    def log_density(self, values: Mapping[str, Array]) -> Array:
        return sum(
            (take(jax.nn.log_softmax(self.logits[n], -1), values[n]) for n in self.order),
            jnp.zeros(()),
        )

    def __getitem__(self, name: str) -> CategoricalMarginal:
        if name not in self.logits:
            raise ValueError(f"no hidden discrete node {name!r}; there are {list(self.order)}.")
        return CategoricalMarginal(jax.nn.softmax(self.logits[name], -1))


def take(table: Array, states: Array) -> Array:
    """table[..., states], with the table spread over the axes of `states`."""
    table = jnp.broadcast_to(table, (*jnp.shape(states), table.shape[-1]))
    return jnp.take_along_axis(table, jnp.asarray(states)[..., None], -1)[..., 0]


class JointCategorical(AbstractDiscrete):
    """q(k) = Π_i q(k_i | separator_i): discrete nodes with their dependencies; each separator earlier.

    The form that variable elimination gives the exact posterior of a discrete graph.

    **Arguments:** `conditionals`: per node, ln q, (..., *states of its separator, states);
    `separators`: the nodes it depends on; in topological order.
    """

    conditionals: dict[str, Array]
    separators: tuple[tuple[str, tuple[str, ...]], ...] = eqx.field(static=True)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(n for n, _ in self.separators)

    def _cliques(self) -> dict[str, tuple[tuple[str, ...], Array]]:
        """The joint probabilities of each node with its separator, from the top down."""
        cliques: dict[str, tuple[tuple[str, ...], Array]] = {}
        for name, separator in self.separators:
            table = jnp.exp(self.conditionals[name])
            if separator:
                last = max(separator, key=self.names.index)
                above, joint = cliques[last]
                table = table * marginalise(joint, above, separator)[..., None]
            cliques[name] = ((*separator, name), table)
        return cliques

    def joint(self, names: tuple[str, ...]) -> Array:
        """q of some nodes that lie in one clique, (..., *states)."""
        cliques = self._cliques()
        last = max(names, key=self.names.index)
        above, table = cliques[last]
        return marginalise(table, above, names)

    def weigh(self) -> Callable[[tuple[str, ...]], Array]:
        cliques = self._cliques()

        def joint(names: tuple[str, ...]) -> Array:
            above, table = cliques[max(names, key=self.names.index)]
            return marginalise(table, above, names)

        return joint

    def leading_axes(self) -> tuple[int, ...]:
        name, separator = self.separators[0]
        return self.conditionals[name].shape[: -len(separator) - 1]

    def entropies(self) -> dict[str, Array]:
        """S_i = −⟨ln q(k_i | separator_i)⟩."""
        found = {}
        for name, (scope, table) in self._cliques().items():
            logs = jnp.where(table > 0, self.conditionals[name], 0.0)
            found[name] = -(table * logs).sum(axis=tuple(range(-len(scope), 0)))
        return found

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> dict[str, Array]:
        values: dict[str, Array] = {}
        for i, (name, separator) in enumerate(self.separators):
            table = self.conditionals[name]
            batch = table.shape[: table.ndim - len(separator) - 1]
            table = jnp.broadcast_to(table, (*shape, *table.shape))
            for parent in separator:
                index = values[parent].reshape(
                    *shape, *batch, *[1] * (table.ndim - len(shape) - len(batch))
                )
                table = jnp.take_along_axis(table, index, axis=len(shape) + len(batch))
                table = jnp.squeeze(table, len(shape) + len(batch))
            values[name] = jax.random.categorical(jax.random.fold_in(key, i), table, axis=-1)
        return values

    def log_density(self, values: Mapping[str, Array]) -> Array:
        total = jnp.zeros(())
        for name, separator in self.separators:
            table = self.conditionals[name]
            batch = table.ndim - len(separator) - 1
            states = [jnp.asarray(values[n]) for n in (*separator, name)]
            shape = jnp.broadcast_shapes(*[s.shape for s in states], table.shape[:batch])
            lead = [
                jnp.arange(size).reshape(-1, *[1] * (batch - 1 - i))
                for i, size in enumerate(table.shape[:batch])
            ]
            index = tuple(jnp.broadcast_to(a, shape) for a in (*lead, *states))
            total = total + table[index]
        return total

    def __getitem__(self, name: str) -> CategoricalMarginal:
        if name not in self.names:
            raise ValueError(f"no hidden discrete node {name!r}; there are {list(self.names)}.")
        return CategoricalMarginal(self.joint((name,)))


def marginalise(table: Array, scope: tuple[str, ...], keep: tuple[str, ...]) -> Array:
    """Sum a table over the axes (its last len(scope)) of nodes not kept, and put them in order."""
    first = table.ndim - len(scope)
    drop = tuple(first + i for i, n in enumerate(scope) if n not in keep)
    table = table.sum(axis=drop)
    left = tuple(n for n in scope if n in keep)
    order = [*range(first), *(first + left.index(n) for n in keep)]
    return jnp.transpose(table, order)
