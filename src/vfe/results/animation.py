"""The history of an agent as a moving picture."""

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vfe.results.history import (
    MOST_NAMES,
    action_names,
    beliefs,
    factor_names,
    free_energy,
    modality_names,
    one_course,
    outcome_names,
    state_names,
    true_states,
)
from vfe.results.style import BLUE, INK, ORANGE, PALE, style

if TYPE_CHECKING:
    from vfe.action.history import History

WRITERS = {".gif": "pillow", ".mp4": "ffmpeg"}


def animate_history(history: "History", path: str | Path, frames_per_second: float = 2.0) -> Path:
    """One image per step: beliefs by factor (a map where states are named `row,column`), the state of the
    world, the outcomes and the action, and F so far.

    **Returns:** the path, written whole or not at all.

    **Raises:** `FileExistsError`, `ValueError`, `RuntimeError`: see `vfe.action.History.animate`.

    **Example:** `history.animate("history.gif", frames_per_second=1.0)`.
    """
    one_course(history, "animate")
    path = Path(path).expanduser().absolute()
    writer = _writer(path, frames_per_second)
    _check_free(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    import matplotlib.pyplot as plt

    try:
        with style():
            figure, draw = _stage(history)
            try:
                with writer.saving(figure, temporary, dpi=100):
                    for t in range(len(history.outcomes)):
                        draw(t)
                        writer.grab_frame()
            finally:
                plt.close(figure)
        temporary.chmod(0o644)
        _check_free(path)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _check_free(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(f"{path} exists, and is not overwritten; choose another name or remove it.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"animate: {path.parent} is no folder; make it first.")


def _writer(path: Path, frames_per_second: float) -> Any:
    kind = WRITERS.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"animate: got {path.name!r}; wanted a name that ends in .gif or .mp4.")
    if not frames_per_second > 0:
        raise ValueError(f"animate: got frames_per_second={frames_per_second!r}; wanted more than 0.")
    from matplotlib import animation

    if not animation.writers.is_available(kind):
        raise RuntimeError(
            f"animate: {path.suffix} is written by {kind}, which was not found; install it"
            + (" (the program ffmpeg, on the PATH), or write a .gif." if kind == "ffmpeg" else ".")
        )
    fps: Any = frames_per_second  # typed as whole, taken as any
    return animation.writers[kind](fps=fps)


def _stage(history: "History") -> tuple[Any, Any]:
    """The figure, and a function that makes it show a time."""
    import matplotlib.pyplot as plt

    names, true = factor_names(history), true_states(history)
    shown = [(f, belief) for f, belief in enumerate(beliefs(history)) if belief.shape[-1] > 1]
    total, _ = free_energy(history)
    columns = max(1, len(shown))
    figure = plt.figure(figsize=(max(5.6, 2.9 * columns), 5.2), layout="constrained")
    grid = figure.add_gridspec(3, columns, height_ratios=[5, 1.1, 2.2])
    draws = []
    for column, (f, belief) in enumerate(shown):
        axis = figure.add_subplot(grid[0, column])
        rows = state_names(history, f, belief.shape[-1])
        marks = None if true is None else true[:, f]
        axis.set_title(f"belief: {names[f]}")
        draws.append((_bars if _cells(rows) is None else _map)(axis, belief, rows, marks))
    words = figure.add_subplot(grid[1, :])
    words.axis("off")
    text = words.text(0.0, 0.5, "", va="center", ha="left", fontsize=10, color=INK, linespacing=1.5)
    line = point = None
    if total is not None:
        axis = figure.add_subplot(grid[2, :])
        axis.set(title="F (nats)", xlabel="time", xlim=(-0.5, len(total) - 0.5))
        axis.locator_params(axis="x", integer=True)
        low, high = min(0.0, float(total.min())), max(0.0, float(total.max()))
        margin = 0.08 * (high - low) or 1.0
        axis.set_ylim(low - margin, high + margin)
        axis.plot(total, color=PALE, lw=0.8)
        (line,) = axis.plot([], [], color=BLUE)
        (point,) = axis.plot([], [], "o", color=BLUE)

    def draw(t: int) -> None:
        for one in draws:
            one(t)
        text.set_text(_words(history, t))
        if line is not None and point is not None and total is not None:
            line.set_data(np.arange(t + 1), total[: t + 1])
            point.set_data([t], [total[t]])

    return figure, draw


def _words(history: "History", t: int) -> str:
    outcomes, actions = np.asarray(history.outcomes)[t], np.asarray(history.actions)[t]
    sensed = [
        f"{name}: {outcome_names(history, m)[k]}"
        for m, (name, k) in enumerate(zip(modality_names(history), outcomes, strict=True))
        if k >= 0
    ]
    done = [
        action_names(history, f)[u]
        for f, u in enumerate(actions)
        if u >= 0 and len(action_names(history, f)) > 1
    ]
    end = "the episode ends" if bool(history.ended[t]) else ", ".join(done)
    return f"time {t}\nsensed   {',  '.join(sensed)}\ndone      {end}"


def _bars(axis: Any, belief: np.ndarray, rows: tuple[str, ...], marks: np.ndarray | None) -> Any:
    bars = axis.barh(range(len(rows)), belief[0], color=BLUE)
    (ring,) = axis.plot([], [], "o", color=ORANGE, mfc="none", mew=2, ms=10, clip_on=False)
    axis.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5))
    every = -(-len(rows) // MOST_NAMES)
    axis.set_yticks(range(0, len(rows), every), rows[::every])

    def draw(t: int) -> None:
        for bar, value in zip(bars, belief[t], strict=True):
            bar.set_width(value)
        if marks is not None:
            ring.set_data([0.5], [marks[t]])

    return draw


def _map(axis: Any, belief: np.ndarray, rows: tuple[str, ...], marks: np.ndarray | None) -> Any:
    cells = _cells(rows)
    assert cells is not None
    shape = tuple(int(k) for k in cells.max(0) + 1)

    def laid(values: np.ndarray) -> np.ndarray:
        whole = np.full(shape, np.nan)
        whole[tuple(cells.T)] = values
        return whole

    axis.set_facecolor(INK)  # walls
    image = axis.imshow(laid(belief[0]), cmap="Blues", vmin=0, vmax=1)
    (ring,) = axis.plot([], [], "o", color=ORANGE, mfc="none", mew=2, ms=np.clip(90 / shape[1], 4, 14))
    axis.grid(False)
    axis.locator_params(integer=True)

    def draw(t: int) -> None:
        image.set_data(laid(belief[t]))
        if marks is not None:
            row, column = cells[marks[t]]
            ring.set_data([column], [row])

    return draw


def _cells(rows: tuple[str, ...]) -> np.ndarray | None:
    found = [re.fullmatch(r"(\d+),(\d+)", name) for name in rows]
    if not all(found):
        return None
    return np.array([[int(one[1]), int(one[2])] for one in found if one])
