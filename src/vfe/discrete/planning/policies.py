"""Courses of action, and the prefixes that they share."""

import itertools
import math
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Int

from vfe.arrays import real_numbers
from vfe.discrete.pomdp import POMDP

# What is kept of each is a few numbers for every step.
MOST_POLICIES = 500_000


class Level(eqx.Module):
    """The prefixes of one length, grouped by the last of their actions.

    `actions` (a, factors): the actions that occur at this step; `parents` (a, n): the prefixes they follow,
    by number in the level before, filled up with the first; `place` (prefixes,): where in that table each
    prefix stands; `of_policy` (policies,): the prefix of every policy. `parents` and `place` are None where
    every action follows every prefix, in order: nothing needs to be looked up then.
    """

    actions: Int[np.ndarray, "a factors"]
    parents: Int[np.ndarray, "a n"] | None
    place: Int[np.ndarray, " prefixes"] | None
    of_policy: Int[np.ndarray, " policies"]


class Policies(eqx.Module):
    """Courses of action to choose from: `sequences` (policies, steps, factors).

    **Arguments:** `sequences`: a control for every policy, step and factor; (policies, steps) for one
    factor. Without it, see `every_policy`.

    **Raises:** `ValueError` for numbers that are no controls, policies that occur twice, or too many.

    **Example:** `vfe.discrete.Policies(model, [[[0], [1]], [[1], [1]]]).sequences.shape`.
    """

    sequences: Int[np.ndarray, "policies steps factors"]
    levels: tuple[Level, ...]

    def __init__(self, model: POMDP, sequences: Any):
        given = real_numbers("Policies: sequences", sequences)
        controls = np.array(model.controls)
        if given.ndim == 2 and len(controls) == 1:
            given = given[..., None]
        if given.ndim != 3 or not given.size or given.shape[2] != len(controls):
            raise ValueError(
                f"Policies: got sequences of shape {given.shape}; wanted (policies, steps, "
                f"{len(controls)})."
            )
        bad = np.argwhere(~np.isfinite(given) | (given < 0) | (given >= controls) | (given % 1 != 0))
        if len(bad):
            p, h, f = (int(i) for i in bad[0])
            raise ValueError(
                f"Policies: got control {given[p, h, f]:g} in policy {p}, step {h}, factor {f}, which has "
                f"0 to {controls[f] - 1}."
            )
        check_size(len(given), "write fewer")
        self.sequences = given.astype(int)
        if len(np.unique(self.sequences, axis=0)) != len(given):
            raise ValueError("Policies: some policy occurs twice; habits (E) say what is more probable.")
        self.levels = _levels(self.sequences)

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def horizon(self) -> int:
        """How many steps a policy has."""
        return self.sequences.shape[1]

    @property
    def first(self) -> Int[np.ndarray, "policies factors"]:
        """The first action of every policy."""
        return self.sequences[:, 0]


def every_policy(model: POMDP, horizon: int) -> Policies:
    """All courses of action of some length: Π_f controls_f actions at every step.

    **Raises:** `ValueError` for a horizon below one, and for more policies than can be kept.

    **Example:** `len(every_policy(model, 2))`.
    """
    check_horizon("every_policy", horizon)
    actions = joint_actions(model)
    check_size(
        len(actions) ** horizon,
        "a shorter horizon, a list of policies (vfe.discrete.Policies), or a tree search "
        "(vfe.discrete.Search)",
    )
    return Policies(model, np.array(list(itertools.product(actions, repeat=horizon))))


def joint_actions(model: POMDP) -> np.ndarray:
    """Every combination of controls (actions, factors). **Example:** `joint_actions(model)`."""
    check_size(math.prod(model.controls), "fewer controls")
    return np.array(list(itertools.product(*(range(n) for n in model.controls))))


def check_size(size: int, help: str) -> None:
    """**Raises:** `ValueError` for more policies than can be kept.

    **Example:** `check_size(9, "fewer")`.
    """
    if size > MOST_POLICIES:
        raise ValueError(
            f"Policies: got {size} policies; at most {MOST_POLICIES} are compared. Use {help}."
        )


def check_horizon(name: str, horizon: Any) -> None:
    """**Raises:** `ValueError` for what is no number of steps. **Example:** `check_horizon("Agent", 2)`."""
    if isinstance(horizon, bool) or not isinstance(horizon, int | np.integer) or horizon < 1:
        raise ValueError(f"{name}: got horizon {horizon!r}; wanted a whole number of steps, one or more.")


def _levels(sequences: np.ndarray) -> tuple[Level, ...]:
    levels: list[Level] = []
    before = np.zeros(len(sequences), int)
    for step in range(sequences.shape[1]):
        actions, which = np.unique(sequences[:, step], axis=0, return_inverse=True)
        prefixes, of_policy = np.unique(np.stack([which.ravel(), before], -1), axis=0, return_inverse=True)
        count, before = before.max() + 1, of_policy.ravel()
        levels.append(_level(actions, prefixes, before, count))
    return tuple(levels)


def _level(actions: np.ndarray, rows: np.ndarray, of_policy: np.ndarray, before: int) -> Level:
    counts = np.bincount(rows[:, 0], minlength=len(actions))
    width = counts.max()
    # Prefixes are sorted by action, so that each action's are consecutive.
    column = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    parents = np.zeros((len(actions), width), int)
    parents[rows[:, 0], column] = rows[:, 1]
    complete = bool((counts == before).all() and (parents == np.arange(before)).all())
    if complete:
        return Level(actions, None, None, of_policy)
    return Level(actions, parents, rows[:, 0] * width + column, of_policy)
