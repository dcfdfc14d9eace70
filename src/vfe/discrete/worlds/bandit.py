"""A bandit: arms that pay with different probabilities, which may change places."""

from typing import Any

import numpy as np

from vfe.arrays import real_numbers
from vfe.discrete.pomdp import POMDP
from vfe.discrete.worlds.checks import check_finite, check_probability


def bandit(
    probabilities: Any = (0.8, 0.2), *, hazard: float = 0.0, reward: float = 2.0, loss: float = -2.0
) -> POMDP:
    """Arms to pull, of which it is not known which pays best; with a hazard that this changes.

    Factors: `context` (hidden: which probabilities hold; after every pull another with the probability
    `hazard`) and `arm` (none at first, then the one pulled; controlled). Modalities: `reward` (nothing
    before the first pull, then loss or win) and `pulled` (the arm).

    **Arguments:** `probabilities`: that each arm pays, (arms,): a context for every turn of them by one
    arm, so that 0.8 and 0.2 may be reversed; or (contexts, arms); `hazard`; `reward`, `loss`:
    log-preferences for win and loss, nats.

    **Raises:** `ValueError` for fewer than two arms, and what is no probability or not finite.

    **Example:** `vfe.discrete.worlds.bandit((0.75, 0.25), hazard=0.05).labels.states`.

    **Source:** Marković, Stojić, Schwöbel and Kiebel 2021, "An empirical evaluation of active inference in
    multi-armed bandits".
    """
    table = real_numbers("bandit: probabilities", probabilities)
    if table.ndim == 1:
        table = np.stack([np.roll(table, k) for k in range(len(table))])
    if table.ndim != 2 or table.shape[1] < 2:
        raise ValueError(
            f"bandit: got probabilities of shape {np.shape(probabilities)}; wanted (arms,) or (contexts, "
            "arms), two arms or more."
        )
    for value in table.ravel():
        check_probability("bandit", probabilities=float(value))
    check_probability("bandit", hazard=hazard)
    check_finite("bandit", reward=reward, loss=loss)
    contexts, arms = table.shape
    pays = np.zeros((3, contexts, arms + 1))
    pays[0, :, 0] = 1.0
    pays[1, :, 1:], pays[2, :, 1:] = 1 - table, table
    change = np.ones((1, 1))
    if contexts > 1:
        change = np.full((contexts, contexts), hazard / (contexts - 1))
        np.fill_diagonal(change, 1 - hazard)
    pulls = np.broadcast_to(np.eye(arms + 1)[:, None, 1:], (arms + 1, arms + 1, arms))
    names = tuple(f"arm {k + 1}" for k in range(arms))
    return POMDP(
        [pays, np.eye(arms + 1)],
        [change[..., None], pulls],
        [[0.0, loss, reward], np.zeros(arms + 1)],
        [np.full(contexts, 1 / contexts), np.eye(arms + 1)[0]],
        A_dependencies=[["context", "arm"], ["arm"]],
        factors={"context": tuple(f"context {k + 1}" for k in range(contexts)), "arm": ("none", *names)},
        modalities={"reward": ("nothing", "loss", "win"), "pulled": ("none", *names)},
        actions={"arm": names},
    )
