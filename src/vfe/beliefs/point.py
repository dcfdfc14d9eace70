"""A belief without spread."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.beliefs.continuous import AbstractContinuous
from vfe.conditioning import Conditioned, Layout
from vfe.model import Model


class PointMarginal(eqx.Module):
    """One value, without spread."""

    mean: Array

    @property
    def mode(self) -> Array:
        return self.mean


class Point(AbstractContinuous):
    """q = δ(z − ẑ): one value per node, found as the mode in unconstrained coordinates.

    The differential entropy of δ is −∞, so what is left of F is an *energy*: comparable between
    Point beliefs over the same variables only, and no bound on surprise.

    **Example:** `vfe.perceive(model, {"x": x}, belief=vfe.Point)`.
    """

    layout: Layout = eqx.field(static=True)
    location: Float[Array, "*batch n"]

    @classmethod
    def size(cls, layout: Layout) -> int:
        return layout.size

    @classmethod
    def from_vector(cls, layout: Layout, vector: Array) -> "Point":
        return cls(layout, vector)

    @classmethod
    def start(cls, conditioned: Conditioned, key: PRNGKeyArray) -> "Point":
        return cls(conditioned.layout, conditioned.start())

    @classmethod
    def from_values(cls, model: Model, values: Mapping[str, Any]) -> "Point":
        """The Point belief at these values, with any leading axes.

        **Example:** `vfe.Point.from_values(model, {"z": jnp.zeros(2)})`.
        """
        layout = Layout.of([(n, model.describe(n).shape, model.describe(n).support, False) for n in values])
        return cls(layout, layout.encode(values))

    def aligned(self, layout: Layout) -> "Point":
        """The same values with the nodes in the order of `layout`."""
        if self.layout == layout:
            return self
        if sorted(self.names) != sorted(layout.names):
            raise ValueError(
                f"the belief is about {list(self.names)}; the hidden continuous nodes are "
                f"{list(layout.names)}."
            )
        return Point(layout, layout.encode(self.layout.decode(self.location)))

    def factor(self) -> None:
        return None

    def entropies(self) -> None:
        return None

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> dict[str, Array]:
        u = jnp.broadcast_to(self.location, (*shape, *self.location.shape))
        return self.layout.decode(u)

    def log_density(self, values: Mapping[str, Array]) -> Array:
        raise TypeError("a Point belief has no density; use vfe.Laplace for one around the mode.")

    def __getitem__(self, name: str) -> PointMarginal:
        return PointMarginal(self.layout.decode(self.location)[self.layout.slot(name).name])
