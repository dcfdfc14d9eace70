"""The page of learning as a geodesic."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vfe.gallery.job import JobResult
from vfe.gallery.physics.geodesic import NATURAL, OBSERVED, PARAMETRISATIONS, Found, Settings, free_energy
from vfe.results.claims import Claim, written
from vfe.results.report import Report, Section, Table, picture
from vfe.results.style import BLUE, GREEN, INK, ORANGE, PALE, RED, style

COLOURS = dict(zip(PARAMETRISATIONS, (ORANGE, GREEN, BLUE), strict=True))


def write_up(settings: Settings, found: Found) -> JobResult:
    """The result of the experiment: its page, its figure and its numbers.

    **Example:** `write_up(settings, found)`.
    """
    figures = {"paths": draw(found)}
    checked = claims(found)
    headline = [
        ("distance of natural paths ∝ h to the power", f"{found.natural.exponent:.2f}"),
        ("distance of plain paths at the finest h", f"{found.plain.gaps[-1]:.2f}"),
        (
            "F + ln p(x) after one unit step in natural parameters (nats)",
            written(found.unit.excess(NATURAL)),
        ),
        (
            "F above its minimum after one natural step of learning (nats)",
            written(found.learning.natural[1]),
        ),
        ("the same after one plain step (nats)", written(found.learning.plain[1])),
    ]
    return JobResult(
        model={name: path[-1] for name, path in found.natural.finest.items()},
        dataset=_dataset(settings, found),
        figures=figures,
        report=_report(settings, found, figures, headline),
        headline=headline,
        claims=checked,
    )


def claims(found: Found) -> list[Claim]:
    """What would have refuted it: natural paths that stay apart, or a unit step that misses the posterior.

    The powers are of the method: gradient steps follow their flow with an error of first order in h.

    **Example:** `claims(found)[0].holds`.
    """
    others = [found.unit.excess(name) for name in PARAMETRISATIONS if name != NATURAL]
    learning = found.learning
    return [
        Claim("distance of natural paths falls with h, to the power", found.natural.exponent, 0.9, 1.1),
        Claim(
            "distance of plain paths that is left when h is halved",
            float(found.plain.gaps[-1] / found.plain.gaps[-2]),
            low=0.9,
        ),
        Claim(
            "F + ln p(x) after one unit step in natural parameters",
            abs(found.unit.excess(NATURAL)),
            high=1e-9,
            unit="nats",
        ),
        Claim(
            "the same of normal, categorical, Dirichlet and gamma beliefs, the largest",
            found.conjugate.excess,
            high=1e-9,
            unit="nats",
        ),
        Claim(
            "the least of the former in other parametrisations (infinite: no belief is left)",
            min(others),
            low=0.1,
            unit="nats",
        ),
        Claim(
            "F above its minimum after one natural step, share of what it was",
            abs(float(learning.natural[1] / learning.natural[0])),
            high=1e-9,
        ),
        Claim(
            "the same after one step of the plain gradient with the best rate",
            float(learning.plain[1] / learning.plain[0]),
            low=0.01,
        ),
    ]


def _dataset(settings: Settings, found: Found) -> Any:
    import xarray as xr

    kinds = {"natural": found.natural, "plain": found.plain}
    size = settings.time / settings.finest
    return xr.Dataset(
        {
            "path": (
                ("gradient", "parametrisation", "time", "quantity"),
                np.stack([np.stack(list(p.finest.values())) for p in kinds.values()]),
            ),
            "distance": (("gradient", "size"), np.stack([p.gaps for p in kinds.values()])),
            "after_unit_step": (
                "parametrisation",
                np.array([found.unit.after[n] for n in PARAMETRISATIONS]),
                {"units": "nats"},
            ),
            "plain_learning": ("step", found.learning.plain, {"units": "nats"}),
            "conjugate": (
                ("conjugate_belief", "moment"),
                np.array([list(part.values()) for part in found.conjugate]).T,
                {"units": "nats"},
            ),
            "natural_learning": ("natural_step", found.learning.natural, {"units": "nats"}),
        },
        coords={
            "gradient": list(kinds),
            "parametrisation": list(PARAMETRISATIONS),
            "quantity": ["m", "s"],
            "conjugate_belief": list(found.conjugate.after),
            "moment": ["before", "after one step", "surprise"],
            "time": size * np.arange(settings.finest),
            "size": found.natural.sizes,
        },
        attrs={"surprise": found.unit.surprise, "F_at_start": found.unit.before},
    )


def draw(found: Found) -> Any:
    """Paths over contours of F, their distances by step size, and learning. **Example:** `draw(found)`."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(12.0, 3.9), layout="constrained")
        axes = figure.subplots(1, 3)
        _landscape(axes[0], found)
        for paths, colour, name in ((found.natural, BLUE, "natural"), (found.plain, RED, "plain")):
            axes[1].loglog(paths.sizes, paths.gaps, "o-", color=colour, label=f"{name} gradient")
        line = found.natural.gaps[-1] * found.natural.sizes / found.natural.sizes[-1]
        axes[1].loglog(found.natural.sizes, line, ":", color=INK, label="∝ h")
        axes[1].set(xlabel="step size h", ylabel="largest distance in (m, ln s)")
        axes[1].set_title("between parametrisations")
        axes[1].legend(loc="lower right")
        floor = 1e-12
        plain, natural = (np.maximum(a, floor) for a in (found.learning.plain, found.learning.natural))
        axes[2].semilogy(plain, color=RED, label="plain gradient, best rate at each step")
        axes[2].semilogy(natural, "o-", color=BLUE, label="natural gradient, h = 1")
        axes[2].set(xlabel="step", ylabel="F − its minimum (nats per observation)", ylim=(floor / 3, None))
        axes[2].set_title("weight and bias at fixed beliefs")
        axes[2].legend(loc="upper right")
    return figure


