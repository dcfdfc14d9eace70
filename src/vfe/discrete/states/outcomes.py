"""What may be given as outcomes: whole numbers, soft ones, several at a time; one series or many."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import numpy as np

from vfe.arrays import real_numbers
from vfe.discrete.pomdp import POMDP


class Soft(eqx.Module):
    """Outcomes of one modality that were not seen clearly: p(seen | s_t) = Σ_o w[t, o] A[o | s_t].

    **Arguments:** `weights`: (*batch, time, outcomes), zero or more: how likely what was seen is under
    every outcome. (1, 0, 0) is the first outcome, all ones say nothing; a row of NaN is missing. Rows need
    not sum to one: their scale is part of p(o), and so of F.

    **Raises:** in the verb that is given it, `ValueError` for weights that are negative, or all zero.

    **Example:** `vfe.smooth(model, {"o0": vfe.discrete.Soft([[0.7, 0.3], [1.0, 0.0]])})`.

    **Source:** Pearl 1988, "Probabilistic Reasoning in Intelligent Systems", section 2.2.
    """

    weights: Any


class Several(eqx.Module):
    """Several readings of one modality at the same times, independent given the state.

    p(seen | s_t) = Π_k p(reading k | s_t).

    **Arguments:** any number of readings, each whole numbers (*batch, time), NaN where there is none, or a
    `vfe.discrete.Soft`.

    **Example:** `vfe.smooth(model, {"o0": vfe.discrete.Several([0, 1, 1], [0, np.nan, 1])})`.
    """

    readings: tuple[Any, ...]

    def __init__(self, *readings: Any):
        if not readings:
            raise ValueError("Several: got no readings; wanted one or more.")
        self.readings = readings


def read_outcomes(model: POMDP, y: Any, mask: Any, verb: str) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Weights (*batch, time, readings, outcomes) of every modality, and what is present (*batch, time).

    A missing reading has only ones.

    **Raises:** `ValueError` that begins with `verb`, for anything else than outcomes of the model.

    **Example:** `read_outcomes(model, [0, 1, 1], None, "filter")`.
    """
    names, sizes = model.labels.modalities, model.outcomes
    if isinstance(y, Soft | Several) and len(names) == 1:
        y = {names[0]: y}
    if isinstance(y, Soft | Several):
        raise ValueError(
            f"{verb}: got one {type(y).__name__} for {len(names)} modalities; wanted a dictionary, such as "
            f"{{{names[0]!r}: vfe.discrete.{type(y).__name__}(...)}}."
        )
    if isinstance(y, Mapping):
        unknown = [name for name in y if name not in names]
        if unknown or not y:
            raise ValueError(f"{verb}: got outcomes of {unknown}; the modalities are {list(names)}.")
        given = dict(y)
    else:
        whole = _series(y, len(names), verb)
        given = {name: whole[..., m] for m, name in enumerate(names)}
    leads = {name: _lead(value, f"{verb}: outcomes of {name!r}") for name, value in given.items()}
    lead = next(iter(leads.values()))
    if any(other != lead for other in leads.values()):
        raise ValueError(f"{verb}: got outcomes of (*batch, time) {leads}; wanted the same for all.")
    if not lead[-1] or not lead[0]:
        raise ValueError(f"{verb}: got no outcomes.")
    present = _present(mask, lead, verb)
    weights = []
    for m, (name, size) in enumerate(zip(names, sizes, strict=True)):
        if name not in given:
            weights.append(np.ones((*lead, 1, size)))
            continue
        value = given[name]
        readings = value.readings if isinstance(value, Several) else (value,)
        weights.append(np.stack([_weights(one, size, present, verb, m) for one in readings], -2))
    return tuple(weights), present


