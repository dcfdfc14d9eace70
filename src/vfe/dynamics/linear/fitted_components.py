"""Fitting systems to a series: their most probable numbers, how sure they are, and F of the model."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vfe.densities import LOG_2PI
from vfe.dynamics.linear.minimum import laplace_free_energy, minimum
from vfe.dynamics.linear.smoothed import Smoothed
from vfe.dynamics.linear.systems import Components
from vfe.free_energy import FreeEnergy
from vfe.perception.status import DivergenceError
from vfe.series.verbs import filter as filter_verb
from vfe.series.verbs import fit as fit_verb
from vfe.series.verbs import smooth as smooth_verb


class FittedComponents(eqx.Module):
    """Systems fitted to a series.

    `model`: with the fitted numbers; `smoothed`: beliefs about its states (`vfe.smooth`); `free_energy`: F,
    a `vfe.FreeEnergy` of all samples whose total is about −ln p(y), numbers integrated out by Laplace's
    method (`vfe.compare` ranks several); `names` and `values` of what was
    fitted, with `interval(level)`; `covariance` in the coordinates of the fit (logs of positive numbers).
    """

    model: Components
    smoothed: Smoothed
    free_energy: FreeEnergy
    names: tuple[str, ...] = eqx.field(static=True)
    logged: tuple[bool, ...] = eqx.field(static=True)
    location: Float[Array, " k"]
    covariance: Float[Array, "k k"]

    @property
    def values(self) -> dict[str, float]:
        """The fitted numbers by name."""
        pairs = zip(self.names, self.logged, np.asarray(self.location), strict=True)
        return {name: float(np.exp(v) if logged else v) for name, logged, v in pairs}

    def interval(self, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Central intervals of the fitted numbers, that hold `level` of the probability."""
        from vfe.dynamics.linear.smoothed import Gaussian

        # A length of one in time makes it a belief like any other.
        belief = Gaussian(np.asarray(self.location)[None], np.asarray(self.covariance)[None])  # pyright: ignore[reportArgumentType]
        ends = np.stack([np.asarray(end)[0] for end in belief.interval(level)])
        ends = np.where(np.asarray(self.logged), np.exp(ends), ends)
        return {name: (float(low), float(high)) for name, low, high in zip(self.names, *ends, strict=True)}

    def __repr__(self) -> str:
        lines = [f"FittedComponents, F {float(self.free_energy.total):.2f} nats"]
        for name, (low, high) in self.interval().items():
            lines.append(f"  {name:<28}{self.values[name]:>12.5g}   95 % {low:.5g} to {high:.5g}")
        return "\n".join(lines)


@fit_verb.register
def fit_components(
    model: Components, y: Any, *, intervals: Any = 1.0, max_steps: int = 200
) -> FittedComponents:
    """Fit the numbers of systems to one series, states integrated out exactly.

    θ* minimises −ln p(y | θ) − ln p(θ), θ the logs of positive numbers (and coefficients themselves), with
    normal priors around the values of `model`, as wide as each system says; then
    F = −ln p(y | θ*) − ln p(θ*) + ½ ln |H| − ½ k ln 2π, H the curvature at θ*. Differences of F compare
    models of the same series.

    **Arguments:** `y`: (time,), NaN where missing; `intervals`: as in `Components.state_space`;
    `max_steps`: of L-BFGS.

    **Raises:** `ValueError` for a series that does not fit, or has fewer than three samples;
    `vfe.DivergenceError` where no minimum was found.

    **Example:**
    ```python
    level = vfe.dynamics.LocalLevel(rate=30.0, initial_mean=1000.0, initial_sd=500.0)
    found = vfe.fit(vfe.dynamics.Components([level], observation_sd=100.0), y)
    print(found)
    found.smoothed.plot()
    ```

    **Source:** Harvey 1989 (likelihood by the Kalman filter); MacKay 2003, chapter 27 (Laplace's method).
    """
    y = _series(y)
    model.state_space(intervals)  # refuses intervals that do not fit, before anything is computed
    fields = _fields(model)
    start, spread = (np.concatenate([np.ravel(f[key]) for f in fields]) for key in ("start", "spread"))
    given = np.asarray(intervals, float)
    found = minimum(_energy, start, start, spread, model, y, given, max_steps=max_steps, gtol=1e-7)
    steep = found.gradient > 1e-2 * max(1.0, abs(found.value) * 1e-3)
    if not np.isfinite(found.value) or found.least <= 0 or steep:
        raise DivergenceError(
            f"fit: no minimum after {found.steps} steps (slope {found.gradient:.3g}, least curvature "
            f"{found.least:.3g}): {found.message} Start from numbers nearer to the series, or with fewer "
            "parts."
        )
    fitted = _placed(model, found.place)
    smoothed = smooth_verb(fitted.state_space(intervals), y[:, None])
    return FittedComponents(
        model=fitted,
        smoothed=smoothed,
        free_energy=laplace_free_energy(
            np.asarray(smoothed.filtered.surprise), found.place, start, spread, found.curvature
        ),
        names=tuple(name for f in fields for name in f["names"]),
        logged=tuple(f["logged"] for f in fields for _ in f["names"]),
        location=found.place,  # pyright: ignore[reportArgumentType]
        covariance=np.linalg.inv(found.curvature),  # pyright: ignore[reportArgumentType]
    )


