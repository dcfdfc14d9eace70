"""`vfe.filter` of a `vfe.DynamicModel`: states and causes, parameters and precisions as known."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from vfe.double_precision import released
from vfe.dynamics.generalised.dem_scheme import infer
from vfe.dynamics.generalised.inversion import run
from vfe.dynamics.generalised.outcome import Outcome
from vfe.dynamics.generalised.reference import Reference
from vfe.dynamics.levels.dynamic_model import DynamicModel
from vfe.dynamics.levels.problem import Problem
from vfe.dynamics.levels.reading import read_series, read_times
from vfe.dynamics.levels.trajectory import Believed, Trajectory
from vfe.dynamics.paths.augmented import Augmented
from vfe.dynamics.paths.causal import Causal
from vfe.dynamics.paths.level_process import Estimate, describe, level_process
from vfe.dynamics.paths.process_filter import Carried, Grid, Row, begin, filter_rows, make_grid
from vfe.dynamics.paths.state_trajectory import CausalNow, CausalState, ForecastLevels, StateTrajectory
from vfe.free_energy import FreeEnergy, Kind
from vfe.perception.status import DivergenceError
from vfe.series.verbs import filter

SERIES = Grid(None, 0, 0, 0)  # the axes of several series: times are shared  # pyright: ignore


@filter.register
def filter_dynamic_model(
    model: DynamicModel,
    y: Any,
    *,
    times: Any = None,
    prior_causes: Any = None,
    scheme: Causal | Reference = Causal(),  # noqa: B008 (frozen)
) -> StateTrajectory | Trajectory:
    """States and causes along a series, given the samples so far; parameters and precisions as known.

    With `vfe.dynamics.Causal()`, the extended Kalman filter of the model and of the linear systems that
    stand for its smooth noise: exact for linear models. With `vfe.dynamics.Reference()`, generalised
    filtering as published, μ̃̇ = D μ̃ − K ∂E/∂μ̃ with E = ½ ẽᵀ Π̃ ẽ, which looks ahead.

    **Arguments:** `y`: (time, k), or (series, time, k) for several series, NaN where missing; `times`:
    (time,), increasing, in the unit of the model's dt; multiples of dt if not given; `prior_causes`: (time,
    causes), the prior mean η of the top causes, zero if not given, going straight from sample to sample;
    `scheme`: which filter, and its settings.

    **Returns:** a `vfe.dynamics.StateTrajectory`; from Reference, a `vfe.dynamics.Trajectory`.

    **Raises:** `ValueError` for data that do not fit the model, times that go backward, and for Reference
    NaN or `times`; `vfe.DivergenceError` with the level and the time.

    **Example:** `vfe.filter(model, y).states.mean`.

    **Source:** as `vfe.dynamics.Causal`; Friston, Trujillo-Barreto and Daunizeau 2008, "DEM: a variational
    treatment of dynamic systems".
    """
    if isinstance(scheme, Reference):
        if times is not None:
            raise ValueError(
                "filter: got times= for vfe.dynamics.Reference, which embeds equally spaced samples; leave "
                "times or scheme out."
            )
        return run(_reference, model, y, prior_causes, scheme, "filter")
    if not isinstance(scheme, Causal):
        raise TypeError(
            f"filter: got scheme={scheme!r}; wanted vfe.dynamics.Causal(...) or "
            "vfe.dynamics.Reference(...)."
        )
    with jax.enable_x64(True):
        y, eta, batched = read_series(model, y, prior_causes, "filter", gaps=True)
        samples = read_times(times, y.shape[-2], model.dt, "filter")
        state = start(model, scheme)
        substeps = None if state.process.constant else scheme.substeps
        grid, rows = make_grid(samples, y, eta, substeps)
        even = is_even(samples)
        belief, found = _filter(state.process, state.belief, grid, rows, scheme.iterations, even, batched)
        estimate, prediction, surprise = found
        last = CausalState(state.process, belief, jnp.asarray(eta[..., -1, :]), len(samples))
        trajectory = trajectory_of(
            model,
            estimate,
            prediction,
            FreeEnergy(
                observed={"data": surprise},
                hidden={"data": jnp.zeros_like(surprise)},
                entropies={"data": jnp.zeros_like(surprise)},
                error=None,
                weight=jnp.asarray(1.0),
                kind=Kind.exact if state.process.constant else Kind.approximation,
                shared=(),
                order=("data",),
            ),
            time=samples * model.dt,
            y=y,
            last=last,
            substeps=substeps,
            iterations=scheme.iterations,
            hindsight=False,
        )
        if not isinstance(y, Tracer):
            check_finite(trajectory, "filter")
    return released(trajectory)


def _reference(problem: Problem, sensed: Any, settings: Reference) -> Outcome:
    return infer(problem, sensed, settings.gain, settings.substeps_of(problem))


def is_even(times: np.ndarray) -> bool:
    """Whether all samples are equally far apart, to rounding."""
    gaps = np.diff(times)
    return not gaps.size or bool(np.ptp(gaps) <= 1e-9 * gaps.max())


def trajectory_of(
    model: DynamicModel, estimate: Estimate, prediction: Believed, free_energy: FreeEnergy, **others: Any
) -> StateTrajectory:
    """The trajectory that estimates by time make."""
    return StateTrajectory(
        **estimate._asdict(),
        prediction=prediction,
        free_energy=free_energy,
        dt=model.dt,
        state_sizes=model.state_sizes,
        cause_sizes=model.cause_sizes,
        **others,
    )


@eqx.filter_jit
def _filter(
    process: Augmented,
    belief: Carried,
    grid: Grid,
    samples: np.ndarray,
    iterations: int,
    even: bool,
    batched: bool | None,
) -> tuple[Carried, tuple[Estimate, Believed, Array]]:
    def report(row: Row) -> tuple[Estimate, Believed, Array]:
        found = describe(process, row.mean, row.covariance, row.eta)
        return found, Believed(row.expected, row.spread), row.surprise

    def one(belief: Carried, grid: Grid) -> tuple[Carried, Any]:
        end, rows = filter_rows(process, belief, grid, iterations, even, report)
        return end, jax.tree.map(lambda a: a[samples], rows)

    if not batched:
        return one(belief, grid)
    # The belief before the first sample is one for all series.
    return jax.vmap(one, (None if belief.mean.ndim == 1 else 0, SERIES))(belief, grid)


def start(model: Any, scheme: Causal) -> CausalState:
    """Before the first sample: `Causal.init`."""
    if not isinstance(model, DynamicModel):
        raise TypeError(f"init: got a {type(model).__name__}; wanted a vfe.DynamicModel.")
    with jax.enable_x64(True):
        process = level_process(model, scheme.order, scheme.floor)
        return CausalState(process, begin(process), jnp.zeros(model.cause_sizes[-1]), 0)


def advance(
    model: DynamicModel, scheme: Causal, state: CausalState, y: Any, dt: Any, prior_causes: Any
) -> tuple[CausalState, CausalNow]:
    """One sample: `Causal.step`."""
    with jax.enable_x64(True):
        y = jnp.atleast_1d(jnp.asarray(y, jnp.float64))
        if y.shape != (model.data_size,):
            raise ValueError(f"step: got y of shape {y.shape}; wanted ({model.data_size},), one sample.")
        if not isinstance(y, Tracer) and np.isinf(np.asarray(y)).any():
            raise ValueError("step: got an infinite value; wanted numbers, or NaN where missing.")
        passed = 1.0 if dt is None else float(dt) / model.dt
        if not (np.isfinite(passed) and passed > 0):
            raise ValueError(f"step: got dt={dt}; wanted the time since the sample before, above zero.")
        eta = _one_prior(prior_causes, model.cause_sizes[-1])
        if state.samples == 0:
            grid, rows = make_grid(np.zeros(1), y[None], np.asarray(eta)[None], None)
        else:
            both = jnp.stack([state.prior_causes, eta])
            gap = jnp.stack([jnp.full_like(y, jnp.nan), y])
            substeps = None if state.process.constant else scheme.substeps
            grid, rows = make_grid(np.array([0.0, passed]), gap, both, substeps)
            # The first row is the sample before, at which the belief already stands.
            grid, rows = jax.tree.map(lambda a: a[1:], grid), rows[1:] - 1
        belief, found = _filter(state.process, state.belief, grid, rows, scheme.iterations, True, False)
        estimate, prediction, surprise = jax.tree.map(lambda a: a[-1], found)
        if not isinstance(surprise, Tracer) and not np.isfinite(float(surprise)):
            raise DivergenceError(_diverged("step", "belief", "any level", state.samples))
        after = CausalState(state.process, belief, eta, state.samples + 1)
    return after, released(CausalNow(**estimate._asdict(), prediction=prediction, surprise=surprise))


def _one_prior(prior_causes: Any, count: int) -> Array:
    eta = jnp.zeros(count) if prior_causes is None else jnp.atleast_1d(jnp.asarray(prior_causes, float))
    if eta.shape != (count,):
        raise ValueError(f"step: got prior_causes of shape {eta.shape}; wanted ({count},).")
    return eta


def forecast(trajectory: StateTrajectory, steps: int, prior_causes: Any) -> ForecastLevels:
    """What comes after the series: `StateTrajectory.forecast`."""
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"forecast: got steps={steps!r}; wanted a whole number of at least 1.")
    last, causes = trajectory.last, trajectory.cause_sizes[-1]
    with jax.enable_x64(True):
        *batch, _, k = np.shape(trajectory.y)
        after: Any = np.zeros((steps, causes)) if prior_causes is None else np.asarray(prior_causes, float)
        after = after[:, None] if after.ndim == 1 and causes == 1 else after
        if after.shape != (steps, causes) or not np.isfinite(after).all():
            raise ValueError(
                f"forecast: got prior_causes of shape {after.shape}; wanted ({steps}, {causes}), finite."
            )
        after = jnp.broadcast_to(jnp.asarray(after), (*batch, steps, causes))
        eta = jnp.concatenate([jnp.asarray(last.prior_causes)[..., None, :], after], -2)
        missing = jnp.full((*batch, steps + 1, k), jnp.nan)
        grid, rows = make_grid(np.arange(steps + 1.0), missing, eta, trajectory.substeps)
        grid = Grid(grid.step[1:], *(array[..., 1:, :] for array in grid[1:]))
        found = _filter(last.process, last.belief, grid, rows[1:] - 1, 1, True, bool(batch))[1]
        time = trajectory.time[-1] + trajectory.dt * np.arange(1, steps + 1)
    return released(ForecastLevels(time, found[0].states, found[0].causes, found[1]))


def check_finite(trajectory: StateTrajectory, verb: str) -> None:
    """**Raises:** `vfe.DivergenceError` with the level and the time index."""
    for name, levels in (("states", trajectory.state_levels), ("causes", trajectory.cause_levels)):
        worst = []
        for number, level in enumerate(levels, 1):
            fine = np.isfinite(np.asarray(level.mean)).all(-1) & np.isfinite(np.asarray(level.sd)).all(-1)
            if not fine.all():
                worst.append((_first_bad(fine), number))
        if worst:
            time, number = min(worst)
            raise DivergenceError(_diverged(verb, name, f"level {number}", time))
    fine = np.isfinite(np.asarray(trajectory.free_energy.total))
    if not fine.all():
        raise DivergenceError(_diverged(verb, "prediction of the data", "level 1", _first_bad(fine)))


def _first_bad(fine: Any) -> int:
    """The first time at which it is false in any series."""
    return int((~fine).reshape(-1, fine.shape[-1]).any(0).argmax())


def _diverged(verb: str, what: str, where: str, time: int) -> str:
    return (
        f"{verb}: the {what} of {where} diverged at time index {time}. Check the flow's units (per unit of "
        "time, as dt); start the states nearer to where the data put them (states=[...]), lower their "
        "initial_covariance, or take more steps (vfe.dynamics.Causal(substeps=5)); sample more densely."
    )
