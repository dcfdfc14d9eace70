"""The page of marginalisation as renormalisation."""

from typing import Any

import numpy as np

from vfe.gallery.job import JobResult
from vfe.gallery.physics.renormalisation import Found, Settings
from vfe.results.claims import Claim, written
from vfe.results.report import Report, Section, Table, picture
from vfe.results.style import BLUE, INK, ORANGE, PALE, RED, style

CLOSE = 1e-10


def write_up(settings: Settings, found: Found) -> JobResult:
    """The result of the experiment: its page, its figure and its numbers.

    **Example:** `write_up(settings, Found(flow(settings), levels(settings, 0)))`.
    """
    figures = {"scales": draw(found)}
    gain = float(found.levels.factorised[0] - found.levels.factorised[1])
    headline = [
        ("ln Z of the ring, at every scale (nats)", f"{found.flow.total[0]:.6f}"),
        ("coupling at the start, and between the last two spins", f"{_first_and_last(found)} nats"),
        ("F of the hierarchy, with z₁ and without (nats)", f"{found.levels.exact[0]:.6f}"),
        ("F saved under factorised beliefs (nats)", f"{gain:.3f}"),
    ]
    return JobResult(
        model={"precision": found.levels.measured},
        dataset=_dataset(found),
        figures=figures,
        report=_report(settings, found, figures, headline),
        headline=headline,
        claims=claims(found),
    )


def _first_and_last(found: Found) -> str:
    return f"{found.flow.couplings[0]:.3f}, {written(found.flow.couplings[-1])}"


def formula(found: Found) -> np.ndarray:
    """K by scale, from tanh K′ = tanh² K alone. **Example:** `formula(found)`."""
    power = 2.0 ** np.arange(len(found.flow.couplings))
    return np.arctanh(np.tanh(found.flow.couplings[0]) ** power)


def claims(found: Found) -> list[Claim]:
    """What would have refuted it: F that changes with the scale, or couplings that do not change as said.

    **Example:** `claims(found)[0].holds`.
    """
    flow, levels = found.flow, found.levels
    return [
        Claim(
            "−ln Z of the ring at coarser scales, largest relative difference",
            float(np.abs(flow.total / flow.total[0] - 1).max()),
            high=CLOSE,
        ),
        Claim(
            "measured couplings from tanh K′ = tanh² K, largest difference",
            float(np.abs(flow.couplings - formula(found)).max()),
            high=CLOSE,
            unit="nats",
        ),
        Claim(
            "precision of (x, z₂) from Schur's complement, largest difference",
            float(np.abs(levels.measured - levels.schur).max()),
            high=CLOSE,
        ),
        Claim(
            "and from the block that is kept: couplings did change, by",
            float(np.abs(levels.measured - levels.kept).max()),
            low=0.1,
        ),
        Claim(
            "F at exact beliefs with z₁ and without, difference",
            float(abs(levels.exact[0] - levels.exact[1])),
            high=CLOSE,
            unit="nats",
        ),
        Claim(
            "F saved by integrating z₁ out where beliefs are factorised",
            float(levels.factorised[0] - levels.factorised[1]),
            low=1e-3,
            unit="nats",
        ),
    ]


def _dataset(found: Found) -> Any:
    import xarray as xr

    flow, levels = found.flow, found.levels
    return xr.Dataset(
        {
            "coupling": ("scale", flow.couplings, {"units": "nats"}),
            "summed_out": ("scale", flow.left, {"units": "nats"}),
            "log_partition": ("scale", flow.log_partition, {"units": "nats"}),
            "precision": (
                ("which", "row", "column"),
                np.stack([levels.kept, levels.schur, levels.measured]),
            ),
            "free_energy": (
                ("belief", "model"),
                np.stack([levels.exact, levels.factorised]),
                {"units": "nats"},
            ),
        },
        coords={
            "spins": ("scale", flow.spins),
            "which": ["kept block", "Schur's complement", "measured"],
            "belief": ["exact", "factorised"],
            "model": ["with z1", "without z1"],
        },
    )


