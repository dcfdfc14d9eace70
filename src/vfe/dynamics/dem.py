"""`vfe.dem`: states, then parameters, then precisions of a dynamic model, until F settles."""

from typing import Any, overload

from vfe.dynamics.collapsed import Collapsed, LearnedLevels, learn_collapsed
from vfe.dynamics.dem_scheme import invert
from vfe.dynamics.dynamic_model import DynamicModel
from vfe.dynamics.inversion import run
from vfe.dynamics.outcome import Outcome
from vfe.dynamics.problem import Problem
from vfe.dynamics.reference import Reference
from vfe.dynamics.trajectory import Trajectory


@overload
def dem(
    model: DynamicModel, y: Any, *, prior_causes: Any = None, scheme: Reference | None = None
) -> Trajectory: ...


@overload
def dem(
    model: DynamicModel, y: Any, *, times: Any = None, prior_causes: Any = None, scheme: Collapsed
) -> LearnedLevels: ...


def dem(
    model: DynamicModel,
    y: Any,
    *,
    times: Any = None,
    prior_causes: Any = None,
    scheme: Reference | Collapsed | None = None,
) -> Trajectory | LearnedLevels:
    """Dynamic expectation maximisation: q(states) q(parameters) q(log-precisions), each Gaussian.

    Sweeps over the series: states move as in `vfe.filter`, with the effect of the uncertainty of
    parameters; log-precisions by Fisher scoring on the errors of the whole series; parameters by a
    regularised Newton step. For a static linear model: restricted maximum likelihood, parametric empirical
    Bayes.

    That is the published scheme, `vfe.dynamics.Reference`; it is sure of too much.
    `vfe.dynamics.Collapsed()` integrates the states out instead, and its intervals cover.

    **Arguments:** as `vfe.filter` of a dynamic model; parameters with a prior variance above zero and
    precisions with components are learned. `times`: of samples, with `Collapsed`, which also takes NaN.

    **Returns:** a `vfe.dynamics.Trajectory`; from `Collapsed`, `vfe.dynamics.LearnedLevels`.

    **Raises:** as `vfe.filter`; with `Collapsed` also `ValueError` where nothing is to be learned, and
    `vfe.DivergenceError` where no minimum was found.

    **Example:** `vfe.dem(model, y).parameters.mean[0]`, with `.parameters.sd`, `.log_precisions.mean`.

    **Source:** Friston, Trujillo-Barreto and Daunizeau 2008, "DEM: a variational treatment of dynamic
    systems".
    """
    if not isinstance(model, DynamicModel):
        raise TypeError(f"dem: got a {type(model).__name__}; wanted a vfe.DynamicModel.")
    if isinstance(scheme, Collapsed):
        return learn_collapsed(model, y, times, prior_causes, scheme)
    if times is not None:
        raise ValueError(
            "dem: got times= for vfe.dynamics.Reference, which embeds equally spaced samples; write "
            "scheme=vfe.dynamics.Collapsed()."
        )
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