def _series(y: Any) -> np.ndarray:
    try:
        series = np.ma.filled(np.ma.asarray(y, dtype=np.float64), np.nan)
    except (TypeError, ValueError) as error:
        raise ValueError(f"fit: y is {y!r}; wanted numbers, NaN where missing.") from error
    present = int(np.isfinite(series).sum())
    if series.ndim != 1 or present < 3:
        raise ValueError(
            f"fit: y has shape {series.shape} with {present} samples that are present; wanted (time,) with "
            "at least three."
        )
    if np.isinf(series).any():
        raise ValueError(
            f"fit: y is infinite at {int(np.argmax(np.isinf(series)))}; wanted numbers or NaN."
        )
    return series


def _fields(model: Components) -> list[dict[str, Any]]:
    """What is fitted, in order: of every part, and the observation noise."""
    found = []
    for i, part in enumerate(model.parts):
        for name, spread in part.spread.items():
            value = np.asarray(getattr(part, name))
            logged = name in part.positive
            title = f"{i} {type(part).__name__}.{name}"
            found.append(
                {
                    "names": [title] if not value.ndim else [f"{title}[{j}]" for j in range(value.size)],
                    "start": np.log(value) if logged else value,
                    "spread": np.full(value.shape, spread),
                    "logged": logged,
                }
            )
    noise = np.log(np.asarray(model.observation_sd))
    found.append({"names": ["observation_sd"], "start": noise, "spread": np.asarray(2.0), "logged": True})
    return found


def _placed(model: Components, u: Any) -> Components:
    """The model with these numbers, in the order of `_fields`."""
    at = 0
    parts = []
    for part in model.parts:
        for name in part.spread:
            shape = np.shape(getattr(part, name))
            size = int(np.prod(shape, dtype=int))
            value = u[at : at + size].reshape(shape)
            value = jnp.exp(value) if name in part.positive else value
            value = value if isinstance(u, jax.Array) else np.asarray(value)
            part = eqx.tree_at(lambda p, n=name: getattr(p, n), part, value)
            at += size
        parts.append(part)
    noise = jnp.exp(u[at]) if isinstance(u, jax.Array) else np.exp(u[at])
    return eqx.tree_at(lambda m: (m.parts, m.observation_sd), model, (tuple(parts), noise))


def _energy(u: Array, start: Array, spread: Array, model: Components, y: Array, intervals: Any) -> Array:
    """−ln p(y | θ) − ln p(θ)."""
    surprise = filter_verb(_placed(model, u).state_space(intervals), y[:, None]).surprise.sum()
    prior = 0.5 * jnp.sum(((u - start) / spread) ** 2 + 2 * jnp.log(spread) + LOG_2PI)
    return surprise + prior
