"""The report of the digits job: what a person would show a colleague."""

from typing import Any

import numpy as np

import vfe
from vfe.gallery.digits.data import Images
from vfe.gallery.digits.evaluation import Evaluation, Number
from vfe.gallery.digits.settings import Chosen
from vfe.results.claims import Claim
from vfe.results.report import Report, Section, Table, picture


def headline(found: Evaluation) -> list[tuple[str, str]]:
    """The numbers that matter most, as text."""
    lines = [
        ("F per held-out image", f"{_say(found.total)} nats"),
        ("probabilistic PCA, exact −ln p(x)", f"{_say(found.linear)} nats"),
        ("label right", f"{100 * found.accuracy:.1f} %"),
    ]
    for filled in found.filled:
        ours, linear = filled.errors["this model"], filled.errors["probabilistic PCA"]
        lines.append((f"squared error, {filled.name} hidden", f"{ours.value:.4f} (PCA {linear.value:.4f})"))
    lines.append(("AUROC of F", ", ".join(f"{n} {a:.3f}" for n, a in found.auroc.items())))
    return lines


def claims(found: Evaluation, images: Images) -> list[Claim]:
    """What would have refuted it: a linear model, or the means of the labels, that do as well.

    **Example:** `claims(evaluation, images)[0].holds`.
    """
    # Two standard errors over images are 95 %.
    linear = found.difference.value + 2 * found.difference.error
    means = np.stack([images.x_train[images.y_train == k].mean(0) for k in range(images.classes)])
    away = np.square(found.images[:, None] - means).sum(-1)
    better = Number.of(
        100.0 * (found.recognised.labels == found.truth) - 100.0 * (away.argmin(1) == found.truth)
    )
    slack = found.total.value - found.surprise.value.value
    error = 2 * float(np.hypot(found.total.monte_carlo, found.surprise.value.monte_carlo))
    checked = [
        Claim(
            "F less the exact −ln p(x) of the linear model, high end of the interval",
            linear,
            high=0.0,
            unit="nats per image",
        ),
        Claim(
            "labels right, more than by the nearest mean image, low end of the interval",
            better.value - 2 * better.error,
            0.0,
            unit="points of %",
        ),
    ]
    if not found.refined:  # elsewhere they are of different images
        checked.append(
            Claim("F less −ln p(x), which it bounds", slack, -error, unit="nats per image, by sampling")
        )
    for filled in found.filled:
        checked.append(
            Claim(
                f"squared error less that of the linear model, {filled.name} hidden, high end",
                filled.difference.value + 2 * filled.difference.error,
                high=0.0,
            )
        )
    # Chance is 0.5; a blend of two digits may look like a third.
    least = {"blend of two": 0.6}
    for name, area in found.auroc.items():
        checked.append(
            Claim(f"area under the curve of F, digits against {name}", area, least.get(name, 0.9))
        )
    return checked


