"""The page of couplings of visible units by the cumulants of hidden priors."""

from typing import Any

import numpy as np

from vfe.gallery.job import JobResult
from vfe.gallery.physics.boltzmann import ORDERS, Found, Settings, priors
from vfe.gallery.physics.cumulants import cumulants_of
from vfe.results.claims import Claim, written
from vfe.results.report import Report, Section, Table, picture
from vfe.results.style import BLUE, GREEN, INK, ORANGE, RED, style

COLOURS = dict(zip(ORDERS, (BLUE, RED, GREEN, ORANGE), strict=True))
NEXT = [(name, order) for name, orders in ORDERS.items() if name != "Gaussian" for order in orders]


def write_up(settings: Settings, found: Found) -> JobResult:
    """The result of the experiment: its page, its figure and its numbers.

    **Example:** `write_up(settings, measure(settings, 0))`.
    """
    figures = {"couplings": draw(found)}
    spin, skewed = read(found, "spin", 4), read(found, "skewed", 3)
    headline = [
        ("Gaussian prior: largest coupling beyond pairs", written(found.by_size["Gaussian"][0].beyond(2))),
        ("spins: κ₄ read from couplings of four (−2)", f"{spin:.3f}".replace("-", "−")),
        ("skewed prior: κ₃ read from couplings of three (1.5)", f"{skewed:.3f}"),
    ]
    return JobResult(
        model={name: each[0].measured for name, each in found.by_size.items()},
        dataset=_dataset(found),
        figures=figures,
        report=_report(settings, found, figures, headline),
        headline=headline,
        claims=claims(found),
    )


def cumulant(name: str, order: int) -> float:
    """A cumulant of a hidden prior. **Example:** `cumulant("spin", 4)` is -2.0."""
    prior = priors()[name]
    return float(cumulants_of(prior.values, prior.weights, order)[-1])


def read(found: Found, name: str, order: int) -> float:
    """The cumulant of a prior as the couplings at the smallest weights show it.

    **Example:** `read(found, "spin", 4)`.
    """
    return found.by_size[name][-1].strength(order) * cumulant(name, order)


def claims(found: Found) -> list[Claim]:
    """What would have refuted it: threes or fours under a Gaussian, couplings out of the cumulants' ratio.

    Deviations fall with the square of the weights: bounds halfway to the powers 1 and 3.

    **Example:** `claims(found)[0].holds`.
    """
    gaussian = found.by_size["Gaussian"][0]
    powers = [found.power(*each) for each in NEXT]
    strengths = [found.by_size[name][-1].strength(order) for name, order in NEXT]
    return [
        Claim("Gaussian prior: largest coupling beyond pairs", gaussian.beyond(2), high=1e-10),
        Claim(
            "Gaussian prior: pairs from Σ κ₂ w w, share of the largest", gaussian.deviation(2), high=1e-10
        ),
        Claim("spins: couplings of three, largest", _largest(found, "spin", 3), high=1e-10),
        Claim("spins: κ₄ as read from couplings of four", read(found, "spin", 4), -2.1, -1.9),
        Claim("skewed prior: κ₃ as read from couplings of three", read(found, "skewed", 3), 1.425, 1.575),
        Claim(
            "measured couplings over predicted, the least of all priors and orders",
            min(strengths),
            low=0.95,
        ),
        Claim("and the largest", max(strengths), high=1.05),
        Claim("deviations fall with the weights to the power, the least", min(powers), low=1.5),
        Claim("and the largest", max(powers), high=2.5),
    ]


def _largest(found: Found, name: str, order: int) -> float:
    return float(np.abs(found.by_size[name][0].of_order(order)[0]).max())


def _dataset(found: Found) -> Any:
    import xarray as xr

    members = next(iter(found.by_size.values()))[0].members
    return xr.Dataset(
        {
            "measured": (
                ("prior", "size", "subset"),
                np.stack([np.stack([c.measured for c in each]) for each in found.by_size.values()]),
                {"units": "nats"},
            ),
            "predicted": (
                ("prior", "size", "subset"),
                np.stack([np.stack([c.predicted for c in each]) for each in found.by_size.values()]),
                {"units": "nats"},
            ),
        },
        coords={
            "prior": list(found.by_size),
            "size": found.sizes,
            "subset": [" ".join(str(i) for i in s) for s in members],
            "order": ("subset", [len(s) for s in members]),
        },
    )


