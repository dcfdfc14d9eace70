"""Cue chaining: a first cue tells how to read the second, which tells the rewarded arm."""

import numpy as np

from vfe.discrete.pomdp import POMDP
from vfe.discrete.worlds.checks import check_finite, check_probability


def cue_chaining(cue_validity: float = 0.9, reward: float = 2.0, loss: float = -4.0) -> POMDP:
    """Two cues in a chain: neither alone tells anything about the arms, both together tell which is better.

    Factors: `place` (start, first cue, second cue, left, right; controlled: go to any of them from any),
    `code` (as shown, reversed; hidden) and `better arm` (left, right; hidden). Modalities: `where` (the
    place), `first cue` (none, as shown, reversed: the code, at the first cue), `second cue` (none, left,
    right: the better arm, or the other if the code is reversed) and `reward` (none, reward, loss; in the
    arms).

    **Arguments:** `cue_validity`: the probability that the second cue is right; `reward`, `loss`:
    log-preferences, nats.

    **Raises:** `ValueError` for what is no probability, or not finite.

    **Example:** `vfe.discrete.worlds.cue_chaining(cue_validity=1.0).labels.modalities`.

    **Source:** Heins, Millidge, Demekas, Klein, Friston, Couzin and Tschantz 2022, "pymdp: a Python library
    for active inference in discrete state spaces", where cues in a chain are found on a grid.
    """
    check_probability("cue_chaining", cue_validity=cue_validity)
    check_finite("cue_chaining", reward=reward, loss=loss)
    places = ("start", "first cue", "second cue", "left", "right")
    first, rewards = np.zeros((3, 5, 2)), np.zeros((3, 5, 2))
    second = np.zeros((3, 5, 2, 2))
    first[0], second[0], rewards[0] = 1.0, 1.0, 1.0
    first[0, 1], second[0, 2], rewards[0, 3:] = 0.0, 0.0, 0.0
    for hidden in range(2):
        first[1 + hidden, 1, hidden] = 1.0
        for arm in range(2):
            rewards[1 if arm == hidden else 2, 3 + arm, hidden] = 1.0
        for code in range(2):
            told = hidden ^ code
            second[1 + told, 2, code, hidden] = cue_validity
            second[2 - told, 2, code, hidden] = 1 - cue_validity
    moves = np.broadcast_to(np.eye(5)[:, None, :], (5, 5, 5))
    same = np.eye(2)[..., None]
    return POMDP(
        [np.eye(5), first, second, rewards],
        [moves, same, same],
        [np.zeros(5), np.zeros(3), np.zeros(3), [0.0, reward, loss]],
        [np.eye(5)[0], [0.5, 0.5], [0.5, 0.5]],
        A_dependencies=[
            ["place"],
            ["place", "code"],
            ["place", "code", "better arm"],
            ["place", "better arm"],
        ],
        factors={"place": places, "code": ("as shown", "reversed"), "better arm": ("left", "right")},
        modalities={
            "where": places,
            "first cue": ("none", "as shown", "reversed"),
            "second cue": ("none", "left", "right"),
            "reward": ("none", "reward", "loss"),
        },
        actions={"place": places},
    )
