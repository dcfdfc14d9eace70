"""Reaching: an arm goes where its owner expects the hand to be.

Nothing in the world draws the hand to the target; the agent expects that something does. Expected:
prediction errors of what is felt move the joints until the hand is there. It would have been refuted by a
hand that stays away: as it does where errors do not reach action (log_reflex_precision=-20), under the
same expectation.
"""

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import vfe
from vfe.action import Acted, hand, reaching
from vfe.action.systems.reaching import START
from vfe.gallery.action.page import finish
from vfe.gallery.job import JobResult, Progress, Workspace
from vfe.results.claims import Claim
from vfe.results.style import style

PLACES = ((0.9, 1.2), (-0.6, 1.3), (0.3, 1.7))


@dataclasses.dataclass(frozen=True)
class Settings:
    """How long at each place."""

    seconds: float = dataclasses.field(
        default=4.0, metadata={"help": "how long each of three targets stays"}
    )
    log_reflex_precision: float = dataclasses.field(
        default=8.0, metadata={"help": "ln of the precision with which errors drive action"}
    )

    def __post_init__(self):
        if self.seconds < 2:
            raise ValueError(f"reaching: got seconds={self.seconds}; wanted 2 or more for each target.")


def run(
    settings: Settings,
    *,
    seed: int,
    data: dict[str, np.ndarray] | None,
    folder: Workspace,
    progress: Progress,
    resume: bool,
) -> JobResult:
    """Three places, one after the other.

    **Example:** `vfe run reaching`.
    """
    home = np.asarray(hand(jnp.asarray(START[:2])), float)
    times = 0.05 * np.arange(int((3 * settings.seconds + 1) / 0.05))
    target = np.tile(home, (len(times), 1))
    before = home
    for number, place in enumerate(PLACES):
        moved = 1 / (1 + np.exp(-(times - 1 - number * settings.seconds) / 0.15))
        target = target + moved[:, None] * (np.array(place) - before)
        before = np.array(place)
    key = jax.random.key(seed)
    progress.start("reaches", 2)
    system = reaching(reflex_precision=math.exp(settings.log_reflex_precision))
    cut = eqx.tree_at(lambda one: one.reflex_precision, system, 0 * system.reflex_precision)
    course, slack = (vfe.act(one, causes=target, key=key) for one in (system, cut))
    progress.step(2, F=float(course.percept.free_energy.total))
    progress.done()
    path, idle = (
        np.asarray(jax.vmap(hand)(jnp.asarray(one.world.states[:, :2]))) for one in (course, slack)
    )
    apart, away = (np.linalg.norm(one - target, axis=1) for one in (path, idle))
    # A second before the next target begins to appear.
    ends = [int((k + 1) * settings.seconds / 0.05) for k in range(3)]
    misses, missed = ([float(one[min(end, len(one) - 1)]) for end in ends] for one in (apart, away))
    headline = [(f"miss at place {k + 1}", f"{miss:.3f} arm links") for k, miss in enumerate(misses)]
    return finish(
        "An arm that goes where it is expected",
        "The agent sees a target and its own hand, and feels its joints. It expects its hand to be drawn "
        "to the target; in the world nothing draws it. Errors of what is felt move the joints until the "
        "expectation is true, without any inverse model of the arm: the hand ends "
        f"{max(misses):.3f} link lengths from its target or nearer. With the reflex cut the same "
        f"expectation "
        f"moves nothing: the hand stays {min(missed):.2f} links away or farther.",
        headline,
        {"reaching": course, "reflex cut": slack},
        {"reaching": draw(course, target, path, apart)},
        {
            "reaching": (
                "Three reaches",
                "Left: the hand's path, the arm where the hand is nearest to each target, and the "
                "targets. Right: how far the hand is from the target, and action at the two joints.",
                "The hand moves to three targets in turn along slightly curved paths.",
            )
        },
        {"target": target, "path": path},
        claims=claims(
            misses,
            missed,
            float(slack.percept.free_energy.total - course.percept.free_energy.total) / len(times),
        ),
    )


def claims(misses: list[float], cut: list[float], more: float) -> list[Claim]:
    """What would have refuted it: a hand that stays away from where it is expected.

    **Arguments:** distances at the end of each reach, links, with the reflex and without; `more`: by how
    much F without it is higher, nats per sample.

    **Example:** `vfe run reaching` prints them.
    """
    return [
        # A tenth of a link, of an arm of two.
        Claim("the hand ends at each target: largest miss", max(misses), high=0.1, unit="links"),
        Claim("with the reflex cut: least miss", min(cut), 0.3, unit="links"),
        Claim("F with the reflex cut is higher by", more, 0.0, unit="nats per sample"),
    ]


def draw(course: Acted, target: np.ndarray, path: np.ndarray, apart: np.ndarray) -> Any:
    """The path in space, the distance and the action in time."""
    import matplotlib.pyplot as plt

    with style():
        figure, axes = plt.subplot_mosaic(
            [["space", "distance"], ["space", "action"]], figsize=(11, 5.5), layout="constrained"
        )
        space = axes["space"]
        space.plot(path[:, 0], path[:, 1], label="hand")
        for number, place in enumerate(PLACES):
            space.plot(*place, "k*", markersize=12, label="targets" if number == 0 else None)
            nearest = int(np.argmin(np.linalg.norm(path - place, axis=1)))
            angles = course.world.states[nearest, :2]
            elbow = np.array([np.cos(angles[0]), np.sin(angles[0])])
            arm = np.stack([np.zeros(2), elbow, path[nearest]])
            space.plot(arm[:, 0], arm[:, 1], "o-", color="#999999", linewidth=3, alpha=0.6)
        space.set_aspect("equal")
        space.set(xlabel="right (links)", ylabel="up (links)")
        space.legend(loc="lower left")
        axes["distance"].plot(course.time, apart)
        axes["distance"].set(ylabel="distance (links)")
        axes["action"].plot(course.time, course.action[:, 0], label="shoulder")
        axes["action"].plot(course.time, course.action[:, 1], label="elbow")
        axes["action"].set(ylabel="action (rad/s²)", xlabel="time (s)")
        axes["action"].legend(loc="upper right")
    return figure
