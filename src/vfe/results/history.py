"""The history of an agent in its world, as an xarray Dataset, as a figure and as a run folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from vfe.results.run_folder import save_run
from vfe.results.style import COLOURS, INK, ORANGE, PALE, style

if TYPE_CHECKING:
    import xarray as xr

    from vfe.action.history import History

MOST_NAMES = 12
MOST_LINES = 6


def history_to_xarray(history: "History") -> "xr.Dataset":
    """Every number that has a name, over `time` (from 0), and `agent` and `run` where there are several.

    `outcomes` by `modality` and `actions` by `factor` (−1: none), `ended`, `episode`, `rewards`;
    `belief_FACTOR` by `state_FACTOR`; `free_energy` and `free_energy_by_level`, nats; the arrays of the
    decisions under their names, by `policy` (with the name of its `first_action`) where they have a value
    for each; `state_of_FACTOR`, the world's own states, where it has them by factor.

    **Example:** `history.to_xarray()["belief_place"].sel(state_place="left")`.
    """
    import xarray as xr

    axes = (*history.axes, "time")
    shape = np.shape(history.outcomes)[: len(axes)]
    names = factor_names(history), modality_names(history)
    variables: dict[str, Any] = {
        "outcomes": ((*axes, "modality"), np.asarray(history.outcomes)),
        "actions": ((*axes, "action_of"), np.asarray(history.actions)),
        "ended": (axes, np.asarray(history.ended)),
        "episode": (axes, np.asarray(history.episode)),
    }
    coordinates: dict[str, Any] = {
        "time": np.arange(shape[-1]),
        "modality": list(names[1]),
        "action_of": list(_fitting(names[0], np.shape(history.actions)[-1])),
    }
    if history.rewards is not None:
        variables["rewards"] = (axes, np.asarray(history.rewards))
    for f, belief in enumerate(beliefs(history)):
        variables[f"belief_{names[0][f]}"] = ((*axes, f"state_{names[0][f]}"), belief)
        coordinates[f"state_{names[0][f]}"] = list(state_names(history, f, belief.shape[-1]))
    total, levels = free_energy(history)
    if total is not None:
        units = {"units": "nats", "kind": history.percepts.free_energy.kind.value}
        variables["free_energy"] = (axes, total, units)
        stacked = np.stack(list(levels.values()), -1)
        variables["free_energy_by_level"] = ((*axes, "level"), stacked, units)
        coordinates["level"] = list(levels)
    true = true_states(history)
    if true is not None:
        for f in range(true.shape[-1]):
            variables[f"state_of_{names[0][f]}"] = (axes, true[..., f])
    policies = np.shape(getattr(history.decisions, "policy_probabilities", 0.0))[len(axes) :]
    for name, value in _arrays(history.decisions, shape).items():
        if name == "action" or name in variables:
            continue
        left = value.shape[len(axes) :]
        same = policies and left[:1] == policies
        rest = tuple(f"{name}_{k}" for k in range(len(left)))
        if same:
            ahead = ("step",) if name.startswith("terms_") and len(left) == 2 else rest[1:]
            rest = ("policy", *ahead)
        variables[name] = ((*axes, *rest), value)
    if policies and len(history.options) == policies[0]:
        coordinates["first_action"] = ("policy", [option_name(history, o) for o in history.options])
    return xr.Dataset(variables, coords=coordinates)


def plot_history(history: "History") -> Any:
    """Beliefs by factor as images in time with the world's state marked, outcomes, actions, F, policies.

    **Returns:** the figure.

    **Raises:** `ValueError` for several runs.

    **Example:** `history.plot().savefig("history.png")`.
    """
    one_course(history, "plot")
    import matplotlib.pyplot as plt

    panels = _panels(history)
    heights = [height for height, _ in panels]
    with style():
        figure, axes = plt.subplots(
            len(panels),
            sharex=True,
            squeeze=False,
            layout="constrained",
            figsize=(8.0, 0.22 * sum(heights) + 0.45 * len(panels) + 0.4),
            gridspec_kw={"height_ratios": heights},
        )
        for axis, (_, draw) in zip(axes[:, 0], panels, strict=True):
            draw(axis)
            for t in np.flatnonzero(np.asarray(history.ended)[:-1]):
                axis.axvline(t + 0.5, color=INK, lw=0.9, ls=(0, (3, 2)))
        axes[-1, 0].set_xlabel("time (dashed: a new episode)" if history.ended.any() else "time")
        axes[-1, 0].set_xlim(-0.5, len(history.outcomes) - 0.5)
        axes[-1, 0].locator_params(axis="x", integer=True)
    return figure


def save_history(history: "History", folder: str | Path, *, name: str, **more: Any) -> Path:
    """A run folder (see `vfe.results.save_run`) with the agent's last state in place of a model.

    **Example:** `history.save("runs/first", seed=0)`.
    """
    first = history[(0,) * len(history.axes)] if history.axes else history
    figures = {"history": plot_history(first)}
    try:
        return save_run(
            folder,
            name=name,
            model=history.agent_state,
            dataset=history_to_xarray(history),
            figures=figures,
            **more,
        )
    finally:
        import matplotlib.pyplot as plt

        for figure in figures.values():
            plt.close(figure)


def one_course(history: "History", verb: str) -> None:
    """**Raises:** `ValueError` for several runs. **Example:** `one_course(history, "plot")`."""
    if history.axes:
        zeros = ", ".join("0" for _ in history.axes)
        raise ValueError(
            f"{verb}: got a history with the axes {history.axes}; wanted one course: "
            f"history[{zeros}].{verb}(...)."
        )


def factor_names(history: "History") -> tuple[str, ...]:
    """Names of the factors of what is believed, or s0, s1, … **Example:** `factor_names(history)`."""
    if history.labels is not None:
        return history.labels.factors
    true = true_states(history)
    count = len(beliefs(history)) or (np.shape(history.actions)[-1] if true is None else true.shape[-1])
    return tuple(f"s{f}" for f in range(count))


def modality_names(history: "History") -> tuple[str, ...]:
    """Names of the modalities, or o0, o1, … **Example:** `modality_names(history)`."""
    count = np.shape(history.outcomes)[-1]
    return _fitting(None if history.labels is None else history.labels.modalities, count, "o")


def state_names(history: "History", f: int, count: int) -> tuple[str, ...]:
    """Names of the states of a factor. **Example:** `state_names(history, 0, 4)`."""
    return _fitting(None if history.labels is None else history.labels.states[f], count)


def outcome_names(history: "History", m: int) -> tuple[str, ...]:
    """Names of the outcomes of a modality. **Example:** `outcome_names(history, 0)`."""
    if history.labels is not None and m < len(history.labels.outcomes):
        return history.labels.outcomes[m]
    return tuple(str(k) for k in range(int(np.asarray(history.outcomes)[..., m].max(initial=0)) + 1))


def action_names(history: "History", f: int) -> tuple[str, ...]:
    """Names of the controls of a factor. **Example:** `action_names(history, 0)`."""
    if history.labels is not None and f < len(history.labels.actions):
        return history.labels.actions[f]
    return tuple(str(k) for k in range(int(np.asarray(history.actions)[..., f].max(initial=0)) + 1))


def beliefs(history: "History") -> list[np.ndarray]:
    """Beliefs (…, time, states) by factor; none where the percepts hold none. **Example:**
    `beliefs(history)`."""
    found = getattr(history.percepts, "factors", None) or ()
    return [np.asarray(belief) for belief in found if np.ndim(belief) == len(history.axes) + 2]


def free_energy(history: "History") -> tuple[np.ndarray | None, dict[str, np.ndarray]]:
    """F (…, time) and its parts by level; None where the percepts hold none. **Example:**
    `free_energy(history)[0]`."""
    found = getattr(history.percepts, "free_energy", None)
    if found is None or not hasattr(found, "by_level"):
        return None, {}
    shape = np.shape(history.outcomes)[:-1]
    levels = {name: np.broadcast_to(np.asarray(v), shape) for name, v in found.by_level.items()}
    return np.broadcast_to(np.asarray(found.total), shape), levels


def true_states(history: "History") -> np.ndarray | None:
    """The world's own states (…, time, factors), where it has as many factors as are believed in."""
    found = getattr(history.world_states, "states", history.world_states)
    if not hasattr(found, "dtype") or np.ndim(found) != len(history.axes) + 2:
        return None
    found = np.asarray(found)
    if history.labels is not None and found.shape[-1] != len(history.labels.factors):
        return None
    return found if found.dtype.kind == "i" else None


