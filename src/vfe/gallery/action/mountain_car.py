"""The mountain car: no goal, no reward, only an expectation of how a car moves that stands on the hill.

The engine pulls with less than the slope, so that the top is reached only by swinging up:

x″ = −¼ cos 3x + wall(x) + 0.15 tanh a,    expected: x″ = −¼ cos 3x + wall(x) + f(x, x′).

Action descends F through what is felt, ȧ = −(∂ỹ/∂a)ᵀ Γ̃ ε̃_y − P_a a: it makes felt motion fit what is
expected, as far as the engine can. Who expects to swing up has f along with its motion while its energy is
below that of rest on the top; who expects to rush up has f drawn straight to the top.

Expected: in every world who expects to swing up stands on the top in the last ten samples, who expects to
rush up never does, and its F is higher, for no action fulfils what it expects.

What would have refuted it: a car that stays in the valley although it expects to swing up, as it must where
errors do not reach action (log_reflex_precision=-20); a car that is on the top by haste; haste that costs
no more F. With the two expectations exchanged every claim fails.
"""

import dataclasses
import math
from typing import Any

import jax
import numpy as np

import vfe
from vfe.action import Acted, climbing, mountain_car, rushing
from vfe.action.systems.mountain_car import GRAVITY, STRENGTH, TOP
from vfe.gallery.action.page import finish
from vfe.gallery.job import JobResult, Progress, Workspace
from vfe.results.claims import Claim
from vfe.results.style import style

SWINGS, RUSHES = "expects to swing up", "expects to rush up"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How long, and in how many worlds."""

    length: int = dataclasses.field(default=240, metadata={"help": "samples, two usual steps each"})
    worlds: int = dataclasses.field(default=4, metadata={"help": "how many times, with other noise"})
    log_reflex_precision: float = dataclasses.field(
        default=8.0, metadata={"help": "ln of the precision with which errors drive action"}
    )

    def __post_init__(self):
        if self.length < 20 or self.worlds < 1:
            raise ValueError(
                f"mountain-car: got length={self.length} and worlds={self.worlds}; wanted 20 samples and "
                "one world or more."
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
    """Two expectations, the same car.

    **Example:** `vfe run mountain-car`.
    """
    return write_up(settings, drive(settings, seed, progress))


def drive(settings: Settings, seed: int, progress: Progress) -> dict[str, list[Acted]]:
    """The courses of both expectations, one for each world, with the same noise.

    **Example:** `drive(Settings(length=130, worlds=1), 0, Silent())["expects to rush up"]`.
    """
    keys = jax.random.split(jax.random.key(seed), settings.worlds)
    precision = math.exp(settings.log_reflex_precision)
    progress.start("drives", 2 * settings.worlds)
    drives: dict[str, list[Acted]] = {}
    for name, expected in ((SWINGS, climbing), (RUSHES, rushing)):
        # One system for all worlds, which is one program.
        system = mountain_car(expected, reflex_precision=precision)
        drives[name] = []
        for key in keys:
            drives[name].append(vfe.act(system, length=settings.length, key=key))
            progress.step(F=float(drives[name][-1].percept.free_energy.total))
    progress.done()
    return drives


def arrived(drives: dict[str, list[Acted]]) -> dict[str, int]:
    """How many of each end on the top. **Example:** `arrived(drives)["expects to rush up"]`."""
    return {name: sum(_arrived(course) for course in courses) for name, courses in drives.items()}


def free_energies(drives: dict[str, list[Acted]]) -> dict[str, float]:
    """Mean F of each, nats per sample. **Example:** `free_energies(drives)["expects to rush up"]`."""
    return {
        name: float(np.mean([float(c.percept.free_energy.total) / len(c.time) for c in courses]))
        for name, courses in drives.items()
    }


def claims(drives: dict[str, list[Acted]]) -> list[Claim]:
    """What would have refuted it: a car on the top by haste, or none that swings up.

    **Example:** `claims(drive(Settings(), 0, Silent()))[0].holds`.
    """
    there, energies = arrived(drives), free_energies(drives)
    return [
        Claim(
            "who expects to swing up ends on the top, in share of worlds",
            there[SWINGS] / len(drives[SWINGS]),
            1.0,
        ),
        Claim("who expects to rush up does", there[RUSHES] / len(drives[RUSHES]), high=0.0),
        Claim(
            "an expectation that cannot be fulfilled costs more F, by",
            energies[RUSHES] - energies[SWINGS],
            0.0,
            unit="nats per sample",
        ),
    ]


def write_up(settings: Settings, drives: dict[str, list[Acted]]) -> JobResult:
    """The result of the experiment: its page, its figure and its numbers.

    **Example:** `write_up(settings, drive(settings, 0, Silent()))`.
    """
    there, energies = arrived(drives), free_energies(drives)
    first = {name: courses[0] for name, courses in drives.items()}
    headline = [
        (f"{name}: on the top", f"{count} of {settings.worlds}") for name, count in there.items()
    ] + [
        (f"{name}: F", f"{value:.2f} nats per sample".replace("-", "−")) for name, value in energies.items()
    ]
    return finish(
        "A hill climbed by expectation",
        "The engine pulls with 0.15, the slope with up to 0.25: the top can be reached only by swinging. "
        "Neither agent has a value function or a reward; each has a law of motion that it expects to "
        "follow. One expects to gain energy along with its motion and then to rest on the top, the "
        "other to be drawn straight to it. Action makes felt motion fit what is expected, as far as the "
        f"engine can. The first ends on the top ({there[SWINGS]} of {settings.worlds}), "
        f"the second stays in the valley ({there[RUSHES]} of {settings.worlds} on the "
        "top), and its F is higher: an expectation that no action can fulfil.",
        headline,
        first,
        {"drives": draw(first)},
        {
            "drives": (
                "Two drives",
                "Left: place in time. Middle: place and speed. Right: the engine's force.",
                "One car swings up and stays on the top of the hill; the other trembles below it.",
            )
        },
        {"places": np.array([[c.world.states[:, 0] for c in courses] for courses in drives.values()])},
        claims=claims(drives),
    )


def _arrived(course: Acted) -> bool:
    return bool(np.abs(course.world.states[-10:, 0] - TOP).max() < 0.1)


def draw(courses: dict[str, Acted]) -> Any:
    """Place in time, place and speed, force."""
    import matplotlib.pyplot as plt

    with style():
        figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
        for name, course in courses.items():
            place, speed = course.world.states.T
            axes[0].plot(course.time, place, label=name)
            axes[1].plot(place, speed, label=name)
            axes[2].plot(course.time, STRENGTH * np.tanh(course.action[:, 0]), label=name)
        axes[0].axhline(TOP, color="#222222", linewidth=1, linestyle=":")
        axes[0].set(xlabel="time (ten usual steps)", ylabel="place")
        axes[0].set_title("place; the top is dotted")
        axes[0].legend(loc="lower right")
        axes[1].plot(TOP, 0, "k*", markersize=10)
        axes[1].set(xlabel="place", ylabel="speed")
        axes[1].set_title("place and speed; the top is a star")
        axes[2].axhline(GRAVITY, color="#222222", linewidth=1, linestyle=":")
        axes[2].set(xlabel="time (ten usual steps)", ylabel="force")
        axes[2].set_title("engine; the slope's pull is dotted")
    return figure
