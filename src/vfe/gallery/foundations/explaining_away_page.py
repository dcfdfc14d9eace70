"""The page of explaining away."""

from typing import Any

import numpy as np

from vfe.gallery.foundations.explaining_away import Found, Recognised, Settings
from vfe.gallery.job import JobResult
from vfe.gallery.page import finish, largest, refuted, shown
from vfe.results.claims import Claim
from vfe.results.report import Table
from vfe.results.style import BLUE, GREEN, INK, ORANGE, PALE, style

KINDS = ("two causes for every effect", "one cause for every effect")


def gaps(recognised: Recognised) -> tuple[float, float]:
    """Mean F: of the encoder above the iterated beliefs, and of these above −ln p(x), nats.

    **Example:** `gaps(found.shared)`.
    """
    mean = recognised.mean
    encoder, iterated = mean(recognised.encoder), mean(recognised.iterated)
    return encoder - iterated, iterated - mean(recognised.surprise)


def claims(found: Found) -> list[Claim]:
    """What must hold. **Example:** `claims(found)[0].holds`."""
    _, given_alarm, given_both = found.alarm
    amortisation, family = gaps(found.shared)
    rise = max(float(np.diff(each.trace, axis=1).max()) for each in (found.shared, found.alone))
    return [
        Claim("the earthquake takes away from the burglary's probability", given_alarm - given_both, 0.05),
        Claim("shared effects: iterating the encoder's beliefs saves", amortisation, 0.01, unit="nats"),
        Claim(
            "shared effects: the pattern on which it saves least, saves",
            float((found.shared.encoder - found.shared.iterated).min()),
            low=-1e-9,
            unit="nats",
        ),
        Claim("F rises in an iteration by at most", rise, high=1e-9, unit="nats"),
        Claim("shared effects: independent causes cost, for good", family, 1e-3, unit="nats"),
        Claim(
            "effects with one cause: the encoder's F and −ln p(x) differ by",
            abs(sum(gaps(found.alone))),
            high=1e-6,
            unit="nats",
        ),
        Claim(
            "effects with one cause: its probabilities and the posterior's differ by",
            largest(found.alone.encoded - found.alone.posterior),
            high=1e-3,
        ),
    ]


def write_up(settings: Settings, found: Found) -> JobResult:
    """The result of the experiment. **Example:** `write_up(settings, found)`."""
    figures = {"explaining_away": draw(found)}
    prior, given_alarm, given_both = found.alarm
    amortisation, family = gaps(found.shared)
    iterations = needed(found.shared)
    headline = [
        ("p(burglary): before, alarm, earthquake too", f"{prior:.2f}, {given_alarm:.2f}, {given_both:.2f}"),
        ("the encoder loses to iterating", f"{amortisation:.4f} nats"),
        ("iterations to within a hundredth of it", str(iterations)),
        ("independent causes lose to the posterior", f"{family:.4f} nats"),
    ]
    rows = [
        [name, *(f"{each.mean(free):.4f}" for free in (each.encoder, each.iterated, each.surprise))]
        for name, each in zip(KINDS, (found.shared, found.alone), strict=True)
    ]
    return finish(
        "Explaining away",
        f"A burglary has the probability {prior:.2f}; when the alarm rings, {given_alarm:.2f}; when it "
        f"turns "
        f"out that the earth shook, {given_both:.2f} again. Causes that share an effect compete for it. "
        f"A pass "
        "forward from effects to causes, in which each cause adds up its effects, does not settle that: "
        f"it loses {amortisation:.4f} nats to beliefs of the same kind that are iterated through the "
        "model's own predictions. Where every effect has one cause it loses nothing.",
        [
            shown(
                "Feed-forward, and iterated",
                "Four causes and six effects, one for each pair of causes, all 64 patterns weighed by "
                "their "
                f"probability. The encoder has {found.shared.parameters} parameters of its own and was "
                f"trained on mean F from {settings.starts + 1} starts; iterating has none, and costs "
                f"time: {iterations} updates of all causes until a hundredth of its gain is left. What "
                f"it does not reach, {family:.4f} nats, is lost by taking the causes for independent in "
                "recognition. An encoder with an output for every pattern would lose nothing to "
                "iterating: this is about one of this size.",
                figures["explaining_away"],
                "Left: probability of a burglary. Middle: mean F above −ln p(x). Right: the same by "
                "iteration, where effects have two causes.",
                "The middle bar is highest; the gap of the encoder is larger where effects are shared.",
                Table(
                    ["model", "F, encoder", "F, iterated", "−ln p(x)"],
                    rows,
                    "Nats, means over all patterns.",
                ),
            ),
            refuted(
                "An encoder that does as well as iterating where causes share effects; an iteration that "
                "raises F; an encoder that falls short where they do not share. If effects with one "
                "cause are put in the place of shared ones, the claims fail."
            ),
        ],
        figures,
        headline,
        claims(found),
        {
            name: (("sharing", "pattern"), np.stack([getattr(each, name) for each in found[1:]]), _NATS)
            for name in ("surprise", "encoder", "iterated")
        }
        | {
            "weight": (("sharing", "pattern"), np.stack([each.weight for each in found[1:]])),
            "trace": (("sharing", "pattern", "iteration"), np.stack([e.trace for e in found[1:]]), _NATS),
        },
        {"encoded": found.shared.encoded},
        {"sharing": ["shared", "alone"]},
    )


