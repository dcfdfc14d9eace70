"""Parameters of whoever chose: where they live, and what is expected of them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vfe.supports import REAL, Support


@dataclasses.dataclass(frozen=True)
class ParameterPrior:
    """A Gaussian prior on a number, in coordinates that may take any value; made by `real` and its like.

    `support`: where the number lives; `centre`: the median, as the number itself; `sd`: the standard
    deviation in the coordinates: the number, its logarithm (positive), its logit (probability, interval).
    """

    support: Support
    centre: float
    sd: float

    @property
    def coordinate(self) -> float:
        """The prior mean, in the coordinates."""
        kind, at = self.support.kind, self.centre
        if kind == "positive":
            return float(np.log(at))
        if kind == "interval":
            share = (at - self.support.lower) / (self.support.upper - self.support.lower)
            return float(np.log(share) - np.log1p(-share))
        return float(at)


def real(mean: float = 0.0, sd: float = 1.0) -> ParameterPrior:
    """Any number, Gaussian.

    **Raises:** `ValueError` for what is not finite, or an sd that is not positive.

    **Example:** `vfe.discrete.behaviour.real(0.0, 2.0)`.
    """
    return _prior("real", REAL, mean, sd, np.isfinite(mean))


def positive(median: float = 1.0, sd: float = 1.0) -> ParameterPrior:
    """A positive number whose logarithm is Gaussian.

    **Raises:** as `real`; `ValueError` for a median that is not positive.

    **Example:** `vfe.discrete.behaviour.positive(4.0, 0.5)`.
    """
    inside = np.isfinite(median) and median > 0
    return _prior("positive", Support("positive", "positive"), median, sd, inside)


def probability(
    median: float = 0.5, sd: float = 1.5, *, lower: float = 0.0, upper: float = 1.0
) -> ParameterPrior:
    """A probability, or a number between two others, whose logit (of its share of the way) is Gaussian.

    **Raises:** as `real`; `ValueError` for a median outside the interval.

    **Example:** `vfe.discrete.behaviour.probability(0.1, lower=0.0, upper=0.5)`.
    """
    inside = bool(np.isfinite([lower, upper]).all() and lower < median < upper)
    return _prior("probability", Support("interval", "interval", lower, upper), median, sd, inside)


def _prior(word: str, support: Support, centre: float, sd: float, inside: Any) -> ParameterPrior:
    if not inside or not (np.isfinite(sd) and sd > 0):
        where = {"real": "a finite mean", "positive": "a positive median"}.get(
            word, f"a median between {support.lower:g} and {support.upper:g}"
        )
        raise ValueError(f"{word}: got {centre!r} and sd={sd!r}; wanted {where} and a positive sd.")
    return ParameterPrior(support, float(centre), float(sd))


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """The supports of named parameters, in order; hashable, so that equal ones compile once."""

    names: tuple[str, ...]
    supports: tuple[Support, ...]

    @classmethod
    def of(cls, prior: Mapping[str, ParameterPrior]) -> "Coordinates":
        """Those of a prior by name.

        **Raises:** `TypeError` for what is no `ParameterPrior`, `ValueError` for none.
        """
        if not prior:
            raise ValueError("prior: got no parameters; wanted at least one.")
        for name, one in prior.items():
            if not isinstance(one, ParameterPrior):
                raise TypeError(
                    f"prior: {name!r} is a {type(one).__name__}; wanted vfe.discrete.behaviour.real(...), "
                    "positive(...) or probability(...)."
                )
        return cls(tuple(prior), tuple(p.support for p in prior.values()))

    def decode(self, place: Float[Array, "*batch k"]) -> dict[str, Array]:
        """Values by name of coordinates (*batch, k)."""
        pairs = zip(self.names, self.supports, strict=True)
        return {name: support.decode(place[..., i]) for i, (name, support) in enumerate(pairs)}

    def encode(self, values: Mapping[str, Any]) -> Array:
        """Coordinates (*batch, k) of values by name."""
        pairs = zip(self.names, self.supports, strict=True)
        return jnp.stack([support.encode(jnp.asarray(values[n], float)) for n, support in pairs], -1)
