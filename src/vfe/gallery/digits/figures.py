"""The pictures of the digits job."""

from typing import Any

import numpy as np

import vfe
from vfe.gallery.digits.data import Images
from vfe.gallery.digits.evaluation import SHOWN, Evaluation, Filled
from vfe.results.style import BLUE, COLOURS, GREEN, ORANGE, style


def draw(learned: vfe.Learned, images: Images, found: Evaluation) -> dict[str, Any]:
    """Every figure by name (matplotlib figures)."""
    figures = {"learning": learned.plot().ravel()[0].figure, "surprise": _bounds(found)}
    for filled in found.filled:
        figures[f"hidden-{filled.name.replace(' ', '-')}"] = _filled(images, found, filled)
    figures["imagination"] = _imagination(images, found)
    figures["labels"] = _labels(images, found)
    figures["odd-images"] = _odd(images, found)
    return figures


def _subplots(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _show(ax: Any, image: np.ndarray, images: Images, label: str = "") -> None:
    """An image as ink on paper; hidden pixels are tinted."""
    square = image.reshape(images.side)
    ax.imshow(np.ma.masked_invalid(square), cmap=_ink(), vmin=0.0, vmax=1.0, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    if label:
        ax.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)


def _ink() -> Any:
    import matplotlib

    return matplotlib.colormaps["gray_r"].with_extremes(bad="#bcd9ea")


def _filled(images: Images, found: Evaluation, filled: Filled) -> Any:
    count = min(10, len(filled.seen))
    rows = [
        ("original", found.images),
        ("seen", filled.seen),
        ("this model", filled.ours),
        ("probabilistic\nPCA", filled.linear),
    ]
    with style():
        figure, axes = _subplots(len(rows), count, 8.0, 3.6)
        for line, (name, pictures) in zip(axes, rows, strict=True):
            for i, ax in enumerate(line):
                _show(ax, pictures[i], images, name if i == 0 else "")
        return figure


def _imagination(images: Images, found: Evaluation) -> Any:
    labels = len(found.dreams_by_label)
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.0, 5.6), layout="constrained")
        left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(3, SHOWN))[0]
        left.suptitle("from the prior", fontsize=10)
        right.suptitle("with the label clamped", fontsize=10)
        free = left.subplots(SHOWN, 3, squeeze=False).ravel()
        for ax, image in zip(free, found.dreams, strict=False):
            _show(ax, image, images)
        held = right.subplots(labels, SHOWN, squeeze=False)
        for label, (line, pictures) in enumerate(zip(held, found.dreams_by_label, strict=True)):
            for i, (ax, image) in enumerate(zip(line, pictures, strict=True)):
                _show(ax, image, images, str(label) if i == 0 else "")
        return figure


def _bounds(found: Evaluation) -> Any:
    """F of the belief, the estimated surprise, and the linear model's exact surprise."""
    bars = [
        ("probabilistic PCA\nexact −ln p(x)", found.linear, ORANGE),
        ("this model\nF of the belief", found.total, BLUE),
        ("this model\nestimated −ln p(x)", found.surprise.value, GREEN),
    ]
    with style():
        figure, axes = _subplots(1, 1, 6.4, 3.0)
        ax = axes[0, 0]
        for i, (_, number, colour) in enumerate(bars):
            ax.barh(i, number.value, xerr=number.error, color=colour, height=0.6, capsize=3)
            ax.annotate(
                f"{number.value:.1f}",
                (number.value, i),
                xytext=(6 if number.value > 0 else -10, 0),
                textcoords="offset points",
                va="center",
                ha="left" if number.value > 0 else "right",
                fontsize=9,
            )
        ax.set_yticks(range(len(bars)), [name for name, _, _ in bars])
        ax.invert_yaxis()
        ax.margins(x=0.15)
        ax.set_xlabel("nats per held-out image (lower is better; ± standard error)")
        ax.grid(False, axis="y")
        return figure


def _labels(images: Images, found: Evaluation) -> Any:
    """F by label of a few images, the errors among them first."""
    wrong = np.flatnonzero(found.recognised.labels != found.truth)[:2]
    right = np.flatnonzero(found.recognised.labels == found.truth)[: 4 - len(wrong)]
    chosen = np.r_[right, wrong]
    classes = found.recognised.by_label.shape[1]
    with style():
        figure, axes = _subplots(2, len(chosen), 8.0, 3.8)
        for column, n in enumerate(chosen):
            _show(axes[0, column], found.images[n], images)
            f = found.recognised.by_label[n]
            guess, truth = int(f.argmin()), int(found.truth[n])
            colours = [BLUE if k == guess else "#c9c9c9" for k in range(classes)]
            ax = axes[1, column]
            ax.bar(range(classes), f - f.min(), color=colours)
            ax.set_xticks(range(classes) if classes <= 10 else range(0, classes, classes // 10))
            ax.set_ylim(0, np.percentile((f - f.min())[np.isfinite(f)], 90) * 1.1 + 1e-3)
            ax.plot(guess, 0, "v", color=BLUE, ms=7, clip_on=False, zorder=3)
            ax.set_xlabel("label (▾ least F)")
            verdict = "right" if guess == truth else f"wrong, it is {truth}"
            axes[0, column].set_title(f"reads {guess}: {verdict}", fontsize=9)
        axes[1, 0].set_ylabel("F − least F (nats)")
        return figure


def _odd(images: Images, found: Evaluation) -> Any:
    names = list(found.foils)
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.0, 4.4), layout="constrained")
        top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 2.4))[:, 0]
        pictures = top.subplots(1, 2 * (len(names) + 1), squeeze=False)[0]
        shown = [("digits", found.images), *((n, found.foil_images[n]) for n in names)]
        for i, (name, some) in enumerate(shown):
            for j in range(2):
                _show(pictures[2 * i + j], np.clip(some[j], 0, 1), images)
            pictures[2 * i].set_title(name, fontsize=9, loc="left")
        ax = bottom.subplots()
        groups = [("digits", found.intact), *found.foils.items()]
        for i, (_, values) in enumerate(groups):
            finite = np.asarray(values)[np.isfinite(values)]
            jitter = np.random.default_rng(i).uniform(-0.28, 0.28, finite.size)
            ax.plot(finite, i + jitter, ".", ms=3, alpha=0.6, color=COLOURS[i % len(COLOURS)])
        ax.set_yticks(range(len(groups)), [n for n, _ in groups])
        ax.invert_yaxis()
        ax.set_xscale("symlog", linthresh=100)
        ax.set_xlabel("F (nats per image; symmetric logarithmic beyond ±100)")
        ax.grid(False, axis="y")
        return figure
