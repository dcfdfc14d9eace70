"""Repetition suppression and the response to a deviant: a chirp is heard again and again, and learned.

What one presentation taught is expected of the next: its posterior over frequency and gain is the next
prior. Precision-weighted prediction errors ½ ε̃ᵀ Π̃ ε̃ of sound, motion and cause are what the standard
model of evoked responses takes for their size. Expected: they fall from the first standard to the last,
rise at a deviant, and are small again at the standard after it; F rises at the deviant too. What would
have refuted it: errors that fall without learning (in any order of presentations), or that rise where the
deviant is one more standard.

**Source:** Friston 2005, "A theory of cortical responses".
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import vfe
from vfe.dynamics import Reference, posterior_as_prior, simulate
from vfe.gallery.intervals import mean_of
from vfe.gallery.job import JobResult, Progress, Workspace
from vfe.gallery.settings import about
from vfe.results.claims import Claim
from vfe.results.report import Report, Section, Table, picture
from vfe.results.style import BLUE, GREEN, INK, ORANGE, PALE, RED, style

NOISES = {"observation 1": "sound", "states 1": "motion", "causes": "cause"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is played and what is expected at first; frequencies in cycles per second."""

    listeners: int = about("how many listeners hear the sequence, each with its own noise", 12)
    standards: int = about("standards before the deviant", 6)
    after: int = about("standards after the deviant", 2)
    standard: float = about("frequency of the standard (Hz)", 4.0)
    deviant: float = about("frequency of the deviant (Hz)", 6.0)
    expected: float = about("frequency expected at first (Hz)", 3.0)
    expected_sd: float = about("standard deviation of that expectation (Hz)", 0.1)
    samples: int = about("samples of a presentation, 64 a second", 64)
    sweeps: int = about("sweeps of learning over each presentation", 2)

    def __post_init__(self) -> None:
        for name in ("standard", "deviant", "expected", "expected_sd"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}.")
        for name, least in (
            ("listeners", 2),
            ("standards", 2),
            ("after", 0),
            ("samples", 32),
            ("sweeps", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}; got {getattr(self, name)}.")

    @property
    def played(self) -> np.ndarray:
        """The frequency of every presentation."""
        return np.r_[[self.standard] * self.standards, self.deviant, [self.standard] * self.after]


class Heard(NamedTuple):
    """By listener and presentation: F as heard (nats), precision-weighted errors by noise (nats), what is
    believed after it of frequency (Hz) and gain and their sd; and the sounds (listeners, n, samples, 2)."""

    free_energy: np.ndarray
    errors: dict[str, np.ndarray]
    believed: np.ndarray
    believed_sd: np.ndarray
    sounds: np.ndarray

    @property
    def total_error(self) -> np.ndarray:
        """Weighted errors of all noises together."""
        return np.sum(list(self.errors.values()), 0)


RATE, DAMPING, DRIVE = 64.0, 4.0, 16.0
ONSET, WIDTH = 0.2, 0.05  # of the cause, s


def _flow(x: Array, v: Array, p: dict[str, Array]) -> Array:
    turn = 2 * jnp.pi * p["frequency"]
    push = DRIVE * p["gain"] * v[0]
    return jnp.stack([-DAMPING * x[0] - turn * x[1] + push, turn * x[0] - DAMPING * x[1]])


def _observe(x: Array, v: Array, p: dict[str, Array]) -> Array:
    return x


def chirp(frequency: float, gain: float, variances: Any = 0.0, motion: float = 4.0) -> vfe.DynamicModel:
    """A damped rhythm struck by a cause: ẋ = [[−γ, −2πf], [2πf, −γ]] x + (16 b v, 0), both states heard."""
    level = vfe.Level(
        _observe,
        _flow,
        states=2,
        causes=1,
        parameters={"frequency": frequency, "gain": gain},
        parameter_covariance=np.asarray(variances, float),
        observation_precision=np.exp(8.0),
        state_precision=motion,
        cause_precision=np.exp(4.0),
    )
    return vfe.DynamicModel([level], order=4, smoothness=1 / RATE, dt=1 / RATE)


def _strike(time: np.ndarray) -> np.ndarray:
    return np.exp(-(((time - ONSET) / WIDTH) ** 2) / 2)


def weighted_errors(model: vfe.DynamicModel, found: Any) -> dict[str, float]:
    """½ ẽᵀ Π̃ ẽ of every noise, summed over time, in nats: its energy less what depends on Π̃ alone."""
    problem, length, result = model.problem, len(found.time), {}
    for block in problem.blocks:
        whole = np.kron(block.orders, np.asarray(block.fixed))
        constant = -0.5 * np.linalg.slogdet(whole)[1]
        if block.name == "observation 1":
            constant += problem.n * problem.ny / 2 * np.log(2 * np.pi)
        result[block.name] = float(found.free_energy.energies[block.name].sum() - length * constant)
    return result


def listen(settings: Settings, seed: int, progress: Progress | None = None) -> Heard:
    """Every listener hears the sequence; the prior of each presentation is the posterior of the last.

    **Example:** `listen(Settings(listeners=2), seed=0).free_energy.mean(0)`.
    """
    played, scheme = settings.played, Reference(sweeps=settings.sweeps)
    prior_causes = _strike(np.arange(settings.samples) / RATE)[:, None]
    first = chirp(settings.expected, 0.7, [settings.expected_sd**2, 0.05**2])
    shape = (settings.listeners, len(played))
    free_energy, errors = np.zeros(shape), {name: np.zeros(shape) for name in NOISES}
    believed, believed_sd = np.zeros((*shape, 2)), np.zeros((*shape, 2))
    sounds = np.zeros((*shape, settings.samples, 2))
    keys = jax.random.split(jax.random.key(seed), shape)
    for listener in range(settings.listeners):
        model = first
        for n, frequency in enumerate(played):
            world = chirp(frequency, 1.0, motion=1e4)
            y = simulate(world, keys[listener, n], settings.samples, causes=_strike).data
            heard = vfe.filter(model, y, prior_causes=prior_causes, scheme=scheme)
            learned = vfe.dem(model, y, prior_causes=prior_causes, scheme=scheme)
            sounds[listener, n] = np.asarray(y)
            free_energy[listener, n] = float(heard.free_energy.total)
            for name, value in weighted_errors(model, heard).items():
                errors[name][listener, n] = value
            mean = learned.parameters.mean[0]
            believed[listener, n] = float(mean["frequency"]), float(mean["gain"])
            believed_sd[listener, n] = learned.parameters.sd
            model = posterior_as_prior(model, learned)
        if progress is not None:
            progress.step(1, F=float(free_energy[listener].mean()))
    return Heard(free_energy, errors, believed, believed_sd, sounds)


def run(
    settings: Settings,
    *,
    seed: int,
    data: dict[str, np.ndarray] | None,
    folder: Workspace,
    progress: Progress,
    resume: bool,
) -> JobResult:
    """Play the sequence and write it up: figures errors.png, beliefs.png and sounds.png; result.nc holds F,
    errors and beliefs by listener and presentation.

    **Example:** `vfe run oddball`.
    """
    progress.start("listening", settings.listeners)
    heard = listen(settings, seed, progress)
    progress.done()
    figures = {
        "errors": _errors(settings, heard),
        "beliefs": _beliefs(settings, heard),
        "sounds": _sounds(settings, heard),
    }
    numbers = _numbers(settings, heard)
    return JobResult(
        model={"frequency": heard.believed[..., 0], "gain": heard.believed[..., 1]},
        dataset=_dataset(settings, heard),
        figures=figures,
        report=_report(settings, heard, figures, numbers),
        headline=numbers,
        claims=claims(settings, heard),
    )


def claims(settings: Settings, heard: Heard) -> list[Claim]:
    """What would have refuted it: intervals, over listeners, that reach zero.

    **Example:** `claims(settings, listen(settings, 0))[0].holds`.
    """
    odd, total = settings.standards, heard.total_error
    away = np.abs(heard.believed[:, odd - 1, 0] - settings.standard)
    nearer = abs(settings.expected - settings.standard) - away
    differences = {
        "weighted errors, first standard less the last": (total[:, 0] - total[:, odd - 1], "nats"),
        "weighted errors, deviant less the standard before": (total[:, odd] - total[:, odd - 1], "nats"),
        "F, deviant less the standard before": (
            heard.free_energy[:, odd] - heard.free_energy[:, odd - 1],
            "nats",
        ),
        "frequency believed, how much nearer to the standard than expected at first": (nearer, "Hz"),
    }
    if settings.after:
        differences["weighted errors, deviant less the standard after"] = (
            total[:, odd] - total[:, odd + 1],
            "nats",
        )
    return [
        Claim(f"{statement}: low end of the interval", float(mean_of(values).low), 0.0, unit=unit)
        for statement, (values, unit) in differences.items()
    ]


def _mean(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error over listeners."""
    return values.mean(0), values.std(0, ddof=1) / np.sqrt(len(values))


def _say(values: np.ndarray, digits: int = 0) -> str:
    mean, error = _mean(values)
    return f"{mean:.{digits}f} ± {error:.{digits}f}"


def _numbers(settings: Settings, heard: Heard) -> list[tuple[str, str]]:
    odd, total = settings.standards, heard.total_error
    return [
        ("weighted errors, first standard (nats)", _say(total[:, 0])),
        ("weighted errors, last standard before the deviant (nats)", _say(total[:, odd - 1])),
        ("weighted errors, deviant (nats)", _say(total[:, odd])),
        (
            "F, deviant less the standard before it (nats)",
            _say(heard.free_energy[:, odd] - heard.free_energy[:, odd - 1]),
        ),
    ]


def _dataset(settings: Settings, heard: Heard) -> Any:
    import xarray as xr

    axes = ("listener", "presentation")
    variables: dict[str, Any] = {"free_energy": (axes, heard.free_energy, {"units": "nats"})}
    for name, values in heard.errors.items():
        variables[f"weighted_errors_{NOISES[name]}"] = (axes, values, {"units": "nats"})
    variables["believed"] = ((*axes, "parameter"), heard.believed, {"units": "Hz, 1"})
    variables["believed_sd"] = ((*axes, "parameter"), heard.believed_sd, {"units": "Hz, 1"})
    variables["played"] = ("presentation", settings.played, {"units": "Hz"})
    variables["sound"] = ((*axes, "time", "channel"), heard.sounds)
    time = ("time", np.arange(settings.samples) / RATE, {"units": "s"})
    return xr.Dataset(variables, coords={"time": time, "parameter": ["frequency", "gain"]})


def _presentations(ax: Any, settings: Settings) -> np.ndarray:
    numbers = np.arange(1, len(settings.played) + 1)
    odd = settings.standards + 1
    ax.axvspan(odd - 0.5, odd + 0.5, color="#f7e3d4", linewidth=0, zorder=0, label="deviant")
    ax.set_xticks(numbers)
    ax.set_xlabel("presentation")
    ax.grid(visible=False, axis="x")
    return numbers


def _errors(settings: Settings, heard: Heard) -> Any:
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(8.4, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        at, bottom = _presentations(left, settings), np.zeros(len(settings.played))
        for (name, word), colour in zip(NOISES.items(), (BLUE, ORANGE, GREEN), strict=True):
            mean = heard.errors[name].mean(0)
            left.bar(at, mean, 0.7, bottom, color=colour, label=word)
            bottom = bottom + mean
        _, error = _mean(heard.total_error)
        left.errorbar(at, bottom, error, fmt="none", ecolor=INK, capsize=3, linewidth=1.2)
        left.set_ylabel("precision-weighted errors (nats)")
        left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, columnspacing=1.2)
        at = _presentations(right, settings)
        mean, error = _mean(heard.free_energy)
        right.errorbar(at, mean, error, color=INK, marker="o", markersize=4, capsize=3)
        right.set_ylabel("F (nats)")
    return figure


def _beliefs(settings: Settings, heard: Heard) -> Any:
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(8.4, 3.4), layout="constrained")
        for ax, k, label, true in zip(
            figure.subplots(1, 2), (0, 1), ("frequency (Hz)", "gain"), (settings.standard, 1.0), strict=True
        ):
            at = _presentations(ax, settings)
            for listener in heard.believed[..., k]:
                ax.plot(at, listener, color=PALE, linewidth=0.7)
            mean = heard.believed[..., k].mean(0)
            sd = heard.believed_sd[..., k].mean(0)
            ax.errorbar(
                at,
                mean,
                1.645 * sd,
                color=BLUE,
                marker="o",
                markersize=4,
                capsize=3,
                label="believed (90 %)",
            )
            ax.axhline(true, color=RED, linestyle="--", linewidth=1.2, label="the standard's")
            ax.set_ylabel(label)
        figure.axes[0].legend(loc="lower right")
    return figure


def _sounds(settings: Settings, heard: Heard) -> Any:
    from matplotlib.figure import Figure

    time = np.arange(settings.samples) / RATE
    with style():
        figure = Figure(figsize=(8.4, 2.8), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for ax, n, title in zip(axes, (0, settings.standards), ("standard", "deviant"), strict=True):
            ax.plot(time, heard.sounds[0, n], label=["first state", "second state"])
            ax.set(title=title, xlabel="time (s)")
        axes[0].set_ylabel("sound (a.u.)")
        axes[1].legend(loc="upper right")
    return figure


def _report(
    settings: Settings, heard: Heard, figures: dict[str, Any], numbers: list[tuple[str, str]]
) -> Report:
    total = heard.total_error
    rows = [
        [
            str(n + 1),
            f"{frequency:g}",
            *(_say(heard.errors[name][:, n]) for name in NOISES),
            _say(total[:, n]),
            _say(heard.free_energy[:, n]),
            _say(heard.believed[:, n, 0], 2),
        ]
        for n, frequency in enumerate(settings.played)
    ]
    return Report(
        "An oddball",
        f"The same chirp is heard {settings.standards} times, then another one. What is learned from one "
        "presentation explains away the errors of the next: the response shrinks with repetition, and "
        "rises when something else is heard.",
        [
            Section(
                "Errors and F by presentation",
                "What a listener expects of a presentation is what was learned from those before "
                "(`vfe.dynamics.posterior_as_prior`). Errors and F are those of first hearing: "
                "`vfe.filter` with the expectation as it is. Then `vfe.dem` learns. Errors are weighted by "
                "their precisions, in generalised coordinates: ½ ẽᵀΠ̃ẽ, of the sound, of the motion of the "
                "states, of the cause.",
                [
                    picture(
                        figures["errors"],
                        "Precision-weighted errors by noise, and F: means over listeners, standard errors.",
                        "Bars that shrink with repetition and rise at the shaded deviant; F does the same.",
                    )
                ],
                Table(
                    ["presentation", "Hz", *NOISES.values(), "errors", "F", "believed Hz, after"],
                    rows,
                    f"Nats, mean ± standard error over {settings.listeners} listeners.",
                ),
            ),
            Section(
                "What is learned",
                "The scheme is the published one. It believes too soon that it knows: its intervals narrow "
                "faster than they should, and leave the truth outside.",
                [
                    picture(
                        figures["beliefs"],
                        "Beliefs after each presentation: single listeners (grey), their mean, and the "
                        "mean 90 % interval.",
                        "Two panels of beliefs that approach the dashed truth.",
                    ),
                    picture(
                        figures["sounds"], "What one listener hears.", "Two damped rhythms with noise."
                    ),
                ],
            ),
        ],
        headline=numbers,
    )