def _landscape(axes: Any, found: Found) -> None:
    """F − surprise over m and s, with the finest paths."""
    points = np.concatenate([p for paths in (found.natural, found.plain) for p in paths.finest.values()])
    (low_m, low_s), (high_m, high_s) = points.min(0), points.max(0)
    m, s = np.meshgrid(
        np.linspace(low_m - 0.2, high_m + 0.2, 41), np.linspace(0.8 * low_s, high_s + 0.1, 41)
    )
    with jax.enable_x64(True):
        flat = jax.jit(jax.vmap(free_energy))(jnp.asarray(m.ravel()), jnp.asarray(s.ravel()))
    excess = np.asarray(flat).reshape(m.shape) - found.unit.surprise
    axes.contour(m, s, excess, levels=[0.03, 0.1, 0.3, 1, 3, 10], colors=PALE, linewidths=0.8)
    for paths, dashes in ((found.natural, "-"), (found.plain, "--")):
        for name, path in paths.finest.items():
            label = name if dashes == "--" else None
            axes.plot(
                *path.T, dashes, color=COLOURS[name], linewidth=2.4 if label is None else 1.5, label=label
            )
    axes.plot(*found.natural.finest[NATURAL][0], "o", color=INK, markersize=5)
    axes.set(xlabel="mean m of the belief", ylabel="sd s of the belief")
    axes.set_title("natural (solid), plain (dashed)")
    axes.legend(loc="best", title="parametrisation", fontsize=8, title_fontsize=8)


def _report(
    settings: Settings, found: Found, figures: dict[str, Any], headline: list[tuple[str, str]]
) -> Report:
    def told(name: str) -> str:
        return (
            written(found.unit.after[name]) if np.isfinite(found.unit.after[name]) else "no belief: s² < 0"
        )

    rows = [
        [name, written(found.unit.before), told(name), written(found.unit.surprise)]
        for name in PARAMETRISATIONS
    ]
    return Report(
        "Learning is a geodesic",
        f"A belief N(m, s²) about the cause of x = {OBSERVED} descends F. How it is written down, as a "
        "mean and "
        "a variance, or a mean and a logarithm, or in natural parameters, is nobody's business but the "
        "programmer's; yet the plain gradient takes another way in each. The natural gradient measures "
        "steps by how far the belief moves, KL(q ‖ q′), and takes the same way in all of them.",
        [
            Section(
                "The same way in any parametrisation",
                "Steps of the natural gradient follow its flow with an error of the order of h, and the "
                "flow "
                "is that of the belief, not of its parameters: paths in three parametrisations meet as h "
                f"falls, their distance like h to the power {found.natural.exponent:.2f}. Plain paths are "
                f"{found.plain.gaps[-1]:.2f} apart however small the steps. What would have refuted this: "
                "natural paths that stay apart, or plain ones that meet.",
                [
                    picture(
                        figures["paths"],
                        "Left: paths of the belief from one start (dot), contours of F + ln p(x) at 0.03, "
                        "0.1, "
                        "0.3, 1, 3 and 10 nats; all end after the same time. Middle: the largest distance "
                        "between the paths of two parametrisations at equal times. Right: F above its "
                        "minimum while a conditional is learned (values below 1e−12 are drawn there).",
                        "Left: three solid paths lie on each other, three dashed ones part. Middle: the "
                        "natural distance falls along the line of slope one, the plain one stays. Right: "
                        "the "
                        "natural gradient is at the minimum after one step, the plain one after about a "
                        "hundred.",
                    )
                ],
            ),
            Section(
                "One step",
                "Finite steps are not invariant, and that has a use: in natural parameters one natural "
                "step "
                "with h = 1 is the posterior of a conjugate model, F = −ln p(x). In the other "
                "parametrisations the same step misses it, or leaves no belief at all. For parameters, "
                f"`vfe.natural_descent()` solves for weight and bias of an affine mean (6 × 3 and 6, "
                f"{settings.observations} observations) in one step at fixed beliefs.",
                table=Table(
                    ["parametrisation", "F before (nats)", "F after one step (nats)", "−ln p(x) (nats)"],
                    rows,
                    "One natural step with h = 1; below, of beliefs about other conjugate models "
                    "(`vfe.NaturalGradient`).",
                ),
            ),
        ],
        headline=headline,
    )
