"""The door to exact filtering: data are checked, computed in float64, and beliefs come out."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from vfe.double_precision import released
from vfe.dynamics.linear import kalman, kalman_parallel
from vfe.dynamics.linear.kalman import Steps, matvec, product, symmetric, transpose
from vfe.dynamics.linear.smoothed import Filtered, Forecast, Gaussian, Now, OnlineState, Smoothed
from vfe.dynamics.linear.state_space import TIMED, StateSpace, double
from vfe.free_energy import FreeEnergy, Kind
from vfe.perception.status import DivergenceError
from vfe.series.methods import ParallelInTime, Sequential
from vfe.series.verbs import filter as filter_verb
from vfe.series.verbs import smooth as smooth_verb

SCHEMES: dict[type, Any] = {Sequential: kalman, ParallelInTime: kalman_parallel}


@filter_verb.register
def filter_state_space(
    model: StateSpace,
    y: Any,
    *,
    inputs: Any = None,
    method: Sequential | ParallelInTime = Sequential(),  # noqa: B008 (frozen)
) -> Filtered:
    """The exact filter of a linear-Gaussian state-space model: `vfe.filter`.

    **Arguments:** `y`: (*batch, time, k), NaN where missing; `inputs`: (*batch, time, r) or (time, r);
    `method`: the order of the work, `vfe.dynamics.Sequential()` or `vfe.dynamics.ParallelInTime()`.

    **Raises:** `ValueError` for shapes that do not fit; `vfe.DivergenceError` with the time at which the
    numbers left the range of float64.
    """
    return _answer("filter", _filter, model, y, inputs, method)


@smooth_verb.register
def smooth_state_space(
    model: StateSpace,
    y: Any,
    *,
    inputs: Any = None,
    method: Sequential | ParallelInTime = Sequential(),  # noqa: B008 (frozen)
) -> Smoothed:
    """The exact smoother of a linear-Gaussian state-space model: `vfe.smooth`. As `filter_state_space`."""
    return _answer("smooth", _smooth, model, y, inputs, method)


def _answer(word: str, function: Callable, model: StateSpace, y: Any, inputs: Any, method: Any) -> Any:
    if type(method) not in SCHEMES:
        raise TypeError(
            f"{word}: got method={method!r}; wanted vfe.dynamics.Sequential() or "
            "vfe.dynamics.ParallelInTime()."
        )
    with jax.enable_x64(True):
        y, inputs = _checked(word, model, y, inputs)
        found = function(model, y, inputs, type(method))
        surprise = found.surprise
        if not isinstance(surprise, Tracer):
            _check_finite(word, np.asarray(surprise))
    return released(found)


def _checked(word: str, model: StateSpace, y: Any, inputs: Any) -> tuple[Array, Any]:
    """The data as float64 arrays of shapes that fit."""
    k, r = model.observation.shape[-2], model.transition_input.shape[-1]
    y = double(f"{word}: y", y)
    if y.ndim < 2 or y.shape[-1] != k:
        hint = " Write y[:, None] for one observed element." if k == 1 and y.ndim == 1 else ""
        raise ValueError(
            f"{word}: y has shape {y.shape}; wanted (*batch, time, {k}), as observation has {k} rows.{hint}"
        )
    if y.shape[-2] < 1:
        raise ValueError(f"{word}: y has no samples; wanted at least one.")
    if model.length not in (None, y.shape[-2]):
        raise ValueError(
            f"{word}: y has {y.shape[-2]} samples, and the matrices of the model {model.length}; "
            "wanted the same number."
        )
    infinite = np.zeros((0, 2)) if isinstance(y, Tracer) else np.argwhere(np.isinf(np.asarray(y)))
    if len(infinite):
        where = tuple(int(i) for i in infinite[0])
        raise ValueError(f"{word}: y is infinite at {where}; wanted numbers, or NaN where missing.")
    if inputs is None:
        if r:
            raise ValueError(f"{word}: the model has {r} inputs; give inputs= of shape (time, {r}).")
        return y, nothing(y.shape[-2])
    inputs = double(f"{word}: inputs", inputs)
    if inputs.shape not in ((y.shape[-2], r), (*y.shape[:-1], r)):
        raise ValueError(
            f"{word}: inputs have shape {inputs.shape}; wanted {(y.shape[-2], r)}"
            + (f" or {(*y.shape[:-1], r)}." if y.ndim > 2 else ".")
        )
    if not isinstance(inputs, Tracer) and not np.isfinite(np.asarray(inputs)).all():
        raise ValueError(f"{word}: inputs have values that are not finite; an input cannot be missing.")
    return y, inputs


@functools.cache
def nothing(count: int) -> np.ndarray:
    """The inputs of a model without any."""
    return np.zeros((count, 0))


def _check_finite(word: str, surprise: np.ndarray) -> None:
    bad = np.argwhere(~np.isfinite(surprise))
    if bad.size:
        *series, time = (int(i) for i in bad[0])
        of = f" of series {tuple(series)}" if series else ""
        raise DivergenceError(
            f"{word}: the surprise is not finite at sample {time}{of} (counted from 0): the covariance "
            "there is beyond float64. Check the scales of the covariances, and whether an unstable "
            "transition goes unobserved for long; raise observation_covariance if it is nearly zero."
        )


def _batched(function: Callable, y: Array, inputs: Array) -> Callable:
    """`function` of one series, over the leading axes of y."""
    for axis in range(y.ndim - 2):
        function = jax.vmap(function, in_axes=(0, 0 if inputs.ndim - axis > 2 else None))
    return function


def _moments(scheme: Any, model: StateSpace, y: Array, inputs: Array) -> tuple[Steps, Filtered]:
    steps = kalman.prepare(model, y, inputs)
    moments, surprise = scheme.filter_moments(model, steps)
    predicted = _observed(model, moments.predicted_mean, moments.predicted_covariance, inputs)
    found = Filtered(
        moments.mean,
        moments.covariance,
        moments.predicted_mean,
        moments.predicted_covariance,
        predicted,
        y - predicted.mean,
        surprise,
        y,
        None,
    )
    return steps, found


def _observed(model: StateSpace, mean: Array, covariance: Array, inputs: Array) -> Gaussian:
    """What y is under beliefs about the states, noise included."""
    offset = matvec(model.observation_input, inputs) + model.observation_offset
    spread = product(model.observation, covariance, transpose(model.observation))
    return Gaussian(
        matvec(model.observation, mean) + offset, symmetric(spread) + model.observation_covariance
    )


def _filter_one(scheme: Any, model: StateSpace, y: Array, inputs: Array) -> Filtered:
    return _moments(scheme, model, y, inputs)[1]


def _smooth_one(scheme: Any, model: StateSpace, y: Array, inputs: Array) -> Smoothed:
    steps, filtered = _moments(scheme, model, y, inputs)
    future = scheme.look_back(model, steps)
    mean, covariance, cross = scheme.smooth_moments(future)
    terms = kalman.path_terms(model, steps, future, mean, covariance)
    first = jnp.arange(y.shape[0]) == 0
    free_energy = FreeEnergy(
        observed={"observation": terms.observation},
        hidden={
            "initial": jnp.where(first, terms.state, 0.0),
            "dynamics": jnp.where(first, 0.0, terms.state),
        },
        entropies={
            "initial": jnp.where(first, terms.entropy, 0.0),
            "dynamics": jnp.where(first, 0.0, terms.entropy),
        },
        error=None,
        weight=jnp.asarray(1.0),
        kind=Kind.exact,
        shared=(),
        order=("initial", "dynamics", "observation"),
    )
    fitted = _observed(model, mean, covariance, inputs)
    return Smoothed(mean, covariance, cross, fitted, free_energy, filtered)


def _over(one: Callable, with_model: Callable) -> Callable:
    def function(model: StateSpace, y: Array, inputs: Array, method: type) -> Any:
        def single(y: Array, inputs: Array) -> Any:
            return one(SCHEMES[method], model, y, inputs)

        # The model has no leading axes of data: it joins the result outside of the map over them.
        return with_model(_batched(single, y, inputs)(y, inputs), model)

    return jax.jit(function, static_argnums=3)


def _filtered_by(found: Filtered, model: StateSpace) -> Filtered:
    return dataclasses.replace(found, model=model)


def _smoothed_by(found: Smoothed, model: StateSpace) -> Smoothed:
    return dataclasses.replace(found, filtered=_filtered_by(found.filtered, model))


_filter, _smooth = _over(_filter_one, _filtered_by), _over(_smooth_one, _smoothed_by)


def start(model: StateSpace) -> OnlineState:
    """Before the first sample: `StateSpace.init`."""
    with jax.enable_x64(True):
        return OnlineState(model.initial_mean, model.initial_covariance, jnp.zeros((), jnp.int64))


def advance(model: StateSpace, state: OnlineState, y: Any, inputs: Any) -> tuple[OnlineState, Now]:
    """One sample: `StateSpace.step`."""
    k = model.observation.shape[-2]
    with jax.enable_x64(True):
        y = double("step: y", y)
        if y.shape != (k,):
            raise ValueError(f"step: y has shape {y.shape}; wanted {(k,)}, one sample.")
        inputs = None if inputs is None else double("step: inputs", inputs)[None]
        y, inputs = _checked_step(model, state, y, inputs)
        state, now = _advance(model, state, y, inputs)
        if not isinstance(now.surprise, Tracer) and not np.isfinite(float(now.surprise)):
            raise DivergenceError(
                f"step: the surprise is not finite at sample {int(state.samples) - 1} (counted from 0): "
                "the covariance there is beyond float64; check the scales of the model's covariances."
            )
    return state, released(now)


def _checked_step(
    model: StateSpace, state: OnlineState, y: Array, inputs: Array | None
) -> tuple[Array, Array]:
    length = model.length
    if length is not None and not isinstance(state.samples, Tracer) and int(state.samples) >= length:
        raise ValueError(
            f"step: the matrices of the model have {length} steps, and this is sample {int(state.samples)} "
            "(counted from 0); give constant matrices, or longer ones."
        )
    constant = model if length is None else _at(model, jnp.zeros((), jnp.int64))
    return _checked("step", constant, y[None], inputs)


def _at(model: StateSpace, time: Array) -> StateSpace:
    """The model of one step, its matrices constant."""
    found = model
    for name, axes in TIMED.items():
        array = getattr(model, name)
        if array.ndim > axes:
            found = eqx.tree_at(lambda m, n=name: getattr(m, n), found, array[time])
    return found


@jax.jit
def _advance(model: StateSpace, state: OnlineState, y: Array, inputs: Array) -> tuple[OnlineState, Now]:
    here = _at(model, state.samples)
    steps = kalman.prepare(here, y, inputs)
    first = state.samples == 0
    moved = here.transition @ state.mean + steps.drive[0]
    wide = symmetric(here.transition @ state.covariance @ here.transition.T + steps.noise)
    mean = jnp.where(first, state.mean, moved)
    covariance = jnp.where(first, state.covariance, wide)
    after, spread, energy, _ = kalman.correct(
        mean, covariance, steps.observe[0], steps.error[0], steps.value[0]
    )
    surprise = 0.5 * (energy + steps.present[0] * kalman.LOG_2PI)
    predicted = jax.tree.map(lambda a: a[0], _observed(here, mean[None], covariance[None], inputs))
    now = Now(after, spread, mean, covariance, predicted, surprise)
    return OnlineState(after, spread, state.samples + 1), now


def forecast(filtered: Filtered, steps: int, inputs: Any) -> Forecast:
    """What comes after the series: `Filtered.forecast`."""
    model = filtered.model
    if model.length is not None:
        raise ValueError(
            "forecast: the matrices of this model vary in time, and those after the series are not known; "
            "append samples of NaN to y, give longer matrices, and use vfe.filter."
        )
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"forecast: got steps={steps!r}; wanted a whole number of at least 1.")
    with jax.enable_x64(True):
        *batch, _, k = filtered.y.shape
        y, inputs = _checked("forecast", model, jnp.full((*batch, steps, k), jnp.nan), inputs)
        last = filtered.mean[..., -1, :], filtered.covariance[..., -1, :, :]
        found = _forecast(model, *last, y, inputs)
    return released(found)


@jax.jit
def _forecast(model: StateSpace, mean: Array, covariance: Array, y: Array, inputs: Array) -> Forecast:
    def one(mean: Array, covariance: Array, inputs: Array) -> Forecast:
        drive = matvec(model.transition_input, inputs) + model.transition_offset

        def step(carry: tuple[Array, Array], drive: Array) -> tuple[Any, Any]:
            mean, covariance = carry
            wide = model.transition @ covariance @ model.transition.T + model.transition_covariance
            found = (model.transition @ mean + drive, symmetric(wide))
            return found, found

        _, (means, covariances) = jax.lax.scan(step, (mean, covariance), drive)
        return Forecast(Gaussian(means, covariances), _observed(model, means, covariances, inputs))

    function: Callable = one
    for axis in range(y.ndim - 2):
        function = jax.vmap(function, in_axes=(0, 0, 0 if inputs.ndim - axis > 2 else None))
    return function(mean, covariance, inputs)