def _panels(history: "History") -> list[tuple[float, Any]]:
    """(height in lines, what draws it) of every row of the figure."""
    names, true = factor_names(history), true_states(history)
    found: list[tuple[float, Any]] = []
    for f, belief in enumerate(beliefs(history)):
        if belief.shape[-1] > 1:
            rows = state_names(history, f, belief.shape[-1])
            seen = None if true is None else true[:, f]
            marked = " (ring: the state of the world)" if seen is not None else ""
            found.append((_height(rows), _image(f"belief: {names[f]}{marked}", belief, rows, seen)))
    for m, name in enumerate(modality_names(history)):
        rows = outcome_names(history, m)
        colour = COLOURS[m % len(COLOURS)]
        found.append(
            (_height(rows), _points(f"outcome: {name}", np.asarray(history.outcomes)[:, m], rows, colour))
        )
    actions = np.asarray(history.actions)
    for f, name in enumerate(_fitting(names, actions.shape[-1], "s")):
        rows = action_names(history, f)
        if len(rows) > 1:
            found.append((_height(rows), _points(f"action: {name}", actions[:, f], rows, INK)))
    total, levels = free_energy(history)
    if total is not None:
        lines = {**levels, "F": total} if len(levels) > 1 else {"F": total}
        title = f"F{' by level' * (len(lines) > 1)}, {total.sum():.2f} nats in all"
        found.append((7.0, _lines(title, lines, "nats")))
    for key, title, unit, gather in (
        ("expected_free_energy", "expected free energy", "nats", np.min),
        ("policy_probabilities", "probability", "", np.sum),
    ):
        value = getattr(history.decisions, key, None)
        if value is not None and np.ndim(value) == 2 and np.shape(value)[1] > 1:
            word, value, rows = _by_first_action(history, np.asarray(value), gather)
            if value.shape[1] <= MOST_LINES:
                lines = {row: value[:, k] for k, row in enumerate(rows)}
                found.append((7.0, _lines(f"{title} of {word}", lines, unit)))
            else:
                found.append((_height(rows), _worth(f"{title} of {word}", value, rows, unit)))
    return found


