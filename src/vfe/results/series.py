"""Filtered and smoothed series as xarray Datasets and as figures."""

from typing import TYPE_CHECKING, Any

import numpy as np

from vfe.dynamics.linear.smoothed import Filtered, Gaussian, Smoothed
from vfe.dynamics.paths.path_smoothing import SmoothedPath
from vfe.results.style import BLUE, COLOURS, INK, ORANGE, PALE, figure_axes, style

if TYPE_CHECKING:
    import xarray as xr


def series_to_xarray(result: Filtered | Smoothed) -> "xr.Dataset":
    """Beliefs by time as a Dataset over `time` (samples from 0), `state`, `observed` and any `series` axes.

    `mean`, `sd`, `covariance`; `y`, `y_mean`, `y_sd` (what was expected of every sample: one step ahead
    for a filter, given the whole series for a smoother); `surprise` (nats); of a smoother
    `free_energy_by_term` (nats) by `term`.

    **Example:** `vfe.smooth(model, y).to_xarray()["mean"]`.
    """
    import xarray as xr

    filtered, expected = _parts(result)
    *batch, _, _ = np.shape(result.mean)
    lead = ("series",) if len(batch) == 1 else tuple(f"series_{i}" for i in range(len(batch)))
    time, nats = (*lead, "time"), {"units": "nats"}
    variables: dict[str, Any] = {
        "mean": ((*time, "state"), np.asarray(result.mean)),
        "sd": ((*time, "state"), np.asarray(result.sd)),
        "covariance": ((*time, "state", "state_"), np.asarray(result.covariance)),
        "y": ((*time, "observed"), np.asarray(filtered.y)),
        "y_mean": ((*time, "observed"), np.asarray(expected.mean)),
        "y_sd": ((*time, "observed"), np.asarray(expected.sd)),
        "surprise": (time, np.asarray(result.surprise), nats),
    }
    attrs = {"belief": "given the samples so far"}
    if isinstance(result, Smoothed):
        terms = result.free_energy.by_level
        stacked = np.stack([np.asarray(v) for v in terms.values()], -1)
        variables["free_energy_by_term"] = ((*time, "term"), stacked, nats)
        variables["term"] = ("term", list(terms))
        attrs = {"belief": "given the whole series"}
    return xr.Dataset(variables, attrs={**attrs, "kind": "exact"})


def plot_series(result: Filtered | Smoothed, axes: Any = None, *, level: float = 0.95) -> np.ndarray:
    """The samples with what was expected of them, the states, and the surprise, with central intervals.

    **Arguments:** `axes`: three matplotlib axes; a new figure by default; `level`: the probability
    inside the shaded intervals.

    **Returns:** the three axes.

    **Raises:** `ValueError` for several series (plot one of them), or another number of axes.

    **Example:** `vfe.smooth(model, y).plot()[0].figure.savefig("series.png")`.
    """
    if np.ndim(result.mean) > 2:
        raise ValueError(
            f"plot: got {tuple(np.shape(result.mean)[:-2])} series; wanted one, such as "
            "jax.tree.map(lambda a: a[0], ...) of the data before filtering."
        )
    filtered, expected = _parts(result)
    with style():
        axes = figure_axes(axes, (1, 3), (12.0, 3.7))
        word = "one step ahead" if isinstance(result, Filtered) else "given the whole series"
        _bands(axes[0], expected, level)
        y = np.asarray(filtered.y)
        for i in range(y.shape[-1]):
            axes[0].plot(y[:, i], ".", color=INK if y.shape[-1] == 1 else COLOURS[i % len(COLOURS)], ms=3)
        axes[0].set(title=f"y, and what was expected {word}", xlabel="sample")
        _bands(axes[1], Gaussian(result.mean, result.covariance), level)
        axes[1].set(title="states", xlabel="sample")
        surprise = np.asarray(result.surprise)
        axes[2].plot(surprise, color=ORANGE, label="surprise")
        if isinstance(result, Smoothed):
            axes[2].plot(np.asarray(result.free_energy.total), color=BLUE, label="F of the path")
            axes[2].legend()
        axes[2].axhline(surprise.mean(), color=PALE, lw=1)
        axes[2].set(title=f"nats per sample, {surprise.sum():.1f} in all", xlabel="sample")
    return axes


def path_to_xarray(path: SmoothedPath) -> "xr.Dataset":
    """The most probable path as a Dataset over `time` (samples from 0), `state`, `observed` and `term`.

    `mean`, `sd`, `covariance`, `y`, and `free_energy_by_term` (nats, an approximation).

    **Example:** `vfe.smooth(system, y).to_xarray()["sd"]`.
    """
    import xarray as xr

    terms = path.free_energy.by_level
    variables: dict[str, Any] = {
        "mean": (("time", "state"), np.asarray(path.mean)),
        "sd": (("time", "state"), np.asarray(path.sd)),
        "covariance": (("time", "state", "state_"), np.asarray(path.covariance)),
        "y": (("time", "observed"), np.asarray(path.y)),
        "free_energy_by_term": (
            ("time", "term"),
            np.stack([np.asarray(v) for v in terms.values()], -1),
            {"units": "nats"},
        ),
        "term": ("term", list(terms)),
    }
    kind = path.free_energy.kind.value
    return xr.Dataset(variables, attrs={"belief": "given the whole series", "kind": kind})


def plot_path(path: SmoothedPath, axes: Any = None, *, level: float = 0.95) -> np.ndarray:
    """The states of the most probable path with central intervals, and F by time.

    **Arguments:** `axes`: two matplotlib axes; a new figure by default; `level`: the probability inside
    the shaded intervals.

    **Returns:** the two axes.

    **Raises:** `ValueError` for another number of axes.

    **Example:** `vfe.smooth(system, y).plot()[0].figure.savefig("path.png")`.
    """
    with style():
        axes = figure_axes(axes, (1, 2), (10.0, 3.7))
        _bands(axes[0], Gaussian(path.mean, path.covariance), level)
        axes[0].set(title="states, given the whole series", xlabel="sample")
        total = np.asarray(path.free_energy.total)
        axes[1].plot(total, color=BLUE)
        axes[1].set(title=f"F of the path in nats, {total.sum():.1f} in all", xlabel="sample")
    return axes


def _parts(result: Filtered | Smoothed) -> tuple[Filtered, Gaussian]:
    """The filter's answer, and what is expected of every sample."""
    if isinstance(result, Smoothed):
        return result.filtered, result.fitted_y
    return result, result.predicted_y


def _bands(axis: Any, belief: Gaussian, level: float) -> None:
    lower, upper = (np.asarray(end) for end in belief.interval(level))
    mean = np.asarray(belief.mean)
    for i in range(mean.shape[-1]):
        colour = COLOURS[i % len(COLOURS)]
        axis.fill_between(np.arange(len(mean)), lower[:, i], upper[:, i], color=colour, alpha=0.25, lw=0)
        axis.plot(mean[:, i], color=colour)
