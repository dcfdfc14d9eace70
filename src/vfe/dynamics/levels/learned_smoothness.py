"""Smoothness: that of noise, where it is learned."""

import math
from typing import Any

import equinox as eqx

from vfe.arrays import real_numbers


def _number(value: Any) -> float:
    return float(real_numbers("Smoothness", value))


class Smoothness(eqx.Module):
    """A smoothness that is not known: ln σ ~ N(ln median, log_sd²).

    `vfe.fit` learns it; the published schemes, `vfe.filter` and `vfe.smooth` take the median.

    **Arguments:** `median`: a time above zero; `log_sd`: of ln σ, above zero.

    **Raises:** `ValueError` for numbers out of range.

    **Example:** `vfe.DynamicModel(level, smoothness=vfe.dynamics.Smoothness(0.5, 1.0))`.

    **Source:** Friston 2008, "Hierarchical models in the brain", where smoothness is a hyperparameter.
    """

    median: float = eqx.field(static=True, converter=_number)
    log_sd: float = eqx.field(static=True, converter=_number, default=1.0)

    def __check_init__(self):
        for name in ("median", "log_sd"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"Smoothness: got {name}={value}; wanted it above zero.")


def middle(value: "Smoothness | float | None") -> float | None:
    """What is taken for the smoothness where it is not learned."""
    return value.median if isinstance(value, Smoothness) else value
