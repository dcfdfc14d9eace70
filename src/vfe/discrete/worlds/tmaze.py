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
    moves = np.zeros((4, 4, 4))
    for goal in range(4):
        for place in range(4):
            moves[place if place in (1, 2) else goal, place, goal] = 1.0
    return maze_of(places, moves, cue_validity, reward, loss, reward_probability)


def maze_of(
    places: tuple[str, ...],
    moves: np.ndarray,
    cue_validity: float,
    reward: float,
    loss: float,
    reward_probability: float,
) -> POMDP:
    """A maze of places, among them "left" and "right", which may reward, and "cue", which tells of them.

    **Example:** `maze_of(("left", "right", "cue"), np.ones((3, 3, 1)) / 3, 0.9, 1.0, -1.0, 1.0)`.
    """
    count, cue = len(places), places.index("cue")
    arms = [places.index("left"), places.index("right")]
    rewards, cues = np.zeros((3, count, 2)), np.zeros((3, count, 2))
    rewards[0] = cues[0] = 1.0
    rewards[0, arms] = cues[0, cue] = 0.0
    for better in range(2):
        for arm in range(2):
            good = reward_probability if arm == better else 1 - reward_probability
            rewards[1:, arms[arm], better] = good, 1 - good
        cues[1 + better, cue, better] = cue_validity
        cues[2 - better, cue, better] = 1 - cue_validity
    return POMDP(
        [np.eye(count), rewards, cues],
        [moves, np.eye(2)[..., None]],
        [np.zeros(count), [0.0, reward, loss], np.zeros(3)],
        [np.eye(count)[places.index("centre") if "centre" in places else 0], [0.5, 0.5]],
        A_dependencies=[["place"], ["place", "better arm"], ["place", "better arm"]],
        factors={"place": places, "better arm": ("left", "right")},
        modalities={
            "where": places,
            "reward": ("none", "reward", "loss"),
            "cue": ("none", "left", "right"),
        },
        actions={"place": places} if moves.shape[-1] == count else None,
    )
