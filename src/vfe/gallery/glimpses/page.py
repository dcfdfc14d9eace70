"""What is claimed of the glimpsing eye, in numbers, and its page."""

from typing import Any

import numpy as np

import vfe
from vfe.gallery.digits.data import Images
from vfe.gallery.glimpses.figures import draw
from vfe.gallery.glimpses.job import AVOIDS, BORROWED, CENTRE, CHOSEN, RANDOM, ROWS, SEEKS, Glimpsed
from vfe.gallery.glimpses.settings import Chosen
from vfe.gallery.intervals import NORMAL, Interval, mean_of, share_of
from vfe.gallery.job import JobResult
from vfe.results.claims import Claim
from vfe.results.report import Report, Section, Table, picture


def accuracies(found: Glimpsed) -> dict[str, Interval]:
    """Labels right in per cent, by number of glimpses from 0, with 95 % intervals: Wilson's over images; of
    random scans over images and over seeds, variances added.

    **Example:** `accuracies(found)["information"].low[4]`.
    """
    intervals = {}
    for name, scan in found.scans.items():
        shares = [share_of(column) for column in scan.hits(found.truth).T]
        intervals[name] = Interval(*(np.array(part) for part in zip(*shares, strict=True)))
    hits = np.stack([scan.hits(found.truth) for scan in found.random])
    by_image, by_seed = hits.mean(0), hits.mean(1)
    mean = by_seed.mean(0)
    variance = by_image.var(0, ddof=1) / len(by_image) + by_seed.var(0, ddof=1) / len(by_seed)
    half = NORMAL * np.sqrt(variance)
    intervals[RANDOM] = Interval(100 * mean, 100 * (mean - half), 100 * (mean + half))
    return intervals


def kept_promises(found: Glimpsed, judged: int) -> float:
    """How much the entropy of the label fell, over how much was promised, up to `judged` glimpses.

    **Example:** `kept_promises(found, 4)`.
    """
    scan = found.scans[SEEKS]
    fell = scan.uncertainty[:, 0] - scan.uncertainty[:, judged]
    return float(fell.mean() / scan.promised[:, :judged].sum(1).mean())


def claims(found: Glimpsed, settings: Chosen) -> list[Claim]:
    """What would have refuted it: intervals that overlap when scans are compared.

    **Example:** `claims(found, settings)[0].holds`.
    """
    at = {
        name: Interval(*(part[settings.judged] for part in each))
        for name, each in accuracies(found).items()
    }
    seeks = at[SEEKS]

    def above(statement: str, *names: str) -> Claim:
        highest = max(at[name].high for name in names)
        return Claim(statement, float(seeks.low - highest), 0.0, unit="points of %")

    after = f"after {settings.judged} glimpses, between 95 % intervals"
    return [
        above(f"seeking information is above scanning at random {after}", RANDOM),
        above(f"it is above scanning by rows and from the centre outwards {after}", ROWS, CENTRE),
        above(f"it is above the best fixed order for the training images {after}", CHOSEN),
        above(f"it is above the paths it took over other images {after}", BORROWED),
        Claim(
            f"seeking the least information is below scanning at random {after}",
            float(at[RANDOM].low - at[AVOIDS].high),
            0.0,
            unit="points of %",
        ),
        # Exactly 1 on average for images that the model itself draws; digits are not quite such images.
        Claim(
            "the fall of the label's entropy over what was promised",
            kept_promises(found, settings.judged),
            0.85,
            1.15,
        ),
    ]


def glimpses_until(accuracy: Interval, wanted: float) -> int | None:
    """The first number of glimpses with at least `wanted` per cent right; None where there is none.

    **Example:** `glimpses_until(accuracies(found)["information"], 80.0)`.
    """
    reached = np.flatnonzero(accuracy.value >= wanted)
    return int(reached[0]) if len(reached) else None


def write_up(
    settings: Chosen, images: Images, models: list[vfe.Model], found: Glimpsed, data: dict[str, np.ndarray]
) -> JobResult:
    """The result of the experiment: its page, its figures and its numbers."""
    accuracy = accuracies(found)
    figures = draw(settings, images, found, accuracy)
    headline = [
        (
            f"right after {settings.judged} glimpses: {name}",
            Interval(*(part[settings.judged] for part in accuracy[name])).text(".1f") + " %",
        )
        for name in (SEEKS, CHOSEN, CENTRE, ROWS, BORROWED, RANDOM, AVOIDS)
    ]
    return JobResult(
        model=models,
        dataset=_dataset(found, settings),
        figures=figures,
        report=_report(settings, images, found, accuracy, figures, headline),
        headline=headline,
        claims=claims(found, settings),
        data=data,
    )


