"""The page of bistable percepts."""

from typing import Any

import numpy as np

from vfe.gallery.foundations.bistable import KINDS, OFTEN, STEP, Course, Found, Settings
from vfe.gallery.intervals import Interval, mean_of
from vfe.gallery.job import JobResult
from vfe.gallery.page import finish, number, refuted, shown
from vfe.results.claims import Claim
from vfe.results.report import Table
from vfe.results.style import BLUE, GREEN, INK, ORANGE, PALE, PURPLE, style

COLOURS = (BLUE, ORANGE, GREEN, PURPLE)


def duration(course: Course, kind: int, percept: int) -> Interval:
    """Mean duration of percept a (0) or b (1), all its time over all its ends, with a 95 % interval over
    chains. Never ended: infinite.

    **Example:** `duration(found.course, 0, 0).text(".1f")`.
    """
    time, ends = course.lasting[kind, percept], course.changes[kind, percept]
    if not ends.any():
        return Interval(np.inf, np.inf, np.inf)
    value = time.sum() / ends.sum()
    half = 1.959964 * np.std(time - value * ends, ddof=1) * np.sqrt(len(ends)) / ends.sum()
    return Interval(value, value - half, value + half)


def off(measured: np.ndarray, expected: float) -> float:
    """How many standard errors the mean over chains is off. **Example:** `off(course.share[0], 0.5)`."""
    error = measured.std(ddof=1) / np.sqrt(len(measured))
    return float(abs(measured.mean() - expected) / max(error, 1e-12))


def claims(found: Found) -> list[Claim]:
    """What must hold. **Example:** `claims(found)[0].holds`."""
    percepts, course, expected = found.percepts, found.course, found.expected
    apart = np.linalg.norm(percepts.mode[:, 0] - percepts.mode[:, 1], axis=-1)
    lasts = np.array([[duration(course, k, side).value for side in (0, 1)] for k in (0, 1)])
    relative = float(lasts[0].mean() / expected.lasts[0].mean())
    odds = np.log(expected.share / (1 - expected.share))
    predicted = percepts.free_energy[1, 1] - percepts.free_energy[1, 0]
    cued = mean_of(course.share[1])
    return [
        Claim(
            "ambiguous: recognition from either side ends in percepts that are apart by",
            float(apart[0]),
            1.0,
        ),
        Claim(
            "ambiguous: F of the two percepts differs by",
            float(abs(np.diff(percepts.free_energy[0])[0])),
            high=1e-6,
            unit="nats",
        ),
        Claim("without noise, energy rises in a step by at most", percepts.rise, high=1e-10, unit="nats"),
        Claim("without noise, percepts end", float(course.changes[3].sum()), high=0.0, unit="times"),
        Claim(
            "with noise, percepts end, in a chain, on average",
            float(course.changes[0].sum(0).mean()),
            2.0,
            unit="times",
        ),
        # Of 1000 right programs, about three would be off by more than this.
        Claim(
            "ambiguous: the share of time of a is off one half by",
            off(course.share[0], 0.5),
            high=3.0,
            unit="standard errors",
        ),
        Claim(
            "with context: it is off quadrature by",
            off(course.share[1], float(expected.share[1])),
            high=3.0,
            unit="standard errors",
        ),
        Claim("with context: the share of time of a, lower end", float(cued.low), 0.5),
        Claim(
            "with context: F(b) − F(a) and the posterior's log-odds of a differ by",
            float(abs(predicted - odds[1])),
            high=0.1,
            unit="nats",
        ),
        # Steps of time and some hundred percepts or more leave a few per cent.
        Claim(
            "ambiguous: percepts last, relative to what the posterior's ridge says", relative, 0.85, 1.15
        ),
        Claim(
            "ambiguous: sd of their durations over the mean (no memory: 1)",
            float(course.whole.std() / course.whole.mean()) if len(course.whole) else np.nan,
            0.85,
            1.15,
        ),
        Claim(
            "draws of vfe.Langevin, share of a, are off quadrature by at most",
            max(off(found.drawn[k], float(expected.share[k])) for k in (0, 1)),
            # Intervals over eight chains: Student's t of three in a thousand.
            high=4.5,
            unit="standard errors",
        ),
        Claim("overlap seen: recognition from either side ends apart by", float(apart[2]), high=1e-2),
    ]


