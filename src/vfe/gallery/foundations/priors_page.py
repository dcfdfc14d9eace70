"""The page of priors in both directions."""

from typing import Any

import numpy as np

from vfe.gallery.foundations.priors import Chain, Settings
from vfe.gallery.job import JobResult
from vfe.gallery.page import finish, largest, refuted, shown
from vfe.results.claims import Claim
from vfe.results.report import Table
from vfe.results.style import BLUE, INK, ORANGE, style

NAMES = ("states", "Gaussian levels")


def apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest difference between two descriptions of the marginals of all levels.

    **Example:** `apart(chain.up, chain.down)`.
    """
    pairs = ((a, other[name]) for name, a in one.items())
    return max(
        largest(*(np.asarray(x) - np.asarray(y) for x, y in zip(a, b, strict=True))) for a, b in pairs
    )


def upward_with_wrong_kernel(chain: Chain) -> Chain:
    """A chain whose upward marginal of z1 comes of a kernel that ignores x, to see the claims fail.

    **Example:** `upward_with_wrong_kernel(states).up["z1"]`.
    """
    return chain._replace(up={**chain.up, "z1": np.full_like(chain.up["z1"], 1 / len(chain.up["z1"]))})


def claims(states: Chain, levels: Chain) -> list[Claim]:
    """What must hold in both chains. **Example:** `claims(states, levels)[0].holds`."""
    found = []
    for name, chain in zip(NAMES, (states, levels), strict=True):
        worst = min(float(each.min()) for each in chain.mismatch.values())
        found += [
            Claim(
                f"{name}: marginals upward and downward differ by", apart(chain.up, chain.down), high=1e-10
            ),
            Claim(
                f"{name}: marginals downward and of the joint differ by",
                apart(chain.exact, chain.down),
                high=1e-10,
            ),
            Claim(
                f"{name}: for one x the upward marginal of z1 is off the prior by",
                chain.single["z1"],
                low=0.01,
                unit="nats",
            ),
            Claim(
                f"{name}: on average x says less of z2 than of z1, by",
                chain.mutual["z1"] - chain.mutual["z2"],
                low=0.0,
                unit="nats",
                proved=True,
            ),
            Claim(
                f"{name}: upward kernels that do not come from the joint are off, smallest",
                worst,
                low=1e-6,
                unit="nats",
            ),
        ]
    return found


def write_up(settings: Settings, states: Chain, levels: Chain) -> JobResult:
    """The result of the experiment. **Example:** `write_up(settings, states, levels)`."""
    figures = {"priors": draw(states, levels)}
    both = dict(zip(NAMES, (states, levels), strict=True))
    rows = [
        [
            f"{name}, {level}",
            f"{chain.single[level]:.3f}",
            f"{chain.mutual[level]:.3f}",
            f"{chain.mismatch[level].mean():.3f}",
            f"{chain.mismatch[level].min():.4f}",
        ]
        for name, chain in both.items()
        for level in ("z1", "z2")
    ]
    worst = max(apart(chain.up, chain.down) for chain in both.values())
    headline = [
        ("upward and downward differ by", f"{worst:.0e}".replace("-", "−")),
        ("one x, from the prior of z1 (states)", f"{states.single['z1']:.3f} nats"),
        ("other kernels, mean mismatch of z1 (states)", f"{states.mismatch['z1'].mean():.3f} nats"),
        ("other kernels, mean mismatch of z1 (Gaussian)", f"{levels.mismatch['z1'].mean():.3f} nats"),
    ]
    return finish(
        "Priors from above, and from below",
        "The prior of a level in a hierarchy is a mean over what the level above may be. The same "
        "marginals "
        "come out of the senses, level by level, if what carries them up belongs to the same joint "
        f"density, and averages run over all sensations: the two directions differ by {worst:.0e} "
        "here. For a single sensation, going up is recognition: it says what is now probable, not what "
        "was expected. And an upward kernel of its own making does not agree: it misses the priors by "
        f"{states.mismatch['z1'].mean():.3f} nats (states) and {levels.mismatch['z1'].mean():.3f} nats "
        "(Gaussian levels) on average.".replace("e-", "e−"),
        [
            shown(
                "Both directions",
                "A chain z2 → z1 → x of 5, 4 and 3 states, and one of 2, 3 and 4 Gaussian elements. The "
                "generative model runs down; p(z1 | x) and p(z2 | z1) of the same joint run up. "
                f"{settings.kernels} other upward kernels are these with noise of sd "
                f"{settings.disturbance:g} on their logits, or weights off by as much as "
                f"{30 * settings.disturbance:.0f} %.",
                figures["priors"],
                "Left: p(z1) in the chain of states. Middle: the first element of z1 in the Gaussian "
                "chain. "
                "Right: mismatch of upward kernels that do not come from the joint.",
                "Downward and upward marginals coincide; that of one x does not; a histogram above zero.",
                Table(
                    [
                        "chain, level",
                        "KL(p(z | x) ‖ p(z)), one x",
                        "mean over x, I(z; x)",
                        "other kernels, mean",
                        "least",
                    ],
                    rows,
                    "Nats.",
                ),
            ),
            refuted(
                "Directions that differ although both come from one joint density; a single sensation "
                "whose upward marginal is the prior; a kernel of its own making that agrees."
            ),
        ],
        figures,
        headline,
        claims(states, levels),
        {
            "mismatch": (
                ("chain", "level", "kernel"),
                np.stack([[chain.mismatch[n] for n in ("z1", "z2")] for chain in both.values()]),
                {"units": "nats"},
            ),
            "information": (
                ("chain", "level"),
                np.array([[chain.mutual[n] for n in ("z1", "z2")] for chain in both.values()]),
                {"units": "nats"},
            ),
        },
        {"states": states.down, "levels": levels.down},
        {"chain": list(both), "level": ["z1", "z2"]},
    )


def draw(states: Chain, levels: Chain) -> Any:
    """Marginals, and mismatches. **Example:** `draw(states, levels)`."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(12.0, 3.9), layout="constrained")
        axes = figure.subplots(1, 3)
        place = np.arange(len(states.down["z1"]))
        axes[0].bar(place, states.down["z1"], 0.6, color=BLUE, label="downward")
        axes[0].plot(place, states.up["z1"], "D", color=INK, markersize=5, label="upward, all x")
        axes[0].plot(place, states.one, "o", color=ORANGE, label="upward, one x")
        axes[0].set(xlabel="state of z1", ylabel="probability", xticks=place, ylim=(0, 1.05))
        axes[0].set_title("states")
        axes[0].legend(loc="upper left")
        value = np.linspace(-1, 1, 300)
        mean, covariance = levels.down["z1"]
        value = mean[0] + 4 * np.sqrt(covariance[0, 0]) * value
        kinds = ((levels.down, BLUE, "-", "downward", 4), (levels.up, INK, "--", "upward, all x", 1.6))
        for marginals, colour, line, label, width in kinds:
            mean, covariance = marginals["z1"]
            axes[1].plot(
                value,
                _density(value, mean[0], covariance[0, 0]),
                line,
                color=colour,
                label=label,
                linewidth=width,
            )
        axes[1].plot(value, _density(value, *levels.one), color=ORANGE, label="upward, one x")
        axes[1].set(xlabel="first element of z1", ylabel="density", title="Gaussian levels")
        axes[1].legend(loc="upper left")
        every = [chain.mismatch[n] for chain in (states, levels) for n in ("z1", "z2")]
        edges = np.geomspace(max(min(each.min() for each in every), 1e-6), max(e.max() for e in every), 26)
        for each, name, colour in zip((states, levels), NAMES, (BLUE, ORANGE), strict=True):
            axes[2].hist(each.mismatch["z1"], edges, color=colour, alpha=0.65, label=name)
        axes[2].set(xscale="log", xlabel="KL(p(z1) ‖ upward marginal) (nats)", ylabel="kernels")
        axes[2].set_title("upward kernels not from the joint")
        axes[2].legend(loc="upper left")
    return figure


def _density(value: np.ndarray, mean: float, variance: float) -> np.ndarray:
    return np.exp(-0.5 * (value - mean) ** 2 / variance) / np.sqrt(2 * np.pi * variance)