def draw(found: Found) -> Any:
    """The flow of K, ln Z by scale, and precisions before and after. **Example:** `draw(found)`."""
    from matplotlib.figure import Figure

    flow, levels = found.flow, found.levels
    with style():
        figure = Figure(figsize=(12.0, 3.7), layout="constrained")
        axes = figure.subplots(1, 4, width_ratios=(1.15, 1.15, 1, 1))
        grid = np.linspace(0, 1.15 * flow.couplings[0], 200)
        axes[0].plot(grid, np.arctanh(np.tanh(grid) ** 2), color=BLUE, label="tanh K′ = tanh² K")
        axes[0].plot(grid, grid, color=PALE, linewidth=1)
        before, after = flow.couplings[:-1], flow.couplings[1:]
        stairs = np.repeat(flow.couplings, 2)
        axes[0].plot(stairs[:-1], stairs[1:], color=ORANGE, linewidth=1)
        axes[0].plot(before, after, "o", color=RED, label="measured")
        axes[0].set(xlabel="coupling K (nats)", ylabel="K′ after summing out (nats)", ylim=(-0.02, None))
        axes[0].set_title("the coupling flows to 0")
        axes[0].legend(loc="upper left")
        place = np.arange(len(flow.spins))
        axes[1].bar(place, flow.left, color=ORANGE, label="summed out")
        axes[1].bar(place, flow.log_partition, bottom=flow.left, color=BLUE, label="spins left")
        axes[1].set_xticks(place, [f"{int(n)}" for n in flow.spins])
        axes[1].set(xlabel="spins left", ylabel="ln Z (nats)", ylim=(0, 1.35 * flow.total[0]))
        axes[1].set_title("ln Z at every scale")
        axes[1].legend(loc="upper left", ncols=2)
        names = ["x₁", "x₂", "x₃", "x₄", "z₂₁", "z₂₂"]
        size = np.abs(levels.kept).max()
        for place, matrix, title in (
            (2, levels.kept, "Λ kept, z₁ there"),
            (3, levels.measured, "Λ′, z₁ gone"),
        ):
            image = axes[place].imshow(matrix, cmap="RdBu_r", vmin=-size, vmax=size)
            axes[place].set_xticks(range(6), names)
            axes[place].set_yticks(range(6), names)
            axes[place].grid(False)
            axes[place].set_title(title)
            axes[place].axhline(3.5, color=INK, linewidth=0.6)
            axes[place].axvline(3.5, color=INK, linewidth=0.6)
        figure.colorbar(image, ax=axes[2:], shrink=0.75, label="precision")  # pyright: ignore[reportPossiblyUnboundVariable]
    return figure


def _report(
    settings: Settings, found: Found, figures: dict[str, Any], headline: list[tuple[str, str]]
) -> Report:
    flow, levels = found.flow, found.levels
    rows = [
        [f"{int(n)}", f"{k:.6f}", f"{left:.6f}", f"{rest:.6f}", f"{left + rest:.10f}"]
        for n, k, left, rest in zip(*flow, strict=True)
    ]
    return Report(
        "Marginalisation is renormalisation",
        "To sum hidden things out is to look at the world with less resolution. What is left behaves as if "
        "it were coupled otherwise; what can be observed, and F at the exact belief with it, stays the "
        "same. Physics calls this renormalisation; a hierarchy does it with every level that it does not "
        "write down.",
        [
            Section(
                "Every second spin",
                f"A ring of {settings.spins} spins with coupling {settings.coupling} nats; every second "
                "one is "
                "summed out, again and again. The coupling between those left, measured by the odds of the "
                "ends of a chain of three, follows tanh K′ = tanh² K to nothing: in one dimension there is "
                "no order at large scales. What the spins leave behind and ln Z of those left add up to "
                "the "
                "same number at every scale, as minus F at the exact belief of a model of the library. "
                "What "
                "would have refuted this: a scale with another F. If K were kept as it is, it would be.",
                [
                    picture(
                        figures["scales"],
                        "First: the coupling after summing out against the one before; the steps go from "
                        "scale "
                        "to scale. Second: ln Z by scale. Third and fourth: precision matrices of (x, z₂) "
                        "in a hierarchy, the block of the whole model, and that of the model without z₁.",
                        "First: red points on a curve below the diagonal. Second: bars of one height. "
                        "Third: no coupling between elements of x or with z₂. Fourth: couplings "
                        "everywhere.",
                    )
                ],
                Table(
                    [
                        "spins",
                        "K (nats)",
                        "summed out (nats)",
                        "ln Z of the rest (nats)",
                        "together (nats)",
                    ],
                    rows,
                    "ln Z = n/2 · ½ ln(4 cosh 2K) + ln Z′ at each step.",
                ),
            ),
            Section(
                "A level",
                "x ← z₁ ← z₂ with Gaussian levels, and x ← z₂ with z₁ integrated out. While z₁ is there, "
                "the elements of x are coupled through it alone; without it they are coupled with each "
                "other "
                "and with z₂, by Schur's complement. With exact beliefs F is the same, with factorised "
                "ones "
                "the coarser model has the lower: what was integrated out is believed exactly.",
                table=Table(
                    ["beliefs", "F with z₁ (nats)", "F without z₁ (nats)"],
                    [
                        ["exact", *(f"{v:.6f}" for v in levels.exact)],
                        ["factorised", *(f"{v:.6f}" for v in levels.factorised)],
                    ],
                    f"Mean over {settings.observations} observations.",
                ),
            ),
        ],
        headline=headline,
    )
