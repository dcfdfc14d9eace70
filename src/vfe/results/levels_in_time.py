"""Beliefs about the levels of a dynamic model along a series, as an xarray Dataset and as a figure."""

from typing import TYPE_CHECKING, Any

import numpy as np

from vfe.dynamics.paths.state_trajectory import StateTrajectory
from vfe.results.style import BLUE, COLOURS, INK, figure_axes, style

if TYPE_CHECKING:
    import xarray as xr


def levels_to_xarray(found: StateTrajectory) -> "xr.Dataset":
    """Beliefs by time as a Dataset over `time`, `state`, `cause` and `channel`; one series only.

    `states`, `motion`, `causes`, `prediction`, `data` with their `…_covariance`; `y`; `error_…` of every
    noise; `free_energy_by_term` (nats) by `term`.

    **Raises:** `ValueError` for several series.

    **Example:** `vfe.filter(model, y).to_xarray()["states"]`.
    """
    import xarray as xr

    _one_series(found, "to_xarray")
    variables: dict[str, Any] = {"y": (("time", "channel"), np.asarray(found.y))}
    for name, kind in (
        ("states", "state"),
        ("motion", "state"),
        ("causes", "cause"),
        ("prediction", "channel"),
        ("data", "channel"),
    ):
        what = getattr(found, name)
        variables[name] = (("time", kind), np.asarray(what.mean))
        variables[f"{name}_covariance"] = (("time", kind, f"{kind}_"), np.asarray(what.covariance))
    for name, error in found.errors.items():
        key = name.replace(" ", "_")
        variables[f"error_{key}"] = (("time", f"row_{key}"), np.asarray(error))
    terms = found.free_energy.by_level
    stacked = np.stack([np.asarray(term) for term in terms.values()], -1)
    variables["free_energy_by_term"] = (("time", "term"), stacked, {"units": "nats"})
    given = "the whole series" if found.hindsight else "the samples so far"
    return xr.Dataset(
        variables,
        coords={"time": np.asarray(found.time), "term": list(terms)},
        attrs={"belief": f"given {given}", "kind": found.free_energy.kind.value},
    )


def plot_levels(found: StateTrajectory, axes: Any = None, *, level: float = 0.9) -> np.ndarray:
    """Data with their prediction, states and causes with central intervals, and F by time.

    **Arguments:** `axes`: four matplotlib axes, less one if there are no states or no causes; a new figure
    by default; `level`: the probability inside the shaded intervals.

    **Returns:** the axes.

    **Raises:** `ValueError` for several series, or another number of axes.

    **Example:** `vfe.smooth(model, y).plot()[0].figure.savefig("levels.png")`.
    """
    _one_series(found, "plot")
    shown = [
        ("data and prediction", found.prediction),
        ("states", found.states),
        ("causes", found.causes),
    ]
    shown = [(name, what) for name, what in shown if what.mean.shape[-1]]
    count = len(shown) + 1
    time = np.asarray(found.time)
    with style():
        axes = figure_axes(axes, (count, 1), (7.5, 1.9 * count + 0.6))
        for axis, (name, what) in zip(axes, shown, strict=False):
            lower, upper = what.interval(level)
            for k in range(what.mean.shape[-1]):
                colour = COLOURS[k % len(COLOURS)]
                axis.fill_between(time, lower[:, k], upper[:, k], color=colour, alpha=0.2, lw=0)
                axis.plot(time, what.mean[:, k], color=colour, lw=1.2)
            axis.set_title(name)
        y = np.asarray(found.y)
        for k in range(y.shape[-1]):
            axes[0].plot(time, y[:, k], ".", color=INK if y.shape[-1] == 1 else COLOURS[k % 7], ms=3)
        total = np.asarray(found.free_energy.total)
        axes[-1].plot(time, total, color=BLUE)
        axes[-1].set_title(f"F, {total.sum():.1f} nats in all")
        axes[-1].set_xlabel("time")
    return axes


def _one_series(found: StateTrajectory, verb: str) -> None:
    if np.ndim(found.states.mean) != 2:
        raise ValueError(
            f"StateTrajectory.{verb}: got {np.shape(found.states.mean)[0]} series; take one first, such as "
            "trajectory[0]."
        )
