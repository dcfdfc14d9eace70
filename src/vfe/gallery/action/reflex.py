"""The reflex: a push that nobody predicted is cancelled, because only prediction errors move the arm.

ȧ = −(∂ỹ/∂a)ᵀ Γ̃ ε̃_y: action descends F through what is felt. Expected: with the reflex the limb hardly
moves, action mirrors the push, and F is lower than with the reflex cut; a limb that its owner intends to
move goes where the intention alone would take it, pushed or not. It would have been refuted by a limb that
swings as it does with the reflex cut, as it must where prediction errors do not reach action
(log_reflex_precision=-20).
"""

import dataclasses
import math
from typing import Any

import jax
import numpy as np

import vfe
from vfe.action import Acted, limb
from vfe.gallery.action.page import finish
from vfe.gallery.job import JobResult, Progress, Workspace
from vfe.results.claims import Claim
from vfe.results.style import style


@dataclasses.dataclass(frozen=True)
class Settings:
    """How long, and how strong the reflex is."""

    length: int = dataclasses.field(default=160, metadata={"help": "samples, 0.1 s each"})
    push: float = dataclasses.field(default=1.0, metadata={"help": "strength of the pushes"})
    log_reflex_precision: float = dataclasses.field(
        default=8.0, metadata={"help": "ln of the precision with which errors drive action"}
    )

    def __post_init__(self):
        if self.length < 120 or self.push == 0:
            raise ValueError(
                f"reflex: got length={self.length} and push={self.push}; wanted 120 samples or more, the "
                "pushes being over by then, and a push that is not zero."
            )


def run(
    settings: Settings,
    *,
    seed: int,
    data: dict[str, np.ndarray] | None,
    folder: Workspace,
    progress: Progress,
    resume: bool,
) -> JobResult:
    """Push the limb with its reflex, without it, and let it move by intention.

    **Example:** `vfe run reflex`.
    """
    times = 0.1 * np.arange(settings.length)
    push = np.exp(-((times - 4) ** 2) / 0.5) - 0.7 * np.exp(-((times - 10) ** 2) / 0.3)
    push = settings.push * push
    intention = np.exp(-((times - 7) ** 2) / 2)
    acting = limb(reflex_precision=math.exp(settings.log_reflex_precision))
    cut = limb(reflex_precision=0.0)
    key = jax.random.key(seed)
    progress.start("three courses", 3)
    courses = {}
    for name, system, expected in (
        ("pushed, with reflex", acting, None),
        ("pushed, reflex cut", cut, None),
        ("pushed while moving by intention", acting, intention),
    ):
        courses[name] = vfe.act(system, key=key, causes=push, prior_causes=expected)
        progress.step(F=float(courses[name].percept.free_energy.total))
    progress.done()
    reflex, slack, _ = courses.values()
    cancelled = 1 - np.square(reflex.world.states[:, 0]).sum() / np.square(slack.world.states[:, 0]).sum()
    mirrored = float(np.corrcoef(reflex.action[:, 0], push)[0, 1])
    headline = [
        ("squared movement cancelled", f"{cancelled:.2%}"),
        ("correlation of action and push", f"{mirrored:.3f}".replace("-", "−")),
        ("F, with reflex", f"{reflex.percept.free_energy.total:.1f} nats".replace("-", "−")),
        ("F, reflex cut", f"{slack.percept.free_energy.total:.1f} nats".replace("-", "−")),
    ]
    found = claims(courses, times, push, intention)
    return finish(
        "A reflex cancels what was not predicted",
        "A limb is pushed twice. Its owner expects it at rest and knows nothing of pushes. Prediction "
        "errors of what is felt drive action until sensations fit: the limb hardly moves, and action is a "
        f"mirror image of the push (correlation {mirrored:.3f}). With the reflex cut, the same belief is "
        "helpless and the limb swings.\n\nAn intention works by the same arc: the agent expects to "
        "move, is wrong, and moves; the pushes are still cancelled.".replace("-", "−", 1),
        headline,
        courses,
        {"reflex": draw(courses, push, intention)},
        {
            "reflex": (
                "Three courses",
                "Angle of the limb, felt (line) and predicted (dashed), and action beside the push.",
                "The limb stays at rest with its reflex, swings without it, and moves as intended.",
            )
        },
        {"push": push, "intention": intention},
        claims=found,
    )


def claims(
    courses: dict[str, Acted], times: np.ndarray, push: np.ndarray, intention: np.ndarray
) -> list[Claim]:
    """What would have refuted it: a limb that swings although it has its reflex.

    **Example:** `vfe run reflex` prints them.
    """
    from scipy.signal import lsim

    reflex, slack, moved = courses.values()
    size = [float(np.square(course.world.states[:, 0]).sum()) for course in (reflex, slack)]
    # The limb that the intention alone would move: θ″ = c − θ − θ′.
    meant = np.asarray(lsim(([1.0], [1.0, 1.0, 1.0]), intention, times)[1])
    off = np.sqrt(np.mean((moved.world.states[:, 0] - meant) ** 2) / np.mean(meant**2))
    return [
        Claim("share of the squared movement that the reflex takes away", 1 - size[0] / size[1], 0.99),
        Claim(
            "correlation of action and push", float(np.corrcoef(reflex.action[:, 0], push)[0, 1]), high=-0.9
        ),
        Claim(
            "F with the reflex cut is higher by",
            float(slack.percept.free_energy.total - reflex.percept.free_energy.total),
            0.0,
            unit="nats",
        ),
        Claim(
            "pushed, and moving by intention: off the course intended",
            float(off),
            high=0.2,
            unit="of its size",
        ),
    ]


def draw(courses: dict[str, Acted], push: np.ndarray, intention: np.ndarray) -> Any:
    """Angle, and action with the push, for every course."""
    import matplotlib.pyplot as plt

    with style():
        figure, axes = plt.subplots(
            2, len(courses), figsize=(11, 5), sharex=True, sharey="row", layout="constrained"
        )
        for column, (name, course) in enumerate(courses.items()):
            above, below = axes[:, column]
            above.plot(course.time, course.world.states[:, 0], label="angle")
            above.plot(course.time, course.percept.prediction.mean[:, 0], "--", label="prediction")
            above.set_title(name)
            below.plot(course.time, course.action[:, 0], label="action")
            below.plot(course.time, push, "--", label="push")
            if "intention" in name:
                below.plot(course.time, intention, ":", label="intention")
            below.set_xlabel("time (s)")
            below.legend(loc="upper right")
        axes[0, 0].set_ylabel("angle (rad)")
        axes[1, 0].set_ylabel("acceleration (rad/s²)")
        axes[0, 0].legend(loc="upper right")
    return figure