def compose(
    learned: vfe.Learned,
    images: Images,
    settings: Chosen,
    found: Evaluation,
    figures: dict[str, Any],
    seconds: dict[str, float],
) -> Report:
    """The page."""
    n = len(found.images)
    dims = settings.z1 + settings.z2
    better = found.total.value < found.linear.value
    summary = (
        f"A hierarchy of causes — a label, {settings.z2} hidden numbers above {settings.z1}, and a curved "
        f"map down to {images.pixels} pixels — was fitted to {len(images.x_train)} images ({images.name}) "
        "by minimising one number, the variational free energy F. On "
        f"{n} held-out images its F is {_say(found.total)} nats per image. F is an upper bound on the "
        "surprise −ln p(x); the exact surprise of a linear model (probabilistic PCA) with the same "
        f"{dims} hidden dimensions is {_say(found.linear)} nats. "
        + (
            "So an upper bound of this model lies below the exact value of the linear one: the curved "
            "hierarchy describes digits better."
            if better
            else "So on this run the curved hierarchy does not beat the linear one."
        )
        + f" From the same F it reads {100 * found.accuracy:.1f} % of the labels correctly."
    )
    sections = [
        Section(
            "What was learned",
            "F fell as weights, tables and precisions followed its gradient while the beliefs about each "
            "image followed too. Its readings are energy − entropy and complexity − accuracy: complexity "
            "grows as the causes come to say more about the images, accuracy grows faster. While learning "
            "the label is seen; the held-out curve is the F of beliefs about held-out images (label seen "
            "too) that follow the same parameters.\n\n" + _how(settings, learned),
            [
                picture(
                    figures["learning"],
                    "F during learning: in total, in its readings, and by level, in nats per image.",
                    "Curves of F, energy, entropy, complexity and accuracy against epochs, by level too.",
                )
            ],
            _levels(found.recognised.readings),
        ),
        Section(
            "Every nat accounted for",
            "The label is hidden now. Each label gets a Gaussian belief of its own about the causes, "
            "fitted by its own true F; labels are weighed by exp(−F). The F in the table is an average "
            "over fresh samples, with its Monte Carlo error. The Laplace value is an approximation and "
            "no bound: it is given to show how far it may stray.",
            [
                picture(
                    figures["surprise"],
                    "An upper bound on this model's surprise beside the linear model's exact surprise.",
                    "Three bars in nats per image.",
                )
            ],
            _numbers(found, n),
        ),
        Section(
            "Recognition is inference",
            f"The label with the least F is right for {100 * found.accuracy:.1f} % of {n} held-out images. "
            "No classifier was added: these are free energies of the generative model under each label "
            "(whose learning counted the contrast between labels too, as said above).",
            [
                picture(
                    figures["labels"],
                    "F of each label above the least, for images read right and wrong.",
                    "Images above bar charts of F by label.",
                )
            ],
        ),
        Section(
            "What is hidden",
            "Pixels were taken away; the belief about the causes rests on those that are left, and its "
            "prediction fills the gap.",
            [
                picture(
                    figures[f"hidden-{f.name.replace(' ', '-')}"],
                    f"With the {f.name} hidden (blue). The label is still right for "
                    f"{100 * f.accuracy:.1f} %.",
                    "Rows of images: original, seen, filled by this model, filled by PCA.",
                )
                for f in found.filled
            ],
            Table(
                ["filled by", *(f"{f.name} hidden" for f in found.filled)],
                [
                    [name, *(_say(f.errors[name], 4) for f in found.filled)]
                    for name in found.filled[0].errors
                ]
                + [["this model − PCA", *(_say(f.difference, 4) for f in found.filled)]],
                "Mean squared error per hidden pixel (intensity², standard error over images). The last "
                "line is the paired difference.",
            ),
        ),
        Section(
            "Imagination",
            "With nothing observed, the model is sampled from the top down: z2, then z1, then the mean "
            "image. With the label clamped it imagines that digit.",
            [
                picture(
                    figures["imagination"],
                    "Mean images of draws from the prior, and of each label.",
                    "A grid of imagined digits.",
                )
            ],
        ),
        Section(
            "Surprise detects what is odd",
            "F of images that are no digits, against F of digits. "
            + "; ".join(f"{name}: AUROC {value:.3f}" for name, value in found.auroc.items())
            + ". (0.5 is chance, 1 is perfect.)",
            [
                picture(
                    figures["odd-images"],
                    "F of single images: digits and foils.",
                    "Strips of points of F by kind of image, below examples of each.",
                )
            ],
        ),
        Section(
            "How it was done, and what to be careful about",
            _cautions(settings, images, found, seconds),
        ),
    ]
    return Report(
        title=f"Digits: a hierarchy that learns, {images.name}",
        summary=summary,
        sections=sections,
        headline=headline(found)[:3],
    )


