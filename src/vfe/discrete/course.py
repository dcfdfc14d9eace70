"""What a user gives as the outcomes and actions of a course, checked."""

from typing import Any

import equinox as eqx
import numpy as np

from vfe.arrays import real_numbers
from vfe.discrete.pomdp import POMDP
from vfe.discrete.states.outcomes import read_outcomes

# Exact beliefs keep about eight numbers for every time and joint state: at most so many states, and so many
# entries (of 8 bytes; then they take some 4 GB).
LARGEST = 65536
ENTRIES = 2**26


class Course(eqx.Module):
    """What was seen and done, in the form that everything is computed from.

    `weights`: for every modality (*batch, time, readings, outcomes): how likely what was seen is under
    every outcome; only ones where missing. `controls` (*batch, time − 1, factors); `present`
    (*batch, time): false where a sequence is over.
    """

    weights: tuple[Any, ...]
    controls: Any
    present: Any

    @property
    def many(self) -> bool:
        """Whether there is an axis of batch."""
        return self.present.ndim > 1


def read(model: POMDP, y: Any, actions: Any, mask: Any, verb: str) -> Course:
    """Outcomes of any form and actions, checked; what is given for one sequence holds for all.

    **Raises:** `ValueError` that begins with `verb`.

    **Example:** `read(model, [0, 1, 1], None, None, "filter")`.
    """
    weights, present = read_outcomes(model, y, mask, verb)
    factors, time = len(model.states), present.shape[-1]
    if actions is None:
        return Course(weights, np.zeros((*present.shape[:-1], time - 1, factors), int), present)
    given = real_numbers(f"{verb}: actions", actions)
    if given.ndim == 1 and (factors == 1 or not given.size):
        given = given.reshape(-1, factors)
    if given.ndim not in (2, 3) or given.shape[-1] != factors:
        raise ValueError(
            f"{verb}: actions: got shape {given.shape}; wanted (time − 1, {factors}), or (batch, time − 1, "
            f"{factors}) for many sequences."
        )
    if given.shape[-2] != time - 1:
        raise ValueError(
            f"{verb}: got {given.shape[-2]} actions for {time} times; wanted one between each two."
        )
    batches = {len(one) for one in (given,) if one.ndim == 3} | {*present.shape[:-1]}
    if len(batches) > 1:
        raise ValueError(
            f"{verb}: got actions of {len(given)} sequences for outcomes of {len(present)}; wanted as many."
        )
    lead = tuple(batches)
    present = np.broadcast_to(present, (*lead, time))
    weights = tuple(np.broadcast_to(w, (*lead, *w.shape[-3:])) for w in weights)
    given = np.where(present[..., 1:, None], given, 0.0)
    bad = np.argwhere(~np.isfinite(given) | (given < 0) | (given != np.round(given)))
    if len(bad):
        at = tuple(int(i) for i in bad[0])
        raise ValueError(f"{verb}: actions: got {given[at]} at {at}; wanted whole numbers from 0.")
    bad = np.argwhere(given >= np.array(model.controls))
    if len(bad):
        *sequence, t, f = (int(i) for i in bad[0])
        which = f" of sequence {sequence[0]}" if sequence else ""
        raise ValueError(
            f"{verb}: got action {int(given[tuple(bad[0])])} at time {t}{which}, factor {f}, which has 0 "
            f"to {model.controls[f] - 1}."
        )
    return Course(weights, given.astype(int), present)


def affordable(model: POMDP, course: Course) -> bool:
    """Whether exact beliefs fit into memory."""
    return model.joint_size <= LARGEST and course.present.size * model.joint_size <= ENTRIES


def check_size(model: POMDP, course: Course, verb: str) -> None:
    """**Raises:** `ValueError` for more joint states and times than exact beliefs are kept for."""
    if not affordable(model, course):
        raise ValueError(
            f"{verb}: got {model.joint_size} joint states at {course.present.size} times; exact beliefs "
            f"are kept for {LARGEST} states and {ENTRIES} entries at most. For more give "
            "belief=vfe.discrete.MeanField() or vfe.discrete.Structured()."
        )
