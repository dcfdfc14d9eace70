"""The page of learning on the grid."""

from typing import Any

import numpy as np

from vfe.gallery.discrete.grid_learning import KINDS, Life, Settings
from vfe.gallery.discrete.page import free_energy_section
from vfe.gallery.intervals import mean_of
from vfe.gallery.job import JobResult
from vfe.results.claims import Claim
from vfe.results.report import Report, Section, Table, picture
from vfe.results.style import BLUE, ORANGE, RED, style

COLOURS = {"seeks": BLUE, "wanders": ORANGE, "avoids": RED}


def write_up(settings: Settings, lives: dict[str, Life]) -> JobResult:
    """The result of the experiment: its page, its figure and its numbers.

    **Example:** `write_up(settings, live(settings, 0))`.
    """
    figures = {"learning": draw(settings, lives)}
    last = {name: mean_of(life.by_block(settings.block)[:, -1]) for name, life in lives.items()}
    sooner = mean_of(lives["wanders"].halved - lives["seeks"].halved)
    headline = [
        *((f"{name}: KL in the last block (nats)", each.text(".3f")) for name, each in last.items()),
        ("steps until KL is halved: seeks", mean_of(lives["seeks"].halved).text(".1f")),
        ("steps until KL is halved: wanders", mean_of(lives["wanders"].halved).text(".1f")),
        ("steps saved by seeking", sooner.text(".1f")),
    ]
    return JobResult(
        model={name: np.asarray(life.history.agent_state.counts.B[0]) for name, life in lives.items()},
        dataset=_dataset(lives),
        figures=figures,
        report=_report(settings, lives, figures, headline),
        headline=headline,
        claims=claims(lives, settings),
    )


def claims(lives: dict[str, Life], settings: Settings) -> list[Claim]:
    """What would have refuted it: agents that wander learn as fast, or those that avoid learning do.

    **Example:** `claims(lives, settings)[0].holds`.
    """
    last = {name: life.by_block(settings.block)[:, -1].mean() for name, life in lives.items()}
    sooner = mean_of(lives["wanders"].halved - lives["seeks"].halved)
    block = apart_from(settings, lives)
    return [
        Claim("seeking saves steps until KL is halved, low end of its interval", float(sooner.low), 1.0),
        Claim(
            "who seeks is nearer to the truth in the last block, by",
            last["wanders"] - last["seeks"],
            0.02,
            unit="nats per column",
        ),
        Claim(
            "who avoids learning is farther than who wanders, by",
            last["avoids"] - last["wanders"],
            0.2,
            unit="nats per column",
        ),
        Claim(
            "from this block on intervals do not overlap",
            np.nan if block is None else float(block),
            high=3.0,
        ),
    ]


def apart_from(settings: Settings, lives: dict[str, Life]) -> int | None:
    """The first block, from 1, from which on the intervals of who seeks and who wanders do not overlap.

    **Example:** `apart_from(settings, lives)`.
    """
    seeks, wanders = (mean_of(lives[name].by_block(settings.block)) for name in ("seeks", "wanders"))
    apart = seeks.high < wanders.low
    if not apart[-1]:
        return None
    overlapping = np.flatnonzero(~apart)
    return 1 if not len(overlapping) else int(overlapping[-1]) + 2


def _dataset(lives: dict[str, Life]) -> Any:
    import xarray as xr

    axes = ("kind", "agent", "time")
    after = ("kind", "agent", "step")
    free = [life.history.percepts.free_energy for life in lives.values()]
    levels = [np.stack([np.asarray(part) for part in each.by_level.values()], -1) for each in free]
    return xr.Dataset(
        {
            "place": (
                axes,
                np.stack([np.asarray(life.history.outcomes)[..., 0] for life in lives.values()]),
            ),
            "action": (
                axes,
                np.stack([np.asarray(life.history.actions)[..., 0] for life in lives.values()]),
            ),
            "free_energy": (axes, np.stack([np.asarray(each.total) for each in free]), {"units": "nats"}),
            "free_energy_by_level": ((*axes, "level"), np.stack(levels), {"units": "nats"}),
            "divergence": (
                after,
                np.stack([life.divergence for life in lives.values()]),
                {"units": "nats"},
            ),
            "tried": (after, np.stack([life.tried for life in lives.values()])),
        },
        coords={
            "kind": list(lives),
            "weight": ("kind", list(KINDS.values())),
            "level": list(free[0].by_level),
            "step": np.arange(1, lives["seeks"].divergence.shape[1] + 1),
        },
    )