def _how(settings: Chosen, learned: vfe.Learned) -> str:
    beliefs = (
        "Every training image kept a joint Gaussian belief for each label, moved by one natural-gradient "
        "step at each visit (incremental EM)."
        if settings.beliefs == "kept"
        else "An encoder gave the beliefs, learned together with the model (a variational autoencoder)."
    )
    contrast = (
        f" The parameters also minimised {settings.contrast:g} times the contrast F(label)/T + "
        f"ln Σ exp(−F/T) over the label and {settings.rivals} rivals (T = {settings.temperature:g} nats), "
        "which sharpens recognition; every F shown is without it."
        if settings.contrast > 0
        else ""
    )
    return f"{beliefs}{contrast} {learned.epochs} epochs."


def _cautions(settings: Chosen, images: Images, found: Evaluation, seconds: dict[str, float]) -> str:
    took = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    laplace = found.laplace
    foils = f"the first {len(found.intact)} held-out images"
    return (
        f"Intensities are (grey + uniform noise of one step)/{images.levels}, the noise with a fixed "
        "seed; one pixel variance, learned, for all pixels and images, in both models: densities are "
        "comparable. The default sizes, epochs and weights for the 8 × 8 digits come from a validation "
        "split of their training images (for larger data they were not tuned so); the number of perception "
        "steps was settled while looking at held-out F.\n\n"
        f"Errors after ± are standard errors over the {len(found.images)} images. Another split or seed "
        "moves F by about as much.\n\n"
        f"The Laplace value has an answer for {laplace.answers} of {laplace.asked} images (elsewhere the "
        "curvature at a mode is not positive). The importance-sampled −ln p(x) is high in expectation "
        "(rough where its own error exceeds 0.4 nats), so "
        "the divergence F + ln p(x) is a lower estimate.\n\n"
        f"Foils and the odd-image scores use {foils}.\n\nTime: {took}."
    )


def _levels(free_energy: vfe.FreeEnergy) -> Table:
    one = free_energy
    rows = []
    for name, value in one.by_level.items():
        energy = float(one.observed.get(name, 0.0)) + float(one.hidden.get(name, 0.0))
        entropy = one.entropies.get(name) if one.entropies else None
        said = "" if entropy is None else _plain(float(entropy))
        rows.append([name, _plain(energy), said, _plain(float(value))])
    rows.append(["all", *(_plain(float(v)) for v in (one.energy, one.entropy, one.total))])
    return Table(
        ["level", "energy", "entropy", "F = energy − entropy"],
        rows,
        f"Held-out images, label hidden, nats per image. F = complexity {float(one.complexity):.2f} − "
        f"accuracy {float(one.accuracy):.2f}.",
    )


def _numbers(found: Evaluation, n: int) -> Table:
    laplace = found.laplace
    rows = [
        ["F of the fitted belief", _say(found.total), _monte(found.total), "upper bound on −ln p(x)"],
        [
            f"−ln p(x), importance sampling ({found.surprise.asked} images)",
            _say(found.surprise.value),
            _monte(found.surprise.value),
            f"estimate; {found.surprise.rough} of them rough",
        ],
        ["probabilistic PCA, −ln p(x)", _say(found.linear), "exact", "closed form"],
        ["F − PCA, paired", _say(found.difference), "", "negative: better than linear"],
        [
            f"Laplace ({laplace.answers} images)",
            _say(laplace.value),
            "",
            "approximation, no bound",
        ],
        [f"F of the same {laplace.answers} images", _say(laplace.true), "", "upper bound"],
    ]
    for name, number in found.refined.items():
        rows.append([f"first images: {name}", _say(number), _monte(number), ""])
    return Table(
        ["number", "nats per image", "Monte Carlo error", "what it is"],
        rows,
        f"{n} held-out images; ± is the standard error over images.",
    )


def _say(number: Number, digits: int = 2) -> str:
    return f"{number.value:.{digits}f} ± {number.error:.{digits}f}".replace("-", "−")


def _plain(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _monte(number: Number) -> str:
    return f"{number.monte_carlo:.3f}" if number.monte_carlo else ""
