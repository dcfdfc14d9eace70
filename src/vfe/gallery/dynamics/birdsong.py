"""A song is heard: the percept goes on where the song is omitted, and dies where silence is heard.

Two levels: a slow attractor sets the Rayleigh number v of a quick one, whose states are loudness and
pitch. What descends from above is a prediction, v = x₃⁽²⁾ + z⁽²⁾; cutting these backward connections
means that nothing is expected of v, a precision of z⁽²⁾ of 0.1 instead of e⁸. Expected: where the song is
omitted, accuracy drops out and the percept goes on with what would have come, ever less sure; where
silence is heard, errors burst and the percept dies; with the backward connections cut F of the same song
is higher. What would have refuted it: a percept that stops with the sound, or that goes on through
silence, or a listener without backward connections to whom the song is no more surprising.

**Source:** Kiebel, Daunizeau and Friston 2008; Friston and Kiebel 2009, "Attractors in song".
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

import vfe
from vfe.dynamics import Simulated, birdsong, simulate
from vfe.gallery.job import JobResult, Progress, Workspace
from vfe.gallery.settings import about
from vfe.results.claims import Claim
from vfe.results.report import Report, Section, Table, picture
from vfe.results.style import BLUE, GREEN, INK, ORANGE, style

RATE = 64.0
HEARD = {
    "intact": "the whole song",
    "omitted": "the last third is missing: nothing is known of it",
    "silence": "the last third is silent, and that is heard",
}
ERRORS = {"sound": BLUE, "chirps (level 1)": ORANGE, "phrases (level 2)": GREEN}
LOWEST, HIGHEST, TOP = 2.0, 5.0, 60.0  # pitch in kHz at states of 0 and TOP


@dataclasses.dataclass(frozen=True)
class Settings:
    """The singer and the listener, who has the same model. States in units of the attractors."""

    seconds: float = about("length of the song", 3.75)
    precision: float = about("of the sound: 1 / variance of its noise", 2.7)
    motion: float = about("of the motion: 1 / variance of its noise, per second squared", 1.0)
    cut_link: float = about("of what descends from above, where backward connections are cut", 0.1)

    def __post_init__(self) -> None:
        for name in ("precision", "motion", "cut_link"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}.")
        if not 0.5 <= self.seconds <= 60:
            raise ValueError(f"seconds must be from 0.5 to 60; got {self.seconds}.")

    @property
    def samples(self) -> int:
        """Samples of the song, 64 a second."""
        return round(self.seconds * RATE)

    @property
    def cut(self) -> int:
        """The first sample of the last third."""
        return 2 * self.samples // 3


class Listened(NamedTuple):
    """What is believed of one sound: means and sd of states (time, 6), of the sound as it is believed to be
    (time, 2), F by time, and precision-weighted errors by level (time,), all in nats."""

    sound: np.ndarray
    states: np.ndarray
    sd: np.ndarray
    surprise: np.ndarray
    errors: dict[str, np.ndarray]

    @property
    def total_error(self) -> np.ndarray:
        """Weighted errors of all levels together, (time,)."""
        return np.sum(list(self.errors.values()), 0)

    @property
    def percept(self) -> np.ndarray:
        """The sound that the belief about the states predicts, (time, 2)."""
        return self.states[:, 1:3]


LINK = np.e**8  # the precision of what descends from above


def singer(settings: Settings, link: float = LINK) -> vfe.DynamicModel:
    """The model of both the singer and the listener; `link`: the precision of what descends from above."""
    return birdsong(
        cause_precision=link,
        observation_precision=settings.precision,
        state_precision=(settings.motion, settings.motion),
        dt=1 / RATE,
        smoothness=1 / RATE,
    )


def listen(
    settings: Settings, seed: int, progress: Progress | None = None
) -> tuple[Simulated, dict[str, Listened]]:
    """Sing, and listen to the song in three ways.

    **Example:** `listen(Settings(seconds=2.0), seed=0)[1]["omitted"].percept`.
    """
    model = singer(settings)
    song = simulate(model, jax.random.key(seed), settings.samples)
    sounds = {name: np.array(song.data, float) for name in HEARD}
    sounds["omitted"][settings.cut :] = np.nan
    sounds["silence"][settings.cut :] = 0.0
    found = {}
    for name, sound in sounds.items():
        found[name] = _listened(settings, vfe.filter(model, sound), sound)
        if progress is not None:
            progress.step(1, F=float(found[name].surprise.sum()))
    return song, found


def listen_without_backward_connections(
    settings: Settings, found: dict[str, Listened], link: float | None = None
) -> dict[str, Listened]:
    """The same song, whole and omitted, heard by a listener whose lower level expects nothing from above.

    **Example:** `listen_without_backward_connections(settings, listen(settings, 0)[1])["intact"].surprise`.
    """
    model = singer(settings, settings.cut_link if link is None else link)
    sounds = {name: found[name].sound for name in ("intact", "omitted")}
    return {name: _listened(settings, vfe.filter(model, sound), sound) for name, sound in sounds.items()}


def off_the_song(settings: Settings, song: Simulated, listened: Listened, where: slice) -> float:
    """Root mean squared distance of the percept from what is sung, in the samples of `where`.

    **Example:** `off_the_song(settings, song, found["omitted"], slice(settings.cut, None))`.
    """
    away = listened.percept - np.asarray(song.states)[:, 1:3]
    return float(np.sqrt((away[where] ** 2).sum(-1).mean()))


def claims(
    settings: Settings, song: Simulated, found: dict[str, Listened], lesioned: dict[str, Listened]
) -> list[Claim]:
    """What would have refuted it: see the head of this module.

    **Example:** `claims(settings, song, found, listen_without_backward_connections(settings, found))`.
    """
    cut = settings.cut
    sd, silence = found["omitted"].sd[:, 2], found["silence"]
    # The first sixth of a second is left out: what was heard before it still sounds on.
    loud = {name: np.abs(each.percept[cut + 16 :, 0]).mean() for name, each in found.items()}
    calm = found["intact"].total_error[cut // 2 : cut].max()
    free = lesioned["intact"].surprise.sum() - found["intact"].surprise.sum()
    return [
        # A chirp takes a quarter of a second: this is one that nobody sang.
        Claim(
            "the omitted song is followed for",
            followed_for(settings, song, found["omitted"]),
            0.25,
            unit="s",
        ),
        Claim(
            "sd of pitch in the omission, mean over that before",
            float(sd[cut + 16 :].mean() / sd[cut // 2 : cut].mean()),
            1.5,
        ),
        Claim(
            "errors at silence, their largest over the largest before",
            float(silence.total_error[cut:].max() / calm),
            3.0,
        ),
        Claim(
            "loudness heard in the omission, over that of the song",
            float(loud["omitted"] / loud["intact"]),
            0.5,
        ),
        Claim(
            "loudness heard in silence, over that of the song",
            float(loud["silence"] / loud["intact"]),
            high=0.1,
        ),
        # Three nats are odds of twenty to one.
        Claim("backward connections cut: F of the whole song rises by", float(free), 3.0, unit="nats"),
    ]


def _listened(settings: Settings, heard: Any, sound: np.ndarray) -> Listened:
    # A sample that is missing is no error.
    error = np.nan_to_num(sound - heard.prediction.mean)
    weighted = np.linalg.solve(heard.prediction.covariance, error[..., None])[..., 0]
    errors = {"sound": 0.5 * np.sum(error * weighted, -1)}
    for name, noise in zip(list(ERRORS)[1:], ("states 1", "states 2"), strict=True):
        errors[name] = 0.5 * settings.motion * np.sum(np.square(heard.errors[noise]), -1)
    surprise = np.asarray(heard.free_energy.total)
    return Listened(sound, heard.states.mean, heard.states.sd, surprise, errors)


def followed_for(settings: Settings, song: Simulated, listened: Listened) -> float:
    """Seconds after the cut until the percept is off the song by more than the song varies."""
    gap = np.linalg.norm(listened.percept - np.asarray(song.states)[:, 1:3], axis=-1)[settings.cut :]
    spread = np.sqrt(np.asarray(song.states)[:, 1:3].var(0).sum())
    lost = gap > spread
    return float((np.argmax(lost) if lost.any() else len(lost)) / RATE)


def run(
    settings: Settings,
    *,
    seed: int,
    data: dict[str, np.ndarray] | None,
    folder: Workspace,
    progress: Progress,
    resume: bool,
) -> JobResult:
    """Sing, listen, and write it up: figures sonograms.png, percepts.png and errors.png; result.nc holds
    the song, what was heard, beliefs, F and errors by time.

    **Example:** `vfe run birdsong`.
    """
    progress.start("listening", len(HEARD) + 1)
    song, found = listen(settings, seed, progress)
    lesioned = listen_without_backward_connections(settings, found)
    progress.step(1, F=float(lesioned["intact"].surprise.sum()))
    progress.done()
    figures = {
        "sonograms": _sonograms(settings, song, found),
        "percepts": _percepts(settings, song, found),
        "errors": _errors(settings, found),
    }
    numbers = [*_numbers(settings, song, found), *_lesion(settings, song, found, lesioned)]
    return JobResult(
        model={name: listened.states for name, listened in found.items()},
        dataset=_dataset(settings, song, found, lesioned),
        figures=figures,
        report=_report(settings, found, lesioned, figures, numbers),
        headline=numbers,
        claims=claims(settings, song, found, lesioned),
    )


def _numbers(settings: Settings, song: Simulated, found: dict[str, Listened]) -> list[tuple[str, str]]:
    cut, sd = settings.cut, found["omitted"].sd[:, 2]
    followed = followed_for(settings, song, found["omitted"])
    half = min(cut + 32, settings.samples - 1)
    burst = found["silence"].total_error[cut:].max()
    before = np.mean(found["intact"].total_error[:cut])
    loud = [f"{np.abs(f.percept[cut + 16 :, 0]).mean():.2f}" for f in found.values()]
    return [
        ("omitted song followed for", f"{followed:.2f} s of {(settings.samples - cut) / RATE:.2f} s"),
        ("sd of pitch there", f"{sd[cut - 1]:.2f} before the cut, {sd[half]:.2f} half a second later"),
        ("errors at silence", f"up to {burst:.0f} nats a sample; before, {before:.1f} on average"),
        ("loudness heard after", f"intact {loud[0]}, omitted {loud[1]}, silence {loud[2]}"),
    ]


def _lesion(
    settings: Settings, song: Simulated, found: dict[str, Listened], lesioned: dict[str, Listened]
) -> list[tuple[str, str]]:
    free = [each["intact"].surprise.sum() for each in (lesioned, found)]
    after = slice(settings.cut, settings.cut + 32)
    gap = [off_the_song(settings, song, each["omitted"], after) for each in (lesioned, found)]
    return [
        ("F of the whole song, backward connections cut", f"{free[0]:.1f} nats; with them {free[1]:.1f}"),
        (
            "percept off the omitted song for half a second",
            f"{gap[0]:.2f} when cut; with them {gap[1]:.2f}",
        ),
    ]


def _dataset(
    settings: Settings, song: Simulated, found: dict[str, Listened], lesioned: dict[str, Listened]
) -> Any:
    import xarray as xr

    axes = ("heard", "time")
    without = list(lesioned.values())
    several = list(found.values())
    errors = [[f.errors[name] for name in ERRORS] for f in several]
    return xr.Dataset(
        {
            "song": (("time", "channel"), song.data),
            "sung_states": (("time", "state"), song.states),
            "sound": ((*axes, "channel"), np.stack([f.sound for f in several])),
            "states": ((*axes, "state"), np.stack([f.states for f in several])),
            "states_sd": ((*axes, "state"), np.stack([f.sd for f in several])),
            "free_energy": (axes, np.stack([f.surprise for f in several]), {"units": "nats"}),
            "lesioned_states": (("lesioned", "time", "state"), np.stack([f.states for f in without])),
            "lesioned_free_energy": (
                ("lesioned", "time"),
                np.stack([f.surprise for f in without]),
                {"units": "nats"},
            ),
            "weighted_errors": (("heard", "level", "time"), np.array(errors), {"units": "nats"}),
        },
        coords={
            "heard": list(found),
            "lesioned": list(lesioned),
            "time": ("time", np.arange(settings.samples) / RATE, {"units": "s"}),
            "channel": ["loudness", "pitch"],
            "level": list(ERRORS),
        },
    )


def _after(ax: Any, settings: Settings) -> None:
    ax.axvline(settings.cut / RATE, color=INK, linestyle=":", linewidth=1.2)


def _sonograms(settings: Settings, song: Simulated, found: dict[str, Listened]) -> Any:
    """Loudness as darkness, at the pitch."""
    from matplotlib.figure import Figure

    pitches = np.linspace(LOWEST - 0.3, HIGHEST + 0.3, 120)

    def image(sound: np.ndarray) -> np.ndarray:
        loud = np.abs(np.nan_to_num(sound[:, 0]))
        pitch = LOWEST + (HIGHEST - LOWEST) * np.nan_to_num(sound[:, 1]) / TOP
        return loud * np.exp(-0.5 * ((pitches[:, None] - pitch) / 0.12) ** 2)

    most = np.abs(np.asarray(song.data)[:, 0]).max()
    extent = (0.0, settings.samples / RATE, float(pitches[0]), float(pitches[-1]))
    with style():
        figure = Figure(figsize=(8.4, 4.4), layout="constrained")
        axes = figure.subplots(2, 3, sharex=True, sharey=True)
        for column, (name, listened) in enumerate(found.items()):
            for row, sound in enumerate((listened.sound, listened.percept)):
                ax = axes[row, column]
                ax.imshow(
                    image(sound),
                    aspect="auto",
                    origin="lower",
                    extent=extent,
                    cmap="Greys",
                    vmin=0,
                    vmax=0.45 * most,
                )
                ax.grid(visible=False)
                if name != "intact":
                    _after(ax, settings)
            axes[0, column].set_title(f"{name}: sound")
            axes[1, column].set_title("percept")
            axes[1, column].set_xlabel("time (s)")
        for ax in axes[:, 0]:
            ax.set_ylabel("pitch (kHz)")
    return figure


def _percepts(settings: Settings, song: Simulated, found: dict[str, Listened]) -> Any:
    from matplotlib.figure import Figure

    time = np.arange(settings.samples) / RATE
    sung = np.asarray(song.states)
    with style():
        figure = Figure(figsize=(8.4, 5.0), layout="constrained")
        axes = figure.subplots(2, 3, sharex=True, sharey="row")
        for column, (name, listened) in enumerate(found.items()):
            for row, k in enumerate((2, 5)):
                ax, mean, sd = axes[row, column], listened.states[:, k], listened.sd[:, k]
                low, high = mean - 1.645 * sd, mean + 1.645 * sd
                ax.plot(time, sung[:, k], "--", color=INK, linewidth=1.0, label="singer")
                ax.plot(time, mean, color=BLUE, linewidth=1.4, label="listener")
                ax.fill_between(time, low, high, color=BLUE, alpha=0.25, linewidth=0, label="90 %")
                ax.set_ylim(-10, 70)
                if name != "intact":
                    _after(ax, settings)
            axes[0, column].set_title(name)
            axes[1, column].set_xlabel("time (s)")
        axes[0, 0].set_ylabel("chirps: third state")
        axes[1, 0].set_ylabel("phrases: third state")
        axes[0, 0].legend(loc="upper right", fontsize=8)
    return figure


def _errors(settings: Settings, found: dict[str, Listened]) -> Any:
    from matplotlib.figure import Figure

    time = np.arange(settings.samples) / RATE
    with style():
        figure = Figure(figsize=(8.4, 4.6), layout="constrained")
        axes = figure.subplots(2, 3, sharex=True, sharey="row")
        for column, (name, listened) in enumerate(found.items()):
            for level, colour in ERRORS.items():
                axes[0, column].plot(time, listened.errors[level], color=colour, linewidth=1.2, label=level)
            axes[1, column].plot(time, listened.surprise, color=INK, linewidth=1.2)
            axes[0, column].set_yscale("symlog", linthresh=1.0)
            axes[1, column].set_yscale("symlog", linthresh=10.0)
            axes[0, column].set_title(name)
            axes[1, column].set_xlabel("time (s)")
            if name != "intact":
                for ax in axes[:, column]:
                    _after(ax, settings)
        axes[0, 0].set_ylabel("weighted errors (nats)")
        axes[1, 0].set_ylabel("F (nats per sample)")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _report(
    settings: Settings,
    found: dict[str, Listened],
    lesioned: dict[str, Listened],
    figures: dict[str, Any],
    numbers: list[tuple[str, str]],
) -> Report:
    cut = settings.cut
    spans = {
        "before the cut": slice(cut // 2, cut),
        "0.25 s after": slice(cut, cut + 16),
        "then": slice(cut + 16, None),
    }
    rows = []
    without = {f"{name}, backward connections cut": listened for name, listened in lesioned.items()}
    for name, listened in {**found, **without}.items():
        for span, where in spans.items():
            several = [*(listened.errors[level] for level in ERRORS), listened.surprise]
            rows.append([f"{name}, {span}", *(f"{values[where].mean():.2f}" for values in several)])
    return Report(
        "Birdsong",
        "A singer of two levels, a slow attractor that sets the pace of a quick one, is heard by a "
        "listener who has the same model. Where the last third of the song is missing, the percept goes on "
        "with the song that would have come, ever less sure. Where it is silent, and the silence is heard, "
        "errors burst and the percept dies.",
        [
            Section(
                "What sounds and what is heard",
                "; ".join(f"{name}: {words}" for name, words in HEARD.items())
                + ". The listener filters online (`vfe.filter` of `vfe.dynamics.birdsong`): nothing of the "
                "future is known. Missing samples are NaN.",
                [
                    picture(
                        figures["sonograms"],
                        "Loudness (darkness) at the pitch, of the sound and of the percept.",
                        "Six sonograms; in the second column the percept goes on where the sound stops, in "
                        "the third it stops.",
                    ),
                    picture(
                        figures["percepts"],
                        "The third states of both levels: the singer's, and the listener's belief.",
                        "Six panels against time; the band widens after the cut in the middle column.",
                    ),
                ],
            ),
            Section(
                "Errors by level and F by time",
                "½ εᵀΠε of the errors in predicting the next sample, and of the noise in the motion of "
                "each level that the belief needs to explain what is heard. F of a sample is about "
                "−ln p(y_t | past); where nothing is heard there is nothing to be surprised by.\n\n"
                "Where backward connections are cut (nothing is expected from above), weighted errors are "
                "smaller, not larger: what is less precisely predicted is less of an error. F, which "
                "counts precision too, is higher.",
                [
                    picture(
                        figures["errors"],
                        "Weighted errors by level (above) and F (below); the scale is linear near zero and "
                        "then logarithmic.",
                        "Six panels against time; after the cut errors are zero in the middle and burst on "
                        "the right.",
                    )
                ],
                Table(["", *ERRORS, "F"], rows, "Means per sample, nats."),
            ),
        ],
        headline=numbers,
    )
