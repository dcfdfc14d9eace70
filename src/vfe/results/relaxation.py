"""A relaxation as a figure and as an xarray Dataset."""

from typing import TYPE_CHECKING, Any

import numpy as np

from vfe.results.numbers import say
from vfe.results.style import BLUE, GREEN, INK, ORANGE, PALE, figure_axes, style

if TYPE_CHECKING:
    import xarray as xr

    from vfe.networks.relaxation import Relaxation


def plot_relaxation(relaxation: "Relaxation", axes: Any = None) -> np.ndarray:
    """The relaxed share, how F moved by level, the gradients' cosines by layer, and the spectra.

    **Arguments:** `axes`: four matplotlib axes; a new figure by default.

    **Returns:** the four axes.

    **Raises:** `ValueError` for another number of axes.

    **Example:** `vfe.networks.relaxation(model, data).plot()[0].figure.savefig("relaxation.png")`.
    """
    with style():
        axes = figure_axes(axes, (2, 2), (9.0, 6.6))
        _shares(relaxation, axes[0])
        _changes(relaxation, axes[1])
        _cosines(relaxation, axes[2])
        _spectra(relaxation, axes[3])
    return axes


def relaxation_to_xarray(relaxation: "Relaxation") -> "xr.Dataset":
    """The numbers of a relaxation: by `observation`, by `level` and `stage`, and by `layer`.

    `free_energy_by_level` (observation, stage, level), `drop` and `possible` in nats; `share`, `residual`,
    `left`, `status`, `steps`; `errors_smallest` … `activities_largest`, eigenvalues of E's Hessian;
    `cosine_…` and `gradient_norm_…` by layer.

    **Example:** `vfe.networks.relaxation(model, data).to_xarray()["share"].mean()`.
    """
    import xarray as xr

    count = relaxation.status.size
    levels = list(relaxation.reached.by_level)
    stacked = [
        np.stack([np.broadcast_to(np.asarray(f.by_level[n]), (count,)) for n in levels], -1)
        for f in relaxation.stages.values()
    ]
    units = {"units": "nats", "kind": relaxation.reached.kind.value}
    where = ("observation",)
    variables: dict[str, Any] = {
        "free_energy_by_level": (("observation", "stage", "level"), np.stack(stacked, 1), units),
        "drop": (where, np.asarray(relaxation.drop), {"units": "nats"}),
        "possible": (where, np.asarray(relaxation.possible), {"units": "nats"}),
    }
    for name in ("share", "residual", "left", "status", "steps"):
        variables[name] = (where, np.asarray(getattr(relaxation, name)))
    for name in ("errors", "activities"):
        spectrum = getattr(relaxation, name)
        variables[f"{name}_smallest"] = (where, np.asarray(spectrum.smallest))
        variables[f"{name}_largest"] = (where, np.asarray(spectrum.largest))
    layers = relaxation.layers()
    for key in next(iter(layers.values()), {}):
        name = f"cosine_{key}" if "_" in key else f"gradient_norm_{key}"
        variables[name] = ("layer", np.asarray([numbers[key] for numbers in layers.values()]))
    coords = {"stage": list(relaxation.stages), "level": levels, "layer": list(layers)}
    return xr.Dataset(variables, coords=coords, attrs={"settings": relaxation.settings})


def _shares(relaxation: "Relaxation", ax: Any) -> None:
    """Every observation's share, in order, and the share of the mean drop."""
    share = np.sort(np.asarray(relaxation.share, float))
    share = share[np.isfinite(share)]
    mean = float(relaxation.mean_share)
    ax.set_title(f"relaxed share: {say(mean, digits=3)} of the mean drop")
    ax.set_xlabel("observations, in order")
    ax.set_ylabel("share of the possible drop")
    if not share.size:
        ax.text(0.5, 0.5, "nothing can drop", ha="center", transform=ax.transAxes, color=PALE)
        return
    ax.axhline(1.0, color=PALE, linewidth=0.8)
    ax.plot(np.arange(1, share.size + 1), share, color=BLUE, marker="o", markersize=3, linestyle="")
    # Under a step size that is too long E rises without bound, and one observation would hide the rest.
    low = float(np.quantile(share, 0.05))
    ax.set_ylim(min(-0.05, 1.1 * low), 1.1)


def _changes(relaxation: "Relaxation", ax: Any) -> None:
    """What F by level is above the feed-forward pass: the constants would hide it."""
    first, *later = (relaxation.mean_by_level(f) for f in relaxation.stages.values())
    names = list(first)
    rows = np.arange(len(names))[::-1]
    for shift, change, colour, label in zip(
        (0.18, -0.18), later, (BLUE, GREEN), ("reached", "equilibrium"), strict=True
    ):
        ax.barh(rows + shift, [change[n] - first[n] for n in names], 0.34, color=colour, label=label)
    ax.axvline(0, color=PALE, linewidth=0.8)
    _name_rows(ax, names)
    word = "energy" if relaxation.reached.entropies is None else "F"
    ax.set_title(f"{word} less feed-forward pass")
    ax.set_xlabel("mean nats")
    ax.legend(loc="best")


def _cosines(relaxation: "Relaxation", ax: Any) -> None:
    layers = relaxation.layers()
    names = list(layers)
    rows = np.arange(len(names))[::-1]
    for key, colour, marker, label in (
        ("reached_equilibrium", BLUE, "o", "reached–equil."),
        ("reached_backpropagation", ORANGE, "s", "reached–backprop"),
        ("equilibrium_backpropagation", INK, "|", "equil.–backprop"),
    ):
        ax.plot([layers[n][key] for n in names], rows, marker, color=colour, label=label, markersize=6)
    _name_rows(ax, names)
    ax.set_title("cosines of the weights' gradients")
    if names:
        # Below, as in the other figures: cosines may lie anywhere.
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, columnspacing=1.0)


def _spectra(relaxation: "Relaxation", ax: Any) -> None:
    """The medians of the ends of both spectra, on a logarithmic axis."""
    names = ["errors", "activities"]
    ax.set_title("curvature at the equilibrium")
    ax.set_xscale("log")
    for row, name in zip((1, 0), names, strict=True):
        spectrum = getattr(relaxation, name)
        low, high = (float(np.median(np.asarray(a))) for a in (spectrum.smallest, spectrum.largest))
        condition = float(np.median(np.asarray(spectrum.condition)))
        colour = GREEN if name == "errors" else ORANGE
        if low > 0:
            ax.plot([low, high], [row, row], color=colour, marker="o", linewidth=3)
        ax.text(high, row + 0.16, f"condition {condition:.3g}", ha="right", color=colour)
    ax.set_yticks([1, 0], names)
    ax.set_ylim(-0.6, 1.6)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("eigenvalues, median over observations")


def _name_rows(ax: Any, names: list[str]) -> None:
    """Names of levels from the top down; of many, as many as can be read."""
    every = max(1, len(names) // 16)
    rows = np.arange(len(names))[::-1]
    ax.set_yticks(rows[::every], names[::every])
    ax.set_ylim(-0.6, max(len(names), 1) - 0.4)
    ax.grid(visible=False, axis="y")