def _report(
    settings: Chosen,
    images: Images,
    found: Glimpsed,
    accuracy: dict[str, Interval],
    figures: dict[str, Any],
    headline: list[tuple[str, str]],
) -> Report:
    judged, size = settings.judged, settings.patch
    glimpse = "one pixel" if size == 1 else f"{size} × {size} pixels"
    part = 100 * size**2 / images.pixels
    seeks = found.scans[SEEKS]
    hits = seeks.hits(found.truth)[:, judged].astype(float)
    gap = mean_of(100 * (hits - found.scans[CHOSEN].hits(found.truth)[:, judged]))
    half = accuracy[SEEKS].value[judged]
    others = {n: glimpses_until(a, half) for n, a in accuracy.items() if n in (CHOSEN, CENTRE, RANDOM)}
    needed = ", ".join(
        f"{n} " + (f"{g}" if g is not None else f"more than {settings.glimpses}") for n, g in others.items()
    )
    names = [SEEKS, CHOSEN, CENTRE, ROWS, BORROWED, RANDOM, AVOIDS]
    rows = [
        [str(g), *(Interval(*(p[g] for p in accuracy[n])).text(".1f") for n in names)]
        for g in range(1, settings.glimpses + 1)
    ]
    on_training = ", ".join(f"{n} {100 * share:.0f} %" for n, share in found.on_training.items())
    sure = np.take_along_axis(seeks.label, found.truth[:, None, None], 2)[..., 0]
    loss = -np.log(np.maximum(sure, 1e-9)).mean(0)
    return Report(
        "A glimpsing eye",
        f"A mixture of {settings.components} components for each label was learned from whole images "
        f"({images.name}). Then an eye looks at {len(found.truth)} held-out images, {glimpse} at a time "
        f"({part:.1f} % of the image), wherever it expects to learn most about the label. After {judged} "
        f"glimpses it names {half:.1f} % rightly; to name as many, other scans need: {needed} glimpses.",
        [
            Section(
                "Which scan sees most",
                "All scans see as many patches, none twice. They differ in where they look: "
                "`information` where the expected information about the label is largest, "
                "`least information` where it is smallest, `others' paths` where the first eye looked at "
                "another image, `chosen order` along the fixed order that names most training images "
                f"rightly (right on them after {judged} glimpses: {on_training})."
                + (
                    f" Each image was held out once, in {settings.folds} folds."
                    if settings.folds > 1
                    else ""
                )
                + "\n\n"
                f"Image by image, seeking names {gap.text('.1f')} points of % more than the chosen order. "
                "What would have refuted this: intervals that overlap, paths that serve other images as "
                "well.",
                [
                    picture(
                        figures["accuracy"],
                        "Labels right against the number of glimpses, with 95 % intervals.",
                        "Curves that rise from chance; the highest is that of the eye that seeks "
                        "information, the lowest that of the eye that avoids it.",
                    )
                ],
                Table(["glimpses", *names], rows, "Labels right, %, with 95 % intervals."),
            ),
            Section(
                "Paths and beliefs",
                "The first held-out image of some labels. The path is chosen glimpse by glimpse; the "
                "belief q(label) is exact given what was seen.",
                [
                    picture(
                        figures["paths"],
                        "The image with the order of glimpses; what was seen of it; q(label) by glimpse, "
                        "dark for probable, the true label marked.",
                        "Images of digits with numbered places, the same with only those places visible, "
                        "and beliefs that concentrate on one label.",
                    )
                ],
            ),
            Section(
                "Promises, and F",
                "I(y; x_patch | seen) = H[q(y)] − ⟨H[p(y | seen, x_patch)]⟩ is what the eye expects to "
                f"learn before it looks. Over the first {judged} glimpses the entropy falls by "
                f"{kept_promises(found, judged):.2f} times what was promised. The eye is surer than it "
                f"should be: after {judged} glimpses the entropy of q(y) is "
                f"{seeks.uncertainty.mean(0)[judged]:.2f} nats, −ln q(true label) {loss[judged]:.2f} nats "
                "on average, since no mixture draws digits as they are.\n\n"
                "F = −ln p(what was seen) is exact; each glimpse adds its surprise. Seeking information is "
                "not avoiding surprise: of all scans the one that looks where least is to be learned, at "
                "what is the same in all digits, is surprised least and knows nothing.",
                [
                    picture(
                        figures["promises"],
                        "Left: entropy of q(label). Middle: information promised and delivered by each "
                        "glimpse of the first eye. Right: the surprise of each glimpse.",
                        "Left: the entropy falls fastest for who seeks information. Middle: two curves "
                        "that are close. Right: surprise by glimpse.",
                    )
                ],
            ),
        ],
        headline=headline,
    )


def _dataset(found: Glimpsed, settings: Chosen) -> Any:
    import xarray as xr

    scans = {**found.scans, **{f"{RANDOM} {i + 1}": scan for i, scan in enumerate(found.random)}}
    several = list(scans.values())
    after, at = ("scan", "image", "seen"), ("scan", "image", "glimpse")
    return xr.Dataset(
        {
            "place": (at, np.stack([scan.places for scan in several])),
            "label": ((*after, "digit"), np.stack([scan.label for scan in several])),
            "free_energy": (after, np.stack([scan.free_energy for scan in several]), {"units": "nats"}),
            "promised": (at, np.stack([scan.promised for scan in several]), {"units": "nats"}),
            "truth": ("image", found.truth),
        },
        coords={
            "scan": list(scans),
            "seen": np.arange(settings.glimpses + 1),
            "glimpse": np.arange(1, settings.glimpses + 1),
        },
        attrs={"chosen": str(settings)},
    )
