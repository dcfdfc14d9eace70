"""Tiger: listen as long as it pays, then open a door."""

import numpy as np

from vfe.discrete.pomdp import POMDP
from vfe.discrete.worlds.checks import check_finite, check_probability


def tiger(
    accuracy: float = 0.85, *, listening: float = -0.1, treasure: float = 1.0, eaten: float = -10.0
) -> POMDP:
    """A tiger waits behind one of two doors, a treasure behind the other; listening tells which, mostly.

    After a door was opened the tiger is behind either door again with equal probability.

    Factors: `tiger` (left, right; hidden) and `doing` (waiting at first, listening, opening the left or the
    right door; controlled). Modalities: `heard` (nothing, left, right; only when listening) and `found`
    (nothing, treasure, tiger; only behind a door).

    **Arguments:** `accuracy`: the probability that what is heard is right; `listening`, `treasure`,
    `eaten`: log-preferences for hearing anything and for what is found, nats: the rewards of the source
    divided by ten.

    **Raises:** `ValueError` for what is no probability, or not finite.

    **Example:** `vfe.discrete.worlds.tiger(accuracy=0.9).labels.actions`.

    **Source:** Kaelbling, Littman and Cassandra 1998, "Planning and acting in partially observable
    stochastic domains".
    """
    check_probability("tiger", accuracy=accuracy)
    check_finite("tiger", listening=listening, treasure=treasure, eaten=eaten)
    heard, found = np.zeros((3, 2, 4)), np.zeros((3, 2, 4))
    heard[0, :, [0, 2, 3]] = 1.0
    found[0, :, :2] = 1.0
    where = np.zeros((2, 2, 4, 1))
    for side in range(2):
        heard[1 + side, side, 1] = accuracy
        heard[2 - side, side, 1] = 1 - accuracy
        for door in range(2):
            found[2 if door == side else 1, side, 2 + door] = 1.0
        where[side, side, :2] = 1.0
    where[:, :, 2:] = 0.5
    does = np.broadcast_to(np.eye(4)[:, None, 1:], (4, 4, 3))
    doing = ("waiting", "listening", "opening left", "opening right")
    return POMDP(
        [heard, found],
        [where, does],
        [[0.0, listening, listening], [0.0, treasure, eaten]],
        [[0.5, 0.5], np.eye(4)[0]],
        A_dependencies=[["tiger", "doing"], ["tiger", "doing"]],
        B_dependencies=[["tiger", "doing"], ["doing"]],
        factors={"tiger": ("left", "right"), "doing": doing},
        modalities={"heard": ("nothing", "left", "right"), "found": ("nothing", "treasure", "tiger")},
        actions={"doing": ("listen", "open left", "open right")},
    )
