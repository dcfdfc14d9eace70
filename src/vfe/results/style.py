"""How figures look: readable at the width of a page, and with any colour vision."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

# Okabe and Ito's palette without its yellow, which is too light for lines on white.
BLUE, ORANGE, GREEN, PURPLE, SKY, RED = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
INK, PALE = "#222222", "#999999"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, INK)

SETTINGS: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 10,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "figure.facecolor": "white",
    "font.size": 10,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "image.cmap": "gray",
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "savefig.facecolor": "white",
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw in the style of the library inside the block, colours in a fixed order.

    **Example:** `with style(): figure, axes = plt.subplots(layout="constrained")`.
    """
    import matplotlib
    from cycler import cycler

    settings: Any = {**SETTINGS, "axes.prop_cycle": cycler(color=COLOURS)}
    with matplotlib.rc_context(settings):
        yield


def figure_axes(axes: Any, shape: tuple[int, int], size: tuple[float, float]) -> np.ndarray:
    """These axes, or those of a new figure, in one row.

    **Raises:** `ValueError` where their number is another than that of `shape`.
    """
    wanted = shape[0] * shape[1]
    if axes is None:
        import matplotlib.pyplot as plt

        _, axes = plt.subplots(*shape, figsize=size, layout="constrained")
    axes = np.ravel(axes)
    if len(axes) != wanted:
        raise ValueError(f"plot: got {len(axes)} axes; wanted {wanted}.")
    return axes
