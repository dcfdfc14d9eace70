"""The page of the dark room."""

from typing import Any

import numpy as np

from vfe.gallery.discrete.homeostasis import (
    CALM,
    DARKNESS,
    FED,
    KINDS,
    Lives,
    Settings,
    Units,
    in_other_units,
)
from vfe.gallery.intervals import mean_of, share_of
from vfe.gallery.job import JobResult
from vfe.results.claims import Claim
from vfe.results.report import Report, Section, Table, picture
from vfe.results.style import BLUE, ORANGE, RED, style

COLOURS = {FED: BLUE, CALM: ORANGE, DARKNESS: RED}


def write_up(settings: Settings, lives: Lives) -> JobResult:
    """The result of the experiment: its page, its figure, its numbers and its claims.

    **Example:** `write_up(settings, measure(settings, 0))`.
    """
    figures = {"homeostasis": draw(lives)}
    units = in_other_units(lives)
    headline = []
    for k, name in enumerate(KINDS):
        alive, free = share_of(lives.survives[k]), mean_of(lives.free_energy[k].mean(1))
        headline.append((f"{name}: alive at the end", f"{alive.text('.0f')} %"))
        headline.append((f"{name}: F", f"{free.text('.2f')} nats per step"))
    return JobResult(
        model={"fed": lives.energy[0], "calm": lives.energy[1], "darkness": lives.energy[2]},
        dataset=_dataset(lives),
        figures=figures,
        report=_report(settings, lives, units, figures, headline),
        headline=headline,
        claims=[*claims(lives), *claims_of_units(units)],
    )


def claims(lives: Lives) -> list[Claim]:
    """What would have refuted it: who has the prior stays or starves, who has it not leaves.

    **Example:** `claims(measure(settings, 0))[0].holds`.
    """
    alive = {name: share_of(lives.survives[k]) for k, name in enumerate(KINDS)}
    there = {name: lives.place[k].mean() for k, name in enumerate(KINDS)}
    nats = "nats per step"
    return [
        Claim("who expects to be fed survives, lower end", float(alive[FED].low), 90.0, unit="%"),
        Claim("who only avoids surprise does, upper end", float(alive[CALM].high), high=10.0, unit="%"),
        Claim("who expects darkness does, upper end", float(alive[DARKNESS].high), high=10.0, unit="%"),
        Claim(
            "these two are in the kitchen, share of their time",
            float(max(there[CALM], there[DARKNESS])),
            high=0.05,
        ),
        Claim(
            "dark room: F of the fed life exceeds that of the starved, lower end",
            float(lives.apart("free_energy", FED, CALM).low),
            0.0,
            unit=nats,
        ),
        Claim(
            "the same fed life with closed eyes costs less F, by",
            float((lives.free_energy[0] - lives.eyes_closed[0]).mean()),
            0.1,
            unit=nats,
        ),
        Claim(
            "on the same stream, that of the fed, a model that expects darkness costs more F, by",
            float((lives.all_dark[0] - lives.free_energy[0]).mean()),
            0.1,
            unit=nats,
        ),
        Claim(
            "under one prior over what is felt the starved life is more surprising, lower end",
            float(lives.apart("against_prior", CALM, FED).low),
            0.0,
            unit=nats,
        ),
    ]


def claims_of_units(units: Units) -> list[Claim]:
    """What F of densities does when units change. **Example:** `claims_of_units(in_other_units(lives))`."""
    shift = units.after - units.before
    whole, half = 0, 1
    expected = units.readings * np.log(units.scale)
    return [
        Claim(
            f"units 1/{units.scale:.0f} as large: the change of F and n ln {units.scale:.0f} differ by",
            float(np.abs(shift - expected).max()),
            high=1e-8 * expected,
            unit="nats",
        ),
        Claim(
            "in either units who expects half the energy has the higher F, by",
            float(min(np.diff(units.before)[0], np.diff(units.after)[0])),
            0.1 * units.readings,
            unit="nats",
        ),
        Claim(
            "across units who expects half the energy seems to have the lower F, by",
            float(units.after[whole] - units.before[half]),
            0.1 * units.readings,
            unit="nats",
        ),
    ]


def _dataset(lives: Lives) -> Any:
    import xarray as xr

    axes = ("kind", "agent", "time")
    return xr.Dataset(
        {name: (axes, np.asarray(values)) for name, values in lives._asdict().items()},
        coords={"kind": list(KINDS)},
    )


