"""The most probable path of a nonlinear system in smooth noise, by Gauss–Newton over the whole path.

Linearised along a path, on a grid of `substeps` steps from sample to sample, the system is a linear
state-space model of x and of the systems that stand for the smooth noise; its exact smoother is one step of
Gauss–Newton. Steps are damped by pseudo-observations of the path they start from, ever weaker ones.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vfe.dynamics import kalman
from vfe.dynamics.filtering import smooth as smooth_verb
from vfe.dynamics.kalman import matvec, symmetric
from vfe.dynamics.nonlinear_system import NonlinearSystem
from vfe.dynamics.precision import released
from vfe.dynamics.smooth_noise import discretise, smooth_noise
from vfe.dynamics.smoothed import Gaussian, deviation
from vfe.dynamics.state_space import StateSpace, double
from vfe.free_energy import FreeEnergy, Kind
from vfe.perception.status import DivergenceError

WEAKEST = 1e-4  # of the first damping; weaker is none


class SmoothedPath(eqx.Module):
    """The most probable path and its spread: Laplace, with the curvature of Gauss–Newton.

    `mean` (time, n), `covariance` (time, n, n); `free_energy`: F by time and term, an approximation, whose
    sum is that of −ln p(y); `y`: the data; `steps`: of Gauss–Newton; `change`: how far the last one moved,
    in standard deviations.
    """

    mean: Float[Array, "time n"]
    covariance: Float[Array, "time n n"]
    free_energy: FreeEnergy
    y: Float[Array, "time k"]
    steps: int
    change: float

    @property
    def sd(self) -> Float[Array, "time n"]:
        """Standard deviations of the states."""
        return deviation(self.covariance)

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Central intervals of the states; as `Gaussian.interval`."""
        return Gaussian(self.mean, self.covariance).interval(level)

    def to_xarray(self) -> Any:
        """Means, standard deviations, covariances and F by time as an xarray Dataset."""
        from vfe.results.series import path_to_xarray

        return path_to_xarray(self)

    def plot(self, **options: Any) -> Any:
        """Draw the states with central intervals, and F by time; returns matplotlib axes."""
        from vfe.results.series import plot_path

        return plot_path(self, **options)


class Grid(eqx.Module):
    """What does not change from step to step: data and noise on the grid."""

    y: Float[Array, "grid k"]
    error: Float[Array, "k k"]
    drift: Float[Array, "m m"]
    felt: Float[Array, "n m"]
    seen: Float[Array, "k m"]
    covariance: Float[Array, "size size"]
    mean: Float[Array, " size"]
    start: Float[Array, "size size"]
    step: Float[Array, ""]

    def move(self, system: NonlinearSystem, x: Float[Array, " n"]) -> tuple[Array, Array]:
        """One step of the local linear system at x: its transition and its offset."""
        n, m = x.shape[0], self.drift.shape[0]
        slope = jax.jacfwd(system.flow)(x)
        block = jnp.zeros((n + m + 1, n + m + 1))
        block = block.at[:n, :n].set(slope).at[:n, n : n + m].set(self.felt)
        block = block.at[n : n + m, n : n + m].set(self.drift)
        block = block.at[:n, -1].set(system.flow(x) - slope @ x)
        exponential = jax.scipy.linalg.expm(block * self.step)
        return exponential[:-1, :-1], exponential[:-1, -1]

    def look(self, system: NonlinearSystem, x: Float[Array, " n"]) -> tuple[Array, Array]:
        """What is observed near x: its matrix over all states and its offset."""
        slope = jax.jacfwd(system.observe)(x)
        return jnp.concatenate([slope, self.seen], 1), system.observe(x) - slope @ x


