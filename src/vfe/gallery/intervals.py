"""Means and shares with their 95 % intervals, as experiments claim them."""

from typing import Any, NamedTuple

import numpy as np

NORMAL = 1.959964


class Interval(NamedTuple):
    """An estimate and its 95 % interval. **Example:** `mean_of(values).text(".2f")`."""

    value: Any
    low: Any
    high: Any

    def text(self, form: str = ".2f") -> str:
        """ "value (low to high)", with proper minus signs."""
        value, low, high = (format(float(part), form) for part in self)
        return f"{value} ({low} to {high})".replace("-", "−")


def mean_of(values: Any) -> Interval:
    """The mean over the first axis, with its normal 95 % interval: mean ± 1.96 sd / √n.

    **Example:** `mean_of(np.array([1.0, 2.0, 4.0]))`.
    """
    values = np.asarray(values, float)
    mean, half = values.mean(0), NORMAL * values.std(0, ddof=1) / np.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def share_of(hits: Any) -> Interval:
    """The share of hits in per cent, with Wilson's 95 % interval, which holds near 0 and 100 % too.

    **Example:** `share_of(np.array([True, True, False]))`.

    **Source:** Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    hits = np.asarray(hits, float)
    count, share = len(hits), hits.mean()
    spread = 1 + NORMAL**2 / count
    centre = (share + NORMAL**2 / (2 * count)) / spread
    half = NORMAL / spread * np.sqrt(share * (1 - share) / count + NORMAL**2 / (4 * count**2))
    return Interval(100 * share, 100 * max(centre - half, 0.0), 100 * min(centre + half, 1.0))
