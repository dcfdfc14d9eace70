"""The page of the recognition gaps."""

import itertools
from typing import Any

import numpy as np

from vfe.gallery.job import JobResult
from vfe.gallery.recognition.gaps import Found, Settings
from vfe.gallery.recognition.occlusion import ITERATIONS
from vfe.gallery.recognition.toys import unseen_information
from vfe.results.claims import Claim
from vfe.results.report import Report, Section, Table, picture
from vfe.results.style import BLUE, COLOURS, GREEN, INK, ORANGE, RED, style


def claims_of(found: Found) -> list[Claim]:
    """What was checked. **Example:** `[claim.verdict for claim in claims_of(found)]`."""
    many, hidden = found.many, found.occluded
    lost = many.regression - many.surprise
    paired = hidden.seeing - hidden.refined
    error = paired.std(ddof=1) / np.sqrt(len(paired))
    gained = float(np.mean(many.held_out["Gaussian"]) - np.mean(many.held_out["mixture of two"]))
    return [
        Claim(
            "linear world: F of an affine encoder less −ln p(x)", abs(found.linear), high=1e-6, unit="nats"
        ),
        Claim(
            "two causes, x = 4: share of the feed-forward loss that iteration recovers",
            100 * (many.regression - many.refined) / lost,
            low=95.0,
            unit="%",
        ),
        Claim(
            "two causes, x = 4: what one Gaussian leaves, in units of ln 2",
            (many.refined - many.surprise) / np.log(2),
            0.9,
            1.1,
        ),
        Claim(
            "two causes, x = 4: what a mixture of two leaves",
            abs(many.mixture - many.surprise),
            high=0.01,
            unit="nats",
        ),
        Claim(
            "two causes, held out: what a mixture encoder of as many parameters saves",
            gained,
            low=0.1,
            unit="nats",
        ),
        Claim(
            "context the encoder does not see costs",
            found.context["sees x"],
            0.3752,
            0.3762,
            "nats",
        ),
        Claim(
            "I(z; c | x), which it cannot know", unseen_information(), 0.31595, 0.31605, "nats", proved=True
        ),
        Claim("with its context it costs", abs(found.context["sees x and c"]), high=1e-4, unit="nats"),
        Claim(
            "invertible world: what is left after iteration at the least noise, of that at the most",
            float(found.invertible.refined[-1] / found.invertible.refined[0]),
            high=0.5,
        ),
        Claim(
            "invertible world, least noise: what the widest encoder loses, of what the narrowest does",
            float(found.invertible.encoder[-1, -1] / found.invertible.encoder[0, -1]),
            high=0.5,
        ),
        Claim(
            "two causes: what the widest encoder still loses, as no width is a remedy",
            float(found.invertible.two_causes[-1]),
            low=0.3,
            unit="nats",
        ),
        Claim(
            "half-hidden digits: nats that iteration takes off the encoder's F, in standard errors",
            float(paired.mean() / max(error, 1e-12)),
            low=3.0,
        ),
        Claim(
            "half-hidden digits: an encoder that never met hidden pixels loses more than one that did",
            float(np.mean(hidden.unmet - hidden.blind)),
            low=0.5,
            unit="nats",
        ),
    ]


def write_up(settings: Settings, found: Found) -> JobResult:
    """Figures, page and numbers. **Example:** `write_up(settings, found).headline`."""
    figures = {
        "many-causes": _many(found),
        "invertible": _invertible(found),
        "occluded": _occluded(found),
    }
    many, hidden = found.many, found.occluded
    headline = [
        (
            "two causes, x = 4: regression, iterated, mixture, −ln p (nats)",
            f"{many.regression:.3f}, {many.refined:.3f}, {many.mixture:.3f}, {many.surprise:.3f}",
        ),
        ("unseen context (nats)", f"{found.context['sees x']:.4f}"),
        ("linear world: F of the encoder + ln p (nats)", f"{found.linear:.1e}".replace("-", "−")),
        (
            "half-hidden digits: never met, not told, told, iterated (nats)",
            ", ".join(
                f"{np.mean(part):.2f}".replace("-", "−")
                for part in (hidden.unmet, hidden.blind, hidden.seeing, hidden.refined)
            ),
        ),
    ]
    return JobResult(
        model={"occluded_surprise": hidden.surprise},
        dataset=_dataset(found),
        figures=figures,
        report=_report(found, figures, headline),
        headline=headline,
        claims=claims_of(found),
    )