def draw(lives: Lives) -> Any:
    """Energy in time, share of time in the kitchen, and F beside surprise under the prior.

    **Example:** `draw(measure(settings, 0))`.
    """
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(12.0, 4.0), layout="constrained")
        one, two, three = figure.subplots(1, 3)
        for k, name in enumerate(KINDS):
            energy = mean_of(lives.energy[k])
            time = np.arange(len(energy.value))
            one.plot(time, energy.value, color=COLOURS[name], label=name)
            one.fill_between(time, energy.low, energy.high, color=COLOURS[name], alpha=0.2, linewidth=0)
            two.plot(time, 100 * lives.place[k].mean(0), color=COLOURS[name])
            bars = (lives.free_energy, lives.eyes_closed, lives.against_prior)
            for place, part in enumerate(bars):
                value = mean_of(part[k].mean(1))
                half = [[value.value - value.low], [value.high - value.value]]
                three.bar(
                    place + 0.27 * (k - 1), value.value, 0.25, yerr=half, capsize=3, color=COLOURS[name]
                )
        one.set(xlabel="step", ylabel="energy", ylim=(-0.1, None))
        one.set_title("energy, mean and 95 % interval")
        one.legend(loc="center right")
        two.set(xlabel="step", ylabel="agents in the kitchen (%)", ylim=(-3, 103))
        two.set_title("where they are")
        three.set_xticks(
            range(3), ["F of what\nis sensed", "F with eyes\nclosed", "felt, under the\nprior of the fed"]
        )
        three.set(ylabel="nats per step")
        three.set_title("surprise, by what it is measured")
    return figure


def _report(
    settings: Settings, lives: Lives, units: Units, figures: dict[str, Any], headline: list[tuple[str, str]]
) -> Report:
    rows = []
    for k, name in enumerate(KINDS):
        parts = (lives.free_energy, lives.eyes_closed, lives.all_dark, lives.against_prior)
        rows.append(
            [
                name,
                f"{100 * lives.survives[k].mean():.0f}",
                f"{100 * lives.place[k].mean():.0f}",
                *(mean_of(part[k].mean(1)).text(".2f") for part in parts),
            ]
        )
    return Report(
        "Why not stay in the dark",
        "In a dark room nothing is ever surprising, and energy is used up. In the kitchen every look shows "
        "something else, and energy comes back. Agents that expect to be fed go to the kitchen and live; "
        "agents that only avoid surprise, or expect darkness, stay and starve. The starved have the lower "
        "F: "
        f"{lives.free_energy[1].mean():.2f} nats per step against {lives.free_energy[0].mean():.2f}. "
        "What keeps beings out of dark rooms is what they expect of their bodies.",
        [
            Section(
                "Three expectations, one world",
                f"Agents know the laws of their world and look {settings.horizon} steps ahead. Who expects "
                f"to be "
                "fed takes the policy with the least −⟨ln p(o)⟩, p its prior over what it feels; who "
                "expects "
                "nothing that with the least surprise predicted, ⟨H(o | s)⟩; who expects darkness the "
                "first "
                "again, with a prior over what it sees.\n\nF of one's own sensations does not tell a good "
                "life "
                "from a bad one: it is low in the dark, and low in any life that is lived with closed "
                "eyes. "
                "On the same sensations it does tell models apart: in the kitchen, to expect darkness "
                "costs "
                f"{(lives.all_dark[0] - lives.free_energy[0]).mean():.2f} nats per step. And one prior "
                f"over what "
                "a body should feel, the same for all, finds the starved life the more surprising.\n\nNor "
                "do F's in different units compare. A meter shows the first of the fed its energy, "
                f"{units.readings} times. In units 1/{units.scale:.0f} as large F of the same model "
                f"and readings is higher by {units.readings} ln {units.scale:.0f} = "
                f"{units.readings * np.log(units.scale):.1f} nats, from {units.before[0]:.1f} to "
                f"{units.after[0]:.1f}, so that who expects half the energy, with {units.before[1]:.1f} "
                "in the larger units, seems the better.\n\nWhat "
                "would "
                "have refuted this: an agent with that prior that stays, one without it that leaves, or "
                "less "
                "F in the kitchen than in the dark.",
                [
                    picture(
                        figures["homeostasis"],
                        "Left: energy. Middle: agents in the kitchen. Right: F per step of what was "
                        "sensed, of the "
                        "same lives with closed eyes, and −ln p of what was felt under the prior of the "
                        "fed; 95 % "
                        "intervals over agents.",
                        "Who expects to be fed keeps its energy; the others lose theirs. F is highest for "
                        "who "
                        "lives, surprise under the prior highest for who starves.",
                    )
                ],
                Table(
                    [
                        "agents",
                        "alive (%)",
                        "in the kitchen (%)",
                        "F",
                        "F, eyes closed",
                        "F, expecting darkness",
                        "felt, prior of the fed",
                    ],
                    rows,
                    "Nats per step, with 95 % intervals over agents; each row is one stream of sensations.",
                ),
            )
        ],
        headline=headline,
    )
