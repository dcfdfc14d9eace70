"""The page of the learned priors."""

import math
from typing import Any

import numpy as np

from vfe.gallery.foundations.empirical_bayes import PLAYERS, Groups, Settings, average_of
from vfe.gallery.intervals import mean_of
from vfe.gallery.job import JobResult
from vfe.gallery.page import finish, number, refuted, shown
from vfe.results.claims import Claim
from vfe.results.report import Table
from vfe.results.style import BLUE, GREEN, INK, ORANGE, PALE, style


def claims(settings: Settings, made: Groups, real: Groups) -> list[Claim]:
    """What must hold. **Example:** `claims(settings, made, real)[0].holds`."""
    learned, true = made.priors["learned"], made.priors["true"]
    n, spread = len(made.x), true.sd**2 + 1
    error = {name: found.error.mean() for name, found in made.found.items()}
    saved = mean_of(made.found["flat"].error - made.found["learned"].error)
    held_out = mean_of(real.found["flat"].error - real.found["learned"].error)
    return [
        Claim(
            "learned mean, from the true one",
            abs(learned.mean - true.mean) / math.sqrt(spread / n),
            high=4.0,
            unit="standard errors",
        ),
        Claim(
            "learned variance, from the true one",
            abs(learned.sd**2 - true.sd**2) / (spread * math.sqrt(2 / n)),
            high=4.0,
            unit="standard errors",
        ),
        Claim(
            "learned mean and variance, from those of greatest marginal likelihood",
            max(abs(learned.mean - made.closed.mean), abs(learned.sd**2 - made.closed.sd**2)),
            high=0.005,
        ),
        Claim(
            "players: learned variance, from that of greatest marginal likelihood",
            abs(real.priors["learned"].sd ** 2 - real.closed.sd**2),
            high=0.005,
        ),
        Claim(
            "mean F under the true prior is higher than under the learned one, by",
            made.found["true"].free_energy - made.found["learned"].free_energy,
            low=0.0,
            unit="nats per group",
            proved=True,
        ),
        Claim(
            "squared error saved against a flat prior, low end of its interval, "
            "in parts of what the true prior saves",
            float(saved.low) / (error["flat"] - error["true"]),
            low=0.8,
        ),
        Claim(
            "squared error under the learned prior, in parts of that under the true one",
            error["learned"] / error["true"],
            high=1.05,
        ),
        Claim(
            "players: squared error saved on the rest of the season, low end of its interval",
            float(held_out.low),
            low=0.0,
        ),
        Claim(
            "players: squared error on the rest of the season, in parts of that of a flat prior",
            real.found["learned"].error.mean() / real.found["flat"].error.mean(),
            high=0.5,
        ),
    ]


