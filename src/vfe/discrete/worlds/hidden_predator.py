"""Foraging for food, with a predator about that is seen only now and then."""

import numpy as np

from vfe.discrete.pomdp import POMDP
from vfe.discrete.worlds.checks import check_finite, check_probability, check_whole


def hidden_predator(
    patches: int = 5,
    *,
    sight: int = 1,
    seen: float = 0.5,
    wanders: float = 0.4,
    food: float = 2.0,
    caught: float = -6.0,
) -> POMDP:
    """Patches in a ring, food in one of them, and a predator that moves by itself.

    Factors: `place` (controlled: back, stay or on, along the ring; patch 1 at first), `predator` (where it
    is; stays or moves one patch either way) and `food` (where it is; eaten by whoever is there, after which
    it grows in another patch). Modalities: `where` (the place), `ate` (no, yes), `predator seen` (no, or in
    which patch) and `safety` (safe, caught: in the same patch).

    **Arguments:** `patches`: three or more; `sight`: how many patches away the predator can be seen, at
    most; `seen`: the probability that it is seen within that distance; `wanders`: that it moves in a step;
    `food`, `caught`: log-preferences for eating and for being caught, nats.

    **Raises:** `ValueError` for fewer than three patches, and what is no probability or not finite.

    **Example:** `vfe.discrete.worlds.hidden_predator(seen=1.0).joint_size`.
    """
    check_whole("hidden_predator", 3, patches=patches)
    check_whole("hidden_predator", 0, sight=sight)
    check_probability("hidden_predator", seen=seen, wanders=wanders)
    check_finite("hidden_predator", food=food, caught=caught)
    n, one = patches, np.eye(patches)
    back, on = np.roll(one, -1, 0), np.roll(one, 1, 0)
    moves = np.stack([back, one, on], -1)
    roams = (1 - wanders) * one + wanders / 2 * (back + on)
    # Food by (next, food, place): it stays, unless it was where the forager is.
    grows = np.repeat(one[:, :, None], n, 2)
    for k in range(n):
        grows[:, k, k] = (1 - one[k]) / (n - 1)
    apart = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    near = np.minimum(apart, n - apart) <= sight
    sights = np.zeros((n + 1, n, n))
    for k in range(n):
        sights[1 + k, :, k] = seen * near[:, k]
    sights[0] = 1 - sights[1:].sum(0)
    both = np.stack([1 - one, one])
    names = tuple(f"patch {k + 1}" for k in range(n))
    elsewhere = (1 - one[0]) / (n - 1)
    return POMDP(
        [one, both, sights, both],
        [moves, roams[..., None], grows[..., None]],
        [np.zeros(n), [0.0, food], np.zeros(n + 1), [0.0, caught]],
        [one[0], elsewhere, elsewhere],
        A_dependencies=[["place"], ["place", "food"], ["place", "predator"], ["place", "predator"]],
        B_dependencies=[["place"], ["predator"], ["food", "place"]],
        factors={"place": names, "predator": names, "food": names},
        modalities={
            "where": names,
            "ate": ("no", "yes"),
            "predator seen": ("no", *names),
            "safety": ("safe", "caught"),
        },
        actions={"place": ("back", "stay", "on")},
    )
