"""The page of predictive coding."""

from typing import Any

import numpy as np

from vfe.gallery.foundations.predictive_coding import Activity, Found, Settings
from vfe.gallery.intervals import Interval, mean_of
from vfe.gallery.job import JobResult
from vfe.gallery.page import finish, largest, refuted, shown
from vfe.results.claims import Claim
from vfe.results.report import Table
from vfe.results.style import BLUE, GREEN, INK, ORANGE, PALE, style


def error_of(found: Found, activity: Activity, seen: bool) -> np.ndarray:
    """Squared error of the last μ_1, by observation, where senses are seen or occluded.

    **Example:** `error_of(found, found.intact, False).mean()`.
    """
    apart = (activity.middle[-1] - found.truth) ** 2
    return np.where(found.seen == seen, apart, 0.0).sum(1) / (found.seen == seen).sum(1)


def claims(found: Found) -> list[Claim]:
    """What must hold. **Example:** `claims(found)[0].holds`."""
    linear, saturating = found.gradient
    lost = mean_of(error_of(found, found.lesioned, False) - error_of(found, found.intact, False))
    return [
        Claim("local updates and −dF differ, relative to the largest, by", linear, high=1e-12),
        Claim("the same in a network that saturates", saturating, high=1e-12),
        Claim(
            "energy rises in a step by at most",
            float(np.diff(found.intact.energy, axis=0).max()),
            high=1e-10,
            unit="nats",
        ),
        Claim(
            "state units at rest and the posterior mean differ by",
            largest(
                found.intact.middle[-1] - found.posterior[0], found.intact.top[-1] - found.posterior[1]
            ),
            high=1e-8,
        ),
        Claim(
            "energy of the error units and that of the model differ by",
            largest(found.intact.energy[-1] - found.energy[0]),
            high=1e-9,
            unit="nats",
        ),
        Claim(
            "F of mean-field beliefs rises in a step by at most",
            float(np.diff(found.trace, axis=-1).max()),
            high=1e-10,
            unit="nats",
        ),
        Claim("their gap to surprise", float(found.gap.min()), low=0.01, unit="nats"),
        Claim(
            "that gap and ½ (Σ ln |Λ_ii| − ln |Λ|) differ by",
            largest(found.gap - found.closed),
            high=1e-8,
            unit="nats",
        ),
        Claim(
            "mean-field flow: F rises in an interval by at most",
            float(np.diff(found.flow, axis=-1).max()),
            high=1e-10,
            unit="nats",
        ),
        Claim(
            "it falls altogether by, smallest",
            float((found.flow[:, 0] - found.flow[:, -1]).min()),
            0.1,
            unit="nats",
        ),
        Claim(
            "where it comes to rest, its gap to surprise and the closed form differ by",
            largest(found.flow_gap - found.closed),
            high=1e-7,
            unit="nats",
        ),
        Claim(
            "energy that the lesion adds, smallest",
            float((found.energy[1] - found.energy[0]).min()),
            low=0.0,
            unit="nats",
            proved=True,
        ),
        Claim(
            "squared error that the lesion adds where senses are occluded, low end of its interval",
            float(lost.low),
            low=0.1,
        ),
    ]


