"""`vfe.dem`: states, then parameters, then precisions of a dynamic model, until F settles."""

from typing import Any

from vfe.dynamics.generalised.dem_scheme import invert
from vfe.dynamics.generalised.inversion import run
from vfe.dynamics.generalised.outcome import Outcome
from vfe.dynamics.generalised.reference import Reference
from vfe.dynamics.levels.dynamic_model import DynamicModel
from vfe.dynamics.levels.problem import Problem
from vfe.dynamics.levels.trajectory import Trajectory


def dem(
    model: DynamicModel, y: Any, *, prior_causes: Any = None, scheme: Reference | None = None
) -> Trajectory:
    """Dynamic expectation maximisation: q(states) q(parameters) q(log-precisions), each Gaussian.

    Sweeps over the series: states move as in `vfe.filter`, with the effect of the uncertainty of
    parameters; log-precisions by Fisher scoring on the errors of the whole series; parameters by a
    regularised Newton step. For a static linear model: restricted maximum likelihood, parametric empirical
    Bayes.

    This is the published scheme. It takes the derivatives of an embedded series for independent data and is
    sure of too much; `vfe.fit`, which integrates the states out, has intervals that cover.

    **Arguments:** as `vfe.filter` of a dynamic model; parameters with a prior variance above zero and
    precisions with components are learned.

    **Raises:** as `vfe.filter`.

    **Example:** `vfe.dem(model, y).parameters.mean[0]`, with `.parameters.sd`, `.log_precisions.mean`.

    **Source:** Friston, Trujillo-Barreto and Daunizeau 2008, "DEM: a variational treatment of dynamic
    systems".
    """
    if not isinstance(model, DynamicModel):
        raise TypeError(f"dem: got a {type(model).__name__}; wanted a vfe.DynamicModel.")
    return run(_scheme, model, y, prior_causes, scheme or Reference(), "dem")


def _scheme(problem: Problem, sensed: Any, settings: Reference) -> Outcome:
    light = problem.constant if settings.light is None else settings.light
    return invert(
        problem,
        sensed,
        settings.gain,
        settings.substeps_of(problem),
        settings.sweeps,
        settings.precision_steps,
        light,
    )
