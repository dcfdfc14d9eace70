"""DynamicModel: a hierarchy of levels in continuous time, seen at equal intervals."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np

from vfe.arrays import real_numbers
from vfe.dynamics.levels.learned_smoothness import Smoothness, middle
from vfe.dynamics.levels.level import Level
from vfe.dynamics.levels.problem import Problem, make_problem
from vfe.dynamics.levels.smoothness import smoothness_precision


class DynamicModel(eqx.Module):
    """Levels in continuous time, their noise smooth, believed in generalised coordinates.

    v⁽ⁱ⁻¹⁾ = g⁽ⁱ⁾(x⁽ⁱ⁾, v⁽ⁱ⁾, p⁽ⁱ⁾) + z⁽ⁱ⁾,  dx⁽ⁱ⁾/dt = f⁽ⁱ⁾(x⁽ⁱ⁾, v⁽ⁱ⁾, p⁽ⁱ⁾) + w⁽ⁱ⁾,
    v⁽⁰⁾ = y,  v⁽ᴸ⁾ = η + z,

    where z and w have the autocorrelation exp(−τ²/(4σ²)).

    **Arguments:** `levels`: the lowest, which predicts the data, first; `order`: the highest derivative
    kept of states and data (6: seven orders); `cause_order`: of causes; `smoothness`: σ, a time, half a
    sampling interval by default; `dt`: the sampling interval. Without any hidden states the model is
    static: its orders are 0, samples are independent.

    **Raises:** `ValueError` that names the level for functions whose shapes do not fit, precisions that are
    not positive definite; for dt ≤ 0, smoothness < 0, orders that double precision cannot hold.

    **Example:**
    ```python
    level = vfe.Level(lambda x, v, p: x, lambda x, v, p: v - x, states=1, causes=1)
    model = vfe.DynamicModel([level], dt=0.1)
    ```

    **Source:** Friston 2008, "Hierarchical models in the brain"; Friston, Trujillo-Barreto and Daunizeau
    2008, "DEM: a variational treatment of dynamic systems".
    """

    levels: tuple[Level, ...]
    order: int = eqx.field(static=True)
    cause_order: int = eqx.field(static=True)
    smoothness: Smoothness | float = eqx.field(static=True)
    dt: float = eqx.field(static=True)
    cause_sizes: tuple[int, ...] = eqx.field(static=True)
    data_size: int = eqx.field(static=True)
    problem: Problem = eqx.field(repr=False)

    def __init__(
        self,
        levels: Sequence[Level] | Level,
        order: int | None = None,
        cause_order: int | None = None,
        smoothness: Smoothness | float | None = None,
        dt: float = 1.0,
    ):
        self.levels = (levels,) if isinstance(levels, Level) else tuple(levels)
        if not self.levels or not all(isinstance(level, Level) for level in self.levels):
            raise ValueError(
                f"DynamicModel: got levels {levels!r}; wanted a list of vfe.Level, lowest first."
            )
        self.dt = float(dt)
        if not (math.isfinite(self.dt) and self.dt > 0):
            raise ValueError(f"DynamicModel: got dt={dt}; wanted a sampling interval above zero.")
        dynamic = any(level.states.size for level in self.levels)
        self.order = (6 if dynamic else 0) if order is None else int(order)
        self.cause_order = min(2, self.order) if cause_order is None else int(cause_order)
        default = 0.5 * self.dt if dynamic else 0.0
        given = default if smoothness is None else smoothness
        self.smoothness = (
            given
            if isinstance(given, Smoothness)
            else float(real_numbers("DynamicModel: smoothness", given))
        )
        if not isinstance(self.smoothness, Smoothness) and not (
            math.isfinite(self.smoothness) and self.smoothness >= 0
        ):
            raise ValueError(
                f"DynamicModel: got smoothness={smoothness}; wanted a time, zero (white) or positive, "
                "such as 0.5 * dt."
            )
        if not 0 <= self.cause_order <= self.order or (dynamic and self.order < 1):
            raise ValueError(
                f"DynamicModel: got order={self.order} and cause_order={self.cause_order}; wanted "
                f"{'1' if dynamic else '0'} ≤ order and 0 ≤ cause_order ≤ order."
            )
        if not dynamic and self.order:
            raise ValueError(
                f"DynamicModel: got order={self.order} for a model without hidden states, whose samples "
                "are "
                "independent; leave order= out, or give a level flow= and states=."
            )
        self.cause_sizes, self.data_size = _sizes(self.levels)
        for number, level in enumerate(self.levels, 1):
            made = self.data_size if number == 1 else self.cause_sizes[number - 2]
            level.observation_precision.expand(made, f"level {number}, observation_precision")
            level.state_precision.expand(level.states.size, f"level {number}, state_precision")
            for smooth in (level.smoothness, level.state_smoothness):
                smoothness_precision(self.order + 1, self._in_samples(smooth))
        self.levels[-1].cause_precision.expand(self.cause_sizes[-1], "the top level, cause_precision")
        self.problem = make_problem(self)

    def _in_samples(self, smoothness: Smoothness | float | None) -> float:
        found = middle(self.smoothness if smoothness is None else smoothness)
        assert found is not None
        return found / self.dt

    def smoothness_in_samples(self, number: int) -> tuple[float, float]:
        """σ/dt of z and of w at a level, counted from 0; above the last level, of the top causes."""
        if number == len(self.levels):
            return self._in_samples(None), self._in_samples(None)
        level = self.levels[number]
        return self._in_samples(level.smoothness), self._in_samples(level.state_smoothness)

    @property
    def learned_smoothness(self) -> dict[str, Smoothness]:
        """What smoothness is learned, by name: "model", "observation 1", "states 2", …"""
        found = {"model": self.smoothness}
        for number, level in enumerate(self.levels, 1):
            found |= {f"observation {number}": level.smoothness, f"states {number}": level.state_smoothness}
        return {name: value for name, value in found.items() if isinstance(value, Smoothness)}

    def smoothness_of(self, block: str) -> int | None:
        """Which of the learned ones is that of a noise ("observation 1", "states 1", "causes"), if any."""
        kind, _, number = block.partition(" ")
        own = None
        if number:
            level = self.levels[int(number) - 1]
            own = level.state_smoothness if kind == "states" else level.smoothness
        name = "model" if own is None else block
        names = list(self.learned_smoothness)
        return names.index(name) if name in names else None

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """How many hidden states each level has."""
        return tuple(level.states.size for level in self.levels)

    @property
    def static(self) -> bool:
        """Whether no level has hidden states."""
        return not any(self.state_sizes)


def _sizes(levels: tuple[Level, ...]) -> tuple[tuple[int, ...], int]:
    above = levels[-1].causes.size
    sizes = []
    for number in range(len(levels), 0, -1):
        level = levels[number - 1]
        if number < len(levels) and level.causes.size:
            raise ValueError(
                f"DynamicModel: level {number} declares {level.causes.size} causes, but the level above "
                "predicts "
                "them; give causes= to the top level only."
            )
        sizes.append(above)
        x, v = level.states.size, above
        if level.flow is not None:
            _shape(level.flow, level, v, f"flow of level {number}", (x,))
        above = _shape(level.observe, level, v, f"observe of level {number}", None)[0]
    return tuple(reversed(sizes)), above


def _shape(function: Callable, level: Level, causes: int, name: str, wanted: tuple[int, ...] | None) -> Any:
    arguments = f"x {level.states.shape}, v ({causes},)"
    with jax.enable_x64(True):
        one = (
            jax.ShapeDtypeStruct(level.states.shape, np.float64),
            jax.ShapeDtypeStruct((causes,), np.float64),
        )
        try:
            got = jax.eval_shape(lambda x, v: function(x, v, level.parameters), *one)
        except Exception as error:
            raise ValueError(f"DynamicModel: the {name} fails for {arguments}: {error}") from error
    shape = getattr(got, "shape", None)
    if shape is None or (shape != wanted if wanted is not None else len(shape) != 1):
        described = f"{wanted}, the shape of its states" if wanted is not None else "(k,)"
        raise ValueError(
            f"DynamicModel: the {name} returns {'no array' if shape is None else f'shape {shape}'} for "
            f"{arguments}; wanted {described}."
        )
    return shape
