"""A T-maze with corridors: the arms are some steps away from the cue."""

import numpy as np

from vfe.discrete.pomdp import POMDP
from vfe.discrete.worlds.checks import check_finite, check_probability
from vfe.discrete.worlds.tmaze import maze_of


def corridor_tmaze(
    cue_validity: float = 0.95,
    reward: float = 2.0,
    loss: float = -3.0,
    reward_probability: float = 1.0,
) -> POMDP:
    """A T-maze whose places are passed one after the other; arms can be left again.

        left ─ junction ─ right
                  │
               centre
                  │
                 cue

    Factors: `place` (centre, left, right, cue, junction; controlled: go to a neighbouring place, stay where
    it is none) and `better arm` (left, right; hidden, fixed, each as probable). Modalities as in `tmaze`.
    From the cue an arm is three steps away: plans of two steps do not see it.

    **Arguments, raises:** as `tmaze`.

    **Example:** `vfe.discrete.worlds.corridor_tmaze().labels.states`.

    **Source:** Friston, Rigoli, Ognibene, Mathys, FitzGerald and Pezzulo 2015, "Active inference and
    epistemic value", with corridors.
    """
    check_probability("corridor_tmaze", cue_validity=cue_validity, reward_probability=reward_probability)
    check_finite("corridor_tmaze", reward=reward, loss=loss)
    places = ("centre", "left", "right", "cue", "junction")
    ways = {("centre", "cue"), ("centre", "junction"), ("junction", "left"), ("junction", "right")}
    moves = np.zeros((5, 5, 5))
    for a, here in enumerate(places):
        for b, there in enumerate(places):
            joined = (here, there) in ways or (there, here) in ways
            moves[b if joined else a, a, b] = 1.0
    return maze_of(places, moves, cue_validity, reward, loss, reward_probability)
