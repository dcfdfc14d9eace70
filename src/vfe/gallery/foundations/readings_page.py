"""The page of the three readings."""

from typing import Any

import numpy as np

from vfe.gallery.foundations.readings import Found
from vfe.gallery.job import JobResult
from vfe.gallery.page import finish, largest, number, refuted, shown
from vfe.results.claims import Claim
from vfe.results.report import Table
from vfe.results.style import BLUE, GREEN, ORANGE, PALE, RED, SKY, style

# Sums of some tens of terms below 1000 nats, in double precision.
ROUNDING = 1e-11


def claims(states: Found, levels: Found) -> list[Claim]:
    """What must hold in both models. **Example:** `claims(states, levels)[0].holds`."""
    both = (states, levels)
    first, second, third = (np.concatenate([f.readings[i].ravel() for f in both]) for i in range(3))
    moved = largest(*(f.likelihood[0] for f in both))
    return [
        Claim(
            "energy − entropy and complexity − accuracy differ by",
            largest(first - second),
            high=ROUNDING,
            unit="nats",
        ),
        Claim(
            "energy − entropy and surprise + divergence differ by",
            largest(first - third),
            high=ROUNDING,
            unit="nats",
        ),
        Claim(
            "F + ln p(x) of beliefs that are not the posterior, smallest",
            float(min(f.gap.min() for f in both)),
            low=1e-6,
            unit="nats",
            proved=True,
        ),
        Claim(
            "F + ln p(x) less ½ |q − p(z | x)|₁², smallest (states)",
            float((states.gap - states.least).min()),
            low=-ROUNDING,
            unit="nats",
        ),
        Claim(
            "F + ln p(x) at the posterior, largest",
            largest(*(f.at_posterior for f in both)),
            high=ROUNDING,
            unit="nats",
        ),
        Claim(
            "complexity of a level, smallest",
            min(float(a.min()) for f in both for a, _ in f.by_level.values()),
            low=0.0,
            unit="nats",
            proved=True,
        ),
        Claim(
            "F of a hidden level and its expected divergence differ by",
            max(largest(a - b) for f in both for a, b in f.by_level.values()),
            high=ROUNDING,
            unit="nats",
        ),
        Claim(
            "likelihood's parameters move complexity by",
            largest(*(f.likelihood[2] for f in both)),
            0.0,
            0.0,
        ),
        Claim(
            "likelihood's parameters: dF and −d accuracy differ, relative to the largest dF, by",
            largest(*(f.likelihood[0] - f.likelihood[1] for f in both)) / moved,
            high=1e-12,
        ),
        Claim(
            "belief's parameters: dF and d divergence differ, relative to the largest dF, by",
            max(largest(f.belief[0] - f.belief[1]) / largest(f.belief[0]) for f in both),
            high=1e-12,
        ),
        Claim(
            "the belief that perception finds (states) and the posterior differ by",
            states.perceived,
            high=1e-8,
        ),
    ]


def write_up(states: Found, levels: Found) -> JobResult:
    """The result of the experiment. **Example:** `write_up(states, levels)`."""
    figures = {"readings": draw(states, levels), "gradients": draw_gradients(states, levels)}
    made = claims(states, levels)
    empirical = largest(levels.empirical[2])
    headline = [
        ("beliefs tried", f"{states.gap.size + levels.gap.size:,}"),
        ("largest difference between readings", f"{max(made[0].measured, made[1].measured):.1e} nats"),
        ("smallest F + ln p(x)", f"{made[2].measured:.4f} nats"),
    ]
    rows = []
    for name, found in (("five states, seven sensations", states), ("two Gaussian levels", levels)):
        cells = [found.parts[part].mean() for part in PARTS]
        rows.append([name, *(number(cell, ".3f") for cell in (found.readings[0].mean(), *cells))])
    return finish(
        "Three readings of one number",
        "Free energy F says how well a belief about hidden causes accounts for what is sensed. It is "
        "energy less entropy; how far the belief is from what was expected before (complexity) less how "
        "well it predicts what was sensed (accuracy); and surprise plus how far it is from the posterior "
        "(divergence). As divergence is never negative, F bounds surprise. Here each reading is computed "
        f"by a way of its own for {states.gap.size + levels.gap.size:,} random beliefs: they differ by "
        f"at most {max(made[0].measured, made[1].measured):.0e} nats, and F never falls below "
        "surprise.".replace("-", "−"),
        [
            shown(
                "The same height three times",
                "Left: one belief, one sensation. Middle: F + ln p(x) against the distance from the "
                "posterior. It cannot lie below half the squared distance, so it vanishes at the posterior "
                "only. Right: in a hierarchy F is a sum over levels; each hidden level's part is its own "
                "expected divergence from the level above.",
                figures["readings"],
                "Left: the readings of F, the second term stacked on the first (an accuracy below zero "
                "adds). Middle: random beliefs "
                "(points) and Pinsker's bound. Right: F by level of the Gaussian hierarchy.",
                "Three stacked bars whose sums agree; points above a line; histograms by level.",
                Table(
                    ["model", "F", *PARTS],
                    rows,
                    "Nats, means over the beliefs tried. Entropy, and accuracy, are what is taken off.",
                ),
            ),
            shown(
                "What moves what",
                "At a fixed belief the parameters of the likelihood p(x | z) move F through the accuracy "
                "alone: their points lie on the line, and the complexity's derivative is exactly zero. "
                "The parameters of an empirical prior p(z1 | z2) do not obey this: they leave accuracy "
                f"alone and act through the complexity (by up to {empirical:.2f} here). At fixed data the "
                "belief moves F as it moves the divergence, because surprise does not depend on it.",
                figures["gradients"],
                "Left: derivative of F against that of −accuracy, by parameter. Right: derivative of F "
                "against that of the divergence, by parameter of the beliefs.",
                "Points on a diagonal; those of the empirical prior on a vertical line.",
            ),
            refuted(
                "Readings that differ by more than rounding; an F below surprise, or equal to it away from "
                "the posterior; parameters of the likelihood that act through the complexity. With the "
                "entropy forgotten or counted twice, claims fail."
            ),
        ],
        figures,
        headline,
        made,
        {
            "free_energy_states": (
                ("reading", "belief", "sensation"),
                states.readings,
                {"units": "nats"},
            ),
            "surprise_states": (("belief", "sensation"), states.surprise, {"units": "nats"}),
            "free_energy_levels": (("reading", "belief"), levels.readings, {"units": "nats"}),
            "surprise_levels": ("belief", levels.surprise, {"units": "nats"}),
        },
        {"likelihood_gradient": levels.likelihood[0]},
        {"reading": ["energy − entropy", "complexity − accuracy", "surprise + divergence"]},
    )


