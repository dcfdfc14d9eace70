"""The page of the two limits."""

import math
from typing import Any

import numpy as np

from vfe.gallery.foundations.limits import Found, Settings
from vfe.gallery.job import JobResult
from vfe.gallery.page import finish, largest, number, refuted, shown
from vfe.results.claims import Claim
from vfe.results.report import Table
from vfe.results.style import BLUE, GREEN, INK, ORANGE, PALE, RED, style

ROUNDING = 1e-9


def claims(found: Found) -> list[Claim]:
    """What must hold. **Example:** `claims(found)[0].holds`."""
    gain, states, curved, coordinates, laplace = found
    surprise, energy, with_curvature, volume = coordinates.jacobian
    narrower = np.diff(curved.free[2:]) / np.diff(-np.log(curved.widths[2:]))
    return [
        Claim(
            "at the posterior, F and surprise differ by",
            largest(gain.free - gain.surprise),
            high=ROUNDING,
            unit="nats",
        ),
        Claim(
            "the gain of least F and that of maximum marginal likelihood differ by",
            abs(gain.found - gain.closed),
            high=1e-5,
        ),
        Claim(
            "there the energy at the mode still falls with the gain: its slope",
            gain.slope,
            high=-0.01,
            unit="nats per unit of gain",
        ),
        Claim("entropy of a certainty about states, largest", largest(states.entropy), 0.0, 0.0, "nats"),
        Claim(
            "its F and −ln p(x, z) differ by",
            largest(states.free - states.joint),
            high=ROUNDING,
            unit="nats",
        ),
        Claim(
            "its F less surprise, smallest",
            float((states.free - states.surprise).min()),
            low=0.0,
            unit="nats",
            proved=True,
        ),
        Claim(
            "a belief about a number, for every e-fold that it is narrower, costs",
            float(narrower.min()),
            0.99,
            1.01,
            "nats",
            proved=True,
        ),
        Claim(
            "F of the narrowest belief less its energy",
            float(curved.free[-1] - curved.energy),
            low=10.0,
            unit="nats",
        ),
        Claim(
            "the energy at the mode lies below surprise, by",
            curved.surprise - curved.lowest,
            low=0.1,
            unit="nats",
        ),
        Claim(
            "the mode under a prior of sd 100 and the maximum of the likelihood differ by",
            abs(curved.modes[100.0] - curved.root),
            high=1e-5,
        ),
        Claim(
            "modes found in z and in u = ln z differ, as u, by",
            abs(coordinates.z - coordinates.u),
            low=0.01,
        ),
        Claim(
            "F of one density written in z and in u differs by",
            abs(coordinates.free[0] - coordinates.free[1]),
            high=ROUNDING,
            unit="nats",
        ),
        Claim(
            "a map without noise: surprise less energy, less ln |det J|",
            abs(surprise - energy - volume),
            high=1e-4,
            unit="nats",
        ),
        Claim(
            "a map without noise: Laplace and surprise differ by",
            abs(with_curvature - surprise),
            high=1e-4,
            unit="nats",
        ),
        Claim(
            "Laplace in the linear Gaussian hierarchy and surprise differ by",
            largest(laplace[0] - laplace[1]),
            high=ROUNDING,
            unit="nats",
        ),
    ]


