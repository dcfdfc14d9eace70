"""What a user gives as the outcomes and actions of a course, checked."""

from typing import Any

import numpy as np

from vfe.arrays import real_numbers
from vfe.discrete.pomdp import POMDP

# A transition between joint states has the square of this many entries.
LARGEST = 4096


def read_course(model: POMDP, y: Any, actions: Any, verb: str) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes (time, modalities), −1 where missing, and actions (time − 1, factors), zero if not given.

    **Raises:** `ValueError` that begins with `verb`, for too many joint states, shapes that do not fit,
    and outcomes or actions out of range.

    **Example:** `read_course(model, [0, 1, 1], None, "filter")`.
    """
    if model.joint_size > LARGEST:
        raise ValueError(
            f"{verb}: got {model.joint_size} joint states; exact beliefs are kept for {LARGEST} at most."
        )
    counts, factors = model.outcomes, len(model.states)
    outcomes = _whole(y, f"{verb}: outcomes", len(counts), missing=True)
    if not len(outcomes):
        raise ValueError(f"{verb}: got no outcomes.")
    if actions is None:
        controls = np.zeros((len(outcomes) - 1, factors), int)
    else:
        controls = _whole(actions, f"{verb}: actions", factors, missing=False)
        if len(controls) != len(outcomes) - 1:
            raise ValueError(
                f"{verb}: got {len(controls)} actions for {len(outcomes)} times; wanted one between each "
                "two."
            )
    for name, found, limits in (("outcome", outcomes, counts), ("action", controls, model.controls)):
        bad = np.argwhere(found >= np.array(limits))
        if len(bad):
            t, k = (int(i) for i in bad[0])
            where = "modality" if name == "outcome" else "factor"
            raise ValueError(
                f"{verb}: got {name} {found[t, k]} at time {t}, {where} {k}, which has 0 to "
                f"{limits[k] - 1}."
            )
    return outcomes, controls


def _whole(value: Any, name: str, columns: int, *, missing: bool) -> np.ndarray:
    given = real_numbers(name, value)
    if given.ndim == 1 and columns == 1:
        given = given[:, None]
    if given.ndim != 2 or given.shape[1] != columns:
        raise ValueError(f"{name}: got shape {given.shape}; wanted (time, {columns}).")
    absent = np.isnan(given) & missing
    rest = np.where(absent, 0.0, given)
    bad = np.argwhere(~np.isfinite(rest) | (rest < 0) | (rest != np.round(rest)))
    if len(bad):
        where = tuple(int(i) for i in bad[0])
        help = ", NaN for missing" if missing else ""
        raise ValueError(f"{name}: got {given[where]} at {where}; wanted whole numbers from 0{help}.")
    return np.where(absent, -1, rest).astype(int)
