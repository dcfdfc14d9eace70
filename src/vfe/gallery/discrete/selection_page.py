"""The page of a population under selection."""

from typing import Any

import numpy as np

from vfe.gallery.discrete.selection import LATE, PEAK, Found, Lineage, Settings
from vfe.gallery.intervals import NORMAL, Interval
from vfe.gallery.job import JobResult
from vfe.results.claims import Claim
from vfe.results.report import Report, Section, Table, picture
from vfe.results.style import BLUE, INK, ORANGE, PALE, RED, style

GROUPS = ("fittest third", "middle", "least fit third")
COLOURS = (BLUE, ORANGE, RED)


def write_up(settings: Settings, found: Found) -> JobResult:
    """The result of the experiment: its page, its figures, its numbers and its claims.

    **Example:** `write_up(settings, measure(settings, 0))`.
    """
    figures = {"population": draw(settings, found), "generations": draw_generations(found)}
    headline = [
        ("rank correlation of F and fitness", found.correlation.text()),
        ("with shuffled fitness", f"95 % within {_range(found.null)}"),
        ("fall of F under selection (nats)", fall(found.selected).text(".3f")),
        ("fall of F by drift (nats)", fall(found.drifting).text(".3f")),
        ("eyes closed at will: correlation", found.closed_correlation.text()),
    ]
    return JobResult(
        model={name: np.asarray(part) for name, part in found.population.traits._asdict().items()},
        dataset=_dataset(found),
        figures=figures,
        report=_report(settings, found, figures, headline),
        headline=headline,
        claims=claims(found),
    )


def claims(found: Found) -> list[Claim]:
    """What would have refuted it: an interval that includes zero, no fall of F under selection.

    **Example:** `claims(measure(settings, 0))[0].holds`.
    """
    return [
        Claim(
            "rank correlation of mean F and fitness on the same stream, upper end of its interval",
            float(found.correlation.high),
            high=0.0,
        ),
        Claim(
            "it lies below what shuffled fitness brings (2.5th percentile), by",
            float(found.null.low - found.correlation.value),
            0.0,
        ),
        Claim(
            "F rises when food has moved, in the fittest, lower end",
            float(found.changes.rise.low[0]),
            0.0,
            unit="nats",
        ),
        Claim(
            "share of that rise left 4 to 12 steps later: least fit less fittest, lower end",
            float(found.left.low[-1]),
            0.0,
        ),
        Claim(
            "selection lowers F on streams that nobody lived in, lower end over lineages",
            float(fall(found.selected).low),
            0.0,
            unit="nats per step",
        ),
        Claim(
            "dark room: where agents close their eyes at will F ranks them the wrong way, lower end",
            float(found.closed_correlation.low),
            0.0,
        ),
    ]


def interval(values: np.ndarray) -> Interval:
    """Mean of a few lineages with its 95 % interval by Student's t. **Example:** `interval(falls)`."""
    from scipy.stats import ttest_1samp

    bounds = ttest_1samp(values, 0.0).confidence_interval(0.95)
    return Interval(float(np.mean(values)), float(bounds.low), float(bounds.high))


def fall(lineage: Lineage) -> Interval:
    """How much lower mean F is in the last generation than in the first, over lineages.

    **Example:** `fall(found.selected).value`.
    """
    mean = lineage.free_energy.mean(2)
    return interval(mean[:, 0] - mean[:, -1])


def _range(part: Interval) -> str:
    return f"{part.low:.2f} to {part.high:.2f}".replace("-", "−")


