"""Figures of what was perceived and of the course of learning; each returns matplotlib axes."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from vfe.perception.percept import Percept
from vfe.perception.status import Status
from vfe.results.numbers import say
from vfe.results.style import BLUE, COLOURS, GREEN, INK, ORANGE, PALE, RED, SKY, figure_axes, style
from vfe.results.tables import by_level


def plot_percept(percept: Percept, axes: Any = None) -> np.ndarray:
    """F by level, the objective by step, and how many observations ended in which way.

    **Arguments:** `axes`: three matplotlib axes; a new figure by default.

    **Returns:** the three axes.

    **Raises:** `ValueError` for another number of axes.

    **Example:** `vfe.perceive(model, {"x": x}).plot()[0].figure.savefig("percept.png")`.
    """
    with style():
        axes = figure_axes(axes, (1, 3), (10.5, 3.7))
        _levels(percept, axes[0])
        _trace(percept, axes[1])
        _endings(percept, axes[2])
    return axes


def plot_learned(learned: Any, axes: Any = None) -> np.ndarray:
    """F in its readings and by level, in nats per observation, by epoch.

    Solid lines are training data and dashed ones validation data. Values far above the rest (the
    first epochs, as a rule) leave the picture at the top.

    **Arguments:** `axes`: four matplotlib axes (three under Point beliefs, whose energy has no
    entropy and complexity); a new figure by default.

    **Returns:** the axes.

    **Raises:** `ValueError` for another number of axes.

    **Example:** `vfe.learn(model, {"x": x}, epochs=2, key=key).plot()`.
    """
    history = learned.history
    point = history.get("entropy") is None
    word = "energy" if point else "F"
    panels: list[tuple[str, list[tuple[str, str, float, str]]]] = [
        (f"{word}: what is minimised", [("total", word, 1.0, INK)])
    ]
    if point:
        panels.append(
            (
                "energy = prior energy − accuracy",
                [("prior_energy", "prior energy", 1.0, GREEN), ("accuracy", "−accuracy", -1.0, BLUE)],
            )
        )
    else:
        panels.append(
            (
                "F = energy − entropy",
                [("energy", "energy", 1.0, ORANGE), ("entropy", "−entropy", -1.0, SKY)],
            )
        )
        panels.append(
            (
                "F = complexity − accuracy",
                [("complexity", "complexity", 1.0, GREEN), ("accuracy", "−accuracy", -1.0, BLUE)],
            )
        )
    with style():
        shape = (1, 3) if point else (2, 2)
        axes = figure_axes(axes, shape, (10.5, 3.7) if point else (9.0, 6.6))
        for ax, (title, lines) in zip(axes, panels, strict=False):
            ax.set_title(title)
            _curves(ax, history, [(label, _reading(key, sign), c) for key, label, sign, c in lines])
        names = list(history.get("by_level") or {})
        axes[-1].set_title(f"{word} by level")
        _curves(
            axes[-1],
            history,
            [(name, _level(name), COLOURS[i % len(COLOURS)]) for i, name in enumerate(names)],
        )
    return axes


def _levels(percept: Percept, ax: Any) -> None:
    """Horizontal bars: energy, −entropy, and their sum F, by level."""
    f = percept.free_energy
    count = int(np.prod(percept.batch, dtype=int))
    mean = bool(percept.batch) and not f.shared
    one = f.mean() if mean else f
    total = {n: float(np.sum(v)) for n, v in by_level(one).items()}
    weights = {n: float(f.weight) if f.shared and n not in f.shared else 1.0 for n in total}
    entropies = {n: -weights[n] * float(np.sum(v)) for n, v in (one.entropies or {}).items()}
    names = list(total)
    rows = np.arange(len(names))[::-1]
    if one.entropies is None:
        ax.barh(rows, [total[n] for n in names], 0.6, color=ORANGE, label="energy")
    else:
        energies = [total[n] - entropies.get(n, 0.0) for n in names]
        ax.barh(rows + 0.27, energies, 0.25, color=ORANGE, label="energy")
        ax.barh(rows, [entropies.get(n, 0.0) for n in names], 0.25, color=SKY, label="−entropy")
        ax.barh(rows - 0.27, [total[n] for n in names], 0.25, color=INK, label="F")
    ax.axvline(0, color=PALE, linewidth=0.8)
    ax.set_yticks(rows, [f"{n}\n{say(total[n])}" for n in names])
    ax.set_ylim(-0.6, len(names) - 0.4)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("nats")
    error = float(np.sum(one.standard_error)) if one.error is not None else None
    word = "energy" if one.entropies is None else "F"
    over = f"mean of {count}" if mean else f"all {count} together" if f.shared and count > 1 else ""
    kind = "" if word == "energy" else one.kind.value.replace("_", " ")
    detail = ", ".join(x for x in (kind, over) if x)
    ax.set_title(
        f"{word} = {say(float(np.sum(one.total)), error)} nats" + (f"\n({detail})" if detail else "")
    )
    _legend(ax, 3)


def _trace(percept: Percept, ax: Any) -> None:
    """Mean of the objective over observations, and the range that holds 80 % of them."""
    trace = np.asarray(percept.trace, float)
    trace = trace.reshape(-1, trace.shape[-1])
    trace = trace[np.isfinite(trace).all(-1)]
    last = int(np.max(percept.steps, initial=0))
    ax.set_title("objective of the solver")
    ax.set_xlabel("step")
    ax.set_ylabel("nats")
    if not len(trace) or last == 0:
        ax.text(0.5, 0.5, "no steps: a closed form", ha="center", transform=ax.transAxes, color=PALE)
        ax.set_xticks([])
        ax.set_yticks([])
        return
    points = min(trace.shape[-1], -(-last // percept.stride) + 1)
    step = np.minimum(np.arange(points) * percept.stride, last)
    low, high = np.percentile(trace[:, :points], [10, 90], axis=0)
    few = points <= 25
    ax.plot(step, trace[:, :points].mean(0), color=BLUE, marker="o" if few else "", markersize=3.5)
    ax.lines[-1].set_label("mean" if len(trace) > 1 else "F")
    if len(trace) > 1:
        ax.fill_between(step, low, high, color=BLUE, alpha=0.18, linewidth=0, label="10 % to 90 %")
        ax.legend(loc="upper right")
    if few:
        ax.xaxis.get_major_locator().set_params(integer=True)


def _endings(percept: Percept, ax: Any) -> None:
    counts = Counter(int(s) for s in np.ravel(percept.status))
    codes = sorted(counts, reverse=True)
    values = [counts[c] for c in codes]
    colours = [RED if Status(c).failed else BLUE if c <= Status.sampled else ORANGE for c in codes]
    bars = ax.barh(range(len(codes)), values, 0.5, color=colours)
    ax.bar_label(bars, padding=3)
    ax.set_yticks(range(len(codes)), [Status(c).name.replace("_", " ") for c in codes])
    middle, half = (len(codes) - 1) / 2, max(len(codes) / 2 + 0.25, 1.25)
    ax.set_ylim(middle - half, middle + half)
    ax.set_xlim(0, 1.15 * max(values, default=1))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("observations")
    ax.set_title("how perception ended")


def _reading(key: str, sign: float) -> Any:
    return lambda history: None if history.get(key) is None else sign * np.asarray(history[key])


def _level(name: str) -> Any:
    return lambda history: (history.get("by_level") or {}).get(name)


def _curves(ax: Any, history: Mapping[str, Any], lines: list[tuple[str, Any, str]]) -> None:
    validation = history.get("validation")
    late, dashed = [], False
    for label, get, colour in lines:
        for data, name, dashes in ((history, label, "-"), (validation, None, "--")):
            values = get(data) if data else None
            if not data or values is None or not len(values):
                continue
            marker = "o" if len(values) <= 2 else ""
            ax.plot(data["step"], values, dashes, color=colour, label=name, marker=marker)
            late.append(np.asarray(values, float)[len(values) // 10 :])
            dashed = dashed or name is None
    ax.set_xlabel("epoch")
    ax.set_ylabel("nats per observation")
    if late:
        _leave_out_the_start(ax, np.concatenate(late))
    if dashed:
        ax.plot([], [], "--", color=PALE, label="validation")
    if late and (dashed or len(lines) > 1):
        _legend(ax, min(4, len(lines) + dashed))


def _leave_out_the_start(ax: Any, late: np.ndarray) -> None:
    """Fit the height to all but the first tenth of the epochs, where those would flatten the rest."""
    late = late[np.isfinite(late)]
    if not late.size:
        return
    low, high = late.min(), late.max()
    margin = 0.08 * (high - low) + 1e-9
    bottom, top = ax.get_ylim()
    if top - bottom > 3 * (high - low + margin):
        ax.set_ylim(max(bottom, low - margin), min(top, high + 4 * margin))


def _legend(ax: Any, columns: int) -> None:
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=columns)