def write_up(settings: Settings, found: Found) -> JobResult:
    """The result of the experiment. **Example:** `write_up(settings, found)`."""
    figures = {"predictive_coding": draw(found)}
    errors: dict[tuple[str, bool], Interval] = {
        (name, seen): mean_of(error_of(found, activity, seen))
        for name, activity in (("intact", found.intact), ("lesioned", found.lesioned))
        for seen in (True, False)
    }
    added = mean_of(found.energy[1] - found.energy[0])
    headline = [
        ("local updates and gradient differ by", f"{max(found.gradient):.0e}".replace("-", "−")),
        ("squared error, occluded: whole network", errors["intact", False].text(".3f")),
        ("squared error, occluded: lesioned", errors["lesioned", False].text(".3f")),
        ("mean-field gap", f"{found.gap.mean():.4f} nats"),
    ]
    rows = [
        [name, *(errors[name, seen].text(".3f") for seen in (True, False)), f"{energy.mean():.2f}"]
        for name, energy in zip(("intact", "lesioned"), found.energy, strict=True)
    ]
    return finish(
        "Predictive coding",
        "Units that hold what is believed, and units that hold errors of prediction. Every unit sees only "
        "what its own level and the one below it send. Yet activity descends free energy: the updates are "
        f"its gradient to {max(found.gradient):.0e} of the largest, it never rises, and activity comes to "
        "rest at the posterior mean. Where half of the senses are occluded, backward connections fill in "
        f"what is missing; without them the squared error there is {errors['lesioned', False].value:.2f} "
        f"instead of {errors['intact', False].value:.2f}.".replace("e-", "e−"),
        [
            shown(
                "Activity, and a lesion",
                f"Two units at the top, six below, six senses of which {settings.occluded} are occluded; "
                f"{settings.observations} observations drawn from the network's own model. In the lesioned "
                "network no predictions reach the first level. Both are judged by the energy of the whole "
                f"model; the lesion adds {added.text('.2f')} nats.\n\n"
                "A belief with a variance for each level, updated level by level, has F above surprise by "
                f"{found.gap.mean():.4f} nats, which is ½ (Σ ln |Λ_ii| − ln |Λ|) = {found.closed:.4f}: "
                "what it loses by taking the levels for independent. Means and spreads that move at once, "
                "along −dF, come to the same value.",
                figures["predictive_coding"],
                "Left: energy over its last value, mean and middle 95 % of the observations. Middle: state "
                "units of the first level at rest for one observation. Right: squared error, with "
                "95 % intervals.",
                "Energy falls to rest; the whole network follows the occluded truth, the lesioned one "
                "stays at zero; bars.",
                Table(
                    ["network", "squared error, seen", "squared error, occluded", "energy (nats)"],
                    rows,
                    "Squared errors of z1, with 95 % intervals over observations.",
                ),
            ),
            refuted(
                "Updates other than the gradient, an energy that rises, another resting point than the "
                "posterior mean, another gap, a lesion that costs nothing. Units that do not hear of "
                "errors "
                "from below fail."
            ),
        ],
        figures,
        headline,
        claims(found),
        {
            "energy": (("tenth_step", "observation"), found.intact.energy[::10], {"units": "nats"}),
            "truth": (("observation", "unit"), found.truth),
            "intact": (("observation", "unit"), found.intact.middle[-1]),
            "lesioned": (("observation", "unit"), found.lesioned.middle[-1]),
            "seen": (("observation", "unit"), found.seen),
            "mean_field": (("few", "iteration"), found.trace, {"units": "nats"}),
        },
        {"x": found.x},
    )


def draw(found: Found) -> Any:
    """Energy over time, one observation, and errors. **Example:** `draw(found)`."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(12.0, 3.9), layout="constrained")
        axes = figure.subplots(1, 3)
        above = np.maximum(found.intact.energy - found.intact.energy[-1], 1e-12)
        low, high = np.quantile(above, (0.025, 0.975), axis=1)
        steps = np.arange(len(above))
        axes[0].fill_between(steps, low, high, color=BLUE, alpha=0.2, linewidth=0)
        axes[0].plot(steps, above.mean(1), color=BLUE)
        axes[0].set(yscale="log", xlabel="step", ylabel="energy above rest (nats)", title="activity")
        axes[0].set_xlim(0, max(np.flatnonzero(above.mean(1) > 1e-9)[-1], 10))
        unit = np.arange(1, found.truth.shape[1] + 1)
        chosen = int(np.argmax(np.abs(np.where(found.seen, 0, found.truth)).sum(1)))
        hidden = unit[~found.seen[chosen]]
        axes[1].axvspan(hidden.min() - 0.5, hidden.max() + 0.5, color="#eeeeee", zorder=0)
        axes[1].text(hidden.mean(), 1.01, "occluded", ha="center", transform=axes[1].get_xaxis_transform())
        axes[1].plot(unit, found.truth[chosen], "D", color=INK, label="truth")
        axes[1].plot(unit, found.intact.middle[-1, chosen], "o-", color=BLUE, label="whole network")
        axes[1].plot(unit, found.lesioned.middle[-1, chosen], "s--", color=ORANGE, label="lesioned")
        axes[1].set(xlabel="unit of the first level", ylabel="z1", xticks=unit)
        axes[1].legend(loc="best")
        kinds = (("whole", found.intact, BLUE), ("lesioned", found.lesioned, ORANGE))
        for shift, (name, activity, colour) in zip((-0.2, 0.2), kinds, strict=True):
            each = [mean_of(error_of(found, activity, seen)) for seen in (True, False)]
            values = [float(e.value) for e in each]
            half = [float(e.high - e.value) for e in each]
            axes[2].bar(np.arange(2) + shift, values, 0.38, yerr=half, capsize=3, color=colour, label=name)
        spread = float(np.where(found.seen, 0, found.truth**2).sum() / (~found.seen).sum())
        axes[2].axhline(spread, color=PALE, linestyle=":")
        axes[2].text(-0.4, spread, "error of saying 0", color=GREEN, va="bottom", fontsize=9)
        axes[2].set_xticks([0, 1], ["senses seen", "occluded"])
        axes[2].set(ylabel="squared error of z1", title="what the lesion costs")
        axes[2].legend(loc="center left")
        axes[2].grid(axis="x", visible=False)
    return figure