def option_name(history: "History", option: Sequence[int]) -> str:
    """The names of the controls that can be chosen. **Example:** `option_name(history, (3, 0))`."""
    names = [action_names(history, f) for f in range(len(option))]
    return ", ".join(own[u] for own, u in zip(names, option, strict=True) if len(own) > 1)


def _by_first_action(
    history: "History", value: np.ndarray, gather: Any
) -> tuple[str, np.ndarray, tuple[str, ...]]:
    """What policies are worth, by first action: the least, or the sum, of those that begin with it."""
    if len(history.options) != value.shape[1]:
        return "policies", value, tuple(f"policy {p}" for p in range(value.shape[1]))
    names = np.array([option_name(history, option) for option in history.options])
    rows = tuple(dict.fromkeys(names.tolist()))
    merged = np.stack([gather(value[:, names == row], axis=1) for row in rows], -1)
    least = " (of the best policy that begins so)" if gather is np.min and len(rows) < len(names) else ""
    return f"first actions{least}", merged, rows


def _height(rows: Sequence[str]) -> float:
    return float(np.clip(len(rows), 2, MOST_NAMES))


def _names(axis: Any, rows: Sequence[str]) -> None:
    every = -(-len(rows) // MOST_NAMES)
    axis.set_yticks(range(0, len(rows), every), rows[::every])
    axis.set_ylim(len(rows) - 0.5, -0.5)


def _image(title: str, belief: np.ndarray, rows: Sequence[str], seen: np.ndarray | None) -> Any:
    def draw(axis: Any) -> None:
        shown = axis.imshow(
            belief.T, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest", origin="upper"
        )
        if seen is not None:
            size = np.clip(260 / len(seen), 2, 7)
            axis.plot(seen, "o", color=ORANGE, ms=size, mfc="none", mew=1.6)
        axis.grid(False)
        axis.set_title(title)
        _names(axis, rows)
        axis.figure.colorbar(shown, cax=axis.inset_axes((1.012, 0, 0.015, 1)), ticks=[0, 1])

    return draw


def _points(title: str, values: np.ndarray, rows: Sequence[str], colour: str) -> Any:
    def draw(axis: Any) -> None:
        time = np.flatnonzero(values >= 0)
        axis.plot(time, values[time], "s", color=colour, ms=np.clip(260 / len(values), 2, 6))
        axis.set_title(title)
        _names(axis, rows)

    return draw


def _lines(title: str, lines: dict[str, np.ndarray], unit: str) -> Any:
    def draw(axis: Any) -> None:
        few = len(next(iter(lines.values()))) <= 60
        for k, (name, values) in enumerate(lines.items()):
            last = name == "F"
            colour = INK if last else COLOURS[k % (len(COLOURS) - 1)]
            axis.plot(values, color=colour, lw=2 if last else 1.2, label=name, marker="." if few else None)
        axis.axhline(0, color=PALE, lw=0.8)
        axis.set_title(title)
        axis.set_ylabel(unit)
        if len(lines) > 1:
            axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))

    return draw


def _worth(title: str, values: np.ndarray, rows: Sequence[str], unit: str) -> Any:
    def draw(axis: Any) -> None:
        look = {"cmap": "viridis"} if unit else {"cmap": "Blues", "vmin": 0, "vmax": 1}
        shown = axis.imshow(values.T, aspect="auto", interpolation="nearest", **look)
        axis.grid(False)
        axis.set_title(title + (", nats (dark: low, preferred)" if unit else ""))
        _names(axis, rows)
        axis.figure.colorbar(shown, cax=axis.inset_axes((1.012, 0, 0.015, 1)))

    return draw


def _arrays(tree: Any, lead: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The arrays of a pytree that have these leading axes, named by where they are in it."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if np.shape(leaf)[: len(lead)] == lead:
            parts = [getattr(p, "name", getattr(p, "key", getattr(p, "idx", p))) for p in path]
            found["_".join(str(part) for part in parts)] = np.asarray(leaf)
    return found


def _fitting(names: Sequence[str] | None, count: int, letter: str = "") -> tuple[str, ...]:
    if names is not None and len(names) == count:
        return tuple(names)
    return tuple(f"{letter}{k}" for k in range(count))
