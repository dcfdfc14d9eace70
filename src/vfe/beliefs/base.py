"""What every belief says of itself."""

import abc
from collections.abc import Mapping
from typing import Any

import equinox as eqx
from jaxtyping import Array, PRNGKeyArray


class AbstractBelief(eqx.Module):
    """A density over the hidden nodes, for one observation or with leading axes for many."""

    @property
    @abc.abstractmethod
    def names(self) -> tuple[str, ...]:
        """The nodes it is about."""

    @abc.abstractmethod
    def entropies(self) -> dict[str, Array] | None:
        """S(z_i | hidden nodes before i) in nats, by node; None where the belief has no entropy."""

    @abc.abstractmethod
    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> dict[str, Array]:
        """Values of every node, (*shape, *leading axes, *event)."""

    @abc.abstractmethod
    def log_density(self, values: Mapping[str, Array]) -> Array:
        """ln q(values) in nats, with the leading axes of the belief."""

    @abc.abstractmethod
    def __getitem__(self, name: str) -> Any:
        """The marginal of one node."""
