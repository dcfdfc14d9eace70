"""Data of a dynamic model as arrays, or an error that says what is wrong with them."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float

from vfe.arrays import real_numbers
from vfe.dynamics.levels.dynamic_model import DynamicModel


def read_series(
    model: DynamicModel, y: Any, prior_causes: Any, verb: str, *, gaps: bool
) -> tuple[Any, Any, bool]:
    """Data (*batch, time, k) and prior causes in float64, and whether there are several series.

    `gaps`: whether NaN is a missing sample and any length will do, or an error, as where every sample is
    embedded.
    """
    y = _array(y, f"{verb}: y")
    ny, nc = model.data_size, model.cause_sizes[-1]
    if y.ndim == 1 and ny == 1:
        y = y[:, None]
    if y.ndim not in (2, 3) or y.shape[-1] != ny:
        raise ValueError(
            f"{verb}: got data of shape {y.shape}; wanted (time, {ny}), or (series, time, {ny}) for "
            "several."
        )
    length = y.shape[-2]
    if not gaps and not model.static and length < model.order + 1:
        raise ValueError(
            f"{verb}: got a series of {length} samples for a model of order {model.order}, whose "
            "embedding needs "
            f"{model.order + 1}; write DynamicModel(..., order={max(length - 1, 1)}) or less, or give a "
            "longer series."
        )
    if length == 0:
        raise ValueError(f"{verb}: got no samples.")
    bad = (
        np.zeros((0, 2)) if isinstance(y, Tracer) else np.argwhere(np.isinf(y) if gaps else ~np.isfinite(y))
    )
    if len(bad):
        where = tuple(int(i) for i in bad[0])
        help = (
            "Missing samples are NaN."
            if gaps
            else "The reference scheme embeds every sample and has no place for missing ones; fill the "
            "gap, or use vfe.filter or vfe.smooth, whose default takes NaN for missing."
        )
        raise ValueError(f"{verb}: got {y[where]} at index {where} of the data. {help}")
    if gaps and not isinstance(y, Tracer) and np.isnan(y).all((-1, -2)).any():
        raise ValueError(
            f"{verb}: every sample of the series is missing (NaN); wanted at least one number."
        )
    eta = np.zeros((length, nc)) if prior_causes is None else _array(prior_causes, f"{verb}: prior_causes")
    if eta.ndim == 1 and nc == 1:
        eta = eta[:, None]
    if (
        eta.shape[-2:] != (length, nc)
        or eta.ndim > y.ndim
        or (eta.ndim == 3 and eta.shape[0] != y.shape[0])
    ):
        raise ValueError(
            f"{verb}: got prior_causes of shape {eta.shape}; wanted ({length}, {nc}), the prior mean of "
            "the top "
            "causes at every sample."
        )
    if not isinstance(eta, Tracer) and not np.isfinite(eta).all():
        raise ValueError(f"{verb}: got prior_causes that are not finite; a prior mean cannot be missing.")
    batched = y.ndim == 3
    if batched and eta.ndim == 2:
        eta = (
            np.broadcast_to(eta, (y.shape[0], length, nc))
            if isinstance(eta, np.ndarray)
            else jnp.broadcast_to(eta, (y.shape[0], length, nc))
        )
    return y, eta, batched


def read_times(times: Any, length: int, dt: float, verb: str) -> Float[np.ndarray, " time"]:
    """Times of samples in units of dt.

    **Raises:** `ValueError` for another number of them, and where they do not increase, with the index.
    """
    if times is None:
        return np.arange(float(length))
    if isinstance(times, Tracer):
        raise ValueError(f"{verb}: got times= that are traced; wanted numbers (the grid is made of them).")
    times = _array(times, f"{verb}: times")
    if times.shape != (length,) or not np.isfinite(times).all():
        raise ValueError(
            f"{verb}: got times of shape {times.shape}; wanted ({length},) finite numbers, one per sample."
        )
    back = np.flatnonzero(np.diff(times) <= 0)
    if back.size:
        i = int(back[0]) + 1
        raise ValueError(
            f"{verb}: time goes from {times[i - 1]} to {times[i]} at index {i}; wanted times that increase "
            "(sort the samples; leave out repeated ones)."
        )
    return times / dt


def _array(value: Any, name: str) -> Any:
    return value if isinstance(value, Tracer) else real_numbers(name, value)
