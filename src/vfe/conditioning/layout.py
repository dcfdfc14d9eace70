"""Where each hidden continuous node lies in one vector of unconstrained coordinates."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vfe.supports import Support


@dataclasses.dataclass(frozen=True)
class Slot:
    """Where one hidden continuous node lies in the vector of unconstrained coordinates.

    `shape` is that of its value and `coordinates` that of its coordinates; both have a leading axis
    over observations where `repeated`.
    """

    name: str
    shape: tuple[int, ...]
    coordinates: tuple[int, ...]
    support: Support
    start: int
    stop: int
    repeated: bool = False

    @property
    def where(self) -> slice:
        return slice(self.start, self.stop)


@dataclasses.dataclass(frozen=True)
class Layout:
    """The order of hidden continuous nodes in one vector u, parents before children."""

    slots: tuple[Slot, ...]

    @staticmethod
    def of(entries: list[tuple[str, tuple[int, ...], Support, bool]]) -> "Layout":
        """Lay out (name, shape of the value, support, repeated) one after the other."""
        slots, start = [], 0
        for name, shape, support, repeated in entries:
            coordinates = support.unconstrained_shape(shape)
            stop = start + int(np.prod(coordinates, dtype=int))
            slots.append(Slot(name, shape, coordinates, support, start, stop, repeated))
            start = stop
        return Layout(tuple(slots))

    @property
    def size(self) -> int:
        return self.slots[-1].stop if self.slots else 0

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(s.name for s in self.slots)

    def slot(self, name: str) -> Slot:
        for s in self.slots:
            if s.name == name:
                return s
        raise ValueError(f"no hidden continuous node {name!r}; there are {list(self.names)}.")

    def unpack(self, u: Float[Array, "*batch n"]) -> dict[str, Array]:
        """The coordinates of each node, in its own shape, behind any leading axes."""
        return {s.name: u[..., s.where].reshape(*u.shape[:-1], *s.coordinates) for s in self.slots}

    def decode(self, u: Float[Array, "*batch n"]) -> dict[str, Array]:
        """The value of each node."""
        parts = self.unpack(u)
        return {s.name: s.support.decode(parts[s.name]) for s in self.slots}

    def log_jacobian(self, u: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
        """ln |det d values / d u|, summed over all nodes, behind any leading axes."""
        found = jnp.zeros(u.shape[:-1])
        for s in self.slots:
            if not s.support.is_real:
                flat = u[..., s.where].reshape(-1, *s.coordinates)
                found += jax.vmap(s.support.log_jacobian)(flat).reshape(u.shape[:-1])
        return found

    def encode(self, values: Mapping[str, Array]) -> Float[Array, "*batch n"]:
        """The coordinates of the values of all nodes, as one vector behind any leading axes."""
        parts = []
        for s in self.slots:
            value = jnp.asarray(values[s.name], dtype=float)
            lead = value.shape[: value.ndim - len(s.shape)]
            parts.append(s.support.encode(value).reshape(*lead, s.stop - s.start))
        return jnp.concatenate(parts, -1) if parts else jnp.zeros(0)
