"""From data to a Trajectory: what filtering, DEM and generalised filtering share."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from vfe.dynamics.batches import each_series
from vfe.dynamics.dynamic_model import DynamicModel
from vfe.dynamics.energies import energies
from vfe.dynamics.outcome import Outcome
from vfe.dynamics.problem import Problem
from vfe.dynamics.reference import Reference
from vfe.dynamics.smoothness import embedding_windows
from vfe.dynamics.states import jacobian_at
from vfe.dynamics.trajectory import Believed, FreeEnergyInTime, Parameters, Trajectory
from vfe.perception import DivergenceError


def run(
    scheme: Callable[[Problem, Float[Array, "steps m"], Reference], Outcome],
    model: DynamicModel,
    y: Any,
    prior_causes: Any,
    settings: Reference,
    verb: str,
) -> Trajectory:
    """Check and embed the data, run the scheme in double precision, and describe what it found."""
    if not isinstance(settings, Reference):
        raise TypeError(f"{verb}: got scheme={settings!r}; wanted vfe.dynamics.Reference(...).")
    problem = model.problem
    with jax.enable_x64(True):
        y, eta, batched = read_series(model, y, prior_causes, verb, gaps=False)
        length = y.shape[-2]
        substeps = settings.substeps_of(problem)
        windows = [_windows(length, k, substeps if problem.nx else 1) for k in (problem.n, problem.d)]
        trajectory = _invert(scheme, problem, y, eta, windows, settings, batched)
    if isinstance(y, Tracer):
        return trajectory
    trajectory = jax.tree.map(np.asarray, trajectory)
    _check(trajectory, model, verb)
    return trajectory


@functools.lru_cache(maxsize=32)
def _windows(length: int, orders: int, substeps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    times = 1 + np.arange(length * substeps) / substeps
    return embedding_windows(length, orders, times)


@eqx.filter_jit
def _invert(scheme, problem, y, eta, windows, settings, batched):
    def one(y, eta):
        parts = []
        for series, (weights, which, samples) in zip((y, eta), windows, strict=True):
            orders = jnp.einsum("tji,tik->tjk", weights[which], series[samples])
            parts.append(orders.reshape(len(orders), -1))
        outcome = scheme(problem, jnp.concatenate(parts, 1), settings)
        return describe(problem, outcome, y)

    return each_series(one, y, eta) if batched else one(y, eta)


def describe(problem: Problem, outcome: Outcome, y: Float[Array, "time y"]) -> Trajectory:
    """What a scheme found, in the units of the model, with F by time and noise."""
    length = len(y)
    n, d, nx, nv, dt = problem.n, problem.d, problem.nx, problem.nv, problem.dt
    cut = n * nx
    u, error, C = outcome.course.u, outcome.course.errors, outcome.covariances
    learned, used = outcome.learned, outcome.used
    errors = {}
    for block in problem.blocks:
        unit = dt if block.name.startswith("states") else 1.0
        errors[block.name] = problem.errors_of(block, error)[:, 0] / unit

    zeroth = np.concatenate([np.arange(nx), cut + np.arange(nv)])

    def predicted(u, C):
        G = jacobian_at(problem, u, used.p)[: problem.ny]
        return G @ C[zeroth[:, None], zeroth] @ G.T

    if problem.constant:
        spread = jnp.broadcast_to(predicted(problem.start(), C[0]), (length, problem.ny, problem.ny))
    else:
        spread = jax.vmap(predicted)(u, C)
    noise = jnp.linalg.inv(problem.blocks[0].precision(used.log_precisions))
    scale = dt ** -np.arange(n, dtype=float)
    x = u[:, :cut].reshape(length, n, nx)
    v = u[:, cut:].reshape(length, d, nv)
    return Trajectory(
        time=dt * jnp.arange(length),
        states=Believed(x[:, 0], C[:, :nx, :nx]),
        causes=Believed(v[:, 0], C[:, cut : cut + nv, cut : cut + nv]),
        derivatives=(x * scale[:, None], v * scale[:d, None]),
        prediction=Believed(y - error[:, : problem.ny], spread + noise),
        errors=errors,
        parameters=Parameters(
            problem.unravel(problem.full(learned.p)), problem.basis @ learned.p_covariance @ problem.basis.T
        ),
        log_precisions=Believed(learned.log_precisions, learned.log_precision_covariance),
        free_energy=FreeEnergyInTime(
            -outcome.history[outcome.sweeps - 1],
            energies(problem, error, used.log_precisions),
            outcome.entropies / 2,
            -outcome.history,
        ),
        sweeps=outcome.sweeps,
        parameters_in_time=outcome.parameters,
        log_precisions_in_time=outcome.log_precisions,
        state_sizes=problem.state_sizes,
        cause_sizes=problem.cause_sizes,
    )


def read_series(
    model: DynamicModel, y: Any, prior_causes: Any, verb: str, *, gaps: bool
) -> tuple[Any, Any, bool]:
    """Data (*batch, time, k) and prior causes in float64, and whether there are several series.

    `gaps`: whether NaN is a missing sample and any length will do, or an error, as where every sample is
    embedded.
    """
    y = _array(y, f"{verb}: y")
    ny, nc = model.data_size, model.cause_sizes[-1]
    if y.ndim == 1 and ny == 1:
        y = y[:, None]
    if y.ndim not in (2, 3) or y.shape[-1] != ny:
        raise ValueError(
            f"{verb}: got data of shape {y.shape}; wanted (time, {ny}), or (series, time, {ny}) for "
            "several."
        )
    length = y.shape[-2]
    if not gaps and not model.static and length < model.order + 1:
        raise ValueError(
            f"{verb}: got a series of {length} samples for a model of order {model.order}, whose "
            "embedding needs "
            f"{model.order + 1}; write DynamicModel(..., order={max(length - 1, 1)}) or less, or give a "
            "longer series."
        )
    if length == 0:
        raise ValueError(f"{verb}: got no samples.")
    bad = (
        np.zeros((0, 2)) if isinstance(y, Tracer) else np.argwhere(np.isinf(y) if gaps else ~np.isfinite(y))
    )
    if len(bad):
        where = tuple(int(i) for i in bad[0])
        help = (
            "Missing samples are NaN."
            if gaps
            else "The reference scheme embeds every sample and has no place for missing ones; fill the "
            "gap, or use vfe.filter or vfe.smooth, whose default takes NaN for missing."
        )
        raise ValueError(f"{verb}: got {y[where]} at index {where} of the data. {help}")
    if gaps and not isinstance(y, Tracer) and np.isnan(y).all((-1, -2)).any():
        raise ValueError(
            f"{verb}: every sample of the series is missing (NaN); wanted at least one number."
        )
    eta = np.zeros((length, nc)) if prior_causes is None else _array(prior_causes, f"{verb}: prior_causes")
    if eta.ndim == 1 and nc == 1:
        eta = eta[:, None]
    if (
        eta.shape[-2:] != (length, nc)
        or eta.ndim > y.ndim
        or (eta.ndim == 3 and eta.shape[0] != y.shape[0])
    ):
        raise ValueError(
            f"{verb}: got prior_causes of shape {eta.shape}; wanted ({length}, {nc}), the prior mean of "
            "the top "
            "causes at every sample."
        )
    if not isinstance(eta, Tracer) and not np.isfinite(eta).all():
        raise ValueError(f"{verb}: got prior_causes that are not finite; a prior mean cannot be missing.")
    batched = y.ndim == 3
    if batched and eta.ndim == 2:
        eta = (
            np.broadcast_to(eta, (y.shape[0], length, nc))
            if isinstance(eta, np.ndarray)
            else jnp.broadcast_to(eta, (y.shape[0], length, nc))
        )
    return y, eta, batched


def read_times(times: Any, length: int, dt: float, verb: str) -> Float[np.ndarray, " time"]:
    """Times of samples in units of dt.

    **Raises:** `ValueError` for another number of them, and where they do not increase, with the index.
    """
    if times is None:
        return np.arange(float(length))
    if isinstance(times, Tracer):
        raise ValueError(f"{verb}: got times= that are traced; wanted numbers (the grid is made of them).")
    times = _array(times, f"{verb}: times")
    if times.shape != (length,) or not np.isfinite(times).all():
        raise ValueError(
            f"{verb}: got times of shape {times.shape}; wanted ({length},) finite numbers, one per sample."
        )
    back = np.flatnonzero(np.diff(times) <= 0)
    if back.size:
        i = int(back[0]) + 1
        raise ValueError(
            f"{verb}: time goes from {times[i - 1]} to {times[i]} at index {i}; wanted times that increase "
            "(sort the samples; leave out repeated ones)."
        )
    return times / dt


def _array(value: Any, name: str) -> Any:
    if isinstance(value, Tracer):
        return value
    try:
        return np.asarray(value, float)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name}: got {type(value).__name__} that is no array of numbers: {error}"
        ) from error


def _check(trajectory: Trajectory, model: DynamicModel, verb: str) -> None:
    for name, what, sizes in (
        ("states", trajectory.states, model.state_sizes),
        ("causes", trajectory.causes, model.cause_sizes),
    ):
        bad = ~np.isfinite(what.mean)
        if bad.any():
            time = int(bad.any(-1).reshape(-1, bad.shape[-2]).any(0).argmax())
            column = int(bad.reshape(-1, bad.shape[-1]).any(0).argmax())
            level = int(np.searchsorted(np.cumsum(sizes), column, side="right")) + 1
            raise DivergenceError(
                f"{verb}: the {name} of level {level} diverged at time index {time}. Start the states "
                "nearer to where "
                "the data put them (states=[...]), lower the order or the gain "
                "(vfe.dynamics.Reference(gain=0.1)), "
                "or sample more densely."
            )