def _dataset(found: Found) -> Any:
    import xarray as xr

    nats = {"units": "nats"}
    many, hidden = found.many, found.occluded
    return xr.Dataset(
        {
            "two_causes": (("kind", "observation"), list(many.held_out.values()), nats),
            "two_causes_surprise": ("observation", many.held_out_surprise, nats),
            "invertible_encoder": (("width", "noise"), found.invertible.encoder, nats),
            "two_causes_encoder": ("width", found.invertible.two_causes, nats),
            "invertible_refined": ("noise", found.invertible.refined, nats),
            "occluded": (
                ("recognition", "image"),
                [hidden.unmet, hidden.blind, hidden.seeing, hidden.refined, hidden.joint],
                nats,
            ),
            "occluded_surprise": ("image", hidden.surprise, nats),
            "occluded_surprise_error": ("image", hidden.surprise_error, nats),
            "occluded_course": (("image", "iterations"), hidden.course, nats),
        },
        coords={
            "kind": list(many.held_out),
            "noise": found.invertible.noise,
            "width": found.invertible.width,
            "iterations": list(ITERATIONS),
            "recognition": ["never met", "not told", "told", "iterated", "iterated, full covariance"],
        },
    )


def _many(found: Found) -> Any:
    from matplotlib.figure import Figure

    many = found.many
    with style():
        figure = Figure(figsize=(9.0, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        names = ["regression", "iterated:\none Gaussian", "mixture\nof two"]
        values = np.asarray([many.regression, many.refined, many.mixture]) - many.surprise
        bars = left.bar(names, np.maximum(values, 1e-3), color=[RED, BLUE, GREEN], width=0.6)
        left.bar_label(bars, [f"{v:.3f}" for v in values], padding=2, fontsize=9)
        left.axhline(np.log(2), color=INK, linestyle="--", linewidth=1.2, label="ln 2")
        left.set(yscale="log", ylim=(5e-4, 200), ylabel="F + ln p(x) (nats)", title="x = 4")
        left.legend(loc="upper right")
        kinds = list(many.held_out)
        gaps = [many.held_out[kind] - many.held_out_surprise for kind in kinds]
        means = [g.mean() for g in gaps]
        errors = [g.std(ddof=1) / np.sqrt(len(g)) for g in gaps]
        right.barh(kinds, means, xerr=errors, color=COLOURS[: len(kinds)], height=0.6, ecolor=INK)
        right.invert_yaxis()
        right.set(xlabel="F + ln p(x), held out (nats, ± standard error)", title="encoders")
        right.grid(visible=False, axis="y")
    return figure


def _invertible(found: Found) -> Any:
    from matplotlib.figure import Figure

    found_here = found.invertible
    with style():
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        ax = figure.subplots()
        shades = [RED, ORANGE, GREEN, INK]
        for width, lost, shade in zip(
            found_here.width, found_here.encoder, itertools.cycle(shades), strict=False
        ):
            ax.plot(found_here.noise, lost, "o-", color=shade, label=f"encoder of width {width}")
        ax.plot(found_here.noise, found_here.refined, "o--", color=BLUE, label="iterated from the widest")
        ax.set(
            xscale="log",
            yscale="log",
            xlabel="noise of x (standard deviation)",
            ylabel="F + ln p(x), held out (nats)",
        )
        ax.set_xticks(found_here.noise, [f"{n:g}" for n in found_here.noise])
        ax.minorticks_off()
        ax.legend()
    return figure


def _occluded(found: Found) -> Any:
    from matplotlib.figure import Figure

    hidden = found.occluded
    with style():
        figure = Figure(figsize=(9.0, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        mean = hidden.course.mean(0)
        left.plot(ITERATIONS, mean, "o-", color=BLUE, label="iterated from the encoder that is told")
        left.axhline(hidden.unmet.mean(), color=RED, linestyle=":", label="encoder that never met it")
        left.axhline(hidden.blind.mean(), color=ORANGE, linestyle=":", label="encoder, not told")
        left.axhline(hidden.surprise.mean(), color=INK, linestyle="--", label="−ln p(x)")
        left.set(xlabel="iterations", ylabel="F, mean over images (nats)")
        left.legend(loc="center right")
        parts = {
            "never met": hidden.unmet - hidden.blind,
            "not told": hidden.blind - hidden.seeing,
            "amortisation": hidden.seeing - hidden.refined,
            "family: diagonal": hidden.refined - hidden.joint,
            "family: Gaussian": hidden.joint - hidden.surprise,
        }
        names = list(parts)
        means = [p.mean() for p in parts.values()]
        errors = [p.std(ddof=1) / np.sqrt(len(p)) for p in parts.values()]
        right.barh(names, means, xerr=errors, color=[RED, *COLOURS[:4]], height=0.6, ecolor=INK)
        for row, (mean, error) in enumerate(zip(means, errors, strict=True)):
            right.text(max(mean + error, 0) + 0.3, row, f"{mean:.2f} ± {error:.2f}", va="center")
        right.set_xlim(right=1.5 * max(means))
        right.invert_yaxis()
        right.set_xlabel("nats per image (± standard error)")
        right.grid(visible=False, axis="y")
    return figure


def _report(found: Found, figures: dict[str, Any], headline: list[tuple[str, str]]) -> Report:
    many, hidden = found.many, found.occluded
    rows = [
        [kind, str(many.parameters[kind.split(",")[0]]), f"{np.mean(values):.3f}"]
        for kind, values in many.held_out.items()
    ]
    rows.append(["−ln p(x)", "", f"{np.mean(many.held_out_surprise):.3f}"])
    told = ", ".join(f"{name}: {count}" for name, count in hidden.parameters.items())
    return Report(
        "Three recognition gaps",
        "An encoder answers in one pass. What it loses against −ln p(x) is of three kinds: the family "
        "of its answers, the context it does not see, and its own imperfection. Iterating from its "
        "guess, down the model's F by backward predictions, mends the last two, not the first.",
        [
            Section(
                "Two causes for one sensation",
                "x = z² + 0.3 ε. Regression answers with the mean of both causes, which is neither. "
                "Iteration finds one of them and pays about ln 2 for the other; a mixture of two keeps "
                "both.",
                [
                    picture(
                        figures["many-causes"],
                        "Left: F + ln p(x) at x = 4. Right: held-out observations, encoders of about as "
                        "many parameters, and what iteration makes of their guesses (over 512 fresh "
                        "draws).",
                        "Bars that fall from regression to one Gaussian to a mixture.",
                    )
                ],
                Table(["recognition", "parameters", "F (nats)"], rows, "Held-out observations."),
            ),
            Section(
                "An invertible world",
                "x = z + z³/5 + noise. As the noise vanishes the posterior becomes a narrow Gaussian: "
                "what is left after iteration, the family's gap, vanishes too. The encoder must then be "
                "ever more exact, and what it lacks in that is all amortisation, which a wider one mends. "
                "Of two causes, x = z² + 0.3 ε, the same encoders lose "
                + " and ".join(f"{lost:.2f}" for lost in found.invertible.two_causes)
                + " nats: no width mends that.",
                [
                    picture(
                        figures["invertible"],
                        "F + ln p(x) by noise, of encoders and after iteration.",
                        "The wide encoder lies below the narrow one; iteration leaves less as noise falls.",
                    )
                ],
            ),
            Section(
                "Digits whose lower half is hidden",
                f"Two encoders of as many parameters ({told}) are learned on half images; to the first, "
                "and to one learned on whole images only, what is hidden is black.",
                [
                    picture(
                        figures["occluded"],
                        "Left: F against iterations. Right: the parts of the loss.",
                        "F falls within some ten iterations; bars of each part of the loss.",
                    )
                ],
            ),
        ],
        headline=headline,
    )