def write_up(settings: Settings, found: Found) -> JobResult:
    """The result of the experiment. **Example:** `write_up(settings, found)`."""
    gain, _, curved, coordinates, _ = found
    figures = {"limits": draw(settings, found)}
    by_width = dict(zip(curved.widths, curved.by_entropy, strict=True))
    headline = [
        ("energy at √x", f"{curved.energy:.3f} nats"),
        ("F at width 10⁻², 10⁻⁴, 10⁻⁶", ", ".join(f"{by_width[w]:.2f}" for w in (1e-2, 1e-4, 1e-6))),
        ("surprise", f"{curved.surprise:.3f} nats"),
        ("gain of least F, and of maximum likelihood", f"{gain.found:.4f}, {gain.closed:.4f}"),
    ]
    rows = [
        [f"{w:.0e}".replace("-0", "−"), number(free, ".3f"), number(part, ".3f")]
        for w, free, part in zip(curved.widths, curved.free, curved.by_entropy, strict=True)
    ]
    surprise, energy, _, volume = coordinates.jacobian
    return finish(
        "Two limits: the posterior, and a single value",
        "Where the posterior is among the beliefs that recognition can have, F is surprise, and learning "
        "by F is maximum marginal likelihood. Where recognition gives a single value, what is left is the "
        "energy −ln p(x, ẑ), whose minimum is maximum a posteriori. For states this is a proper F. For "
        "numbers it is not: the narrower a belief, the larger its F, without end "
        f"({by_width[1e-2]:.2f}, {by_width[1e-4]:.2f} and {by_width[1e-6]:.2f} nats at widths 10⁻², 10⁻⁴ "
        f"and 10⁻⁶), while the energy, {curved.energy:.3f}, lies below surprise, {curved.surprise:.3f}.",
        [
            shown(
                "What each limit is, and is not",
                "Left: x ~ N(w z, ½²). F at the posterior is surprise at every gain w, so that its least "
                f"value is where the marginal likelihood is greatest, w = {gain.found:.4f}; the energy "
                "at the mode falls on and on: a large gain lets all causes be small. Middle: x ~ N(z², "
                f"0.3²), x = {settings.x:g}: beliefs around √x. Right: the mode of z = exp u depends on "
                "the coordinates, F of a density does not.\n\n"
                "A map without noise, x = sinh z, at x = 2: −ln p(x) is "
                f"{surprise:.4f} nats; the energy without the noise's constant is {energy:.4f}, too low "
                f"by ln |det J| = {volume:.4f}. Laplace's F has it.",
                figures["limits"],
                "Left: nats per observation against the gain. Middle: F against the width of the belief. "
                f"Right: energies of the same model in two coordinates; modes at {coordinates.u:.3f} "
                f"and {coordinates.z:.3f}.",
                "F has a minimum where the energy has none; F grows as beliefs narrow; two modes differ.",
                Table(
                    ["width of the belief", "F", "energy at √x − entropy"],
                    rows,
                    "Nats. F has the mean energy over the belief, too: the difference is ½ w² E″.",
                ),
            ),
            refuted(
                "An F at the posterior other than surprise; narrow beliefs whose F stays finite; an energy "
                "that bounds surprise, does not depend on coordinates, or has its least value over "
                "parameters where the marginal likelihood has its greatest. Taking the energy for F fails "
                "these claims."
            ),
        ],
        figures,
        headline,
        claims(found),
        {
            "free_energy": ("gain", gain.free, {"units": "nats"}),
            "surprise": ("gain", gain.surprise, {"units": "nats"}),
            "energy": ("gain", gain.energy, {"units": "nats"}),
            "free_energy_of_width": ("width", curved.free, {"units": "nats"}),
            "energy_less_entropy": ("width", curved.by_entropy, {"units": "nats"}),
        },
        {"modes": np.array(list(curved.modes.values()))},
        {"gain": gain.w, "width": curved.widths},
    )


def draw(settings: Settings, found: Found) -> Any:
    """Gain, width and coordinates. **Example:** `draw(settings, found)`."""
    from matplotlib.figure import Figure

    gain, _, curved, coordinates, _ = found
    with style():
        figure = Figure(figsize=(12.0, 3.9), layout="constrained")
        axes = figure.subplots(1, 3)
        axes[0].plot(gain.w, gain.surprise, color=PALE, linewidth=5, label="surprise −ln p(x)")
        axes[0].plot(gain.w, gain.free, color=BLUE, label="F at the posterior")
        axes[0].plot(gain.w, gain.energy, color=RED, label="energy at the mode")
        axes[0].axvline(gain.closed, color=INK, linestyle=":", linewidth=1.2)
        axes[0].set(xscale="log", xlabel="gain w", ylabel="nats per observation")
        axes[0].set_title("learning a gain")
        axes[0].set_xticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
        axes[0].legend(loc="upper right")
        axes[1].plot(curved.widths, curved.free, "o-", color=BLUE, label="F")
        axes[1].axhline(curved.surprise, color=PALE, linewidth=5, label="surprise")
        axes[1].axhline(curved.energy, color=RED, label="energy at √x")
        axes[1].set(xscale="log", xlabel="width of the belief", ylabel="nats", ylim=(0, None))
        axes[1].invert_xaxis()
        axes[1].set_title("towards a single value")
        axes[1].legend(loc="upper left")
        u = np.linspace(-1.2, 1.5, 200)
        in_u = 0.5 * u**2 + (2 - np.exp(u)) ** 2 / 0.5 + math.log(0.5) + math.log(2 * math.pi)
        axes[2].plot(u, in_u, color=GREEN, label="−ln p(x, u)")
        axes[2].plot(u, in_u + u, color=ORANGE, label="−ln p(x, z), z = exp u")
        for place, colour in ((coordinates.u, GREEN), (coordinates.z, ORANGE)):
            axes[2].axvline(place, color=colour, linestyle=":", linewidth=1.4)
        axes[2].set(xlabel="u = ln z", ylabel="energy (nats)", title="one model, two coordinates")
        axes[2].legend(loc="upper left")
        axes[2].set_ylim(None, 9)
    return figure
