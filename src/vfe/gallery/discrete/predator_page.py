"""The page of the hidden predator."""

from typing import Any

import numpy as np

from vfe.gallery.discrete.predator import (
    CARRIED,
    FRAMES,
    KINDS,
    PRIOR,
    ZEROS,
    Found,
    Settings,
    decay,
)
from vfe.gallery.intervals import Interval, mean_of
from vfe.gallery.job import JobResult
from vfe.results.claims import Claim
from vfe.results.report import Report, Section, Table, picture
from vfe.results.style import BLUE, INK, ORANGE, PALE, RED, style

COLOURS = {CARRIED: BLUE, FRAMES: ORANGE, ZEROS: RED}
SIGHTED = 5


def write_up(settings: Settings, found: Found) -> JobResult:
    """The result of the experiment: its page, its figure, its numbers and its claims.

    **Example:** `write_up(settings, measure(settings, 0))`.
    """
    figures = {"predator": draw(settings, found)}
    present = found.beliefs.present
    hidden = SIGHTED + settings.hidden
    headline = [
        ("p(present) after the last sighting", f"{present[CARRIED][SIGHTED]:.4f}"),
        (f"after {settings.hidden} hidden frames: carried", f"{present[CARRIED][hidden]:.4f}"),
        ("the same, frame by frame", f"{present[FRAMES][hidden]:.4f}"),
        ("after 3 clear frames: carried", f"{present[CARRIED][-1]:.4f}"),
        *(
            (f"caught, {name} (% of steps)", mean_of(100 * share).text(".1f"))
            for name, share in zip(("carries", "forgets"), found.caught, strict=True)
        ),
    ]
    return JobResult(
        model=dict(present),
        dataset=_dataset(found),
        figures=figures,
        report=_report(settings, found, figures, headline),
        headline=headline,
        claims=claims(settings, found),
    )


def claims(settings: Settings, found: Found, carried: str = CARRIED) -> list[Claim]:
    """What would have refuted it: a belief no higher than that of one frame, or one that never falls.

    `carried`: which of the beliefs is put to the test.

    **Example:** `claims(settings, measure(settings, 0))[0].holds`.
    """
    belief, frames = found.beliefs.present[carried], found.beliefs.present[FRAMES]
    hidden = slice(SIGHTED + 1, SIGHTED + 1 + settings.hidden)
    alone = decay(settings, float(belief[SIGHTED]))
    many = found.many
    known = mean_of(many.cost(FRAMES) - many.cost(carried))
    seen = mean_of(many.free_energy(FRAMES) - many.free_energy(carried))
    caught = _apart(found)
    return [
        Claim(
            "hidden: belief above that of one frame, at least by",
            float((belief - frames)[hidden].min()),
            0.05,
        ),
        Claim(
            "hidden: off the decay by the dynamics alone, at most",
            float(np.abs(belief[hidden] - alone).max()),
            high=1e-6,
        ),
        Claim("negative evidence: p(present) after three clear frames", float(belief[-1]), high=0.01),
        Claim("F per frame seen lower than frame by frame, lower end", float(seen.low), 0.0, unit="nats"),
        Claim("−ln belief in the hidden truth lower, lower end", float(known.low), 0.0, unit="nats"),
        Claim("who forgets is caught more often, lower end", float(caught.low), 0.0, unit="% of steps"),
    ]


def _apart(found: Found) -> Interval:
    """Difference of two independent means, in per cent, with its normal 95 % interval."""
    carries, forgets = (mean_of(100 * share) for share in found.caught)
    value = forgets.value - carries.value
    half = np.hypot(forgets.high - forgets.value, carries.high - carries.value)
    return Interval(value, value - half, value + half)


def _dataset(found: Found) -> Any:
    import xarray as xr

    one, many = found.beliefs, found.many
    return xr.Dataset(
        {
            "frame": ("time", found.frames),
            "present": (("kind", "time"), np.stack([one.present[k] for k in KINDS])),
            "free_energy": (
                ("kind", "time"),
                np.stack([one.free_energy[k] for k in KINDS]),
                {"units": "nats"},
            ),
            "drawn_frame": (("course", "frame_number"), many.frames),
            "drawn_truth": (("course", "frame_number"), many.present),
            "drawn_present": (
                ("kind", "course", "frame_number"),
                np.stack([many.beliefs.present[k] for k in KINDS]),
            ),
            "caught": (("mind", "agent"), np.stack(found.caught)),
        },
        coords={"kind": list(KINDS), "mind": ["carries", "forgets"]},
    )