def grid(system: NonlinearSystem, y: Array) -> Grid:
    """The data and the noise of a system on its grid."""
    n, k = system.state_sd.shape[0], system.observation_sd.shape[0]
    sds = (*system.state_sd, *system.observation_sd)
    quick = system.smoothness == 0
    order = 0 if quick else system.order
    noises = [] if quick else [smooth_noise(sd, system.smoothness, order=order) for sd in sds]
    m = order * len(noises)
    drift, intensity = jnp.zeros((m, m)), jnp.zeros((n + m, n + m))
    felt, seen = jnp.zeros((n, m)), jnp.zeros((k, m))
    for i, noise in enumerate(noises):
        own = slice(i * order, (i + 1) * order)
        there = slice(n + i * order, n + (i + 1) * order)
        drift = drift.at[own, own].set(noise.drift)
        intensity = intensity.at[there, there].set(jnp.outer(noise.white, noise.white))
        felt = felt.at[i, own].set(noise.output) if i < n else felt
        seen = seen if i < n else seen.at[i - n, own].set(noise.output)
    error = system.white_sd**2
    if quick:
        intensity = jnp.diag(system.state_sd**2 * system.dt)
        error = error + system.observation_sd**2
    step = system.dt / system.substeps
    whole = jnp.zeros((n + m, n + m)).at[:n, n:].set(felt).at[n:, n:].set(drift)
    # The flow's slope changes the covariance of so short a step by a term of higher order in it.
    _, covariance = discretise(whole, intensity, step)
    return Grid(
        y=jnp.full(((y.shape[0] - 1) * system.substeps + 1, k), jnp.nan).at[:: system.substeps].set(y),
        error=jnp.diag(error),
        drift=drift,
        felt=felt,
        seen=seen,
        covariance=covariance,
        mean=jnp.zeros(n + m).at[:n].set(system.initial_mean),
        start=jnp.eye(n + m).at[:n, :n].set(system.initial_covariance),
        step=jnp.asarray(step),
    )


@eqx.filter_jit
def extended_filter(system: NonlinearSystem, grid: Grid) -> Array:
    """A first path: the means of the extended Kalman filter."""
    n = system.state_sd.shape[0]

    def step(carry: tuple[Array, Array], y: Array) -> tuple[tuple[Array, Array], Array]:
        mean, covariance = carry
        observe, offset = grid.look(system, mean[:n])
        there = ~jnp.isnan(y)
        mean, covariance, _, _ = kalman.correct(
            mean,
            covariance,
            jnp.where(there[:, None], observe, 0.0),
            jnp.where(there[:, None] & there, grid.error, jnp.eye(y.shape[0])),
            jnp.where(there, y - offset, 0.0),
        )
        transition, drive = grid.move(system, mean[:n])
        wide = symmetric(transition @ covariance @ transition.T + grid.covariance)
        return (matvec(transition, mean) + drive, wide), mean[:n]

    return jax.lax.scan(step, (grid.mean, grid.start), grid.y)[1]


@eqx.filter_jit
def gauss_newton(
    system: NonlinearSystem, grid: Grid, path: Array, damping: Float[Array, " n"]
) -> tuple[Array, Array, kalman.Terms]:
    """The exact smoother of the linearisation along a path; `damping`: what ties it to the path."""
    n, size, k = path.shape[1], grid.mean.shape[0], grid.y.shape[1]
    transition, drive = jax.lax.map(lambda x: grid.move(system, x), path[:-1], batch_size=64)
    observe, offset = jax.vmap(lambda x: grid.look(system, x))(path)
    tied = damping > 0
    error = jnp.zeros((k + n, k + n)).at[:k, :k].set(grid.error)
    itself = jnp.broadcast_to(jnp.eye(n, size), (path.shape[0], n, size))
    model = StateSpace(
        initial_mean=grid.mean,
        initial_covariance=grid.start,
        transition=jnp.concatenate([jnp.eye(size)[None], transition]),
        transition_offset=jnp.concatenate([jnp.zeros((1, size)), drive]),
        transition_covariance=grid.covariance,
        observation=jnp.concatenate([observe, itself], 1),
        observation_offset=jnp.concatenate([offset, jnp.zeros_like(path)], 1),
        observation_covariance=error.at[k:, k:].set(jnp.diag(1 / jnp.where(tied, damping, 1.0))),
    )
    y = jnp.concatenate([grid.y, jnp.where(tied, path, jnp.nan)], 1)
    steps = kalman.prepare(model, y, jnp.zeros((y.shape[0], 0)))
    future = kalman.look_back(model, steps)
    mean, covariance, _ = kalman.smooth_moments(future)
    terms = kalman.path_terms(model, steps, future, mean, covariance)
    return mean[:, :n], covariance[:, :n, :n], terms


