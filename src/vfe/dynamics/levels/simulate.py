"""What a dynamic model does when nobody looks: its levels integrated under smooth noise."""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.double_precision import released
from vfe.dynamics.levels.dynamic_model import DynamicModel
from vfe.dynamics.levels.noise_precision import Precision
from vfe.dynamics.levels.smooth_series import smooth_series
from vfe.dynamics.levels.smoothness import SHARPEST
from vfe.perception.status import DivergenceError


class Simulated(eqx.Module):
    """A course of a dynamic model: `time` (length,), from 0; `states` and `causes` (length, k), those of
    all levels stacked as in a `vfe.dynamics.Trajectory`; `data` (length, k)."""

    time: Float[Array, " length"]
    states: Float[Array, "length x"]
    causes: Float[Array, "length v"]
    data: Float[Array, "length y"]
    state_sizes: tuple[int, ...] = eqx.field(static=True)
    cause_sizes: tuple[int, ...] = eqx.field(static=True)

    @property
    def state_levels(self) -> tuple[Float[Array, "length k"], ...]:
        """The states of each level, the lowest first."""
        return _cut(self.states, self.state_sizes)

    @property
    def cause_levels(self) -> tuple[Float[Array, "length k"], ...]:
        """The causes that each level received, the lowest first."""
        return _cut(self.causes, self.cause_sizes)


class _Grid(NamedTuple):
    """Times: `length` samples, `substeps` steps of the flow between two of them, each with its middle."""

    length: int
    substeps: int
    dt: float

    @property
    def halves(self) -> int:
        return 2 * self.substeps

    @property
    def points(self) -> int:
        return (self.length - 1) * self.halves + 1


def simulate(
    model: DynamicModel,
    key: PRNGKeyArray,
    length: int,
    *,
    causes: Any = None,
    states: Any = None,
    noise: bool = True,
    substeps: int = 4,
) -> Simulated:
    """Draw a course from a dynamic model: dx/dt = f(x, v, p) + w, v⁽ⁱ⁻¹⁾ = g(x, v, p) + z, y = v⁽⁰⁾.

    Parameters and log-precisions are at their prior means. w and z are white noise under a Gaussian kernel,
    with the autocovariance Π⁻¹ exp(−τ²/(4σ²)); where σ = 0, one draw lasts for a sample (w then has the
    intensity Π⁻¹ dt). The flow is integrated by the classical Runge–Kutta method.

    **Arguments:** `length`: how many samples; `causes`: those of the top level exactly as they act,
    (length, k), a cubic spline between samples, or a function of times (n,) that returns (n, k); if not
    given they are drawn about zero with the precision of the model; `states`: where all levels start,
    stacked; by default where the model's levels say; `noise`: False for none; `substeps`: of the flow per
    sample, more where the smoothness asks for it.

    **Returns:** a `Simulated`. `jax.vmap` over keys gives many.

    **Raises:** `ValueError` for shapes that do not fit; `vfe.DivergenceError` where the course leaves all
    bounds, with the time index and the level.

    **Example:**
    ```python
    model = vfe.dynamics.lorenz(dt=0.01)
    course = vfe.dynamics.simulate(model, jax.random.key(0), 500)
    course.states.shape, course.data.shape                            # (500, 3), (500, 1)
    ```

    **Source:** Friston 2008, "Hierarchical models in the brain", eq. 10; Friston, Trujillo-Barreto and
    Daunizeau 2008 for the noise.
    """
    if not isinstance(model, DynamicModel):
        raise TypeError(f"simulate: got a {type(model).__name__}; wanted a vfe.DynamicModel.")
    for name, value in (("length", length), ("substeps", substeps)):
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"simulate: got {name}={value!r}; wanted a whole number of at least 1.")
    start = np.concatenate([level.states for level in model.levels]) if states is None else states
    start = start if isinstance(start, Tracer) else np.asarray(start, float)
    if start.shape != (sum(model.state_sizes),):
        raise ValueError(
            f"simulate: got states of shape {start.shape}; wanted ({sum(model.state_sizes)},), those of "
            "all levels, the lowest first."
        )
    grid = _Grid(int(length), _substeps(model, int(substeps)) if noise else int(substeps), model.dt)
    with jax.enable_x64(True):
        top = None if causes is None else _top(causes, grid, model.cause_sizes[-1])
        if top is None and not noise:
            top = jnp.zeros((grid.points, model.cause_sizes[-1]))
        found = _course(model, _sources(model), key, jnp.asarray(start), top, grid, bool(noise))
    if not isinstance(found.data, Tracer):
        _check(found)
    return released(found)