def write_up(settings: Settings, made: Groups, real: Groups) -> JobResult:
    """The result of the experiment. **Example:** `write_up(settings, made, real)`."""
    figures = {"empirical_bayes": draw(made, real)}
    learned = made.priors["learned"]
    error = {name: mean_of(found.error) for name, found in made.found.items()}
    total = {name: found.error.sum() for name, found in real.found.items()}
    headline = [
        ("learned prior", f"N({number(learned.mean, '.3f')}, {learned.sd**2:.3f})"),
        ("squared error, flat prior", error["flat"].text(".3f")),
        ("squared error, learned prior", error["learned"].text(".3f")),
        ("squared error, true prior", error["true"].text(".3f")),
        ("players, rest of the season: flat, learned", f"{total['flat']:.2f}, {total['learned']:.2f}"),
    ]
    rows = [
        [
            name,
            f"{average_of(real.x[i]):.3f}",
            f"{average_of(real.found['learned'].estimate[i]):.3f}",
            f"{rest:.3f}",
            str(later),
        ]
        for i, (name, (_, later, rest)) in enumerate(PLAYERS.items())
    ]
    true = made.priors["true"]
    return finish(
        "A hierarchy learns its own priors",
        f"One noisy value is seen of each of {len(made.x):,} groups, whose true values are spread as "
        f"N({true.mean:g}, {true.sd**2:.2f}). The level above learns that spread by free energy: "
        f"N({number(learned.mean, '.3f')}, {learned.sd**2:.3f}). Estimates of the groups become "
        f"better for it: squared error {error['learned'].value:.3f} against {error['flat'].value:.3f} "
        f"under a flat prior, and {error['true'].value:.3f} under the true one. The same for 18 baseball "
        f"players: the sum of squared errors on the rest of their season is {total['learned']:.1f} "
        f"instead of {total['flat']:.1f}.",
        [
            shown(
                "Groups that are made, and players",
                "Right: batting averages of the first 45 times at bat in 1970, the estimates under the "
                "learned prior, and the average of the rest of the season, which was not used. The most "
                "extreme beginnings are drawn to the middle most. Errors are counted on the scale √45 "
                "arcsin(2 p − 1), where the noise has variance 1.",
                figures["empirical_bayes"],
                "Left: what was seen of the groups (grey), the learned prior (blue) and the true one "
                "(dashed). Middle: mean F while learning; the line is its least value. Right: players.",
                "A histogram wider than the learned prior; F falls to a line; lines that converge.",
                Table(
                    ["player", "first 45", "estimate", "rest of the season", "times at bat there"],
                    rows,
                    "Batting averages. Data: Efron and Morris 1975.",
                ),
            ),
            refuted(
                "A prior learned elsewhere than where the marginal likelihood is greatest, or squared "
                "errors that it does not lower. A prior with the wrong mean fails these claims."
            ),
        ],
        figures,
        headline,
        claims(settings, made, real),
        {
            "seen": ("group", made.x),
            "truth": ("group", made.truth),
            "estimate": ("group", made.found["learned"].estimate),
            "free_energy": ("epoch", made.trace, {"units": "nats"}),
            "player_seen": ("player", real.x),
            "player_rest": ("player", real.truth),
            "player_estimate": ("player", real.found["learned"].estimate),
        },
        {name: np.array([prior.mean, prior.sd]) for name, prior in made.priors.items()},
        {"player": list(PLAYERS)},
    )


def draw(made: Groups, real: Groups) -> Any:
    """Priors, learning, and players. **Example:** `draw(made, real)`."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(12.0, 4.2), layout="constrained")
        axes = figure.subplots(1, 3)
        value = np.linspace(made.x.min(), made.x.max(), 300)
        axes[0].hist(made.x, 40, density=True, color="#d5d5d5", label="seen, x")
        for name, colour, line in (("learned", BLUE, "-"), ("true", INK, "--")):
            mean, sd = made.priors[name]
            density = np.exp(-0.5 * ((value - mean) / sd) ** 2) / (sd * math.sqrt(2 * math.pi))
            axes[0].plot(value, density, color=colour, linestyle=line, label=f"{name} prior of z")
        axes[0].set(xlabel="value (sd of the noise)", ylabel="density", title="groups")
        axes[0].legend(loc="upper right")
        axes[1].plot(np.arange(1, len(made.trace) + 1), made.trace, color=BLUE)
        spread = made.closed.sd**2 + 1
        axes[1].axhline(0.5 * math.log(2 * math.pi * math.e * spread), color=PALE, linewidth=1.2)
        axes[1].set(xlabel="step of learning", ylabel="mean F (nats per group)", title="learning")
        stages = [average_of(real.x), average_of(real.found["learned"].estimate), average_of(real.truth)]
        for i in range(len(real.x)):
            axes[2].plot([0, 1], [stages[0][i], stages[1][i]], color=BLUE, linewidth=1, alpha=0.7)
        axes[2].plot(np.zeros(len(real.x)), stages[0], "o", color=BLUE, label="first 45")
        axes[2].plot(np.ones(len(real.x)), stages[1], "s", color=ORANGE, label="estimate")
        axes[2].plot(np.full(len(real.x), 2), stages[2], "D", color=GREEN, label="rest of the season")
        axes[2].set_xticks([0, 1, 2], ["first 45\ntimes at bat", "estimate", "rest of the\nseason"])
        axes[2].set(ylabel="batting average", title="18 players, 1970", xlim=(-0.3, 2.3))
    return figure
