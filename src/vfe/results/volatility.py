"""Beliefs of a hierarchical Gaussian filter as a figure and as an xarray Dataset."""

from typing import TYPE_CHECKING, Any

import numpy as np

from vfe.results.style import BLUE, COLOURS, INK, ORANGE, PALE, figure_axes, style

if TYPE_CHECKING:
    import xarray as xr

    from vfe.dynamics.volatility.volatility_filter import FilteredVolatility


def volatility_to_xarray(found: "FilteredVolatility") -> "xr.Dataset":
    """Every array of the beliefs, over `input` (counted from 0), `state` and any `series` axes.

    **Example:** `vfe.filter(learner, inputs).to_xarray()["surprise"].sum()`.
    """
    import xarray as xr

    *batch, _, _ = np.shape(found.mean)
    lead = ("series",) if len(batch) == 1 else tuple(f"series_{i}" for i in range(len(batch)))
    time = (*lead, "input")
    by_state = ("mean", "precision", "sd", "predicted_mean", "predicted_precision")
    variables: dict[str, Any] = {n: ((*time, "state"), np.asarray(getattr(found, n))) for n in by_state}
    for name in ("predicted_input", "inputs", "time_steps"):
        variables[name] = (time, np.asarray(getattr(found, name)))
    variables["surprise"] = (time, np.asarray(found.surprise), {"units": "nats"})
    return xr.Dataset(variables)


def plot_volatility(found: "FilteredVolatility", axes: Any = None) -> np.ndarray:
    """The inputs with what was expected of them, every state, and the surprise.

    **Arguments:** `axes`: one matplotlib axes for the inputs, one for every state from the highest down,
    and one for the surprise; a new figure by default.

    **Returns:** the axes.

    **Raises:** `ValueError` for several series (plot one of them), or another number of axes.

    **Example:** `vfe.filter(learner, inputs).plot()[0].figure.savefig("volatility.png")`.
    """
    if np.ndim(found.mean) > 2:
        raise ValueError(
            f"plot: got {tuple(np.shape(found.mean)[:-2])} series; wanted one: filter that one alone."
        )
    mean, sd = np.asarray(found.mean), np.asarray(found.sd)
    n = mean.shape[-1]
    time = np.cumsum(np.asarray(found.time_steps))
    with style():
        axes = figure_axes(axes, (n + 2, 1), (8.0, 1.9 * (n + 2)))
        axes[0].plot(time, np.asarray(found.inputs), ".", color=INK, ms=4, label="input")
        axes[0].plot(time, np.asarray(found.predicted_input), color=BLUE, label="expected before it")
        axes[0].set(title="inputs", ylabel="input")
        axes[0].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        for row, i in enumerate(reversed(range(n)), start=1):
            colour = COLOURS[(i + 2) % len(COLOURS)]
            low, high = mean[:, i] - 2 * sd[:, i], mean[:, i] + 2 * sd[:, i]
            axes[row].fill_between(time, low, high, color=colour, alpha=0.25, lw=0, label="± 2 sd")
            axes[row].plot(time, mean[:, i], color=colour, label="mean")
            word = "" if i == 0 else f": log-volatility of state {i - 1}"
            axes[row].set(title=f"state {i}{word}", ylabel=f"state {i}")
            axes[row].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        surprise = np.asarray(found.surprise)
        axes[-1].plot(time, surprise, color=ORANGE)
        axes[-1].axhline(surprise.mean(), color=PALE, lw=1)
        axes[-1].set(
            title=f"surprise, {surprise.sum():.1f} nats in all", ylabel="nats", xlabel="time (steps)"
        )
    return axes
