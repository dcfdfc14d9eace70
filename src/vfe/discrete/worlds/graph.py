"""A graph of places, with something hidden in one of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vfe.arrays import real_numbers
from vfe.discrete.pomdp import POMDP
from vfe.discrete.worlds.checks import check_finite, check_probability, check_whole


def graph(
    adjacency: Any,
    *,
    names: Sequence[str] | None = None,
    start: int = 0,
    hidden: Any = None,
    sees: float = 1.0,
    finds: float = 1.0,
    reward: float = 2.0,
) -> POMDP:
    """Places that are joined by ways, and an object to be found in one of them.

    Factors: `place` (controlled: go to any place; one stays where no way leads there) and `object` (where
    it is: hidden, fixed). Modalities: `where` (the place) and `found` (no, yes).

    **Arguments:** `adjacency`: (places, places), whether a way leads from the row's place to the column's;
    `names`: of the places; `start`: the first place; `hidden`: probabilities of the object's place, equal
    for all but the start if not given; `sees`: the probability that the place is seen right, any other with
    equal probability; `finds`: that the object is found where it is; `reward`: log-preference for `yes`,
    nats.

    **Raises:** `ValueError` for an adjacency that is not square or holds other numbers than 0 and 1, and
    for a start that is no place.

    **Example:** `vfe.discrete.worlds.graph([[0, 1, 1], [1, 0, 0], [1, 0, 0]]).labels.states`.
    """
    ways = real_numbers("graph: adjacency", adjacency)
    if ways.ndim != 2 or ways.shape[0] != ways.shape[1] or len(ways) < 2:
        raise ValueError(
            f"graph: got an adjacency of shape {ways.shape}; wanted (places, places), 2 or more."
        )
    if not np.isin(ways, (0, 1)).all():
        bad = ways[~np.isin(ways, (0, 1))][0]
        raise ValueError(f"graph: got {bad} in adjacency; wanted 1 where a way leads, 0 where none does.")
    count = len(ways)
    check_whole("graph", 0, start=start)
    if start >= count:
        raise ValueError(f"graph: got start={start}; the places are 0 to {count - 1}.")
    check_probability("graph", sees=sees, finds=finds)
    check_finite("graph", reward=reward)
    moves = np.zeros((count, count, count))
    for place in range(count):
        for goal in range(count):
            moves[goal if ways[place, goal] else place, place, goal] = 1.0
    looks = np.full((count, count), (1 - sees) / (count - 1))
    np.fill_diagonal(looks, sees)
    found = np.stack([1 - finds * np.eye(count), finds * np.eye(count)])
    first = np.eye(count)[start]
    places = tuple(str(k) for k in range(count)) if names is None else tuple(names)
    return POMDP(
        [looks, found],
        [moves, np.eye(count)[..., None]],
        [np.zeros(count), [0.0, reward]],
        [first, (1 - first) / (count - 1) if hidden is None else hidden],
        A_dependencies=[["place"], ["place", "object"]],
        factors={"place": places, "object": places},
        modalities={"where": places, "found": ("no", "yes")},
        actions={"place": places},
    )
