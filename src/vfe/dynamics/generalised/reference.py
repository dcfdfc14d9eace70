"""Settings of the reference schemes."""

import math

import equinox as eqx

from vfe.dynamics.levels.problem import Problem


class Reference(eqx.Module):
    """The schemes as first published, step for step, with their conventions.

    Data are embedded in generalised coordinates by a window centred on the sample, which looks ahead by
    half the orders; states move once (or `substeps` times) per sample by local linear steps; what is
    reported for a sample is the belief before its step; F is a bound only up to constants that depend on
    the orders.

    **Arguments:** `gain`: K, how strongly errors drive the states; `substeps`: per sample, by default 1, or
    for static models at most 8; `sweeps`: over the series, at most; `precision_steps`: of the M-step, at
    most; `light`: whether parameters begin with lightly regularised steps, by default where all equations
    are linear in states and causes.

    **Raises:** `ValueError` for a gain that is not positive, counts below one.

    **Example:** `vfe.dem(model, y, scheme=vfe.dynamics.Reference(sweeps=16))`.

    **Source:** Friston 2008; Friston, Trujillo-Barreto and Daunizeau 2008; Friston et al. 2010.
    """

    gain: float = eqx.field(static=True, default=1.0, converter=float)
    substeps: int | None = eqx.field(static=True, default=None)
    sweeps: int = eqx.field(static=True, default=8)
    precision_steps: int = eqx.field(static=True, default=8)
    light: bool | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if not (math.isfinite(self.gain) and self.gain > 0):
            raise ValueError(f"Reference: got gain={self.gain}; wanted it above zero, 1 being usual.")
        for name in ("substeps", "sweeps", "precision_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"Reference: got {name}={value}; wanted at least 1.")

    def substeps_of(self, problem: Problem) -> int:
        """How many steps a sample gets."""
        return (1 if problem.nx else 8) if self.substeps is None else self.substeps
