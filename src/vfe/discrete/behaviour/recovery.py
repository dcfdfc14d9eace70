"""Are the parameters that were put in the ones that come out?"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from vfe.discrete.behaviour.subjects import FittedSubjects
from vfe.results.style import BLUE, PALE, figure_axes, style


@dataclasses.dataclass(frozen=True, repr=False)
class Recovery:
    """Parameters of simulated subjects against those fitted to their choices.

    `true`, `estimated`, `lower`, `upper`: by name (subjects,); `correlation`, `error`, `coverage`: by name:
    Pearson's, in unconstrained coordinates; the mean of estimated − true there; the share of subjects whose
    interval of that `level` holds the truth. `left_out`: how many had no minimum.
    """

    true: dict[str, np.ndarray]
    estimated: dict[str, np.ndarray]
    lower: dict[str, np.ndarray]
    upper: dict[str, np.ndarray]
    correlation: dict[str, float]
    error: dict[str, float]
    coverage: dict[str, float]
    level: float
    left_out: int

    def table(self) -> str:
        """The numbers as a table."""
        subjects = len(next(iter(self.true.values())))
        width = max(12, *(len(name) + 2 for name in self.true))
        inside = f"in {100 * self.level:g} % interval"
        rows = [f"recovery of {subjects} simulated subjects ({self.left_out} left out: no minimum)"]
        rows.append(f"{'parameter':<{width}}{'correlation':>14}{'mean error':>14}{inside:>22}")
        for name in self.true:
            numbers = f"{self.correlation[name]:14.3f}{self.error[name]:14.3f}"
            rows.append(f"{name:<{width}}{numbers}{100 * self.coverage[name]:20.1f} %")
        return "\n".join(rows)

    def __repr__(self) -> str:
        return self.table()

    def plot(self, axes: Any = None) -> np.ndarray:
        """Estimated against true, with intervals; one panel for every parameter.

        **Arguments:** `axes`: as many matplotlib axes; a new figure by default.

        **Raises:** `ValueError` for another number of axes.

        **Example:** `recovery(true, fitted).plot()`.
        """
        with style():
            axes = figure_axes(axes, (1, len(self.true)), (3.6 * len(self.true), 3.5))
            for one, name in zip(axes, self.true, strict=True):
                x, y = self.true[name], self.estimated[name]
                ends = np.maximum([y - self.lower[name], self.upper[name] - y], 0)
                one.errorbar(x, y, ends, fmt="o", ms=3, lw=0.7, color=BLUE, ecolor=PALE)
                reach = [x.min(), x.max()]
                one.plot(reach, reach, color=PALE, zorder=0)
                one.set(
                    title=f"{name}: r = {self.correlation[name]:.2f}", xlabel="true", ylabel="estimated"
                )
        return axes


def recovery(true: Mapping[str, Any], fitted: FittedSubjects, level: float = 0.95) -> Recovery:
    """How parameters that choices were simulated with compare with those fitted to them.

    Intervals hold what they say on average over subjects drawn from the prior of the fit.

    **Arguments:** `true`: by name (subjects,); `fitted`: of the simulated choices, `throw=False` or not.

    **Raises:** `ValueError` for names or numbers of subjects that differ, or fewer than three subjects with
    a minimum.

    **Example:** `print(vfe.discrete.behaviour.recovery({"bias": bias}, fitted))`.

    **Source:** Wilson and Collins 2019, "Ten simple rules for the computational modeling of behavioral
    data".
    """
    import jax

    there = np.asarray(fitted.converged)
    if set(true) != set(fitted.names):
        raise ValueError(f"recovery: got {sorted(true)}; the fit is of {sorted(fitted.names)}.")
    shapes = {name: np.shape(value) for name, value in true.items()}
    if set(shapes.values()) != {there.shape} or there.sum() < 3:
        raise ValueError(
            f"recovery: got {shapes} for {there.size} fitted subjects, {int(there.sum())} of them with a "
            "minimum; wanted one value for each, and at least three with a minimum."
        )
    with jax.enable_x64(True):
        aim = np.asarray(fitted.kept.encode(true))[there]
    place = np.asarray(fitted.coordinates)[there]
    ends = fitted.interval(level)
    parts: dict[str, dict[str, Any]] = {w: {} for w in ("true", "estimated", "lower", "upper")}
    correlation, error, coverage = {}, {}, {}
    for i, name in enumerate(fitted.names):
        value = np.asarray(true[name], float)[there]
        low, high = (np.asarray(end)[there] for end in ends[name])
        numbers = (value, np.asarray(fitted.value[name])[there], low, high)
        for word, one in zip(parts, numbers, strict=True):
            parts[word][name] = one
        correlation[name] = float(np.corrcoef(aim[:, i], place[:, i])[0, 1])
        error[name] = float((place[:, i] - aim[:, i]).mean())
        coverage[name] = float(((low <= value) & (value <= high)).mean())
    return Recovery(
        **parts,
        correlation=correlation,
        error=error,
        coverage=coverage,
        level=level,
        left_out=int((~there).sum()),
    )