def draw(settings: Settings, lives: dict[str, Life]) -> Any:
    """KL by block with intervals, pairs tried, and F by step. **Example:** `draw(settings, lives)`."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(12.0, 3.8), layout="constrained")
        axes = figure.subplots(1, 3)
        for name, life in lives.items():
            value, low, high = mean_of(life.by_block(settings.block))
            block = np.arange(1, len(value) + 1)
            bars = axes[0].errorbar(
                block,
                value,
                [value - low, high - value],
                marker="o",
                markersize=4,
                capsize=3,
                color=COLOURS[name],
            )
            bars.set_label(name)
            tried = mean_of(100 * life.tried)
            axes[1].plot(np.arange(1, len(tried.value) + 1), tried.value, color=COLOURS[name])
            free = np.asarray(life.history.percepts.free_energy.total)[:, 1:]
            free = mean_of(free.reshape(len(free), -1, settings.block).mean(2))
            axes[2].plot(block, free.value, "o-", markersize=4, color=COLOURS[name])
            axes[2].fill_between(block, free.low, free.high, color=COLOURS[name], alpha=0.2, linewidth=0)
        axes[0].set(
            xlabel=f"block of {settings.block} steps", ylabel="KL (nats per column)", ylim=(0, None)
        )
        axes[0].set_title("from the true laws to those believed")
        axes[0].legend(loc="lower left")
        axes[1].set(xlabel="step", ylabel="pairs of place and action (%)", ylim=(0, 102))
        axes[1].set_title("what was tried at least once")
        axes[2].set(xlabel=f"block of {settings.block} steps", ylabel="F (nats per step)", ylim=(0, None))
        axes[2].set_title("free energy of what was met")
    return figure


def _report(
    settings: Settings, lives: dict[str, Life], figures: dict[str, Any], headline: list[tuple[str, str]]
) -> Report:
    blocks = {name: mean_of(life.by_block(settings.block)) for name, life in lives.items()}
    first = apart_from(settings, lives)
    apart = (
        "Their intervals overlap in the last block: with so few agents or steps nothing is shown"
        if first is None
        else f"Their intervals do not overlap from block {first} on"
    )
    rows = [
        [str(b + 1)]
        + [f"{each.value[b]:.3f} ± {each.value[b] - each.low[b]:.3f}" for each in blocks.values()]
        for b in range(settings.blocks)
    ]
    tried = {name: 100 * life.tried[:, settings.block - 1].mean() for name, life in lives.items()}
    pairs = lives["seeks"].history.agent_state.counts.B[0].shape[-2:]
    return Report(
        "Wanting to know",
        f"Agents on a grid of {settings.rows} × {settings.rows} see where they are and do not know what "
        f"their actions do: p(next place | place, action) has {pairs[0]} × {pairs[1]} columns, in each "
        "of which all places are as probable at first. None of them wants anything. They look "
        f"{settings.horizon} steps ahead and draw policies with q(π) ∝ exp(−γ G), where G is minus what "
        "they would learn about these laws, times a weight: 1 for who seeks it, 0 for who wanders at "
        "random, −1 for who avoids it. They differ in nothing else.",
        [
            Section(
                "What is learned",
                f"{settings.agents} agents of each kind, {settings.blocks * settings.block} steps. "
                f"{apart}. In the first block those who seek try {tried['seeks']:.0f} % of the pairs of "
                f"place and action, those who wander {tried['wanders']:.0f} %: they go to where they "
                "have not been and do what they have not done. Who avoids it tries "
                f"{tried['avoids']:.0f} % and stays there.\n\n"
                "What would have refuted this: intervals of the first two that overlap to the end, or "
                "agents with the sign reversed that learn as fast as the others. Then it would not be "
                "the information that makes the difference.",
                [
                    picture(
                        figures["learning"],
                        "Left: KL from the true B to the mean of the counts, mean over columns, with 95 "
                        "% intervals over agents. Middle: pairs of place and action that were tried. "
                        "Right: F.",
                        "Left: KL falls fastest for who seeks, slower for who wanders, and stays for "
                        "who avoids. Middle: those who seek have tried all pairs first. Right: F is "
                        "highest for who seeks at first and near zero for who avoids.",
                    )
                ],
                Table(
                    ["block", *(f"{name} (nats)" for name in blocks)],
                    rows,
                    "KL, mean over columns and the steps of a block, ± half of the 95 % interval over "
                    "agents.",
                ),
            ),
            free_energy_section(
                {name: life.history for name, life in lives.items()},
                "F of each step is −ln p(where one came to be) under the laws believed by then. It is "
                "no measure of knowledge: who avoids learning does what it knows and has by far the "
                "least F; at first who seeks meets the most surprise. What it expects to learn, which G "
                "holds, makes surprise worth looking for.",
            ),
        ],
        headline=headline,
    )
