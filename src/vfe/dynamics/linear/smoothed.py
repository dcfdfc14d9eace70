"""What exact filters and smoothers return: beliefs by time, the surprise of every sample, F of the path."""

from statistics import NormalDist
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vfe.double_precision import released
from vfe.free_energy import FreeEnergy


class OnlineState(NamedTuple):
    """What an online filter keeps: the belief after the last sample, and how many there were."""

    mean: Float[Array, " n"]
    covariance: Float[Array, "n n"]
    samples: Int[Array, ""]


class Gaussian(eqx.Module):
    """Means and covariances by time, (*batch, time, n) and (*batch, time, n, n).

    **Example:** `vfe.filter(model, y).predicted_y.interval(0.9)`.
    """

    mean: Float[Array, "*batch time n"]
    covariance: Float[Array, "*batch time n n"]

    @property
    def sd(self) -> Float[Array, "*batch time n"]:
        """Standard deviations, element by element."""
        return deviation(self.covariance)

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Lower and upper ends of the central interval that holds `level` of the probability.

        **Raises:** `ValueError` for a level outside (0, 1).
        """
        if not 0 < level < 1:
            raise ValueError(f"interval: got level={level}; wanted a probability between 0 and 1.")
        reach = NormalDist().inv_cdf(0.5 + 0.5 * level) * self.sd
        return self.mean - reach, self.mean + reach


def deviation(covariance: Any) -> Any:
    """The roots of the diagonals; rounding below zero is zero."""
    with jax.enable_x64(True):
        variances = jnp.diagonal(jnp.asarray(covariance), axis1=-2, axis2=-1)
        roots = jnp.sqrt(jnp.maximum(variances, 0.0))
    return released(roots)


class Now(NamedTuple):
    """The belief at one sample of an online filter; `surprise` = −ln p(y_t | y_1 … y_{t−1}) in nats."""

    mean: Float[Array, " n"]
    covariance: Float[Array, "n n"]
    predicted_mean: Float[Array, " n"]
    predicted_covariance: Float[Array, "n n"]
    predicted_y: Gaussian
    surprise: Float[Array, ""]

    @property
    def sd(self) -> Float[Array, " n"]:
        """Standard deviations of the states."""
        return deviation(self.covariance)


class Forecast(NamedTuple):
    """Beliefs about what comes after the series: `states` and `y`, each with `.mean`, `.interval()`."""

    states: Gaussian
    y: Gaussian


class Filtered(eqx.Module):
    """Beliefs about the states at every time, given the samples up to it; exact.

    `mean`, `covariance`: of z_t given y_1 … y_t; `predicted_mean`, `predicted_covariance`: given
    y_1 … y_{t−1}; `predicted_y`: what the model expected of y_t, noise included; `innovation`: y_t less
    that mean, NaN where y_t is missing; `surprise`: −ln p(y_t | y_1 … y_{t−1}), nats. All with the leading
    axes of the data, then time.
    """

    mean: Float[Array, "*batch time n"]
    covariance: Float[Array, "*batch time n n"]
    predicted_mean: Float[Array, "*batch time n"]
    predicted_covariance: Float[Array, "*batch time n n"]
    predicted_y: Gaussian
    innovation: Float[Array, "*batch time k"]
    surprise: Float[Array, "*batch time"]
    y: Float[Array, "*batch time k"]
    model: Any

    @property
    def sd(self) -> Float[Array, "*batch time n"]:
        """Standard deviations of the states given y_1 … y_t."""
        return deviation(self.covariance)

    @property
    def log_evidence(self) -> Float[Array, "*batch"]:
        """ln p(y) in nats: minus the sum of the surprises."""
        with jax.enable_x64(True):
            total = -self.surprise.sum(-1)
        return released(total)

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Central intervals of the states; as `Gaussian.interval`."""
        return Gaussian(self.mean, self.covariance).interval(level)

    def forecast(self, steps: int, *, inputs: Any = None) -> Forecast:
        """Beliefs about the next samples: the states and y, noise included.

        **Arguments:** `steps`: how many; `inputs`: (steps, r), or (*batch, steps, r).

        **Raises:** `ValueError` where the model's matrices vary in time, or inputs do not fit.

        **Example:** `vfe.filter(model, y).forecast(10).y.interval()`.
        """
        from vfe.dynamics.linear.exact_filtering import forecast

        return forecast(self, steps, inputs)

    def to_xarray(self) -> Any:
        """Means, standard deviations, covariances, predictions and surprise as an xarray Dataset."""
        from vfe.results.series import series_to_xarray

        return series_to_xarray(self)

    def plot(self, **options: Any) -> Any:
        """Draw the samples and what was expected, the states, the surprise; returns matplotlib axes."""
        from vfe.results.series import plot_series

        return plot_series(self, **options)

    def __repr__(self) -> str:
        return _sentence("Filtered", self.mean)


class Smoothed(eqx.Module):
    """Beliefs about the states at every time, given the whole series; exact.

    `mean`, `covariance`: of z_t given y_1 … y_T; `cross_covariance`: Cov(z_t, z_{t+1} | y), one fewer in
    time; `fitted_y`: a new sample at every time given the whole series, noise included (what fills a gap);
    `free_energy`: F of the path by time, with the terms initial, dynamics and observation, whose sum is
    −ln p(y); `filtered`: the filter's answer, with the surprise of every sample.
    """

    mean: Float[Array, "*batch time n"]
    covariance: Float[Array, "*batch time n n"]
    cross_covariance: Float[Array, "*batch time-1 n n"]
    fitted_y: Gaussian
    free_energy: FreeEnergy
    filtered: Filtered

    @property
    def sd(self) -> Float[Array, "*batch time n"]:
        """Standard deviations of the states given the whole series."""
        return deviation(self.covariance)

    @property
    def surprise(self) -> Float[Array, "*batch time"]:
        """−ln p(y_t | y_1 … y_{t−1}), nats: that of the filter."""
        return self.filtered.surprise

    @property
    def log_evidence(self) -> Float[Array, "*batch"]:
        """ln p(y) in nats: minus the sum of the surprises, and minus the sum of F."""
        return self.filtered.log_evidence

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Central intervals of the states; as `Gaussian.interval`."""
        return Gaussian(self.mean, self.covariance).interval(level)

    def forecast(self, steps: int, *, inputs: Any = None) -> Forecast:
        """Beliefs about the next samples; as `Filtered.forecast`, the two agree at the last sample."""
        return self.filtered.forecast(steps, inputs=inputs)

    def to_xarray(self) -> Any:
        """Means, standard deviations, covariances, F by time and surprise as an xarray Dataset."""
        from vfe.results.series import series_to_xarray

        return series_to_xarray(self)

    def plot(self, **options: Any) -> Any:
        """Draw the samples with the fit, the states, and the surprise; returns matplotlib axes."""
        from vfe.results.series import plot_series

        return plot_series(self, **options)

    def __repr__(self) -> str:
        return _sentence("Smoothed", self.mean)


def _sentence(name: str, mean: Array) -> str:
    *batch, time, states = mean.shape
    of = f"{tuple(batch)} series of " if batch else ""
    return f"{name}({of}{time} samples, {states} states)"
