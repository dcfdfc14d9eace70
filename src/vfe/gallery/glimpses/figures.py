"""The figures of the glimpsing eye."""

from typing import Any

import numpy as np

from vfe.gallery.digits.data import Images
from vfe.gallery.glimpses.job import AVOIDS, BORROWED, CENTRE, CHOSEN, RANDOM, ROWS, SEEKS, Glimpsed, Scan
from vfe.gallery.glimpses.model import patches
from vfe.gallery.glimpses.settings import Chosen
from vfe.gallery.intervals import Interval, mean_of
from vfe.results.style import BLUE, GREEN, INK, ORANGE, PALE, PURPLE, RED, SKY, style

COLOURS = {
    SEEKS: BLUE,
    CHOSEN: ORANGE,
    CENTRE: GREEN,
    BORROWED: PURPLE,
    RANDOM: INK,
    ROWS: SKY,
    AVOIDS: RED,
}
SHOWN = 5


def draw(
    settings: Chosen, images: Images, found: Glimpsed, accuracy: dict[str, Interval]
) -> dict[str, Any]:
    """All figures by name."""
    with style():
        return {
            "accuracy": _accuracy(settings, accuracy),
            "paths": _paths(settings, images, found),
            "promises": _promises(found),
        }


def _accuracy(settings: Chosen, accuracy: dict[str, Interval]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 4.6), layout="constrained")
    ax = figure.subplots()
    number = np.arange(settings.glimpses + 1)
    ax.axvline(settings.judged, color=PALE, linestyle=":", linewidth=1.2)
    for name, colour in COLOURS.items():
        value, low, high = accuracy[name]
        ax.fill_between(number, low, high, color=colour, alpha=0.18, linewidth=0)
        ax.plot(number, value, "o-", markersize=4, color=colour, label=name)
    ax.set(xlabel="glimpses", ylabel="labels right (%)", ylim=(0, 100), xlim=(0, settings.glimpses + 0.1))
    ax.set_title("what is recognised")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _paths(settings: Chosen, images: Images, found: Glimpsed) -> Any:
    from matplotlib.figure import Figure

    labels = np.unique(found.truth)
    labels = labels[np.linspace(0, len(labels) - 1, min(SHOWN, len(labels))).round().astype(int)]
    pixels = patches(images.side, settings.patch)
    scan = found.scans[SEEKS]
    height, width = images.side
    figure = Figure(figsize=(2.1 * len(labels) + 0.4, 6.6), layout="constrained")
    axes = figure.subplots(3, len(labels), squeeze=False, height_ratios=[1, 1, 1.15])
    for column, label in enumerate(labels):
        one = int(np.flatnonzero(found.truth == label)[0])
        picture, path = found.x[one], scan.places[one]
        rows, columns = np.unravel_index(pixels[path], images.side)
        at = np.stack([columns.mean(1), rows.mean(1)], 1)
        above, middle, below = axes[:, column]
        above.imshow(picture.reshape(height, width), cmap="Greys", vmin=0, vmax=1)
        above.plot(*at.T, color=ORANGE, linewidth=1.0)
        for number, (x, y) in enumerate(at, 1):
            above.text(
                x,
                y,
                str(number),
                ha="center",
                va="center",
                fontsize=7,
                color="white",
                bbox={"boxstyle": "circle,pad=0.15", "facecolor": RED, "linewidth": 0},
            )
        seen = np.full(images.pixels, np.nan)
        seen[pixels[path].ravel()] = picture[pixels[path].ravel()]
        middle.imshow(seen.reshape(height, width), cmap="Greys", vmin=0, vmax=1)
        middle.set_facecolor("#dbe7f3")
        below.imshow(
            scan.label[one].T, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest"
        )
        below.plot(-0.75, label, marker=">", color=RED, clip_on=False, markersize=6)
        below.set(xlabel="glimpses", yticks=range(scan.label.shape[-1]), xticks=range(0, path.size + 1, 2))
        above.set_title(f"a {label}")
        for ax in (above, middle):
            ax.set(xticks=[], yticks=[])
        for ax in (above, middle, below):
            ax.grid(visible=False)
    axes[0, 0].set_ylabel("image and path")
    axes[1, 0].set_ylabel("what was seen")
    axes[2, 0].set_ylabel("q(label)")
    return figure


def _promises(found: Glimpsed) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.5, 3.8), layout="constrained")
    one, two, three = figure.subplots(1, 3)
    scans = {**found.scans, RANDOM: found.random[0]}
    for name, colour in COLOURS.items():
        _line(one, mean_of(scans[name].uncertainty), 0, colour, name)
        _line(three, mean_of(np.diff(scans[name].free_energy, axis=1)), 1, colour, name)
    scan: Scan = found.scans[SEEKS]
    _line(two, mean_of(scan.promised), 1, PALE, "promised")
    _line(two, mean_of(-np.diff(scan.uncertainty, axis=1)), 1, BLUE, "delivered")
    one.set(xlabel="glimpses", ylabel="entropy of q(label) (nats)", ylim=(0, None))
    two.set(xlabel="glimpse", ylabel="about the label (nats)", ylim=(0, None))
    three.set(xlabel="glimpse", ylabel="F it adds (nats)")
    one.set_title("what is not known")
    two.set_title("information, seeking it")
    three.set_title("surprise of each glimpse")
    two.legend(loc="upper right")
    figure.legend(*one.get_legend_handles_labels(), loc="outside lower center", ncols=7)
    return figure


def _line(ax: Any, each: Interval, first: int, colour: str, label: str) -> None:
    number = np.arange(first, first + len(each.value))
    ax.fill_between(number, each.low, each.high, color=colour, alpha=0.18, linewidth=0)
    ax.plot(number, each.value, "o-", markersize=3.5, color=colour, label=label)
