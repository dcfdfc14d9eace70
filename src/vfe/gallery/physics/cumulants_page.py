"""The page of free energy as the generator of cumulants."""

from typing import Any

import numpy as np

from vfe.gallery.job import JobResult
from vfe.gallery.physics.cumulants import NODES, Found, Settings, series
from vfe.results.claims import Claim, written
from vfe.results.report import Report, Section, Table, picture
from vfe.results.style import BLUE, GREEN, INK, ORANGE, PURPLE, RED, style

CLOSE = 1e-10


def write_up(settings: Settings, found: Found) -> JobResult:
    """The result of the experiment: its page, its figure and its numbers.

    **Example:** `write_up(settings, measure(settings))`.
    """
    figures = {"generating": draw(found)}
    checked = claims(found)
    headline = [
        (f"largest difference over {settings.orders} cumulants", written(checked[0].measured)),
        ("third connected function of a, b, c", written(found.connected.triple)),
        ("posterior cumulants from ln p(x): largest difference", written(checked[4].measured)),
    ]
    return JobResult(
        model={"cumulants": found.derived},
        dataset=_dataset(found),
        figures=figures,
        report=_report(settings, found, figures, headline),
        headline=headline,
        claims=checked,
    )


def claims(found: Found) -> list[Claim]:
    """What would have refuted it: a derivative that is no cumulant. Bounds leave room for rounding alone.

    **Example:** `claims(found)[0].holds`.
    """
    c = found.connected
    apart = np.abs(found.derived - found.summed) / np.maximum(1.0, np.abs(found.summed))
    return [
        Claim(
            "derivatives of ln Z are cumulants from sums, largest difference",
            float(apart.max()),
            high=CLOSE,
        ),
        Claim(
            "second derivatives are connected functions of pairs, largest difference",
            float(np.abs(c.pairs - c.pairs_by_sums).max()),
            high=CLOSE,
        ),
        Claim(
            "a third mixed derivative is the connected function of three, difference",
            abs(c.triple - c.triple_by_sums),
            high=CLOSE,
        ),
        Claim(
            "connected functions with the independent node",
            float(np.abs(c.pairs[3, :3]).max()),
            high=CLOSE,
        ),
        Claim(
            "derivatives of ln p(x) are the posterior's cumulants, largest difference",
            float(max(np.abs(p.derived - p.exact).max() for p in (found.mixture, found.gaussian))),
            high=CLOSE,
        ),
        Claim(
            "third cumulant of a Gaussian posterior",
            float(np.abs(found.gaussian.derived[:, 2]).max()),
            high=CLOSE,
        ),
        Claim(
            "third cumulant of the posterior under two causes, its largest size",
            float(np.abs(found.mixture.derived[:, 2]).max()),
            low=0.01,
        ),
    ]


def _dataset(found: Found) -> Any:
    import xarray as xr

    priors = {"two causes": found.mixture, "one Gaussian": found.gaussian}
    return xr.Dataset(
        {
            "cumulant": (("by", "order"), np.stack([found.derived, found.summed])),
            "log_partition": ("source", found.log_partition, {"units": "nats"}),
            "connected": (
                ("by", "node", "other"),
                np.stack([found.connected.pairs, found.connected.pairs_by_sums]),
            ),
            "connected_abc": ("by", np.array([found.connected.triple, found.connected.triple_by_sums])),
            "posterior_cumulant": (
                ("prior", "by", "x", "low_order"),
                np.stack([np.stack([p.derived, p.exact]) for p in priors.values()]),
            ),
        },
        coords={
            "by": ["derivatives", "sums"],
            "order": np.arange(1, len(found.derived) + 1),
            "low_order": [1, 2, 3],
            "source": found.sources,
            "node": list(NODES),
            "other": list(NODES),
            "prior": list(priors),
            "x": found.mixture.x,
        },
    )


