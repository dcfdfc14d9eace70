"""Trajectory: what is believed along a series, of states, causes, parameters and precisions, and its F."""

import itertools
from statistics import NormalDist
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float


class Believed(eqx.Module):
    """A Gaussian belief, at every time or of one vector: mean (..., k) and covariance (..., k, k)."""

    mean: Float[Array | np.ndarray, "*batch k"]
    covariance: Float[Array | np.ndarray, "*batch k k"]

    @property
    def sd(self) -> Float[Array | np.ndarray, "*batch k"]:
        """Standard deviations."""
        return np.sqrt(np.maximum(np.diagonal(self.covariance, axis1=-2, axis2=-1), 0.0))

    def interval(self, level: float = 0.95) -> tuple[Any, Any]:
        """Lower and upper ends of the central intervals that hold `level` of the probability.

        **Raises:** `ValueError` for a level outside (0, 1).
        """
        if not 0 < level < 1:
            raise ValueError(f"interval: got level={level}; wanted a probability between 0 and 1.")
        reach = NormalDist().inv_cdf(0.5 + 0.5 * level) * self.sd
        return self.mean - reach, self.mean + reach


class Parameters(eqx.Module):
    """The belief about parameters: `mean` by level, as the pytrees that the level was given.

    `covariance`: of all of them, flattened and stacked over levels, known ones with zeros.
    """

    mean: tuple[Any, ...]
    covariance: Float[Array | np.ndarray, "*batch all all"]

    @property
    def sd(self) -> Float[Array | np.ndarray, "*batch all"]:
        """Standard deviations, flattened and stacked over levels."""
        return np.sqrt(np.maximum(np.diagonal(self.covariance, axis1=-2, axis2=-1), 0.0))


class FreeEnergyInTime(eqx.Module):
    """F of a series in nats: F = Σ_t (Σ_noise energy − entropy) + what parameters and log-precisions cost.

    `total`: F at the best sweep. `energies`: ½ ẽᵀΠẽ − ½ ln|Π| of every noise ("observation 1", "states 1",
    …), (time,); `entropy`: ½ ln|C| of states and causes. Both are those of the last sweep under the
    precisions that it used. `history`: F after each sweep. Errors of noise whose known precision is e¹⁶ or
    more are left out, and only the data's normalising constant is counted: compare F between models of
    equal orders and smoothness.
    """

    total: Float[Array | np.ndarray, "*batch"]
    energies: dict[str, Float[Array | np.ndarray, "*batch time"]]
    entropy: Float[Array | np.ndarray, "*batch time"]
    history: Float[Array | np.ndarray, "*batch sweeps"]

    @property
    def by_time(self) -> Float[Array | np.ndarray, "*batch time"]:
        """Energy less entropy, sample by sample."""
        return sum(self.energies.values()) - self.entropy

    @property
    def by_level(self) -> dict[str, Float[Array | np.ndarray, "*batch"]]:
        """The energy of every noise, summed over time."""
        return {name: energy.sum(-1) for name, energy in self.energies.items()}

    @property
    def accuracy(self) -> Float[Array | np.ndarray, "*batch time"]:
        """−½ ẽᵀΠẽ + ½ ln|Π| − ½ n ln 2π of the data alone; F = complexity − accuracy."""
        return -self.energies["observation 1"]

    @property
    def complexity(self) -> Float[Array | np.ndarray, "*batch time"]:
        """F plus accuracy: the energy of everything above the data, less the entropy."""
        return self.by_time + self.accuracy


