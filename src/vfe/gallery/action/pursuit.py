"""Pursuit of a target that is hidden for a while: it stays, in the mind of who believes that it swings.

The retina sees contrast(q) exp(−(q − o − c)² / 2w²) of a target at q with the eye at o: behind the occluder
contrast(q) is 0. While the target is dark nothing is sensed of it, the accuracy says nothing, and the
belief follows the motion that is believed of it: q″ = −ω² q for who believes that it swings, q″ = −5 q′ for
who believes that things stop.

Expected: who believes that it swings keeps both belief and eye within a tenth of the swing of the hidden
target; who believes that things stop loses it, and the eye lags; and both are less sure while they see
nothing.

What would have refuted it: two beliefs that are as far off while the target is hidden, as they must be if
both are the same; beliefs that are as sure while hidden as while seen, as they are without an occluder.
With the two beliefs exchanged the claims about them and their eyes fail.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vfe
from vfe.action import RETINA, Acted, contrast, pursuit, stopping, swinging
from vfe.action.systems.pursuit import AMPLITUDE, RATE
from vfe.gallery.action.page import finish
from vfe.gallery.job import JobResult, Progress, Workspace
from vfe.results.claims import Claim
from vfe.results.style import style

SWINGS, STOPS = "believes that it swings", "believes that it stops"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How long."""

    length: int = dataclasses.field(default=240, metadata={"help": "samples, 0.05 s each"})

    def __post_init__(self):
        if self.length < 160:
            raise ValueError(
                f"pursuit: got length={self.length}; wanted 160 samples or more, a period after the first."
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
    """Two beliefs about a target behind an occluder.

    **Example:** `vfe run pursuit`.
    """
    return write_up(settings, follow(settings, seed, progress))


def swing(settings: Settings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Time (s), the target's place, and how well it is seen, 0 to 1, of each sample.

    **Example:** `swing(Settings())[1]`.
    """
    times = 0.05 * np.arange(settings.length)
    target = -AMPLITUDE * np.cos(RATE * times)
    return times, target, np.asarray(jax.vmap(contrast)(jnp.asarray(target)))


def follow(settings: Settings, seed: int, progress: Progress) -> dict[str, Acted]:
    """The course of each belief.

    **Example:** `follow(Settings(), 0, Silent())["believes that it stops"]`.
    """
    _, target, _ = swing(settings)
    progress.start("pursuits", 2)
    courses = {}
    for name, belief in ((SWINGS, swinging), (STOPS, stopping)):
        courses[name] = vfe.act(pursuit(belief), causes=target, key=jax.random.key(seed))
        progress.step(F=float(courses[name].percept.free_energy.total))
    progress.done()
    return courses


class Off(NamedTuple):
    """By agent, hidden and seen: how far eye and belief are off the target, and the belief's sd."""

    eyes: dict[str, list[float]]
    beliefs: dict[str, list[float]]
    sds: dict[str, list[float]]


def measure(settings: Settings, courses: dict[str, Acted]) -> Off:
    """Root mean squares and mean sd, after the first period.

    **Example:** `measure(settings, courses).eyes`.
    """
    times, target, visible = swing(settings)
    settled = times > 2 * math.pi / RATE
    hidden, seen = (visible < 0.5) & settled, (visible > 0.9) & settled
    eyes, beliefs, sds = {}, {}, {}
    for name, course in courses.items():
        eye = np.asarray(course.world.states[:, 0]) - target
        believed = np.asarray(course.percept.states.mean[:, 0]) - target
        eyes[name] = [_size(eye[part]) for part in (hidden, seen)]
        beliefs[name] = [_size(believed[part]) for part in (hidden, seen)]
        sds[name] = [float(course.percept.states.sd[part, 0].mean()) for part in (hidden, seen)]
    return Off(eyes, beliefs, sds)


def write_up(settings: Settings, courses: dict[str, Acted]) -> JobResult:
    """The result of the experiment: its page, its figure and its numbers.

    **Example:** `write_up(settings, follow(settings, 0, Silent()))`.
    """
    _, target, visible = swing(settings)
    eyes, beliefs, sds = measure(settings, courses)
    headline = []
    for name in courses:
        for what, numbers in (("eye off", eyes), ("belief off", beliefs), ("belief's sd", sds)):
            pair = f"{numbers[name][0]:.2f} hidden, {numbers[name][1]:.2f} seen"
            headline.append((f"{name}: {what}", pair))
    knowing, simple = eyes.values()
    known, lost = beliefs.values()
    return finish(
        "A target that is hidden is still there",
        "An eye follows a target that swings; the middle of its way lies behind an occluder, which both "
        "agents know. They differ in one line of their models: what the target does by itself. Who "
        "believes that it swings goes on pursuing what cannot be seen: the eye is off by "
        f"{knowing[0]:.2f} while the target is hidden and by {knowing[1]:.2f} while it is seen, the "
        f"belief by {known[0]:.2f} and {known[1]:.2f}. Who believes that things stop unless they are "
        f"moved loses it: the belief is off by {lost[0]:.2f} while it is hidden, {lost[1]:.2f} while it "
        "is seen. That eye goes where its owner expects the target next and lags at all times, by "
        f"{simple[1]:.2f} while the target is seen and {simple[0]:.2f} while it is hidden.\n\nThe same "
        "sensations, none at all, mean different things under different models. Both agents are less "
        "sure while they see nothing; their deviations there come from the curvature at one moment and "
        "say more about what the senses tell then than about how far the belief is off.",
        headline,
        courses,
        {"pursuit": draw(courses, target, visible)},
        {
            "pursuit": (
                "Pursuit",
                "Above: the target, the eye, and where the target is believed to be (90 %); times of "
                "occlusion are grey. Below: what the retina sees.",
                "One eye goes on with the hidden target; the other lags, and its belief stays behind.",
            )
        },
        {"target": target},
        after=2 * math.pi / RATE,
        claims=claims(settings, courses),
    )


def claims(settings: Settings, courses: dict[str, Acted]) -> list[Claim]:
    """What would have refuted it: a hidden target that both lose, or neither.

    **Example:** `claims(settings, follow(settings, 0, Silent()))[0].holds`.
    """
    eyes, beliefs, sds = measure(settings, courses)
    (eye, stopped), (known, lost) = eyes.values(), beliefs.values()
    # A tenth of the swing; who loses the target is off by more than twice that.
    near = 0.1 * AMPLITUDE
    return [
        Claim("believes that it swings: belief off the hidden target", known[0], high=near),
        Claim("its eye off the hidden target", eye[0], high=near),
        Claim("believes that it stops: belief is farther off, by", lost[0] - known[0], near),
        Claim("its eye is farther off, by", stopped[0] - eye[0], near),
        Claim("least rise of a belief's sd while hidden", min(sd[0] - sd[1] for sd in sds.values()), 0.1),
    ]


def _size(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(error))))


