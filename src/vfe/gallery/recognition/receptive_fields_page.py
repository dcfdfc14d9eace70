"""The page of extra-classical receptive fields."""

from typing import Any

import numpy as np

from vfe.gallery.job import JobResult
from vfe.gallery.page import finish, largest, refuted, shown
from vfe.gallery.recognition.receptive_fields import LEARNERS, STIMULI, Found, Settings, bars
from vfe.results.claims import Claim
from vfe.results.report import Table
from vfe.results.style import BLUE, GREEN, INK, ORANGE, style

COLOURS = {"short": INK, "long": BLUE, "across": ORANGE}
NAMES = {"short": "alone", "long": "going on", "across": "bars across"}


def claims(found: Found) -> list[Claim]:
    """What must hold, in every network. **Example:** `claims(found)[0].holds`."""
    long, across = found.suppressed(0, "long"), found.suppressed(0, "across")
    cut = [found.suppressed(0, name, cut=True) for name in ("long", "across")]
    return [
        Claim(
            "a bar that goes on is responded to less than one alone, by a share of, smallest",
            float(long.min()),
            0.1,
        ),
        Claim(
            "that is more than bars across the surround do, by, smallest", float((long - across).min()), 0.1
        ),
        Claim("without backward connections responses differ by a share of", largest(*cut), high=1e-5),
        Claim(
            "learned from photographs, the share is larger than from different places by, smallest",
            float(long.min() - found.suppressed(1, "long").max()),
            0.05,
        ),
    ]


def write_up(settings: Settings, found: Found) -> JobResult:
    """The result of the experiment. **Example:** `write_up(settings, found)`."""
    figures = {"receptive_fields": draw(found)}
    per_cent = {
        (learner, name, cut): 100 * found.suppressed(learner, name, cut)
        for learner in (0, 1)
        for name in ("long", "across")
        for cut in (False, True)
    }
    whole = per_cent[0, "long", False]
    headline = [
        ("a bar that goes on: suppressed by", f"{span(whole)} %"),
        ("bars across its surround: by", f"{span(per_cent[0, 'across', False])} %"),
        ("without backward connections: by", f"{span(per_cent[0, 'long', True])} %"),
        ("learned from different places: by", f"{span(per_cent[1, 'long', False])} %"),
    ]
    rows = [
        [
            LEARNERS[learner],
            "cut" if cut else "whole",
            *(span(per_cent[learner, n, cut]) for n in ("long", "across")),
        ]
        for learner in (0, 1)
        for cut in (False, True)
    ]
    return finish(
        "Extra-classical receptive fields",
        "A network with one level above three neighbouring patches learns from photographs by descent of "
        "F. Then bars are shown. Error units of the middle patch respond less to a bar that goes on to "
        f"both sides, by {span(whole)} % in {len(whole)} networks: what the surround predicts is not "
        "reported again. Nothing of that is left when backward connections are cut.",
        [
            shown(
                "Bars, short and long",
                "Edges go on in photographs, and so the level above learns to predict a patch from its "
                "neighbours. A bar alone contradicts what its empty surround predicts; one that goes on "
                "agrees with it; bars across the surround predict something else. Where the patches that "
                "were learned from came from different places, there is little to predict from: what is "
                "left is what the network took for a rule in a limited number of patches.",
                figures["receptive_fields"],
                "Left: three stimuli, the middle patch framed. Middle: responses of error units by the "
                "bar's place in the patch, mean over networks and their range. Right: suppression relative "
                "to the bar alone, every dot a network.",
                "Three pictures of bars. The curve of the long bar lies below that of the short one, that "
                "of bars across above. Suppression is above zero for the long bar of whole networks alone.",
                Table(
                    ["learned from", "backward connections", "long bar, suppressed (%)", "bars across (%)"],
                    rows,
                    "Response |ε|² of the middle patch, relative to the bar alone, over nine places; "
                    "smallest to largest over networks; negative: more.",
                ),
            ),
            refuted(
                "Error units that respond to a long bar as to a short one or more; as much suppression by "
                "bars across; suppression without backward connections, or as much in networks that "
                "learned from patches of different places."
            ),
        ],
        figures,
        headline,
        claims(found),
        {
            name: (
                ("learner", "network", "stimulus", "position"),
                np.array([[getattr(each, name) for each in networks] for networks in found.learners]),
            )
            for name in ("intact", "cut")
        }
        | {
            "free_energy": (
                ("learner", "network", "epoch"),
                np.array([[each.free_energy for each in networks] for networks in found.learners]),
                {"units": "nats per observation"},
            )
        },
        {"intact": np.array([each.intact for each in found.learners[0]])},
        {"learner": list(LEARNERS), "stimulus": list(STIMULI)},
    )


def span(values: np.ndarray) -> str:
    """Smallest to largest. **Example:** `span(np.array([1.0, 2.0]))` is "1 to 2"."""
    low, high = (f"{round(float(v)) + 0}".replace("-", "−") for v in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def draw(found: Found) -> Any:
    """Stimuli, responses by position, suppression by network. **Example:** `draw(found)`."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(12.5, 4.2), layout="constrained")
        panels = figure.subplot_mosaic(
            [
                ["short", "response", "share"],
                ["long", "response", "share"],
                ["across", "response", "share"],
            ],
            width_ratios=(0.8, 1.2, 1.2),
        )
        for name, pictures in bars().items():
            axis = panels[name]
            axis.imshow(pictures[len(pictures) // 2], vmin=-1.6, vmax=1.6)
            axis.plot([5.5, 11.5, 11.5, 5.5, 5.5], [-0.5, -0.5, 5.5, 5.5, -0.5], color=COLOURS[name])
            axis.set(xticks=[], yticks=[])
            axis.set_title(NAMES[name])
        place = np.arange(found.learners[0][0].intact.shape[1]) * 0.5 + 0.5
        for k, name in enumerate(STIMULI):
            each = np.array([responses.intact[k] for responses in found.learners[0]])
            panels["response"].plot(place, each.mean(0), color=COLOURS[name], label=NAMES[name])
            panels["response"].fill_between(
                place, each.min(0), each.max(0), color=COLOURS[name], alpha=0.2, linewidth=0
            )
        panels["response"].set(
            xlabel="height of the bar in the patch (pixels)", ylabel="|ε|² of the middle patch"
        )
        panels["response"].set_title("response of error units")
        panels["response"].legend()
        columns = (
            ("photographs", 0, False),
            ("photographs,\ncut", 0, True),
            ("different\nplaces", 1, False),
        )
        for shift, name, colour in ((-0.15, "long", BLUE), (0.15, "across", ORANGE)):
            for k, (_, learner, cut) in enumerate(columns):
                values = 100 * found.suppressed(learner, name, cut)
                spots = k + shift + np.linspace(-0.06, 0.06, len(values))
                label = NAMES[name] if k == 0 else None
                panels["share"].plot(spots, values, "o", color=colour, label=label)
        panels["share"].axhline(0.0, color=GREEN, linewidth=1.0)
        panels["share"].set_xticks(range(len(columns)), [column[0] for column in columns])
        panels["share"].set(ylabel="less than the bar alone by (%)", xlim=(-0.6, 2.6))
        panels["share"].set_title("suppression, every dot a network")
        panels["share"].legend()
    return figure
