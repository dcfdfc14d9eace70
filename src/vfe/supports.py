"""Where the values of a node live, and the unconstrained coordinates in which beliefs about them live."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform, biject_to


@dataclasses.dataclass(frozen=True)
class Support:
    """A support, described by hashable values so that equal models compile once.

    `kind` is one of real, positive, interval, simplex, discrete, other; `lower` and `upper` bound an
    interval; `name` is numpyro's own word, for messages.
    """

    kind: str
    name: str
    lower: float = 0.0
    upper: float = 1.0

    @property
    def is_real(self) -> bool:
        return self.kind == "real"

    def bijector(self) -> Transform:
        """numpyro's map from unconstrained coordinates onto the support."""
        constraint = {
            "real": constraints.real,
            "positive": constraints.greater_than(self.lower) if self.lower else constraints.positive,
            "interval": constraints.interval(self.lower, self.upper),
            "simplex": constraints.simplex,
        }.get(self.kind)
        if constraint is None:
            raise ValueError(f"no unconstrained coordinates for a {self.name} support")
        return biject_to(constraint)

    def unconstrained_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the coordinates that stand for a value of this shape."""
        return (*shape[:-1], shape[-1] - 1) if self.kind == "simplex" else shape

    def decode(self, u: Array) -> Array:
        """The value that unconstrained coordinates stand for."""
        return u if self.is_real else jnp.asarray(self.bijector()(u))

    def encode(self, value: Array) -> Array:
        """The unconstrained coordinates of a value."""
        return value if self.is_real else jnp.asarray(self.bijector().inv(value))

    def log_jacobian(self, u: Array) -> Array:
        """ln |det d value / d u|, summed over the event."""
        if self.is_real:
            return jnp.zeros((), u.dtype)
        transform = self.bijector()
        return jnp.sum(transform.log_abs_det_jacobian(u, transform(u)))


REAL = Support("real", "real")


def _number(x: Any) -> float | None:
    if isinstance(x, Tracer):
        return None
    array = np.asarray(x)
    return float(array.ravel()[0]) if array.size and (array == array.ravel()[0]).all() else None


def describe(constraint: Any) -> Support:
    """The `Support` of a numpyro constraint; `other` where we have no coordinates for it."""
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    name = type(constraint).__name__
    if constraint.is_discrete:
        return Support("discrete", name)
    if name in ("Real", "RealVector", "_Real", "_RealVector"):
        return Support("real", name)
    if name in ("Positive", "_Positive", "PositiveSoft", "SoftplusPositive"):
        return Support("positive", name)
    if name in ("Simplex", "_Simplex"):
        return Support("simplex", name)
    if name in ("UnitInterval", "_UnitInterval"):
        return Support("interval", name, 0.0, 1.0)
    lower = _number(getattr(constraint, "lower_bound", None))
    upper = _number(getattr(constraint, "upper_bound", None))
    if name in ("Interval", "_Interval", "OpenInterval", "Circular"):
        if lower is not None and upper is not None:
            return Support("interval", name, lower, upper)
        return Support("other", name)
    if name in ("GreaterThan", "_GreaterThan", "GreaterThanEq") and lower is not None:
        return Support("positive", name, lower)
    return Support("other", name)