def draw(courses: dict[str, Acted], target: np.ndarray, visible: np.ndarray) -> Any:
    """Target, eye and belief; and the retina."""
    import matplotlib.pyplot as plt

    with style():
        figure, axes = plt.subplots(
            2, len(courses), figsize=(12, 6), sharex=True, sharey="row", layout="constrained"
        )
        shown = None
        for column, (name, course) in enumerate(courses.items()):
            above, below = axes[:, column]
            above.fill_between(course.time, -3, 3, where=list(visible < 0.5), color="#dddddd", linewidth=0)
            above.plot(course.time, target, "k--", linewidth=1, label="target")
            above.plot(course.time, course.world.states[:, 0], label="eye")
            mean, sd = course.percept.states.mean[:, 0], course.percept.states.sd[:, 0]
            (line,) = above.plot(course.time, mean, label="target, believed")
            above.fill_between(
                course.time, mean - 1.645 * sd, mean + 1.645 * sd, color=line.get_color(), alpha=0.2
            )
            above.set_ylim(-3, 3)
            above.set_title(name)
            shown = below.imshow(
                course.world.sensations[:, 2:].T,
                aspect="auto",
                origin="lower",
                extent=(course.time[0], course.time[-1], RETINA[0], RETINA[-1]),
                vmin=0,
                vmax=1,
            )
            below.grid(False)
            below.set(xlabel="time (s)")
        axes[0, 0].legend(loc="lower left", ncols=3)
        axes[0, 0].set_ylabel("place")
        axes[1, 0].set_ylabel("on the retina")
        if shown is not None:
            figure.colorbar(shown, ax=axes[1], label="light")
    return figure
