"""`vfe.smooth` of a nonlinear system in smooth noise: its most probable path."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from vfe.double_precision import released
from vfe.dynamics.linear.smoothed import Gaussian, deviation
from vfe.dynamics.linear.state_space import double
from vfe.dynamics.paths.augmented import Augmented, Noise, augmented
from vfe.dynamics.paths.nonlinear_system import NonlinearSystem
from vfe.dynamics.paths.path_search import Search, most_probable_path, path_free_energy
from vfe.dynamics.paths.process_filter import make_grid
from vfe.free_energy import FreeEnergy
from vfe.series.verbs import smooth as smooth_verb


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


def process_of(system: NonlinearSystem) -> Augmented:
    """The states of a system with those of the noise: white noise has the intensity sd² dt."""
    n, quick = system.state_sd.shape[0], system.smoothness == 0
    state = np.diag(np.asarray(system.state_sd)) * (system.dt**0.5 if quick else 1.0)
    return augmented(
        system,
        names=["dynamics"] * n,
        moving=[Noise(state, system.smoothness, "dynamics")],
        causing=[],
        observing=Noise(np.diag(np.asarray(system.observation_sd)), system.smoothness, "dynamics"),
        error=np.diag(np.asarray(system.white_sd) ** 2),
        inputs=np.zeros((0, 0)),
        mean=np.asarray(system.initial_mean),
        covariance=np.asarray(system.initial_covariance),
        order=system.order,
        constant=False,
    )


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
        search = Search(damping, max_steps, tolerance, 1)
        search.check()
        process = process_of(model)
        grid, rows = make_grid(np.arange(float(len(y))), y, np.zeros((len(y), 0)), model.substeps)
        grid = grid._replace(step=grid.step * model.dt)
        path = most_probable_path(process, grid, rows, True, search, "take more substeps in the model")
        n = model.state_sd.shape[0]
        free_energy = path_free_energy(process, path, rows, "dynamics")
        found = SmoothedPath(
            path.mean[rows, :n], path.covariance[rows, :n, :n], free_energy, y, path.steps, path.change
        )
    return released(found)
