"""The page of the four beliefs."""

from typing import Any

import numpy as np

from vfe.gallery.foundations.ensembles import InTime, Linear, Settings, Tables
from vfe.gallery.intervals import mean_of
from vfe.gallery.job import JobResult
from vfe.gallery.page import finish, largest, number, refuted, shown
from vfe.results.claims import Claim
from vfe.results.report import Table
from vfe.results.style import BLUE, GREEN, INK, ORANGE, PALE, style

ROUNDING = 1e-10


def claims(stated: Tables, timed: InTime, linear: Linear) -> list[Claim]:
    """What must hold. **Example:** `claims(stated, timed, linear)[0].holds`."""
    free = stated.free
    gap = free["shared"] - free["per sensation"]
    # ⟨ln p(z | x)⟩ over sensations, by cause.
    predicted = -np.log(np.exp(stated.weight @ np.log(stated.per_sensation)).sum())
    gain = mean_of((timed.alone - timed.carried).mean(1))
    return [
        Claim(
            "one belief per sensation: mean F and mean surprise differ by",
            abs(free["per sensation"] - stated.surprise),
            high=ROUNDING,
            unit="nats",
        ),
        Claim("one belief shared by all costs more, by", gap, 0.1, unit="nats"),
        Claim(
            "that cost and −ln Σ_z exp⟨ln p(z | x)⟩ differ by",
            abs(gap - predicted),
            high=ROUNDING,
            unit="nats",
        ),
        Claim(
            "the shared belief found and p(z) exp⟨ln p(x | z)⟩ differ by",
            largest(stated.shared - stated.closed),
            high=1e-6,
        ),
        Claim(
            "the aggregate of exact beliefs and p(z) differ by",
            largest(stated.aggregate - stated.prior),
            high=1e-12,
        ),
        Claim(
            "the aggregate, used as the shared belief, costs more than the best, by",
            free["aggregate"] - free["shared"],
            1e-3,
            unit="nats",
        ),
        Claim(
            "a carried belief saves, per sensation, low end of its interval",
            float(gain.low),
            0.01,
            unit="nats",
        ),
        Claim(
            "flowers: mean F of one belief each and mean surprise differ by",
            abs(linear.per_sensation - linear.surprise),
            high=ROUNDING,
            unit="nats",
        ),
        Claim(
            "flowers: one belief shared by all costs more, by",
            linear.shared - linear.surprise,
            1.0,
            unit="nats",
        ),
        Claim("flowers: slope of mean F at the shared belief, largest", linear.slope, high=1e-8),
        Claim(
            "flowers: moments of the aggregate and of p(z) = N(0, I) differ by",
            largest(linear.mean, linear.covariance - np.eye(len(linear.mean))),
            high=1e-8,
        ),
    ]


def write_up(settings: Settings, stated: Tables, timed: InTime, linear: Linear) -> JobResult:
    """The result of the experiment. **Example:** `write_up(settings, stated, timed, linear)`."""
    figures = {"ensembles": draw(stated, timed, linear), "in_time": draw_in_time(timed)}
    carried, alone = (mean_of(part.mean(1)) for part in (timed.carried, timed.alone))
    gain = mean_of((timed.alone - timed.carried).mean(1))
    free = stated.free
    headline = [
        ("mean F, one belief per sensation", f"{free['per sensation']:.4f} nats"),
        ("mean F, one belief for all", f"{free['shared']:.4f} nats"),
        ("gap", f"{free['shared'] - free['per sensation']:.4f} nats"),
        ("saved by a carried belief", f"{gain.text('.3f')} nats"),
    ]
    rows = [
        [name, *(number(value) for value in (free[name], *stated.terms[name]))]
        for name in ("per sensation", "shared", "aggregate")
    ]
    return finish(
        "Four beliefs that are easily confused",
        "Free energy can be written for any density over hidden causes. What it comes to depends on what "
        "that density may know. One belief per sensation reaches the mean surprise, "
        f"{free['per sensation']:.4f} nats here; the best single belief for all sensations "
        f"{free['shared']:.4f}. Their mean over sensations, the aggregate, is the prior: a third "
        "object, and not the best single belief. A belief carried in time is a fourth: where causes "
        f"persist it saves {gain.value:.3f} nats per sensation.",
        [
            shown(
                "Per sensation, shared, aggregate",
                "Five causes, seven sensations, all probabilities known. The shared belief was found by "
                "descent on mean F; it is proportional to p(z) exp⟨ln p(x | z)⟩ and sharper than the "
                "prior. The difference between two rows of the table is the difference in energy less "
                "that in entropy. On the right, 150 irises under the maximum-likelihood linear model with "
                f"two causes: {linear.surprise:.2f}, {linear.shared:.2f} and {linear.prior:.2f} nats.",
                figures["ensembles"],
                "Left: the densities. Middle: mean F in the tables, with the surprise as a line. "
                "Right: the same for the irises.",
                "Bars: the shared belief differs from the prior and costs more than beliefs per sensation.",
                Table(
                    ["belief", "mean F", "mean energy", "mean entropy"],
                    rows,
                    "Nats. F = energy − entropy.",
                ),
            ),
            shown(
                "Carried in time",
                f"A cause stays with probability {settings.persistence:g} and is otherwise drawn anew, so "
                "that sensations taken one by one have the same distribution as before. Their mean "
                f"surprise is {alone.text('.3f')} nats, mean F of the carried belief {carried.text('.3f')} "
                f"({settings.series} sequences of {settings.length}, 95 % intervals over sequences).",
                figures["in_time"],
                "Above: the belief given all sensations so far; below: given the present one alone. "
                "Darker is more probable; dots are the true causes.",
                "Two images over time; the carried belief stays with the true cause.",
            ),
            refuted(
                "A shared belief that costs no more than beliefs per sensation; an aggregate other than "
                "the prior; a carried belief that saves nothing. With the order of the sensations shuffled "
                "there is nothing to carry, and that claim fails."
            ),
        ],
        figures,
        headline,
        claims(stated, timed, linear),
        {
            "probability": (
                ("belief", "cause"),
                np.stack([stated.shared, stated.aggregate, stated.prior]),
            ),
            "mean_free_energy": ("belief", [free[n] for n in BELIEFS], {"units": "nats"}),
            "carried": (("series", "time"), timed.carried, {"units": "nats"}),
            "alone": (("series", "time"), timed.alone, {"units": "nats"}),
            "sensation": (("series", "time"), timed.x),
            "true_cause": (("series", "time"), timed.z),
        },
        {"shared": stated.shared, "per_sensation": stated.per_sensation},
        {"belief": list(BELIEFS)},
    )


