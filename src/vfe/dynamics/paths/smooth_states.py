"""`vfe.smooth` of a `vfe.DynamicModel`: states and causes in hindsight."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from vfe.double_precision import released
from vfe.dynamics.levels.dynamic_model import DynamicModel
from vfe.dynamics.levels.reading import read_series, read_times
from vfe.dynamics.levels.trajectory import Believed
from vfe.dynamics.paths.augmented import Augmented
from vfe.dynamics.paths.causal import Causal
from vfe.dynamics.paths.filter_states import check_finite, is_even, start, trajectory_of
from vfe.dynamics.paths.level_process import Estimate, describe, replicate
from vfe.dynamics.paths.path_search import Search, along, most_probable_path, path_free_energy
from vfe.dynamics.paths.process_filter import Carried, make_grid
from vfe.dynamics.paths.state_trajectory import CausalState, StateTrajectory, together
from vfe.series.verbs import smooth


@smooth.register
def smooth_dynamic_model(
    model: DynamicModel,
    y: Any,
    *,
    times: Any = None,
    prior_causes: Any = None,
    scheme: Causal = Causal(),  # noqa: B008 (frozen)
    damping: float = 100.0,
    max_steps: int = 100,
    tolerance: float = 1e-3,
) -> StateTrajectory:
    """States and causes along a series, given all of it; parameters and precisions as known.

    The most probable path of the states and of the linear systems that stand for the smooth noise, by
    Gauss–Newton over the whole path; F is the Laplace approximation of −ln p(y). For linear models both
    are exact.

    **Arguments:** `y`, `times`, `prior_causes`: as for `vfe.filter`; `scheme`: how the noise is stood for
    and how time is cut; `damping`: the precision, in units of 1 / variance of the states along the first
    path, that ties the first step to it; it halves with every step; `max_steps`; `tolerance`: how far an
    undamped step may still move, in standard deviations.

    **Returns:** a `vfe.dynamics.StateTrajectory`, whose F is by time and term: `observation`, of
    the data given the path, `initial` (the belief at the first sample), the energy of every noise by its
    name, and `path`, less the entropy of all that follows the first sample.

    **Raises:** `ValueError` for data that do not fit the model and times that go backward;
    `vfe.DivergenceError` where no path was found.

    **Example:** `vfe.smooth(model, y).states.mean`.

    **Source:** Bell 1994; Särkkä and Svensson 2020 for the damping; Hartikainen and Särkkä 2010 for the
    noise.
    """
    if not isinstance(scheme, Causal):
        raise TypeError(f"smooth: got scheme={scheme!r}; wanted vfe.dynamics.Causal(...).")
    if isinstance(y, Tracer) or isinstance(prior_causes, Tracer):
        raise TypeError(
            "smooth: got traced data; the search stops when it has converged, which takes numbers. For "
            "several series give y of shape (series, time, k) instead of using jax.vmap."
        )
    with jax.enable_x64(True):
        y, eta, batched = read_series(model, y, prior_causes, "smooth", gaps=True)
        at = read_times(times, y.shape[-2], model.dt, "smooth")
        search = Search(damping, max_steps, tolerance, scheme.iterations)
        search.check()
        state = start(model, scheme)

        def one(y: np.ndarray, eta: np.ndarray) -> StateTrajectory:
            return _smooth(model, state, y, eta, at, scheme, search)

        found = together([one(*both) for both in zip(y, eta, strict=True)]) if batched else one(y, eta)
    return released(found)


def _smooth(
    model: DynamicModel,
    state: CausalState,
    y: np.ndarray,
    eta: np.ndarray,
    at: np.ndarray,
    scheme: Causal,
    search: Search,
) -> StateTrajectory:
    process = state.process
    substeps = None if process.constant else scheme.substeps
    grid, rows = make_grid(at, y, eta, substeps)
    advice = "take more substeps (scheme=vfe.dynamics.Causal(substeps=5))"
    path = most_probable_path(process, grid, rows, is_even(at), search, advice)
    estimate, prediction = _described(process, path.mean[rows], path.covariance[rows], eta)
    end = Carried(path.mean[-1], path.covariance[-1], jnp.asarray(True))
    trajectory = trajectory_of(
        model,
        estimate,
        prediction,
        path_free_energy(process, path, rows, "path"),
        time=at * model.dt,
        y=y,
        last=CausalState(process, end, jnp.asarray(eta[-1]), len(at)),
        substeps=substeps,
        iterations=scheme.iterations,
        hindsight=True,
        steps=path.steps,
        change=path.change,
    )
    check_finite(trajectory, "smooth")
    return trajectory


@eqx.filter_jit
def _described(process: Augmented, mean: Array, covariance: Array, eta: Any) -> tuple[Estimate, Believed]:
    def one(*now: Array) -> tuple[Estimate, Believed]:
        return describe(process, *now), replicate(process, *now)

    return along(one, mean, covariance, jnp.asarray(eta))
