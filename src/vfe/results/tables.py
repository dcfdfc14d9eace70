"""Percepts and learning histories as xarray Datasets: named axes, units in the attributes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vfe.free_energy import FreeEnergy, leading_axes
from vfe.perception.percept import Percept
from vfe.perception.status import Status

if TYPE_CHECKING:
    import xarray as xr

READINGS = ("total", "energy", "entropy", "accuracy", "complexity", "prior_energy")


def percept_to_xarray(percept: Percept) -> "xr.Dataset":
    """What was perceived, as a Dataset with one axis per leading axis of the data.

    Per hidden node: `NODE_mean`, `NODE_sd` (where there is a spread), `NODE_probability` (discrete);
    `free_energy` and its readings, and `free_energy_by_level`, in nats; `status`, `steps`,
    `gradient`, and `trace` (nats) by step. Where latents are shared, F is that of all the data.

    **Example:** `vfe.perceive(model, {"x": x}).to_xarray()["z_mean"]`.
    """
    import xarray as xr

    batch = percept.batch
    axes = _batch_axes(batch)
    variables: dict[str, Any] = {}
    for node in percept.conditioned.hidden:
        for key, value, last in _moments(percept, node):
            variables[f"{node}_{key}"] = _place(percept, node, value, last)
    variables |= _free_energy(percept.free_energy, batch, axes)
    looped = axes if percept.conditioned.repeats is None else ()
    meaning = "; ".join(f"{s.value}: {s.name}" for s in Status)
    variables["status"] = (looped, np.asarray(percept.status), {"meaning": meaning})
    variables["steps"] = (looped, np.asarray(percept.steps))
    variables["gradient"] = (looped, np.asarray(percept.gradient), {"meaning": "largest element left"})
    trace = np.asarray(percept.trace)
    step = np.arange(trace.shape[-1]) * percept.stride
    variables["trace"] = ((*looped, "step"), trace, {"units": "nats"})
    return xr.Dataset(variables, coords={"step": step}, attrs={"kind": percept.free_energy.kind.value})


def learned_to_xarray(learned: Any) -> "xr.Dataset":
    """The course of learning, in nats per observation, by `step` (and `validation_step`), the epochs done.

    `free_energy` (F; an energy under Point beliefs), its readings, `free_energy_by_level`; the same
    with `validation_` in front for held-out data.

    **Example:** `vfe.learn(model, {"x": x}, epochs=2, key=key).to_xarray()["free_energy"]`.
    """
    import xarray as xr

    history = learned.history
    variables = _history(history, "")
    if history.get("validation"):
        variables |= _history(history["validation"], "validation_")
    attrs = {"kind": str(learned.kind), "steps": int(learned.steps), "status": str(learned.status)}
    return xr.Dataset(variables, attrs=attrs)


def _batch_axes(batch: tuple[int, ...]) -> tuple[str, ...]:
    if len(batch) == 1:
        return ("observation",)
    return tuple(f"observation_{i}" for i in range(len(batch)))


def _moments(percept: Percept, node: str) -> list[tuple[str, np.ndarray, bool]]:
    """(name, values, whether the last axis is over states) for each number the belief has."""
    marginal = percept.belief[node]
    if hasattr(marginal, "probabilities") and not hasattr(marginal, "sd"):
        return [("probability", np.asarray(marginal.probabilities), True)]
    found = [("mean", np.asarray(marginal.mean), False)]
    if hasattr(marginal, "sd"):
        found.append(("sd", np.asarray(marginal.sd), False))
    return found


def _place(
    percept: Percept, node: str, value: np.ndarray, states: bool
) -> tuple[tuple[str, ...], np.ndarray]:
    """Names for the axes of a node's values, and the values with the leading axes of the data."""
    c, batch = percept.conditioned, percept.batch
    lead: tuple[str, ...] = ()
    if c.repeats is not None and not c.model.describe(node).shared:
        value, lead = value.reshape(*batch, *value.shape[1:]), _batch_axes(batch)
    elif c.repeats is None and leading_axes(percept.belief):
        lead = _batch_axes(batch)
    names = [f"{node}_{i}" for i in range(value.ndim - len(lead))]
    if states:
        names[-1] = f"{node}_state"
    return (*lead, *names), value


def _free_energy(f: FreeEnergy, batch: tuple[int, ...], axes: tuple[str, ...]) -> dict[str, Any]:
    units = {"units": "nats", "kind": f.kind.value}
    names = [r for r in READINGS if f.entropies is not None or r not in ("entropy", "complexity")]
    if f.entropies is not None:
        names.remove("prior_energy")
    where, shape = ((), ()) if f.shared else (axes, batch)

    def spread(value: Any) -> np.ndarray:
        return np.broadcast_to(np.asarray(value), shape)

    found: dict[str, Any] = {
        "free_energy" if name == "total" else name: (where, spread(getattr(f, name)), units)
        for name in names
    }
    found["standard_error"] = (where, spread(f.standard_error), units)
    levels = by_level(f)
    stacked = np.stack([spread(v) for v in levels.values()], -1)
    found["free_energy_by_level"] = ((*where, "level"), stacked, units)
    found["level"] = ("level", list(levels))
    return found


def by_level(f: FreeEnergy) -> dict[str, np.ndarray]:
    """F by level such that the levels sum to the total: over all the data where latents are shared."""
    if not f.shared:
        return {n: np.asarray(v) for n, v in f.by_level.items()}
    weight = float(f.weight)
    return {n: np.asarray(v).sum() * (1.0 if n in f.shared else weight) for n, v in f.by_level.items()}


def _history(history: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    step = f"{prefix}step"
    units = {"units": "nats per observation"}
    found: dict[str, Any] = {step: (step, np.asarray(history["step"]), {"units": "epochs"})}
    for name in READINGS:
        if history.get(name) is not None:
            label = "free_energy" if name == "total" else name
            found[prefix + label] = (step, np.asarray(history[name]), units)
    levels = history.get("by_level") or {}
    if levels:
        stacked = np.stack([np.asarray(v) for v in levels.values()], -1)
        found[f"{prefix}free_energy_by_level"] = ((step, "level"), stacked, units)
        found["level"] = ("level", list(levels))
    return found