_NATS = {"units": "nats"}


def needed(recognised: Recognised) -> int:
    """Iterations until a hundredth of what they gain is left. **Example:** `needed(found.shared)`."""
    mean = recognised.weight @ recognised.trace
    return int(np.argmax(mean - mean[-1] <= 0.01 * (mean[0] - mean[-1])))


def draw(found: Found) -> Any:
    """The alarm, the gaps, and iterations. **Example:** `draw(found)`."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(12.0, 3.9), layout="constrained")
        axes = figure.subplots(1, 3)
        names = ["before", "alarm", "alarm and\nearthquake"]
        bars = axes[0].bar(names, found.alarm, color=[PALE, BLUE, ORANGE])
        axes[0].bar_label(bars, [f"{p:.2f}" for p in found.alarm], padding=2, fontsize=9)
        axes[0].set(ylabel="p(burglary)", ylim=(0, 1), title="two causes of one alarm")
        axes[0].grid(axis="x", visible=False)
        for place, each in enumerate((found.shared, found.alone)):
            amortisation, family = gaps(each)
            first = place == 0
            axes[1].bar(place, family, color=GREEN, label="independent causes" if first else None)
            axes[1].bar(
                place,
                max(amortisation, 0.0),
                bottom=family,
                color=ORANGE,
                label="one pass forward" if first else None,
            )
            total = f"{max(family + amortisation, 0.0):.4f}"
            axes[1].annotate(
                total, (place, family + amortisation), (0, 3), textcoords="offset points", ha="center"
            )
        axes[1].set_xticks([0, 1], ["two causes for\nevery effect", "one cause for\nevery effect"])
        axes[1].set(ylabel="mean F above −ln p(x) (nats)", xlim=(-0.6, 1.6))
        axes[1].set_title("what recognition loses to")
        axes[1].set_ylim(0, 1.4 * sum(gaps(found.shared)))
        axes[1].legend(loc="upper right")
        axes[1].grid(axis="x", visible=False)
        above = found.shared.weight @ found.shared.trace - found.shared.mean(found.shared.surprise)
        shown_steps = min(13, len(above))
        axes[2].plot(np.arange(shown_steps), above[:shown_steps], "o-", color=ORANGE)
        axes[2].axhline(gaps(found.shared)[1], color=INK, linestyle="--", linewidth=1.2)
        axes[2].text(0, 0.97 * gaps(found.shared)[1], "iterated to rest", va="top", fontsize=9)
        axes[2].set(xlabel="iterations after the pass forward", ylabel="mean F above −ln p(x) (nats)")
        axes[2].set(title="through the model and back", ylim=(0, None))
    return figure