def _dataset(found: Found) -> Any:
    import xarray as xr

    nats = {"units": "nats per step"}
    kinds = (found.selected, found.drifting)
    axes = ("kind", "lineage", "generation", "member")
    return xr.Dataset(
        {
            "free_energy": (("agent", "stream"), found.population.free_energy.mean(2), nats),
            "fitness": ("agent", found.fitness, {"units": "food per step"}),
            "hazard": ("agent", found.population.traits.hazard),
            "trust": ("agent", found.population.traits.trust),
            "free_energy_closed": ("agent", found.closed.mean_free_energy, nats),
            "excess": (("change", "group", "lag"), found.changes.excess, {"units": "nats"}),
            **{
                f"generation_{name}": (axes, np.stack([getattr(kind, name) for kind in kinds]))
                for name in Lineage._fields
            },
        },
        coords={"group": list(GROUPS), "lag": found.changes.lags, "kind": ["selection", "drift"]},
    )


def draw(settings: Settings, found: Found) -> Any:
    """Fitness against F, F about changes, and the same for agents that close their eyes.

    **Example:** `draw(settings, found)`.
    """
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(12.0, 4.0), layout="constrained")
        axes = figure.subplots(1, 3)
        hazards = np.log10(found.population.traits.hazard)
        for place, population, title in (
            (0, found.population, "same cues for all"),
            (2, found.closed, "eyes closed at will"),
        ):
            fitness = found.fitness if place == 0 else population.fitness(settings.loss)
            dots = axes[place].scatter(
                population.mean_free_energy, fitness, c=hazards, cmap="viridis", s=28, edgecolor="white"
            )
            correlation = found.correlation if place == 0 else found.closed_correlation
            axes[place].set(xlabel="mean F (nats per step)", ylabel="fitness (food per step)")
            axes[place].set_title(f"{title}: ρ = {correlation.text()}")
        bar = figure.colorbar(dots, ax=axes[2])
        bar.set_label("hazard believed, log₁₀")
        for group, name in enumerate(GROUPS):
            curves = found.changes.excess[:, group]
            mean = curves.mean(0)
            half = NORMAL * curves.std(0, ddof=1) / np.sqrt(len(curves))
            axes[1].plot(found.changes.lags, mean, color=COLOURS[group], label=name)
            axes[1].fill_between(
                found.changes.lags, mean - half, mean + half, color=COLOURS[group], alpha=0.2, linewidth=0
            )
        for low, high in (PEAK, LATE):
            axes[1].axvspan(low - 0.5, high - 0.5, color=PALE, alpha=0.15, linewidth=0)
        axes[1].set(xlabel="steps from the change", ylabel="F above that before (nats)")
        axes[1].set_title("F when food has moved")
        axes[1].legend()
    return figure


def draw_generations(found: Found) -> Any:
    """F and fitness over generations, with selection and by drift.

    **Example:** `draw_generations(found)`.
    """
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(12.0, 3.8), layout="constrained")
        axes = figure.subplots(1, 3)
        for lineage, name, colour in (
            (found.selected, "fitter half has the children", BLUE),
            (found.drifting, "a random half has them", RED),
        ):
            for place, values in enumerate((lineage.free_energy, lineage.fitness)):
                means = values.mean(2)
                generation = np.arange(1, means.shape[1] + 1)
                axes[place].plot(generation, means.T, color=colour, alpha=0.3, linewidth=1)
                axes[place].plot(generation, means.mean(0), "o-", markersize=4, color=colour, label=name)
        axes[0].set(xlabel="generation", ylabel="mean F (nats per step)")
        axes[0].set_title("F on streams that nobody lived in")
        axes[0].legend()
        axes[1].set(xlabel="generation", ylabel="fitness (food per step)")
        axes[1].set_title("what is selected for")
        losses = list(found.by_loss)
        for k, part in enumerate(found.by_loss.values()):
            axes[2].plot([k, k], [part.low, part.high], color=INK, linewidth=1.5)
            axes[2].plot(k, part.value, "o", color=INK)
        axes[2].axhspan(found.null.low, found.null.high, color=PALE, alpha=0.3, linewidth=0)
        axes[2].set_xticks(range(len(losses)), [f"{loss:g}" for loss in losses])
        axes[2].set(xlabel="cost of a visit in vain", ylabel="rank correlation", ylim=(-1, 1))
        axes[2].set_title("F and fitness, by task; grey: shuffled")
    return figure