BELIEFS = ("shared", "aggregate", "prior")


def draw(stated: Tables, timed: InTime, linear: Linear) -> Any:
    """The densities, and what they cost. **Example:** `draw(stated, timed, linear)`."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(12.0, 3.9), layout="constrained")
        axes = figure.subplots(1, 3, width_ratios=(1.4, 1, 0.8))
        causes = np.arange(5)
        axes[0].bar(
            causes - 0.28, stated.per_sensation[0], 0.26, color=BLUE, label="given the first sensation"
        )
        axes[0].bar(causes, stated.shared, 0.26, color=ORANGE, label="shared by all sensations")
        axes[0].bar(causes + 0.28, stated.aggregate, 0.26, color=GREEN, label="aggregate")
        axes[0].plot(causes + 0.28, stated.prior, "D", color=INK, markersize=4, label="prior p(z)")
        axes[0].set(xlabel="cause", ylabel="probability", xticks=causes, title="three densities")
        axes[0].legend(loc="upper right")
        carried = mean_of(timed.carried.mean(1))
        names = ["carried\nin time", "per\nsensation", "shared", "aggregate"]
        values = [float(carried.value), *(stated.free[n] for n in ("per sensation", "shared", "aggregate"))]
        bars = axes[1].bar(names, values, color=[PALE, BLUE, ORANGE, GREEN])
        texts = [f"{value:.3f}" for value in values]
        axes[1].bar_label(bars, texts, label_type="center", fontsize=9, backgroundcolor="white")
        axes[1].axhline(stated.surprise, color=INK, linestyle="--", linewidth=1.2)
        axes[1].set(ylabel="mean F (nats)", title="tables", ylim=(0, 1.15 * max(values)))
        values = [linear.per_sensation, linear.shared, linear.prior]
        bars = axes[2].bar(["per\nflower", "shared", "aggregate"], values, color=[BLUE, ORANGE, GREEN])
        axes[2].bar_label(bars, [f"{value:.2f}" for value in values], padding=2, fontsize=9)
        axes[2].set(ylabel="mean F (nats)", title="150 irises", ylim=(0, 1.15 * max(values)))
        for each in axes[1:]:
            each.grid(axis="x", visible=False)
    return figure


def draw_in_time(timed: InTime) -> Any:
    """The belief about one sequence, carried and not. **Example:** `draw_in_time(timed)`."""
    from matplotlib.figure import Figure

    from vfe.gallery.foundations.toys import tables

    prior, likelihood = tables()
    steps = min(80, timed.x.shape[1])
    alone = prior * likelihood[:, timed.x[0, :steps]].T
    with style():
        figure = Figure(figsize=(10.0, 4.2), layout="constrained")
        axes = figure.subplots(2, 1, sharex=True)
        shown_here = {"carried": timed.belief[0, :steps], "one by one": alone / alone.sum(1, keepdims=True)}
        for axis, (name, belief) in zip(axes, shown_here.items(), strict=True):
            image = {"aspect": "auto", "origin": "lower", "interpolation": "none"}
            axis.imshow(belief.T, cmap="Blues", vmin=0, vmax=1, **image)
            axis.plot(timed.z[0, :steps], ".", color=ORANGE, markersize=5)
            axis.set(ylabel="cause", title=name, yticks=range(5))
            axis.grid(visible=False)
        axes[1].set_xlabel("time (steps)")
        figure.colorbar(axes[0].images[0], ax=axes, label="probability")
    return figure
