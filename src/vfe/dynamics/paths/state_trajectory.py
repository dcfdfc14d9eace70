"""StateTrajectory: what is believed along a series, of states and causes, parameters taken as known."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vfe.double_precision import released
from vfe.dynamics.levels.trajectory import Believed, cut
from vfe.dynamics.paths.augmented import Augmented
from vfe.dynamics.paths.process_filter import Carried
from vfe.free_energy import FreeEnergy

BY_SERIES = ("states", "causes", "motion", "prediction", "data", "errors", "y")


class CausalState(eqx.Module):
    """What the filter keeps: the belief after the last sample, the prior causes there, and the count.

    Its size does not grow with time. Several series have leading axes.
    """

    process: Augmented
    belief: Carried
    prior_causes: Float[Array, "*batch r"]
    samples: int = eqx.field(static=True)


class CausalNow(NamedTuple):
    """The belief after one sample, as in `StateTrajectory`; `surprise`: −ln p(y_t | past) in nats."""

    states: Believed
    causes: Believed
    motion: Believed
    prediction: Believed
    data: Believed
    errors: dict[str, Array]
    surprise: Float[Array, ""]


class ForecastLevels(NamedTuple):
    """Beliefs about what comes after the series: (steps, k) and covariances; `data`: noise included."""

    time: Float[np.ndarray, " steps"]
    states: Believed
    causes: Believed
    data: Believed


def together(each: "list[StateTrajectory]") -> "StateTrajectory":
    """Several series as one trajectory."""

    def join(*trees: Any) -> Any:
        return jax.tree.map(lambda *a: jnp.stack(a), *trees)

    first = each[0]
    last = dataclasses.replace(
        first.last,
        belief=join(*(one.last.belief for one in each)),
        prior_causes=jnp.stack([jnp.asarray(one.last.prior_causes) for one in each]),
    )
    arrays = {name: join(*(getattr(one, name) for one in each)) for name in (*BY_SERIES, "free_energy")}
    free_energy = dataclasses.replace(arrays.pop("free_energy"), weight=first.free_energy.weight)
    return dataclasses.replace(first, last=last, free_energy=free_energy, **arrays)


class StateTrajectory(eqx.Module):
    """Beliefs about the states and causes of a `vfe.DynamicModel` along a series, in its units.

    `states`, `causes`: of all levels, stacked, (*batch, time, k); `state_levels`, `cause_levels` cut them
    by level. `motion`: dx/dt. `prediction`: of the data; of `vfe.filter` given the samples before it,
    noise included (one step ahead); of `vfe.smooth` given the whole series, of another sample at that time
    with noise of its own. `data`: of the data at that time, given the samples up to it or all, with the
    noise that there was: what fills a gap. `errors`: means of all smooth noise, by its name ("observation
    2", "states 1", "causes"). `free_energy`: F by time in nats; its `kind` says whether it is exact (linear
    models) or an approximation. `y`: the data. `steps`: of Gauss–Newton, of `vfe.smooth`; `change`: how
    far the last one moved, in standard deviations. `trajectory[i]` is one of several series.

    **Example:** `vfe.filter(model, y).states.mean`.
    """

    time: Float[np.ndarray, " time"]
    states: Believed
    causes: Believed
    motion: Believed
    prediction: Believed
    data: Believed
    errors: dict[str, Float[Array | np.ndarray, "*batch time k"]]
    free_energy: FreeEnergy
    y: Float[Array | np.ndarray, "*batch time k"]
    last: CausalState
    dt: float = eqx.field(static=True)
    state_sizes: tuple[int, ...] = eqx.field(static=True)
    cause_sizes: tuple[int, ...] = eqx.field(static=True)
    substeps: int | None = eqx.field(static=True)
    iterations: int = eqx.field(static=True)
    hindsight: bool = eqx.field(static=True)
    steps: int | None = eqx.field(static=True, default=None)
    change: float | None = eqx.field(static=True, default=None)

    @property
    def state_levels(self) -> tuple[Believed, ...]:
        """The states of each level, the lowest first."""
        return cut(self.states, self.state_sizes)

    @property
    def cause_levels(self) -> tuple[Believed, ...]:
        """The causes that each level receives, the lowest first."""
        return cut(self.causes, self.cause_sizes)

    @property
    def log_evidence(self) -> Float[Array | np.ndarray, "*batch"]:
        """ln p(y) in nats, minus the sum of F: exact for linear models."""
        with jax.enable_x64(True):
            total = -jnp.asarray(self.free_energy.total).sum(-1)
        return released(total)

    def __getitem__(self, index: int) -> "StateTrajectory":
        """One of several series."""

        def one(tree: Any) -> Any:
            return jax.tree.map(lambda a: a[index], tree)

        last = dataclasses.replace(
            self.last, belief=one(self.last.belief), prior_causes=self.last.prior_causes[index]
        )
        each = {name: one(getattr(self, name)) for name in BY_SERIES}
        return dataclasses.replace(self, last=last, free_energy=self.free_energy[index], **each)

    def forecast(self, steps: int, *, prior_causes: Any = None) -> ForecastLevels:
        """States, causes and data of the next samples, a sampling interval apart.

        **Arguments:** `steps`: how many; `prior_causes`: (steps, causes), zero if not given.

        **Raises:** `ValueError` for steps below one, prior causes that do not fit.

        **Example:** `vfe.filter(model, y).forecast(10).data.interval()`.
        """
        from vfe.dynamics.paths.filter_states import forecast

        return forecast(self, steps, prior_causes)

    def to_xarray(self) -> Any:
        """The numbers as an `xarray.Dataset` with the dimension time; one series only."""
        from vfe.results.levels_in_time import levels_to_xarray

        return levels_to_xarray(self)

    def plot(self, **options: Any) -> Any:
        """Draw data and prediction, states, causes, F in time, with intervals; returns matplotlib axes."""
        from vfe.results.levels_in_time import plot_levels

        return plot_levels(self, **options)

    def __repr__(self) -> str:
        *batch, time, states = np.shape(self.states.mean)
        of = f"{tuple(batch)} series of " if batch else ""
        given = "the whole series" if self.hindsight else "the samples so far"
        return (
            f"StateTrajectory({of}{time} samples, {states} states, {sum(self.cause_sizes)} causes, given "
            f"{given}, F {np.sum(np.asarray(self.free_energy.total)):.2f} nats)"
        )
