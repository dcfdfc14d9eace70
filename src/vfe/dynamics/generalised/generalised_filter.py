"""`vfe.generalised_filter`: parameters and precisions of a dynamic model as slow states."""

from typing import Any

from vfe.dynamics.generalised.generalised_scheme import check_diagonal, filter_generalised
from vfe.dynamics.generalised.inversion import run
from vfe.dynamics.generalised.outcome import Outcome
from vfe.dynamics.generalised.reference import Reference
from vfe.dynamics.levels.dynamic_model import DynamicModel
from vfe.dynamics.levels.problem import Problem
from vfe.dynamics.levels.trajectory import Trajectory


def generalised_filter(
    model: DynamicModel, y: Any, *, prior_causes: Any = None, scheme: Reference | None = None
) -> Trajectory:
    """Generalised filtering: states, parameters and log-precisions move together, with no mean-field split.

    Parameters and log-precisions b have a motion of their own, ḃ′ = −∂F/∂b − N ḃ, so that their estimates
    settle over the series; sweeps over it go on until F settles. Reported are averages over the last sweep,
    weighted by their precisions; `parameters_in_time` and `log_precisions_in_time` are their course.

    **Arguments:** as `vfe.dem`; precisions must be diagonal, each entry known or one log-precision's.

    **Raises:** as `vfe.filter`; `ValueError` for static models and other precisions.

    **Example:** `vfe.generalised_filter(model, y).log_precisions_in_time`.

    **Source:** Friston, Stephan, Li and Daunizeau 2010, "Generalised filtering".
    """
    if not isinstance(model, DynamicModel):
        raise TypeError(f"generalised_filter: got a {type(model).__name__}; wanted a vfe.DynamicModel.")
    if model.static:
        raise ValueError("generalised_filter: got a model without hidden states; write vfe.dem(model, y).")
    check_diagonal(model.problem)
    return run(_scheme, model, y, prior_causes, scheme or Reference(), "generalised_filter")


def _scheme(problem: Problem, sensed: Any, settings: Reference) -> Outcome:
    return filter_generalised(problem, sensed, settings.substeps_of(problem), settings.sweeps)