def draw(found: Found) -> Any:
    """Couplings by order, against the formula, and how it becomes exact. **Example:** `draw(found)`."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(12.0, 4.0), layout="constrained")
        axes = figure.subplots(1, 3)
        top = len(next(iter(found.by_size.values()))[0].members[-1])
        for k, (name, each) in enumerate(found.by_size.items()):
            largest = [np.abs(each[0].of_order(n)[0]).max() for n in range(2, top + 1)]
            place = np.arange(2, top + 1) + 0.12 * (k - 1.5)
            axes[0].semilogy(place, np.maximum(largest, 1e-17), "o", color=COLOURS[name], label=name)
        axes[0].axhspan(1e-17, 1e-14, color="#eeeeee")
        axes[0].text(2.0, 3e-16, "rounding", fontsize=8, color=INK)
        axes[0].set(xlabel="visible units coupled", ylabel="largest coupling (nats)")
        axes[0].set_title("what hidden priors bring about")
        axes[0].legend(loc="best")
        marks = {2: "o", 3: "^", 4: "s"}
        for name, orders in ORDERS.items():
            for order in orders:
                measured, predicted = found.by_size[name][2].of_order(order)
                scale = np.abs(predicted).max()
                axes[1].plot(
                    predicted / scale, measured / scale, marks[order], color=COLOURS[name], markersize=4
                )
        axes[1].axline((0, 0), slope=1, color=INK, linewidth=0.8, zorder=0)
        axes[1].set(xlabel="Σ κₙ w … w over its largest", ylabel="measured, in the same unit")
        axes[1].set_title("pairs ○, threes △, fours □, ¼ of the weights")
        for name, order in NEXT:
            values = [c.deviation(order) for c in found.by_size[name]]
            label = f"{name}, {order}"
            axes[2].loglog(found.sizes, values, marks[order] + "-", color=COLOURS[name], label=label)
        guide = 0.003 * (found.sizes / found.sizes[-1]) ** 2
        axes[2].loglog(found.sizes, guide, ":", color=INK, label="∝ w²")
        axes[2].set(xlabel="size of the weights", ylabel="largest deviation (share)")
        axes[2].set_title("from higher orders")
        axes[2].set_xticks(found.sizes, [f"{size:.2g}" for size in found.sizes], rotation=30)
        axes[2].minorticks_off()
        low, high = axes[2].get_ylim()
        axes[2].set_ylim(low, 30 * high)
        axes[2].legend(loc="upper left", fontsize=8, ncols=2)
    return figure


def _report(
    settings: Settings, found: Found, figures: dict[str, Any], headline: list[tuple[str, str]]
) -> Report:
    rows = []
    for name, orders in ORDERS.items():
        cells = [name]
        for order in (2, 3, 4):
            kappa = cumulant(name, order)
            if order not in orders:
                largest = _largest(found, name, order)
                cells.append(f"0: largest coupling {written(largest)}")
            else:
                cells.append(f"{kappa:.3f}: read {read(found, name, order):.3f}".replace("-", "−"))
        rows.append(cells)
    return Report(
        "Couplings from hidden priors",
        "Units that are not connected to each other act on each other through what they share. Sum the "
        "hidden units of a Boltzmann machine out, and the visible ones are coupled in pairs, threes, "
        "fours: "
        "how strongly is said by the cumulants of the hidden units' priors. Gaussian hidden units bring "
        "about pairs and nothing else.",
        [
            Section(
                "All orders, by exact sums",
                f"{settings.visible} visible spins, {settings.hidden} hidden units, weights of size "
                f"{settings.weight}. ln p(v) of all {2**settings.visible} visible states is the evidence "
                "of a "
                "model of the library; its Walsh–Hadamard transform is the coupling of every subset. The "
                "formula Σ κₙ w … w knows of one order at a time; as v² = 1, higher orders come back to "
                "lower ones with a share of order w². What would have refuted this: threes or fours under "
                "a Gaussian prior, couplings out of the cumulants' ratio, or deviations that do not fall "
                "with w².",
                [
                    picture(
                        figures["couplings"],
                        "Left: the largest coupling of so many visible units, by hidden prior. Middle: "
                        "measured couplings against the formula, each order in units of its largest. "
                        "Right: "
                        "largest deviation from the formula as the weights become smaller.",
                        "Left: the Gaussian prior has couplings of pairs alone, spins and sparse units of "
                        "even numbers, skewed ones of all. Middle: points on the diagonal. Right: lines of "
                        "slope two.",
                    )
                ],
                Table(
                    ["hidden prior", "κ₂", "κ₃", "κ₄"],
                    rows,
                    "Cumulants of the hidden priors, and what the couplings at the smallest weights say.",
                ),
            )
        ],
        headline=headline,
    )