PARTS: tuple[str, ...] = ("energy", "entropy", "complexity", "accuracy", "surprise", "divergence")


def draw(states: Found, levels: Found) -> Any:
    """Readings, the bound, and levels. **Example:** `draw(states, levels)`."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(12.0, 4.0), layout="constrained")
        axes = figure.subplots(1, 3)
        chosen = (int(np.argmin(abs(states.gap[:, 0] - 0.8))), 0)
        parts = {name: float(value[chosen]) for name, value in states.parts.items()}
        up = {0: PARTS[0], 1: PARTS[2], 2: PARTS[4]}
        colours = dict[str, str](zip(PARTS, (BLUE, SKY, ORANGE, RED, PALE, GREEN), strict=True))
        top = 1.1 * max(parts["energy"], parts["surprise"] + parts["divergence"])
        for place, first in up.items():
            second = PARTS[2 * place + 1]
            value = parts[second] if second == "divergence" else -parts[second]
            axes[0].bar(place, parts[first], width=-0.36, align="edge", color=colours[first])
            axes[0].bar(place, value, width=0.36, bottom=parts[first], align="edge", color=colours[second])
            sign = "+" if second == "divergence" else "−"
            axes[0].text(place, -0.03 * top, f"{first}\n{sign} {second}", ha="center", va="top", fontsize=9)
        total = parts["energy"] - parts["entropy"]
        axes[0].axhline(total, color="#222222", linewidth=1.2, linestyle="--")
        axes[0].text(2.42, total, "F", va="bottom", ha="right")
        axes[0].set(
            xticks=[], ylabel="nats", xlim=(-0.5, 2.5), ylim=(0, top), title="one belief, three readings"
        )
        distance = np.sqrt(2 * states.least).ravel()
        axes[1].scatter(distance, states.gap.ravel(), s=3, color=BLUE, alpha=0.35, linewidths=0)
        line = np.geomspace(distance.min(), 2, 50)
        axes[1].plot(line, 0.5 * line**2, color=RED, label="½ distance²")
        axes[1].set(
            xscale="log",
            yscale="log",
            xlabel="distance |q − p(z | x)|₁",
            ylabel="F + ln p(x) (nats)",
            title="F bounds surprise",
        )
        axes[1].legend(loc="upper left")
        levels_shown = {"x": -levels.parts["accuracy"]}
        levels_shown |= {name: a for name, (a, _) in reversed(levels.by_level.items())}
        labels = ["x: −accuracy", "z1: complexity", "z2: complexity"]
        axes[2].boxplot(
            list(levels_shown.values()), orientation="horizontal", whis=(2.5, 97.5), showfliers=False
        )
        axes[2].set_yticks([1, 2, 3], labels)
        axes[2].set(xlabel="nats (middle half, 95 %)", title="F by level, Gaussian hierarchy")
        axes[2].axvline(0, color=PALE, linewidth=1)
    return figure


def draw_gradients(states: Found, levels: Found) -> Any:
    """Derivatives in parameters of model and beliefs. **Example:** `draw_gradients(states, levels)`."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(9.0, 4.0), layout="constrained")
        axes = figure.subplots(1, 2)
        total, accuracy, _ = levels.likelihood
        axes[0].plot(accuracy, total, "o", color=BLUE, label="of the likelihood p(x | z1)", zorder=3)
        axes[0].plot(
            levels.empirical[1], levels.empirical[0], "s", color=ORANGE, label="of the prior p(z1 | z2)"
        )
        ends = np.array([min(total.min(), levels.empirical[0].min()), total.max()])
        axes[0].plot(ends, ends, color=PALE, linewidth=1, zorder=1)
        axes[0].set(xlabel="−d accuracy", ylabel="dF", title="parameters of the model, belief fixed")
        axes[0].legend(loc="upper left")
        axes[1].plot(levels.belief[1], levels.belief[0], ".", color=GREEN, markersize=3)
        ends = np.array([levels.belief[0].min(), levels.belief[0].max()])
        axes[1].plot(ends, ends, color=PALE, linewidth=1, zorder=1)
        axes[1].set(xlabel="d divergence", ylabel="dF", title="parameters of beliefs, data fixed")
    return figure
