"""Sessions: several series of one system."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx


class Sessions(eqx.Module):
    """Several series that share parameters and precisions, each with states of its own.

    **Arguments:** `series`: of any lengths, each (time, k), NaN where missing; `times`: of the samples of
    each; `prior_causes`: of each, (time, causes).

    **Raises:** `ValueError` for no series, and for other numbers of times or prior causes than of series.

    **Example:** `vfe.fit(model, vfe.dynamics.Sessions([monday, tuesday]))`.

    **Source:** none beyond ln p(y₁, y₂ | θ) = ln p(y₁ | θ) + ln p(y₂ | θ).
    """

    series: tuple[Any, ...]
    times: tuple[Any, ...]
    prior_causes: tuple[Any, ...]

    def __init__(
        self,
        series: Sequence[Any],
        times: Sequence[Any] | None = None,
        prior_causes: Sequence[Any] | None = None,
    ):
        self.series = tuple(series)
        none = (None,) * len(self.series)
        self.times = none if times is None else tuple(times)
        self.prior_causes = none if prior_causes is None else tuple(prior_causes)
        counts = len(self.series), len(self.times), len(self.prior_causes)
        if not self.series or len(set(counts)) != 1:
            raise ValueError(
                f"Sessions: got {counts[0]} series, {counts[1]} times and {counts[2]} prior_causes; "
                "wanted at least one series, and as many of the others where they are given."
            )