def _report(
    settings: Settings, found: Found, figures: dict[str, Any], headline: list[tuple[str, str]]
) -> Report:
    rise, left = found.changes.rise, found.left
    rows = []
    for group, (name, members) in enumerate(
        zip(GROUPS, np.array_split(np.argsort(-found.fitness), 3), strict=True)
    ):
        numbers = (
            f"{found.fitness[members].mean():.2f}",
            f"{found.population.mean_free_energy[members].mean():.3f}",
            Interval(*(part[group] for part in rise)).text(),
            Interval(*(100 * part[group] for part in left)).text(".0f"),
        )
        rows.append([name, *(number.replace("-", "−") for number in numbers)])
    return Report(
        "Low free energy and fitness",
        f"{settings.agents} agents see the same noisy cues of where food is among {settings.places} "
        f"places; "
        f"it moves every {settings.stays:g} steps or so. They differ in what they believe before they "
        "see anything: how often food moves, and how often cues are right. F of a step is −ln p(cue | "
        "cues before) under an agent's own model. Fitness is counted outside: food that was found, less "
        f"{settings.loss:g} for each visit in vain. Rank correlation of the two: "
        f"{found.correlation.text()}; with fitness shuffled 95 % of such correlations lie within "
        f"{_range(found.null)}.",
        [
            Section(
                "F, fitness, and change",
                "Agents go to the place they hold most probable where that is worth the risk; going "
                "changes no "
                "cue, so F is of one stream for all.\n\nWhen food has moved, F rises. In the fittest it "
                "rises most, for they had been sure, rightly, and is back soon; in the least fit, who are "
                "too "
                "stubborn or trust cues too little, it rises less and stays up.\n\nWhat would have "
                "refuted this: an interval of the correlation that includes zero, or as large a "
                "share of the rise left in the fittest as in the least fit.",
                [
                    picture(
                        figures["population"],
                        "Left: an agent is a dot. Middle: F about changes, mean and 95 % interval over "
                        "changes; grey: where the rise and what is left of it are measured. Right: the "
                        "same "
                        "agents, each with its eyes closed for a share of the time between none and 90 %.",
                        "Left: fitness falls with F. Middle: F of the fittest rises highest and falls at "
                        "once. Right: fitness rises with F.",
                    )
                ],
                Table(
                    ["agents", "fitness", "F (nats per step)", "rise at a change (nats)", "left of it (%)"],
                    rows,
                    "Rise: first two steps after a change, above the eight before. Left: share of that 4 "
                    "to 12 steps after. With 95 % intervals over changes.",
                ),
            ),
            Section(
                "Selection lowers F without seeing it",
                f"{settings.lineages} lineages of {settings.members} agents over {settings.generations} "
                "generations, each in a new world. If the fitter half has the children F on streams that "
                f"nobody lived in falls by {fall(found.selected).text('.3f')} nats per step; if a random "
                f"half "
                f"has them, by {fall(found.drifting).text('.3f')}.",
                [
                    picture(
                        figures["generations"],
                        "Left and middle: lineages (thin) and their mean. Right: the correlation for tasks "
                        "that differ in what an error costs, with 95 % intervals.",
                        "F falls and fitness rises under selection, neither by drift. All correlations are "
                        "negative, weakest where errors cost nothing.",
                    )
                ],
            ),
            Section(
                "What low F does not show",
                "To call low F adaptation is a definition; that it goes with fitness is a finding about "
                "these "
                "agents, this world and this task. Where a visit in vain costs nothing, only the place "
                "held "
                "most probable matters, not how sure one is, and the correlation is weaker: "
                f"{found.by_loss[0.0].text()}.\n\nAnd F may be compared on the same sensations only. Who "
                "closes its eyes is never surprised: with eyes closed at will, the correlation is "
                f"{found.closed_correlation.text()}, the wrong way round. Low F in a dark room is no "
                f"merit.",
            ),
        ],
        headline=headline,
    )
