"""Systems by name, and numbers to start a fit from, read off a series."""

import numpy as np

from vfe.dynamics.linear.coloured_noise import ColouredNoise
from vfe.dynamics.linear.systems import (
    AbstractSystem,
    Autoregression,
    Components,
    LocalLevel,
    LocalTrend,
    Oscillator,
)

SYSTEMS = {
    "level": "a level that wanders (a random walk)",
    "trend": "a level with a slope that wanders (as smooth as a cubic spline)",
    "oscillator": "a damped rhythm with phase and amplitude; several find the strongest rhythms",
    "autoregression": "each value from the two before it (equal intervals only)",
}


def starting(
    names: str, y: np.ndarray, intervals: np.ndarray, smoothness: float | None = None
) -> Components:
    """Systems joined by "+", such as "trend+oscillator", with numbers of the order of the series's own.

    Scales come from its standard deviation and its steps, frequencies from the peaks of its periodogram
    (gaps filled by straight lines, slow changes taken out), each peak once.

    **Arguments:** `smoothness`: of coloured noise that is added, a time to start from; none if not given.

    **Raises:** `ValueError` for a name that is not in `SYSTEMS`, with those that are; for a smoothness that
    is not positive.

    **Example:** `starting("level+oscillator", y, np.asarray(0.5))`.
    """
    wanted = [name.strip() for name in names.split("+")]
    for name in wanted:
        if name not in SYSTEMS:
            raise ValueError(
                f"there is no system {name!r}; there are {', '.join(SYSTEMS)}, and sums such as "
                "level+oscillator."
            )
    seen = np.isfinite(y)
    filled = np.interp(np.arange(len(y)), np.flatnonzero(seen), y[seen])
    step = float(np.median(intervals))
    sd = float(np.std(filled)) or 1.0
    jumps = float(np.std(np.diff(filled))) or sd
    slow = "level" in wanted or "trend" in wanted
    frequencies = _peaks(filled, step, wanted.count("oscillator"))
    parts: list[AbstractSystem] = []
    # The first slow part carries where the series is; a second one would count it twice.
    place = float(filled[0])
    for name in wanted:
        if name == "level":
            parts.append(LocalLevel(jumps / step**0.5, place, 3 * sd))
            place = 0.0
        elif name == "trend":
            parts.append(LocalTrend(0.1 * jumps / step**1.5, (place, 0.0), (3 * sd, 3 * jumps / step)))
            place = 0.0
        elif name == "oscillator":
            f = frequencies.pop(0)
            parts.append(Oscillator(f, 0.3 * f, sd / wanted.count("oscillator") ** 0.5))
        else:
            parts.append(Autoregression([0.5, 0.0], jumps, 3 * sd))
    if smoothness is not None:
        if not (np.isfinite(smoothness) and smoothness > 0):
            raise ValueError(f"--smoothness {smoothness}: wanted a time above zero; leave it out for none.")
        parts.append(ColouredNoise(0.3 * jumps, smoothness))
    offset = 0.0 if slow else float(np.mean(y[seen]))
    return Components(parts, observation_sd=0.3 * jumps, offset=offset)


def _peaks(filled: np.ndarray, step: float, count: int) -> list[float]:
    """The frequencies of the highest peaks of the periodogram, cycles per unit of time."""
    n = len(filled)
    line = np.polynomial.Polynomial.fit(np.arange(n), filled, 1)(np.arange(n))
    power = np.abs(np.fft.rfft((filled - line) * np.hanning(n))) ** 2
    frequency = np.fft.rfftfreq(n, step)
    # Two cycles in the whole series are the slowest rhythm that can be told from a trend.
    power[: min(2, len(power) - 1)] = 0.0
    found = []
    for number in range(count):
        at = int(np.argmax(power))
        if not power[at] > 0:
            raise ValueError(
                f"{count} oscillators for {n} samples: after {number}, no peak of the periodogram is left; "
                "wanted fewer."
            )
        found.append(float(max(frequency[at], frequency[1])))
        power[max(0, at - max(3, n // 100)) : at + max(3, n // 100) + 1] = 0.0
    return found