@eqx.filter_jit
def _course(
    model: DynamicModel,
    sources: "dict[str, _Source]",
    key: Any,
    start: Array,
    top: Any,
    grid: _Grid,
    noise: bool,
) -> Simulated:
    keys = jax.random.split(key, len(sources))
    drawn = {
        name: source.draw(one, grid) if noise else source.silent(grid)
        for (name, source), one in zip(sources.items(), keys, strict=True)
    }
    if top is not None:
        drawn["causes"] = _Noise(top, False)
    between = {name: one.between(grid) for name, one in drawn.items()}
    at_samples = {name: one.at_samples(grid) for name, one in drawn.items()}

    def rates(x: Array, now: dict[str, Array]) -> Array:
        return _equations(model, x, now)[0]

    def step(x: Array, three: dict[str, Array]) -> tuple[Array, None]:
        h = grid.dt / grid.substeps
        start, middle, end = ({name: noise[i] for name, noise in three.items()} for i in range(3))
        one = rates(x, start)
        two = rates(x + h / 2 * one, middle)
        again = rates(x + h / 2 * two, middle)
        four = rates(x + h * again, end)
        return x + h / 6 * (one + 2 * two + 2 * again + four), None

    def sample(x: Array, three: dict[str, Array]) -> tuple[Array, Array]:
        return jax.lax.scan(step, x, three)[0], x

    last, before = jax.lax.scan(sample, start, between)
    path = jnp.concatenate([before, last[None]])
    _, v, y = jax.vmap(lambda x, now: _equations(model, x, now))(path, at_samples)
    time = grid.dt * jnp.arange(grid.length)
    return Simulated(time, path, v, y, model.state_sizes, model.cause_sizes)


def _equations(model: DynamicModel, x: Array, now: dict[str, Array]) -> tuple[Array, Array, Array]:
    """dx/dt, the causes that every level receives, and the data, under the noise of now."""
    bounds = np.cumsum((0, *model.state_sizes))
    v, rates, causes = now["causes"], [], []
    for number in reversed(range(len(model.levels))):
        level = model.levels[number]
        own = x[bounds[number] : bounds[number + 1]]
        causes.append(v)
        if level.flow is not None:
            rates.append(level.flow(own, v, level.parameters) + now[f"states {number}"])
        v = level.observe(own, v, level.parameters) + now[f"observation {number}"]
    return jnp.concatenate([jnp.zeros(0), *reversed(rates)]), jnp.concatenate(list(reversed(causes))), v


class _Noise(NamedTuple):
    """Noise on the half-step grid, (points, k), or where it is white, one draw per sample, (length, k)."""

    values: Array
    white: bool

    def at_samples(self, grid: _Grid) -> Array:
        return self.values if self.white else self.values[:: grid.halves]

    def between(self, grid: _Grid) -> Array:
        """At the start, the middle and the end of every step: (length − 1, substeps, 3, k)."""
        shape = (grid.length - 1, grid.substeps, 3, self.values.shape[-1])
        if self.white:
            return jnp.broadcast_to(self.values[:-1, None, None], shape)
        return jnp.stack([self.values[i : grid.points - 2 + i : 2] for i in range(3)], 1).reshape(shape)


