"""Reaching: an arm goes where its owner expects the hand to be.

Nothing in the world draws the hand to the target; the agent expects that something does. Action descends F
through what is felt of the joints,

ȧ = −(∂ỹ/∂a)ᵀ Γ̃ ε̃_y − P_a a.

Expected: prediction errors of what is felt move the joints until the hand is within a tenth of a link of
each of three targets; with the reflex cut, Γ = 0, it stays away from all of them, and F is higher.

What would have refuted it: a hand that stays away, as it does where errors do not reach action
(log_reflex_precision=-20), under the same expectation; a hand that arrives with the reflex cut, or a cut
that costs no F. With the two courses exchanged every claim fails.
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

REACHES, CUT = "reaching", "reflex cut"
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
    return write_up(settings, reach(settings, seed, progress))


def targets(settings: Settings) -> np.ndarray:
    """(samples, 2): where the target is. **Example:** `targets(Settings())[-1]`."""
    home = np.asarray(hand(jnp.asarray(START[:2])), float)
    times = 0.05 * np.arange(int((3 * settings.seconds + 1) / 0.05))
    target = np.tile(home, (len(times), 1))
    before = home
    for number, place in enumerate(PLACES):
        moved = 1 / (1 + np.exp(-(times - 1 - number * settings.seconds) / 0.15))
        target = target + moved[:, None] * (np.array(place) - before)
        before = np.array(place)
    return target


def reach(settings: Settings, seed: int, progress: Progress) -> dict[str, Acted]:
    """The course with the reflex, and with the reflex cut, under the same noise.

    **Example:** `reach(Settings(), 0, Silent())["reflex cut"]`.
    """
    key, target = jax.random.key(seed), targets(settings)
    progress.start("reaches", 2)
    system = reaching(reflex_precision=math.exp(settings.log_reflex_precision))
    cut = eqx.tree_at(lambda one: one.reflex_precision, system, 0 * system.reflex_precision)
    course, slack = (vfe.act(one, causes=target, key=key) for one in (system, cut))
    progress.step(2, F=float(course.percept.free_energy.total))
    progress.done()
    return {REACHES: course, CUT: slack}


def path_of(course: Acted) -> np.ndarray:
    """(samples, 2): where the hand is. **Example:** `path_of(courses["reaching"])[-1]`."""
    return np.asarray(jax.vmap(hand)(jnp.asarray(course.world.states[:, :2])))


def misses_of(settings: Settings, course: Acted) -> list[float]:
    """How far the hand is from each target, links, a second before the next begins to appear.

    **Example:** `max(misses_of(settings, courses["reaching"]))`.
    """
    apart = np.linalg.norm(path_of(course) - targets(settings), axis=1)
    ends = [int((k + 1) * settings.seconds / 0.05) for k in range(3)]
    return [float(apart[min(end, len(apart) - 1)]) for end in ends]


def write_up(settings: Settings, courses: dict[str, Acted]) -> JobResult:
    """The result of the experiment: its page, its figure and its numbers.

    **Example:** `write_up(settings, reach(settings, 0, Silent()))`.
    """
    course, target = courses[REACHES], targets(settings)
    misses, missed = (misses_of(settings, one) for one in courses.values())
    path = path_of(course)
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
        courses,
        {"reaching": draw(course, target, path, np.linalg.norm(path - target, axis=1))},
        {
            "reaching": (
                "Three reaches",
                "Left: the hand's path, the arm where the hand is nearest to each target, and the "
                "targets. Right: how far the hand is from the target, and action at the two joints.",
                "The hand moves to three targets in turn along slightly curved paths.",
            )
        },
        {"target": target, "path": path},
        claims=claims(settings, courses),
    )


def claims(settings: Settings, courses: dict[str, Acted]) -> list[Claim]:
    """What would have refuted it: a hand that stays away from where it is expected.

    **Example:** `claims(settings, reach(settings, 0, Silent()))[0].holds`.
    """
    misses, cut = (misses_of(settings, courses[name]) for name in (REACHES, CUT))
    less, more = (courses[name].percept.free_energy.total for name in (REACHES, CUT))
    more = float(more - less) / len(targets(settings))
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