def _series(y: Any, columns: int, verb: str) -> np.ndarray:
    if isinstance(y, list | tuple):
        lengths = {len(one) for one in y if hasattr(one, "__len__") and not isinstance(one, str)}
        if len(lengths) > 1:
            raise ValueError(
                f"{verb}: got sequences of {sorted(lengths)} times; pad them with NaN to the longest, and "
                "give mask= (batch, time), true where a sequence goes on."
            )
    given = real_numbers(f"{verb}: outcomes", y)
    if given.ndim == 1 and (columns == 1 or not given.size):
        given = given.reshape(len(given), columns)
    if given.ndim not in (2, 3) or given.shape[-1] != columns:
        raise ValueError(
            f"{verb}: outcomes: got shape {given.shape}; wanted (time, {columns}), or (batch, time, "
            f"{columns}) for many sequences."
        )
    return given


def _lead(value: Any, name: str) -> tuple[int, ...]:
    """(*batch, time) of what was given for one modality."""
    if isinstance(value, Several):
        found = {_lead(one, name) for one in value.readings}
        if len(found) > 1:
            raise ValueError(f"{name}: got readings of (*batch, time) {sorted(found)}; wanted the same.")
        return found.pop()
    soft = isinstance(value, Soft)
    shape = real_numbers(name, value.weights if soft else value).shape
    wanted = "(*batch, time, outcomes)" if soft else "(*batch, time)"
    if len(shape) - soft not in (1, 2):
        raise ValueError(f"{name}: got shape {shape}; wanted {wanted}, with one axis of batch at most.")
    return shape[: len(shape) - soft]


def _present(mask: Any, lead: tuple[int, ...], verb: str) -> np.ndarray:
    if mask is None:
        return np.ones(lead, bool)
    given = real_numbers(f"{verb}: mask", mask)
    good = given.shape == lead and np.isin(given, (0, 1)).all()
    if not good or (np.diff(given, axis=-1) > 0).any() or not given[..., 0].all():
        raise ValueError(
            f"{verb}: got a mask of shape {given.shape} for outcomes of (*batch, time) {lead}; wanted the "
            "same shape, true from the first time of every sequence to its last."
        )
    return given.astype(bool)


def _weights(value: Any, size: int, present: np.ndarray, verb: str, m: int) -> np.ndarray:
    if isinstance(value, Soft):
        return _soft(value, size, present, verb, m)
    given = np.where(present, real_numbers(verb, value), np.nan)
    absent = np.isnan(given)
    rest = np.where(absent, 0.0, given)
    bad = np.argwhere(~np.isfinite(rest) | (rest < 0) | (rest != np.round(rest)))
    if len(bad):
        raise ValueError(
            f"{verb}: outcomes: got {given[tuple(bad[0])]} at {_where(bad[0])}, modality {m}; wanted whole "
            "numbers from 0, NaN for missing."
        )
    bad = np.argwhere(rest >= size)
    if len(bad):
        raise ValueError(
            f"{verb}: got outcome {int(rest[tuple(bad[0])])} at {_where(bad[0])}, modality {m}, which has "
            f"0 to {size - 1}."
        )
    return np.where(absent[..., None], 1.0, np.eye(size)[rest.astype(int)])


def _soft(value: Soft, size: int, present: np.ndarray, verb: str, m: int) -> np.ndarray:
    given = real_numbers(f"{verb}: Soft, modality {m}", value.weights)
    if given.shape[-1] != size:
        raise ValueError(
            f"{verb}: Soft: got {given.shape[-1]} weights at a time for modality {m}, which has {size} "
            "outcomes; wanted one for each."
        )
    absent = np.isnan(given).all(-1) | ~present
    rest = np.where(absent[..., None], 1.0, given)
    bad = np.argwhere(~(np.isfinite(rest) & (rest >= 0)).all(-1) | ~rest.any(-1))
    if len(bad):
        raise ValueError(
            f"{verb}: Soft: got weights {given[tuple(bad[0])]} at {_where(bad[0])}, modality {m}; wanted "
            "zero or more and not all zero, or all NaN for missing."
        )
    return rest


def _where(index: np.ndarray) -> str:
    sequence = f" of sequence {int(index[0])}" if len(index) > 1 else ""
    return f"time {int(index[-1])}{sequence}"
