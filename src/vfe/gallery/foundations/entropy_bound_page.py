"""The page of the entropy rate."""

from typing import Any

import numpy as np

from vfe.gallery.foundations.entropy_bound import Found, Settings
from vfe.gallery.intervals import Interval, mean_of
from vfe.gallery.job import JobResult
from vfe.gallery.page import finish, refuted, shown
from vfe.results.claims import Claim
from vfe.results.report import Table
from vfe.results.style import BLUE, GREEN, INK, ORANGE, PALE, style

COLOURS = {"exact": BLUE, "not carried": ORANGE, "wrong model": GREEN}


def averages(found: Found) -> dict[str, Interval]:
    """Mean F per time of every agent, with 95 % intervals over series. **Example:** `averages(found)`."""
    return {name: mean_of(free.mean(1)) for name, free in found.free.items()}


def errors_from(interval: Interval, value: float) -> float:
    """How many standard errors a mean lies from a value. **Example:** `errors_from(interval, 1.2)`."""
    return abs(float(interval.value) - value) / (float(interval.high - interval.low) / 3.92)


def with_accuracy_alone(found: Found) -> Found:
    """The same with −accuracy for F, complexity dropped, to see the claims fail.

    **Example:** `with_accuracy_alone(found).factorised`.
    """
    return found._replace(factorised=-found.accuracy)


def claims(found: Found) -> list[Claim]:
    """What must hold. **Example:** `claims(found)[0].holds`."""
    mean = averages(found)
    exact = found.free["exact"]
    quarter = exact.shape[1] // 4
    gathered = exact.mean(1).std(ddof=1) / exact[:, :quarter].mean(1).std(ddof=1)
    lost = found.factorised - found.evidence
    late = mean_of((found.free["wrong model"] - exact).mean(1))
    return [
        Claim("the two bounds of the entropy rate are apart by", found.width, high=0.01, unit="nats"),
        Claim(
            "exact beliefs: mean F, from the entropy rate",
            errors_from(mean["exact"], found.rate),
            high=4.0,
            unit="standard errors",
        ),
        Claim(
            "sd of averages over whole series, in parts of that over a quarter (½ where ergodic)",
            float(gathered),
            high=0.75,
        ),
        Claim(
            "not carried: mean F, from the entropy of one outcome",
            errors_from(mean["not carried"], found.outcome_entropy),
            high=4.0,
            unit="standard errors",
        ),
        Claim(
            "not carried: mean F above the entropy rate, low end of its interval",
            float(mean["not carried"].low) - found.rate,
            low=0.0,
            unit="nats",
        ),
        Claim(
            "wrong model: mean F above that of the true one, low end of its interval",
            float(late.low),
            low=0.0,
            unit="nats",
        ),
        Claim(
            "times taken for independent: F above −ln p(o), smallest, per time",
            float(lost.min()),
            low=0.0,
            unit="nats",
            proved=True,
        ),
    ]


def write_up(settings: Settings, found: Found) -> JobResult:
    """The result of the experiment. **Example:** `write_up(settings, found)`."""
    figures = {"entropy_bound": draw(found)}
    mean = averages(found)
    lost = mean_of(found.factorised - found.evidence)
    headline = [
        ("entropy rate", f"{found.rate:.4f} nats per time"),
        ("mean F, exact beliefs", mean["exact"].text(".4f")),
        ("mean F, beliefs not carried", mean["not carried"].text(".4f")),
        ("mean F, wrong model", mean["wrong model"].text(".4f")),
    ]
    rows = [
        [name, each.text(".4f"), f"{float(each.value) - found.rate:.4f}".replace("-", "−")]
        for name, each in mean.items()
    ]
    return finish(
        "Free energy over time, and the entropy of what is sensed",
        "In an ergodic world the long-time average of surprise is the entropy rate of sensations, here "
        f"{found.rate:.4f} nats per time. No agent can have a lower mean free energy: exact beliefs under "
        f"the true model reach it ({mean['exact'].value:.4f}), beliefs that are not carried from time to "
        f"time pay for the context they lack ({mean['not carried'].value:.4f}), and those under a "
        f"wrong model for its error ({mean['wrong model'].value:.4f}).",
        [
            shown(
                "Averages over time",
                f"A hidden state stays with probability {settings.persistence:g}; the wrong model has it "
                f"stay with {settings.believed:g}. {settings.series} series of {settings.length} "
                "sensations. A belief that takes the times for independent (mean field) pays "
                f"{lost.text('.3f')} nats per time above −ln p(o).\n\n"
                "The bound is about one world. Agents with narrower senses have a lower entropy rate, and "
                "a lower F, without knowing more.",
                figures["entropy_bound"],
                "Left: mean F up to a time, mean over series and middle 95 % of single series of the "
                "exact beliefs. Right: the entropy rate between its bounds, by how many sensations are "
                "conditioned on.",
                "Averages gather at the entropy rate or above it; two bounds close on it.",
                Table(
                    ["beliefs", "mean F", "above the entropy rate"],
                    rows,
                    "Nats per time, with 95 % intervals over series.",
                ),
            ),
            refuted(
                "A mean F below the entropy rate by more than chance; averages of single series that do "
                "not gather. In a world whose state never moves they do not, and those claims fail; so "
                "does −accuracy taken for F."
            ),
        ],
        figures,
        headline,
        claims(found),
        {
            **{
                name.replace(" ", "_"): (("series", "time"), each, {"units": "nats"})
                for name, each in found.free.items()
            },
            "factorised": ("few", found.factorised, {"units": "nats per time"}),
            "evidence": ("few", found.evidence, {"units": "nats per time"}),
            "lower_bound": ("sensations", found.low, {"units": "nats"}),
            "upper_bound": ("sensations", found.high, {"units": "nats"}),
        },
        {"bounds": np.stack([found.low, found.high])},
        {"sensations": np.arange(1, len(found.low) + 1)},
    )


def draw(found: Found) -> Any:
    """Averages over time, and the bounds. **Example:** `draw(found)`."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(11.0, 3.9), layout="constrained")
        axes = figure.subplots(1, 2, width_ratios=(1.6, 1))
        time = np.arange(1, found.free["exact"].shape[1] + 1)
        for name, free in found.free.items():
            running = free.cumsum(1) / time
            axes[0].plot(time, running.mean(0), color=COLOURS[name], label=name)
            if name == "exact":
                low, high = np.quantile(running, (0.025, 0.975), axis=0)
                axes[0].fill_between(time, low, high, color=BLUE, alpha=0.15, linewidth=0)
        axes[0].axhline(found.rate, color=INK, linestyle="--", linewidth=1.2)
        axes[0].text(1, found.rate, "entropy rate", va="top", fontsize=9)
        axes[0].set(xscale="log", xlabel="time (steps)", ylabel="mean F up to then (nats)")
        axes[0].set_title("averages over time")
        axes[0].legend(loc="upper right")
        n = np.arange(1, len(found.low) + 1)
        axes[1].plot(n, found.high, "v-", color=ORANGE, label="$H(o_n | o_1 … o_{n-1})$")
        axes[1].plot(n, found.low, "^-", color=GREEN, label="$H(o_n | o_1 … o_{n-1}, s_1)$")
        axes[1].axhline(found.rate, color=PALE, linewidth=1)
        axes[1].set(xlabel="n", ylabel="nats", title="bounds of the entropy rate", xticks=n)
        axes[1].legend(loc="lower right")
    return figure