def write_up(settings: Settings, found: Found) -> JobResult:
    """The result of the experiment. **Example:** `write_up(settings, found)`."""
    course, expected, percepts = found.course, found.expected, found.percepts
    figures = {"bistable": draw(settings, found)}
    each = duration(course, 0, 0)
    share = [mean_of(100 * course.share[k]) for k in range(len(KINDS))]
    headline = [
        ("a percept lasts; by quadrature", f"{each.text('.1f')}; {expected.lasts[0, 0]:.1f}"),
        ("share of time of a, ambiguous (%)", share[0].text(".0f")),
        ("with context; by quadrature (%)", f"{share[1].text('.0f')}; {100 * expected.share[1]:.1f}"),
        ("percepts that end without noise", str(int(course.changes[3].sum()))),
    ]
    rows = []
    for k, name in enumerate(KINDS[:2]):
        free = percepts.free_energy[k]
        rows.append(
            [
                name,
                number(free[0], ".3f"),
                number(free[1], ".3f"),
                number(expected.surprise[k], ".3f"),
                share[k].text(".1f"),
                mean_of(100 * found.drawn[k]).text(".1f"),
                f"{100 * expected.share[k]:.1f}",
                *(f"{duration(course, k, s).text('.1f')}; {expected.lasts[k, s]:.1f}" for s in (0, 1)),
            ]
        )
    columns = ["stimulus", "F of a", "F of b", "−ln p(x)", "share of a (%)", "vfe.Langevin", "quadrature"]
    table = Table(
        [*columns, "a lasts; quadrature", "b lasts; quadrature"],
        rows,
        "F of a Gaussian belief around one percept (nats), which is about ln 2 above surprise where there "
        "are two; time in units of one over the prior's precision; 95 % intervals over observers.",
    )
    return finish(
        "Bistable percepts",
        "Something strong is seen that one of two causes explains, not both. Each explains the other away, "
        f"and so there are two percepts with F = {percepts.free_energy[0, 0]:.2f} nats each. Recognition "
        "that only "
        "descends stays in the one it came to. With noise it samples the posterior: percepts alternate, "
        f"last {each.text('.1f')} units of time, and context shifts their shares.",
        [
            shown(
                "Two valleys and a ridge",
                "Senses tell of the sum of two causes and of their product. Where a product of zero is "
                "seen with a large sum, the energy has two valleys. How long percepts last follows from "
                "the posterior alone, by the flux over the ridge between the valleys. The dynamics have no "
                "memory, so that durations vary as much as they last; those of people are more regular.",
                figures["bistable"],
                "Left: the energy of the posterior, and its two percepts. Middle, above: (a − b)/√2 of "
                "one observer in time, with noise and without; below: where the overlap is seen. "
                "Right: durations of percepts, and the exponential density with the mean by quadrature.",
                "Two valleys beside a diagonal ridge. With noise, the percept jumps between two levels; "
                "without, it stays. Durations are distributed exponentially.",
                table,
            ),
            refuted(
                "Alternation without noise, or none with it; shares of time or durations other than those "
                "of the posterior, as noise of another size has them; two percepts of a stimulus that is "
                "not ambiguous."
            ),
        ],
        figures,
        headline,
        claims(found),
        {
            "share": (("kind", "chain"), course.share),
            "changes": (("kind", "percept", "chain"), course.changes),
            "lasting": (("kind", "percept", "chain"), course.lasting),
            "duration": (("whole",), course.whole),
            "mode": (("kind", "percept", "cause"), percepts.mode),
            "free_energy": (("kind", "percept"), percepts.free_energy, {"units": "nats"}),
            "expected_share": (("posterior",), expected.share),
            "expected_duration": (("posterior", "percept"), expected.lasts),
            "surprise": (("posterior",), expected.surprise, {"units": "nats"}),
            "drawn_share": (("posterior", "draws"), found.drawn),
        },
        {"mode": percepts.mode},
        {"kind": list(KINDS), "posterior": list(KINDS[:2]), "percept": ["a", "b"], "cause": ["a", "b"]},
    )


def draw(settings: Settings, found: Found) -> Any:
    """The energy, percepts in time, and their durations. **Example:** `draw(settings, found)`."""
    from matplotlib.figure import Figure

    from vfe.gallery.foundations.bistable import PRODUCT, SUM

    course, expected = found.course, found.expected
    with style():
        figure = Figure(figsize=(12.5, 4.3), layout="constrained")
        panels = figure.subplot_mosaic(
            [["energy", "noise", "lasts"], ["energy", "seen", "lasts"]], width_ratios=(1.15, 1.3, 1.0)
        )
        grid = np.linspace(-1.0, settings.strength + 0.5, 200)
        a, b = np.meshgrid(grid, grid, indexing="ij")
        energy = 0.5 * (a**2 + b**2)
        energy = energy + ((settings.strength - a - b) / SUM) ** 2 / 2 + (a * b / PRODUCT) ** 2 / 2
        levels = np.arange(0.0, 12.1, 1.0)
        filled = panels["energy"].contourf(a, b, energy - energy.min(), levels, cmap="Blues_r")
        figure.colorbar(filled, ax=panels["energy"], label="E less its least (nats)")
        for mode, name in zip(found.percepts.mode[0], "ab", strict=True):
            panels["energy"].plot(*mode, "o", color=ORANGE)
            panels["energy"].annotate(
                f"percept {name}",
                mode,
                (7, 5),
                textcoords="offset points",
                color=INK,
                bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5},
            )
        panels["energy"].set(xlabel="cause a", ylabel="cause b")
        panels["energy"].set_title("energy, ambiguous stimulus")
        time = STEP * OFTEN * np.arange(course.side.shape[1])
        shown_part = time <= 150.0
        for name, kinds in (("noise", (0, 3)), ("seen", (2,))):
            for k in kinds:
                panels[name].plot(
                    time[shown_part],
                    course.side[k, shown_part],
                    color=COLOURS[k],
                    label=KINDS[k],
                    linewidth=1.0,
                )
            panels[name].set(ylabel="(a − b)/√2", ylim=(-3.9, 5.9))
            panels[name].legend(loc="upper right", ncols=2)
        panels["noise"].set_title("one observer's percepts in time")
        panels["seen"].set(xlabel="time")
        lasts = expected.lasts[0].mean()
        edges = np.linspace(0, 6 * lasts, 31)
        panels["lasts"].hist(
            course.whole, edges, density=True, color=BLUE, alpha=0.5, label=f"{len(course.whole)} percepts"
        )
        panels["lasts"].plot(
            edges, np.exp(-edges / lasts) / lasts, color=INK, label="no memory, quadrature"
        )
        panels["lasts"].axvline(lasts, color=PALE, linestyle=":")
        panels["lasts"].set(xlabel="how long a percept lasts", ylabel="density")
        panels["lasts"].set_title("durations; dotted: their mean")
        panels["lasts"].legend()
    return figure