def draw(found: Found) -> Any:
    """ln Z and its series; connected functions; what ln p(x) says of the posterior.

    **Example:** `draw(found)`.
    """
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(12.0, 3.9), layout="constrained")
        axes = figure.subplots(1, 3)
        axes[0].plot(found.sources, found.log_partition, color=INK, linewidth=3, label="ln Z(J)")
        orders = [n for n in (1, 2, 4, 6) if n <= len(found.derived)]
        for order, colour in zip(orders, (ORANGE, GREEN, BLUE, PURPLE), strict=False):
            name = f"up to κ{'₁₂₃₄₅₆₇₈'[order - 1]}"
            axes[0].plot(found.sources, series(found, order), "--", color=colour, label=name)
        low, high = found.log_partition.min(), found.log_partition.max()
        axes[0].set(xlabel="source J", ylabel="nats", ylim=(low - 1, high + 1))
        axes[0].set_title("free energy and its cumulants")
        axes[0].legend(loc="upper left")
        _matrix(axes[1], found)
        p = found.mixture
        labels = ("mean κ₁", "variance κ₂", "third κ₃")
        for k, (label, colour) in enumerate(zip(labels, (BLUE, GREEN, RED), strict=True)):
            axes[2].plot(p.x, p.derived[:, k], color=colour, label=label)
            axes[2].plot(p.x[::4], p.exact[::4, k], "o", color=colour, markersize=4)
        axes[2].set(xlabel="what is sensed, x", ylabel="cumulant of the posterior")
        axes[2].set_title("belief from derivatives of ln p(x)")
        axes[2].legend(loc="upper left")
    return figure


def _matrix(axes: Any, found: Found) -> None:
    pairs = found.connected.pairs
    axes.imshow(pairs, cmap="Blues", vmin=0, vmax=0.3)
    for i, j in np.ndindex(*pairs.shape):
        colour = "white" if pairs[i, j] > 0.18 else INK
        axes.text(j, i, f"{abs(pairs[i, j]):.3f}", ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(len(NODES)), NODES)
    axes.set_yticks(range(len(NODES)), NODES)
    axes.grid(False)
    axes.set_title("∂² ln Z/∂J∂J: connected pairs")


def _report(
    settings: Settings, found: Found, figures: dict[str, Any], headline: list[tuple[str, str]]
) -> Report:
    rows = [
        [f"κ{'₁₂₃₄₅₆₇₈'[n]}", f"{d:.10f}".replace("-", "−"), f"{s:.10f}".replace("-", "−")]
        for n, (d, s) in enumerate(zip(found.derived, found.summed, strict=True))
    ]
    return Report(
        "Free energy generates cumulants",
        "Tilt a density with a source, exp(J z), and ask for the free energy: minus it is ln Z(J), and its "
        "derivatives at J = 0 are the cumulants of the density: mean, variance, skew and so on, of several "
        "nodes their connected functions. What is independent drops out, order by order. Because what is "
        "sensed acts as a source, the surprise of an input knows the whole belief about its cause.",
        [
            Section(
                "Derivatives of free energies",
                "The source is evidence in a model of the library: an observed node whose probability "
                "grows like exp(J z). At the exact belief −F is then ln Z(J) up to a constant, and "
                "automatic differentiation does the rest. What would have refuted this: a derivative that "
                "differs from the cumulant by more than rounding; derivatives of Z itself do, they are "
                "moments.",
                [
                    picture(
                        figures["generating"],
                        "Left: ln Z(J) of a node with five states, and its series up to some order, which "
                        "is good "
                        "for small sources: it converges no farther than to the nearest complex J where Z "
                        "is zero. Middle: second derivatives of ln Z of four binary nodes; a causes b and "
                        "c, d is by itself. Right: cumulants of the belief about z from derivatives of "
                        "ln p(x) (lines) and from the exact posterior (dots), under a prior with two "
                        "causes.",
                        "Left: near J = 0 all series follow the curve; beyond |J| ≈ 1 they leave it, "
                        "those of "
                        "high order first. Middle: a matrix with zeros between d and the others. Right: "
                        "lines through dots; the variance is largest between the two causes.",
                    )
                ],
                Table(
                    ["", "∂ⁿ ln Z/∂Jⁿ", "from sums over states"],
                    rows,
                    f"Cumulants of a node with five states. Three nodes: {found.connected.triple:.10f} and "
                    f"{found.connected.triple_by_sums:.10f}.".replace("-", "−"),
                ),
            )
        ],
        headline=headline,
    )
