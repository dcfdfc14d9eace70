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

from vfe.dynamics.generalised.batches import each_series
from vfe.dynamics.generalised.energies import energies
from vfe.dynamics.generalised.outcome import Outcome
from vfe.dynamics.generalised.reference import Reference
from vfe.dynamics.generalised.states import jacobian_at
from vfe.dynamics.levels.dynamic_model import DynamicModel
from vfe.dynamics.levels.problem import Problem
from vfe.dynamics.levels.reading import read_series
from vfe.dynamics.levels.smoothness import embedding_windows
from vfe.dynamics.levels.trajectory import Believed, FreeEnergyInTime, Parameters, Trajectory
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