class Trajectory(eqx.Module):
    """Beliefs along a series, in the units of the model.

    `states`, `causes`: of all levels, stacked, (time, k); `state_levels`, `cause_levels` cut them by level.
    `derivatives`: means of all orders, per unit of time, of states (time, order + 1, k) and causes.
    `prediction`: of the data, with the covariance of another sample at that time. `errors`: prediction
    errors by noise, (time, k). `parameters`, `log_precisions`; `log_precisions_in_time`,
    `parameters_in_time`: the free ones, in generalised filtering. `free_energy`; `sweeps`: how many were
    made. `time`: times of samples, from 0.
    """

    time: Float[Array | np.ndarray, " time"]
    states: Believed
    causes: Believed
    derivatives: tuple[
        Float[Array | np.ndarray, "*batch time n x"], Float[Array | np.ndarray, "*batch time d v"]
    ]
    prediction: Believed
    errors: dict[str, Float[Array | np.ndarray, "*batch time k"]]
    parameters: Parameters
    log_precisions: Believed
    free_energy: FreeEnergyInTime
    sweeps: Float[Array | np.ndarray, "*batch"]
    parameters_in_time: Float[Array | np.ndarray, "*batch time p"] | None
    log_precisions_in_time: Float[Array | np.ndarray, "*batch time h"] | None
    state_sizes: tuple[int, ...] = eqx.field(static=True)
    cause_sizes: tuple[int, ...] = eqx.field(static=True)

    @property
    def state_levels(self) -> tuple[Believed, ...]:
        """The states of each level, the lowest first."""
        return cut(self.states, self.state_sizes)

    @property
    def cause_levels(self) -> tuple[Believed, ...]:
        """The causes that each level receives, the lowest first."""
        return cut(self.causes, self.cause_sizes)

    def to_xarray(self) -> Any:
        """The numbers as an `xarray.Dataset` with the dimension time; one series only."""
        import xarray

        self._one_series("to_xarray")
        data = {}
        for name, kind, what in (
            ("states", "state", self.states),
            ("causes", "cause", self.causes),
            ("prediction", "channel", self.prediction),
        ):
            data[name] = (("time", kind), what.mean)
            data[f"{name}_covariance"] = (("time", kind, f"{kind}_2"), what.covariance)
        for name, error in self.errors.items():
            key = name.replace(" ", "_")
            data[f"error_{key}"] = (("time", f"row_{key}"), error)
            data[f"energy_{key}"] = ("time", self.free_energy.energies[name])
        data["entropy"] = ("time", self.free_energy.entropy)
        data["free_energy"] = ((), self.free_energy.total)
        data["log_precision"] = ("component", self.log_precisions.mean)
        data["log_precision_sd"] = ("component", self.log_precisions.sd)
        data["parameter_sd"] = ("parameter", self.parameters.sd)
        return xarray.Dataset(data, coords={"time": self.time})

    def plot(self, y: Any = None) -> Any:
        """A figure: prediction (with the data y, if given), states, causes with 90 % intervals, F in
        time."""
        import matplotlib.pyplot as plt

        self._one_series("plot")
        shown = [("prediction", self.prediction), ("states", self.states), ("causes", self.causes)]
        shown = [(name, what) for name, what in shown if what.mean.shape[-1]]
        figure, axes = plt.subplots(
            len(shown) + 1, sharex=True, figsize=(7, 2 * len(shown) + 2), layout="constrained"
        )
        for axis, (name, what) in zip(axes, shown, strict=False):
            for k in range(what.mean.shape[-1]):
                (line,) = axis.plot(self.time, what.mean[:, k])
                low, high = (what.mean[:, k] + side * 1.645 * what.sd[:, k] for side in (-1, 1))
                axis.fill_between(self.time, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
            if name == "prediction" and y is not None:
                axis.plot(self.time, np.asarray(y).reshape(len(self.time), -1), "k.", markersize=2)
            axis.set_ylabel(name)
        axes[-1].plot(self.time, self.free_energy.by_time)
        axes[-1].set(ylabel="F (nats)", xlabel="time")
        return figure

    def _one_series(self, verb: str) -> None:
        if self.states.mean.ndim != 2:
            raise ValueError(
                f"Trajectory.{verb}: got {self.states.mean.shape[0]} series; take one first, "
                "jax.tree.map(lambda a: a[0], trajectory)."
            )


def cut(what: Believed, sizes: tuple[int, ...]) -> tuple[Believed, ...]:
    """A belief about all levels as one of each."""
    bounds = np.cumsum((0, *sizes))
    return tuple(
        Believed(what.mean[..., a:b], what.covariance[..., a:b, a:b]) for a, b in itertools.pairwise(bounds)
    )
