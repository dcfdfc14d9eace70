"""Object permanence: a target that turns in a circle is hidden for a while, and the belief goes on.

A belief that is carried in time follows its dynamics where nothing is seen: accuracy drops out of F, and

q(x_t) = ∫ p(x_t | x_{t−1}) q(x_{t−1}) dx_{t−1}.

A belief that is a function of the present sample alone falls back on the prior. Expected: while the
target is hidden the first has the smaller error; its standard deviation grows, and only as fast as its
error does, and is back two samples after the target; the same samples are less surprising to it. What
would have refuted it: errors that are no smaller, or intervals that miss the truth.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

import vfe
from vfe.gallery.intervals import mean_of
from vfe.gallery.job import JobResult, Progress, Workspace
from vfe.gallery.settings import about
from vfe.results.claims import Claim
from vfe.results.report import Report, Section, Table, picture
from vfe.results.style import BLUE, INK, ORANGE, PALE, style


@dataclasses.dataclass(frozen=True)
class Settings:
    """The target, the eye and the screen that hides it; times in seconds, lengths in metres."""

    targets: int = about("how many targets are followed", 400)
    seconds: float = about("length of a record", 12.0)
    dt: float = about("time between samples", 0.05)
    period: float = about("time of one turn", 4.0)
    memory: float = about("time in which the motion forgets its phase", 60.0)
    amplitude: float = about("standard deviation of each coordinate", 1.0)
    noise: float = about("standard deviation of a sample", 0.15)
    hidden_from: float = about("when the target disappears", 5.0)
    hidden_for: float = about("for how long", 4.0)

    def __post_init__(self) -> None:
        for name in ("seconds", "dt", "period", "memory", "amplitude", "noise", "hidden_for"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}.")
        if self.targets < 2:
            raise ValueError(f"targets must be at least 2; got {self.targets}.")
        if not 0 < self.hidden_from < self.hidden_from + self.hidden_for < self.seconds:
            raise ValueError(
                "hidden_from and hidden_from + hidden_for must lie within the record; got "
                f"{self.hidden_from} and {self.hidden_from + self.hidden_for} of {self.seconds} s."
            )


class Followed(NamedTuple):
    """What is believed of every target: mean and sd (targets, time, 2), −ln p of its samples (targets,)."""

    mean: np.ndarray
    sd: np.ndarray
    surprise: np.ndarray


class Found(NamedTuple):
    """Everything that the report tells."""

    time: np.ndarray
    hidden: np.ndarray
    truth: np.ndarray
    seen: np.ndarray
    moving: Followed
    present: Followed


def motion(settings: Settings) -> vfe.StateSpace:
    """A rotation that slowly forgets its phase, both coordinates seen with noise."""
    angle, keep = 2 * np.pi * settings.dt / settings.period, np.exp(-settings.dt / settings.memory)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    size = settings.amplitude**2
    return vfe.StateSpace(
        initial_mean=np.zeros(2),
        initial_covariance=size * np.eye(2),
        transition=keep * turn,
        transition_covariance=size * (1 - keep**2) * np.eye(2),
        observation=np.eye(2),
        observation_covariance=settings.noise**2 * np.eye(2),
    )


def follow(settings: Settings, seed: int) -> Found:
    """Draw targets, hide them, and follow them in two ways: through time, and by what is seen at present.

    **Example:** `follow(Settings(targets=10), seed=0).moving.mean`.
    """
    rng = np.random.default_rng(seed)
    model = motion(settings)
    count = round(settings.seconds / settings.dt)
    time = settings.dt * np.arange(count)
    hidden = (time >= settings.hidden_from) & (time < settings.hidden_from + settings.hidden_for)
    A, noise = np.asarray(model.transition), np.sqrt(np.asarray(model.transition_covariance)[0, 0])
    truth = np.zeros((settings.targets, count, 2))
    truth[:, 0] = settings.amplitude * rng.normal(size=(settings.targets, 2))
    for t in range(1, count):
        truth[:, t] = truth[:, t - 1] @ A.T + noise * rng.normal(size=(settings.targets, 2))
    seen = truth + settings.noise * rng.normal(size=truth.shape)
    seen[:, hidden] = np.nan
    filtered = vfe.filter(model, seen)
    moving = Followed(*map(np.asarray, (filtered.mean, filtered.sd, -filtered.log_evidence)))
    return Found(time, hidden, truth, seen, moving, _present(settings, seen))


def _present(settings: Settings, seen: np.ndarray) -> Followed:
    """The exact belief of a model without time: a function of the present sample alone."""
    model = vfe.Model(
        place=vfe.gaussian(np.zeros(2), scale=settings.amplitude),
        seen=vfe.gaussian(vfe.Affine(np.eye(2)), scale=settings.noise, parents="place"),
    )
    # Where nothing is seen, no sample is given at all, and the belief is the prior.
    there = ~np.isnan(seen).any(-1)
    with jax.enable_x64(True):
        percept = vfe.perceive(model, {"seen": seen[there]}, belief=vfe.NodeGaussian, solver=vfe.Exact())
        place = percept.belief["place"]
        mean, sd = np.zeros(seen.shape), np.full(seen.shape, settings.amplitude)
        mean[there], sd[there] = np.asarray(place.mean), np.sqrt(np.asarray(place.variance))
        surprise = np.zeros(there.shape)
        surprise[there] = np.asarray(percept.free_energy.total)
    return Followed(mean, sd, surprise.sum(-1))


def error(found: Found, followed: Followed) -> np.ndarray:
    """Root mean squared error by time, over targets and coordinates, in metres."""
    return np.sqrt(np.mean((followed.mean - found.truth) ** 2, (0, 2)))


def run(
    settings: Settings,
    *,
    seed: int,
    data: dict[str, np.ndarray] | None,
    folder: Workspace,
    progress: Progress,
    resume: bool,
) -> JobResult:
    """Follow the targets and write it up: figures target.png and errors.png; result.nc holds, by time, the
    truth, the samples and both beliefs about every target.

    **Example:** `vfe run permanence`.
    """
    progress.start("following targets", 1)
    found = follow(settings, seed)
    progress.step(1, F=float(found.moving.surprise.mean()))
    progress.done()
    figures = {"target": _target(settings, found), "errors": _errors(settings, found)}
    numbers = _numbers(settings, found)
    return JobResult(
        model=motion(settings),
        dataset=_dataset(found),
        figures=figures,
        report=_report(settings, found, figures, numbers),
        headline=[(label, f"{moving} (without time: {present})") for label, moving, present in numbers],
        claims=claims(found),
    )


def claims(found: Found) -> list[Claim]:
    """What would have refuted it: a belief without time that errs as little, or intervals that miss.

    **Example:** `claims(follow(Settings(targets=50), 0))[0].holds`.
    """
    hidden, sd = found.hidden, found.moving.sd[0, :, 0]
    first, last = np.flatnonzero(hidden)[[0, -1]]

    def squared(followed: Followed) -> np.ndarray:
        return ((followed.mean - found.truth)[:, hidden] ** 2).mean((1, 2))

    inside = np.abs(found.moving.mean - found.truth) < 1.644854 * found.moving.sd
    covered = 100 * inside[:, hidden].mean((1, 2))
    error = covered.std(ddof=1) / np.sqrt(len(covered))
    saved = mean_of(squared(found.present) - squared(found.moving))
    surprise = mean_of(found.present.surprise - found.moving.surprise)
    return [
        # A tenth of the variance of where targets are.
        Claim(
            "squared error that a belief in time saves while the target is hidden, low end of its interval",
            float(saved.low),
            0.1 * float(found.present.sd[0, first, 0] ** 2),
            unit="m²",
        ),
        Claim("its sd at the end of hiding, over that before", float(sd[last] / sd[first - 1]), 2.0),
        Claim("its sd two samples after, over that before", float(sd[last + 2] / sd[first - 1]), high=1.5),
        # Four standard errors over targets: what is right by construction would fail once in 16,000 runs.
        Claim(
            "truth within its 90 % intervals while hidden, with four standard errors",
            float(covered.mean()),
            90 - 4 * error,
            90 + 4 * error,
            unit="%",
        ),
        # Three nats are odds of twenty to one.
        Claim(
            "surprise that it saves, low end of its interval over targets",
            float(surprise.low),
            3.0,
            unit="nats",
        ),
    ]


def _numbers(settings: Settings, found: Found) -> list[tuple[str, str, str]]:
    last = int(np.flatnonzero(found.hidden)[-1])
    back = last + 2
    both = (found.moving, found.present)

    def each(value: Any, form: str = ".2f") -> tuple[str, str]:
        one, two = (format(value(followed), form) for followed in both)
        return one, two

    def covered(followed: Followed) -> float:
        inside = np.abs(followed.mean - found.truth) < 1.645 * followed.sd
        return 100 * float(inside[:, found.hidden].mean())

    return [
        ("error while hidden (m)", *each(lambda f: np.sqrt(np.mean(error(found, f)[found.hidden] ** 2)))),
        ("sd before it is hidden (m)", *each(lambda f: f.sd[0, np.argmax(found.hidden) - 1, 0])),
        ("sd at the end of hiding (m)", *each(lambda f: f.sd[0, last, 0])),
        ("sd after two samples (m)", *each(lambda f: f.sd[0, back, 0])),
        ("truth within 90 % intervals while hidden (%)", *each(covered, ".1f")),
        ("−ln p(samples), mean over targets (nats)", *each(lambda f: f.surprise.mean(), ".1f")),
    ]


def _dataset(found: Found) -> Any:
    import xarray as xr

    axes = ("target", "time", "coordinate")
    variables = {
        "truth": (axes, found.truth, {"units": "m"}),
        "seen": (axes, found.seen, {"units": "m"}),
        "hidden": ("time", found.hidden),
    }
    for name, followed in (("moving", found.moving), ("present", found.present)):
        variables[f"{name}_mean"] = (axes, followed.mean, {"units": "m"})
        variables[f"{name}_sd"] = (axes, followed.sd, {"units": "m"})
        variables[f"{name}_surprise"] = ("target", followed.surprise, {"units": "nats"})
        variables[f"{name}_error"] = ("time", error(found, followed), {"units": "m"})
    return xr.Dataset(
        variables, coords={"time": ("time", found.time, {"units": "s"}), "coordinate": ["x", "y"]}
    )


def _hiding(ax: Any, settings: Settings, label: str | None = None) -> None:
    start = settings.hidden_from
    ax.axvspan(start, start + settings.hidden_for, color="#ececec", linewidth=0, label=label, zorder=0)


def _target(settings: Settings, found: Found) -> Any:
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(8.0, 5.6), layout="constrained")
        axes = figure.subplots(2, 1, sharex=True, sharey=True)
        shown = (
            ("a belief that moves", found.moving, BLUE),
            ("a belief about the present alone", found.present, ORANGE),
        )
        one = _typical(found)
        for ax, (title, followed, colour) in zip(axes, shown, strict=True):
            _hiding(ax, settings, "hidden")
            mean, sd = followed.mean[one, :, 0], followed.sd[one, :, 0]
            low, high = mean - 1.645 * sd, mean + 1.645 * sd
            ax.fill_between(found.time, low, high, color=colour, alpha=0.25, linewidth=0, label="90 %")
            ax.plot(found.time, mean, color=colour, label="belief")
            ax.plot(found.time, found.truth[one, :, 0], "--", color=INK, linewidth=1.2, label="truth")
            ax.plot(found.time, found.seen[one, :, 0], ".", color=PALE, markersize=3, label="samples")
            ax.set_title(title)
            ax.set_ylabel("x (m)")
            ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        axes[-1].set_xlabel("time (s)")
    return figure


def _errors(settings: Settings, found: Found) -> Any:
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(8.0, 3.6), layout="constrained")
        ax = figure.subplots()
        _hiding(ax, settings, "hidden")
        for name, followed, colour in (
            ("moves", found.moving, BLUE),
            ("present alone", found.present, ORANGE),
        ):
            ax.plot(found.time, error(found, followed), color=colour, label=f"error, {name}")
            ax.plot(found.time, followed.sd[0, :, 0], "--", color=INK, linewidth=1.0)
        ax.plot([], [], "--", color=INK, linewidth=1.0, label="sd that each believes")
        ax.set(xlabel="time (s)", ylabel=f"error of {settings.targets} targets (m)", ylim=(0, None))
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _typical(found: Found) -> int:
    """The target whose distance from the centre, when it disappears, is the median."""
    radius = np.linalg.norm(found.truth[:, np.argmax(found.hidden)], axis=-1)
    return int(np.argsort(radius)[len(radius) // 2])


def _report(
    settings: Settings, found: Found, figures: dict[str, Any], numbers: list[tuple[str, str, str]]
) -> Report:
    difference = float((found.present.surprise - found.moving.surprise).mean())
    return Report(
        "Object permanence",
        f"A target turns on a circle and is hidden for {settings.hidden_for:g} s. With nothing to be "
        "accurate about, F has no term left that ties the belief to the senses, and the belief follows its "
        "dynamics: it goes on turning, ever less sure. A belief that is a function of what is seen at "
        "present falls back on the prior as soon as there is nothing to see.",
        [
            Section(
                "One target",
                "Both beliefs are exact. The first is the filter's (`vfe.filter` of a `vfe.StateSpace`; "
                "missing samples are NaN), the second that of a `vfe.Model` of one sample, with the same "
                "prior. The target is the one whose distance from the centre, when it disappears, is the "
                "median.",
                [
                    picture(
                        figures["target"],
                        "One coordinate of one target, what was seen of it, and what is believed.",
                        "Two panels of position against time; in the shaded interval the first belief goes "
                        "on with the rhythm and its band widens, the second is flat with a wide band.",
                    )
                ],
            ),
            Section(
                f"{settings.targets} targets",
                "Error and believed standard deviation agree at all times: the filter knows how little it "
                f"knows. The same samples are {difference:.0f} nats less surprising to it, mean over "
                "targets.",
                [
                    picture(
                        figures["errors"],
                        "Root mean squared error over targets (solid), and the standard deviation believed "
                        "(dashed).",
                        "Error against time: it rises while the target is hidden and falls at once after.",
                    )
                ],
                Table(
                    ["", "moves", "present alone"],
                    numbers,
                    "Root mean squares over targets and coordinates.",
                ),
            ),
        ],
        headline=[(label, f"{moving} / {present}") for label, moving, present in numbers[:4]],
    )