def draw(settings: Settings, found: Found) -> Any:
    """Beliefs in the course, costs over many, and foraging. **Example:** `draw(settings, found)`."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(12.0, 4.0), layout="constrained")
        one, two, three = figure.subplots(1, 3, width_ratios=(2, 1.2, 0.8))
        time = np.arange(1, len(found.frames) + 1)
        one.axvspan(SIGHTED + 1.5, SIGHTED + 1.5 + settings.hidden, color=PALE, alpha=0.2, linewidth=0)
        for name, belief in found.beliefs.present.items():
            one.plot(time, belief, "o-", markersize=4, color=COLOURS[name], label=name)
        one.axhline(PRIOR[1], color=INK, linestyle=":", linewidth=1)
        for t, frame in zip(time, found.frames, strict=True):
            word = "hidden" if np.isnan(frame) else ("seen" if frame else "clear")
            one.text(t, 1.06, word, fontsize=7, ha="center", rotation=45)
        one.set(xlabel="frame", ylabel="p(predator present)", ylim=(-0.03, 1.18))
        one.set_title("one course; grey: nothing is seen; dotted: base rate")
        one.set_xticks(range(2, len(time) + 1, 2))
        one.legend(loc="center left", bbox_to_anchor=(0.42, 0.52))
        for k, name in enumerate(KINDS):
            cost = mean_of(found.many.cost(name))
            two.bar(
                k,
                cost.value,
                yerr=[[cost.value - cost.low], [cost.high - cost.value]],
                capsize=4,
                color=COLOURS[name],
            )
        two.set_xticks(range(3), ["carried", "frame by\nframe", "hidden\n= clear"])
        two.set(ylabel="−ln q(truth) (nats)")
        two.set_title(f"hidden frames of {settings.courses} courses")
        for k, share in enumerate(found.caught):
            part = mean_of(100 * share)
            two_sided = [[part.value - part.low], [part.high - part.value]]
            three.bar(k, part.value, yerr=two_sided, capsize=4, color=(BLUE, ORANGE)[k])
        three.set_xticks(range(2), ["carries", "forgets"])
        three.set(ylabel="steps on which caught (%)")
        three.set_title("foraging")
    return figure


def _report(
    settings: Settings, found: Found, figures: dict[str, Any], headline: list[tuple[str, str]]
) -> Report:
    present, hidden = found.beliefs.present, SIGHTED + settings.hidden
    rows = []
    for name in KINDS:
        shown = [f"{present[name][t]:.4f}" for t in (SIGHTED, hidden, -1)]
        free = "—" if name == ZEROS else mean_of(found.many.free_energy(name)).text(".3f")
        rows.append([name, *shown, free, mean_of(found.many.cost(name)).text(".3f")])
    return Report(
        "A hidden predator is still there",
        f"A predator is seen, then hidden for {settings.hidden} frames. The belief that is carried in "
        f"time goes from {present[CARRIED][SIGHTED]:.4f} to {present[CARRIED][hidden]:.4f}: it decays by "
        "what predators do, not by what is not seen. A belief made from the present frame alone is back at "
        f"the base rate at once ({present[FRAMES][hidden]:.4f}). Three clear frames later the carried "
        f"belief is {present[CARRIED][-1]:.4f}: to see that it is not there counts.",
        [
            Section(
                "Not to see, and to see not",
                "Where nothing is seen the likelihood drops out of F and the belief follows its dynamics. "
                "To "
                "feed zeros instead is to claim that the place was seen to be empty: that belief (red) has "
                "forgotten the predator long before the occluder goes.\n\nIn many courses drawn from the "
                "world the carried belief is less surprised by the frames that are seen, and knows better "
                "what is hidden; that is counted with the truth, which F never sees. Agents that forage in "
                "a "
                "ring of patches and see the predator at times are caught less if they carry their "
                "belief.\n\nWhat would have refuted this: a carried belief that is no higher than the "
                "frame-wise one, that stays when frames are clear, or that does not help.",
                [
                    picture(
                        figures["predator"],
                        "Left: p(present) by frame. Middle: mean −ln belief in the truth over hidden "
                        "frames, "
                        "with 95 % intervals. Right: how often agents are caught, with 95 % intervals.",
                        "The carried belief stays high while the predator is hidden and falls when frames "
                        "are "
                        "clear; the others fall at once. It costs least and is caught least.",
                    )
                ],
                Table(
                    [
                        "belief",
                        "after the sighting",
                        f"after {settings.hidden} hidden",
                        "after 3 clear",
                        "F per frame seen (nats)",
                        "−ln q(truth), hidden (nats)",
                    ],
                    rows,
                    "The last two over courses drawn, with 95 % intervals. Who takes hidden for clear has "
                    "other data, so that its F is not to be compared.",
                ),
            )
        ],
        headline=headline,
    )
