"""The door to the hierarchical Gaussian filter: inputs are checked, beliefs come out, in float64."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from vfe.double_precision import released
from vfe.dynamics.volatility.volatility import HierarchicalGaussianFilter, StandardUpdate
from vfe.perception.status import DivergenceError
from vfe.series.verbs import filter as filter_verb


class FilteredVolatility(eqx.Module):
    """Beliefs of a hierarchical Gaussian filter, input by input; states run from the lowest up.

    `mean`, `precision`: after an input; `predicted_mean`, `predicted_precision`: before it;
    `predicted_input`: the probability of a one, or the value expected; `surprise`: −ln p(u_t | past) in
    nats, zero where an input is missing; `inputs` and `time_steps`: what was filtered.
    """

    mean: Float[Array, "*batch time n"]
    precision: Float[Array, "*batch time n"]
    predicted_mean: Float[Array, "*batch time n"]
    predicted_precision: Float[Array, "*batch time n"]
    predicted_input: Float[Array, "*batch time"]
    surprise: Float[Array, "*batch time"]
    inputs: Float[Array, "*batch time"]
    time_steps: Float[Array, "*batch time"]

    @property
    def sd(self) -> Float[Array, "*batch time n"]:
        """Standard deviations of the states after each input."""
        return self.precision**-0.5

    @property
    def log_evidence(self) -> Float[Array, "*batch"]:
        """Σ_t ln p(u_t | past) in nats, as the filter approximates it."""
        return -self.surprise.sum(-1)

    def to_xarray(self) -> Any:
        """Every array as an xarray Dataset, with time and state as dimensions."""
        from vfe.results.volatility import volatility_to_xarray

        return volatility_to_xarray(self)

    def plot(self, **options: Any) -> Any:
        """Draw the inputs with what was expected, the states with two standard deviations, the surprise."""
        from vfe.results.volatility import plot_volatility

        return plot_volatility(self, **options)

    def __repr__(self) -> str:
        *batch, time, n = self.mean.shape
        of = f"{tuple(batch)} series of " if batch else ""
        return f"FilteredVolatility({of}{time} inputs, {n} states, {float(np.sum(self.surprise)):.2f} nats)"


@filter_verb.register
def filter_volatility(
    model: HierarchicalGaussianFilter, y: Any, *, time_steps: Any = None
) -> FilteredVolatility:
    """The hierarchical Gaussian filter over a series: `vfe.filter`.

    **Arguments:** `y`: the inputs, (*batch, time), NaN where missing; `time_steps`: how long before each
    input the one before it was, (time,) or (*batch, time), by default ones.

    **Raises:** `ValueError` for inputs of the wrong kind or times that are not positive;
    `vfe.DivergenceError` where a precision is not positive any more, with the input and the state.
    """
    u: Any = np.asarray(y, dtype=np.float64)
    if not u.ndim or not u.shape[-1]:
        raise ValueError(f"filter: the inputs have shape {u.shape}; wanted (*batch, time), at least one.")
    if u.ndim > 1 and u.shape[-1] == 1:
        raise ValueError(
            f"filter: the inputs have shape {u.shape}, {u.shape[0]} series of one input each; wanted "
            "(*batch, time). Write y[:, 0] for one series."
        )
    model.input.check(u)
    elapsed: Any = np.ones(u.shape[-1]) if time_steps is None else np.asarray(time_steps, dtype=np.float64)
    if elapsed.shape not in (u.shape, u.shape[-1:]):
        raise ValueError(
            f"filter: time_steps has shape {elapsed.shape}; wanted {u.shape[-1:]}, one for every input."
        )
    if not (np.isfinite(elapsed) & (elapsed > 0)).all():
        where = tuple(int(i) for i in np.argwhere(~(np.isfinite(elapsed) & (elapsed > 0)))[0])
        raise ValueError(f"filter: time step {where} is {elapsed[where]}; wanted a positive, finite time.")
    elapsed = np.broadcast_to(elapsed, u.shape)
    with jax.enable_x64(True):
        found = _run(model, u, elapsed)
        _check(model, found)
    return released(FilteredVolatility(**found, inputs=u, time_steps=elapsed))


@eqx.filter_jit
def _run(model: HierarchicalGaussianFilter, u: Array, elapsed: Array) -> dict[str, Array]:
    function = model.run
    for _ in range(u.ndim - 1):
        function = jax.vmap(function)
    return function(u, elapsed)


def _check(model: HierarchicalGaussianFilter, found: dict[str, Array]) -> None:
    mean, precision = np.asarray(found["mean"]), np.asarray(found["precision"])
    expected = np.asarray(found["predicted_precision"])
    sound = (precision > 0) & np.isfinite(precision) & np.isfinite(mean) & (expected > 0)
    # The surprise belongs to the lowest state.
    sound[..., 0] &= np.isfinite(np.asarray(found["surprise"]))
    bad = np.argwhere(~sound)
    if not bad.size:
        return
    *series, time, state = (int(i) for i in bad[np.argmin(bad[:, -2])])
    of = f" of series {tuple(series)}" if series else ""
    broken = isinstance(model.update, StandardUpdate)
    advice = "update=vfe.dynamics.EnhancedUpdate(), whose precisions stay positive, or " if broken else ""
    raise DivergenceError(
        f"filter: the belief about state {state} broke down at input {time}{of} (counted from 0): its "
        f"precision is {precision[(*series, time, state)]:.3g}. Use {advice}lower tonic_volatility (now "
        f"{np.asarray(model.tonic_volatility)}), and inputs of the scale that states are expected to have."
    )