@smooth_verb.register
def smooth_nonlinear_system(
    model: NonlinearSystem,
    y: Any,
    *,
    damping: float = 100.0,
    max_steps: int = 100,
    tolerance: float = 1e-3,
) -> SmoothedPath:
    """The most probable path of a nonlinear system in smooth noise: `vfe.smooth`.

    **Arguments:** `y`: (time, k), NaN where missing; `damping`: the precision, in units of 1 / variance of
    the states along the first path, that ties the first step to it; it halves with every step; `max_steps`;
    `tolerance`: how far an undamped step may still move, in standard deviations.

    **Returns:** a `vfe.dynamics.SmoothedPath`.

    **Raises:** `ValueError` for data that do not fit; `vfe.DivergenceError` where no path was found, with
    the sample at which the numbers left float64, or how far the last step moved.

    **Source:** Bell 1994; Särkkä and Svensson 2020 for the damping.
    """
    with jax.enable_x64(True):
        y = double("smooth: y", y)
        k = model.observation_sd.shape[0]
        if y.ndim != 2 or y.shape[-1] != k or y.shape[0] < 2:
            raise ValueError(f"smooth: y has shape {y.shape}; wanted (time, {k}), two samples or more.")
        if np.isinf(np.asarray(y)).any():
            raise ValueError("smooth: y has infinite values; wanted numbers, or NaN where missing.")
        if not (damping >= 0 and max_steps >= 1 and tolerance > 0):
            raise ValueError(
                f"smooth: got damping={damping}, max_steps={max_steps}, tolerance={tolerance}; wanted at "
                "least 0, at least 1, and a positive number."
            )
        fine = grid(model, y)
        path = extended_filter(model, fine)
        _check_finite(path, model.substeps, "the extended filter that starts the search")
        usual = jnp.maximum(path.var(0), jnp.diagonal(model.initial_covariance))
        left, change = damping, np.inf
        for number in range(1, max_steps + 1):
            new, covariance, terms = gauss_newton(model, fine, path, left / usual)
            _check_finite(new, model.substeps, f"step {number} of Gauss–Newton")
            scale = jnp.sqrt(jnp.diagonal(covariance, axis1=1, axis2=2))
            change, path = float((jnp.abs(new - path) / scale).max()), new
            if left == 0 and change <= tolerance:
                break
            left = 0.5 * left if left > WEAKEST * damping else 0.0
        else:
            raise DivergenceError(
                f"smooth: no path after {max_steps} steps of Gauss–Newton; the last one still moved by "
                f"{change:.3g} standard deviations, wanted {tolerance:g}. Allow more (max_steps=), tie the "
                "steps more (damping=), or take more substeps in the model."
            )
        found = SmoothedPath(
            path[:: model.substeps],
            covariance[:: model.substeps],
            _free_energy(terms, model.substeps),
            y,
            number,
            change,
        )
    return released(found)


def _check_finite(path: Array, substeps: int, where: str) -> None:
    bad = np.flatnonzero(~np.isfinite(np.asarray(path)).all(-1))
    if bad.size:
        raise DivergenceError(
            f"smooth: {where} left float64 on the way to sample {-(-int(bad[0]) // substeps)} (counted "
            "from 0). Check the flow's units (per unit of time, as dt), and the initial state; or take "
            "more substeps, a smaller initial_covariance, more damping=."
        )


def _free_energy(terms: kalman.Terms, substeps: int) -> FreeEnergy:
    """F by sample: what happens on the way to a sample counts there."""

    def later(values: Array) -> Array:
        return jnp.concatenate([jnp.zeros(1), values[1:].reshape(-1, substeps).sum(1)])

    def first(values: Array) -> Array:
        return later(jnp.zeros_like(values)).at[0].set(values[0])

    return FreeEnergy(
        observed={"observation": first(terms.observation) + later(terms.observation)},
        hidden={"initial": first(terms.state), "dynamics": later(terms.state)},
        entropies={"initial": first(terms.entropy), "dynamics": later(terms.entropy)},
        error=None,
        weight=jnp.asarray(1.0),
        kind=Kind.approximation,
        shared=(),
        order=("initial", "dynamics", "observation"),
    )
