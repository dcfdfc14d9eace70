"""A T-maze: two arms, one of them rewarded, and a cue that tells which."""

import numpy as np

from vfe.discrete.pomdp import POMDP
from vfe.discrete.worlds.checks import check_finite, check_probability


def tmaze(
    cue_validity: float = 0.95,
    reward: float = 2.0,
    loss: float = -3.0,
    reward_probability: float = 0.98,
) -> POMDP:
    """A T-maze with a cue. Whoever has entered an arm stays in it.

        left ─ centre ─ right
                 │
                cue

    Factors: `place` (centre, left, right, cue; controlled: go to one of them) and `better arm` (left,
    right; hidden, fixed, each as probable). Modalities: `where` (the place), `reward` (none, reward, loss;
    only in the arms) and `cue` (none, left, right; only at the cue).

    **Arguments:** `cue_validity`: the probability that the cue is right; `reward_probability`: that the
    better arm rewards, and that the other does not; `reward`, `loss`: log-preferences, nats.

    **Raises:** `ValueError` for what is no probability, or not finite.

    **Example:** `vfe.discrete.worlds.tmaze().labels.states`.

    **Source:** Friston, Rigoli, Ognibene, Mathys, FitzGerald and Pezzulo 2015, "Active inference and
    epistemic value".
    """
    check_probability("tmaze", cue_validity=cue_validity, reward_probability=reward_probability)
    check_finite("tmaze", reward=reward, loss=loss)
    places = ("centre", "left", "right", "cue")
    rewards, cues = np.zeros((3, 4, 2)), np.zeros((3, 4, 2))
    rewards[0, [0, 3]] = 1.0
    cues[0, :3] = 1.0
    for better in range(2):
        for arm in range(2):
            good = reward_probability if arm == better else 1 - reward_probability
            rewards[1:, 1 + arm, better] = good, 1 - good
        cues[1 + better, 3, better] = cue_validity
        cues[2 - better, 3, better] = 1 - cue_validity
    moves = np.zeros((4, 4, 4))
    for goal in range(4):
        for place in range(4):
            moves[place if place in (1, 2) else goal, place, goal] = 1.0
    return POMDP(
        [np.eye(4), rewards, cues],
        [moves, np.eye(2)[..., None]],
        [np.zeros(4), [0.0, reward, loss], np.zeros(3)],
        [[1.0, 0.0, 0.0, 0.0], [0.5, 0.5]],
        A_dependencies=[["place"], ["place", "better arm"], ["place", "better arm"]],
        factors={"place": places, "better arm": ("left", "right")},
        modalities={
            "where": places,
            "reward": ("none", "reward", "loss"),
            "cue": ("none", "left", "right"),
        },
        actions={"place": places},
    )
