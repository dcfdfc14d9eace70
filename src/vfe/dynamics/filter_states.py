"""`vfe.filter` of a `vfe.DynamicModel`: states and causes, parameters and precisions as known."""

from typing import Any

from vfe.dynamics.dem_scheme import infer
from vfe.dynamics.dynamic_model import DynamicModel
from vfe.dynamics.filtering import filter
from vfe.dynamics.inversion import run
from vfe.dynamics.outcome import Outcome
from vfe.dynamics.problem import Problem
from vfe.dynamics.reference import Reference
from vfe.dynamics.trajectory import Trajectory


@filter.register
def filter_dynamic_model(
    model: DynamicModel, y: Any, *, prior_causes: Any = None, scheme: Reference | None = None
) -> Trajectory:
    """States and causes along a series by generalised filtering, at the prior means of all else.

    μ̃̇ = D μ̃ − K ∂E/∂μ̃, advanced from sample to sample by local linear steps, with E = ½ ẽᵀ Π̃ ẽ.

    **Arguments:** `y`: (time, k), or (series, time, k) for several series; `prior_causes`: (time, causes),
    the prior mean η of the top causes, zero if not given; `scheme`: settings, `vfe.dynamics.Reference()`.

    **Raises:** `ValueError` for data that do not fit the model or hold NaN; `vfe.DivergenceError` with the
    level and the time.

    **Example:** `vfe.filter(model, y).states.mean`.

    **Source:** Friston, Trujillo-Barreto and Daunizeau 2008, "DEM: a variational treatment of dynamic
    systems".
    """
    return run(_scheme, model, y, prior_causes, scheme or Reference(), "filter")


def _scheme(problem: Problem, sensed: Any, settings: Reference) -> Outcome:
    return infer(problem, sensed, settings.gain, settings.substeps_of(problem))