class _Source(eqx.Module):
    """A noise: the symmetric root of its covariance, and its smoothness in samples."""

    root: Float[np.ndarray, "k k"]
    smoothness: float = eqx.field(static=True)

    def silent(self, grid: _Grid) -> _Noise:
        return _Noise(jnp.zeros((grid.points, len(self.root))), False)

    def draw(self, key: Any, grid: _Grid) -> _Noise:
        size = len(self.root)
        if not size:
            return self.silent(grid)
        if self.smoothness <= SHARPEST:
            return _Noise(jax.random.normal(key, (grid.length, size), jnp.float64) @ self.root, True)
        unit = smooth_series(key, grid.points, size, self.smoothness * grid.halves)
        return _Noise(unit @ self.root, False)


def _sources(model: DynamicModel) -> dict[str, _Source]:
    """z and w of every level, by name, and the top causes about their prior."""
    made = [model.data_size, *model.cause_sizes[:-1]]
    found = {}
    for number, level in enumerate(model.levels):
        z, w = model.smoothness_in_samples(number)
        found[f"observation {number}"] = _Source(_root(level.observation_precision, made[number]), z)
        if level.flow is not None:
            found[f"states {number}"] = _Source(_root(level.state_precision, level.states.size), w)
    top = model.smoothness_in_samples(len(model.levels))[0]
    found["causes"] = _Source(_root(model.levels[-1].cause_precision, model.cause_sizes[-1]), top)
    return found


def _root(precision: Precision, size: int) -> Float[np.ndarray, "k k"]:
    """Π⁻¹ as a symmetric square."""
    fixed, components = precision.expand(size, "simulate")
    values, vectors = np.linalg.eigh(fixed + np.tensordot(np.exp(precision.mean), components, 1))
    return (vectors / np.sqrt(values)) @ vectors.T if size else np.zeros((0, 0))


def _substeps(model: DynamicModel, least: int) -> int:
    """Steps per sample of which half ones are at most half of the least smoothness: only then do sums over
    the grid give the kernel's integral, to 1e-16."""
    several = [model.smoothness_in_samples(i) for i in range(len(model.levels) + 1)]
    smooth = [s for pair in several for s in pair if s > SHARPEST]
    return max([least, *(math.ceil(1 / s) for s in smooth)])


def _top(causes: Any, grid: _Grid, size: int) -> Array:
    """The top causes on the half-step grid."""
    from scipy.interpolate import CubicSpline

    times = grid.dt / grid.halves * np.arange(grid.points)
    if isinstance(causes, Callable):
        values, wanted = np.asarray(causes(times), float), (grid.points, size)
    else:
        values, wanted = np.asarray(causes, float), (grid.length, size)
    if values.ndim == 1 and size == 1:
        values = values[:, None]
    if values.shape != wanted or not np.isfinite(values).all():
        raise ValueError(
            f"simulate: got causes of shape {values.shape}; wanted {wanted} finite numbers, the top causes "
            f"at every {'time asked for' if isinstance(causes, Callable) else 'sample'}."
        )
    if isinstance(causes, Callable) or grid.length == 1:
        return jnp.asarray(values)
    return jnp.asarray(CubicSpline(grid.dt * np.arange(grid.length), values)(times))


def _check(found: Simulated) -> None:
    bad = ~np.isfinite(np.asarray(found.states))
    if bad.any():
        time, column = np.argwhere(bad)[0]
        level = int(np.searchsorted(np.cumsum(found.state_sizes), column, side="right")) + 1
        raise DivergenceError(
            f"simulate: the states of level {level} left all bounds at time index {time}. Take more steps "
            "(substeps=), a smaller dt, or less noise."
        )


def _cut(values: Any, sizes: tuple[int, ...]) -> tuple[Any, ...]:
    return tuple(values[..., a:b] for a, b in itertools.pairwise(np.cumsum((0, *sizes))))
