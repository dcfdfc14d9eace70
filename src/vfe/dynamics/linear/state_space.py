"""StateSpace: a linear-Gaussian model of a series, whose exact answers are the yardstick for the rest."""

from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from vfe.arrays import real_numbers

if TYPE_CHECKING:
    from vfe.dynamics.linear.smoothed import Now, OnlineState

ASYMMETRY = 1e-8
INDEFINITE = 1e-10


class StateSpace(eqx.Module):
    """A linear-Gaussian state-space model.

    z_1 ~ N(m1, P1);  z_t = A z_{t−1} + B u_t + b + N(0, Q), t = 2 … T;  y_t = C z_t + D u_t + d + N(0, R).
    The input u_t enters the step *into* t; m1 and P1 hold before the first sample.

    **Arguments:** (n states, k observed, r inputs; each is constant, or has a leading axis of time)
    `initial_mean`, `initial_covariance`: m1 (n,), P1 (n, n); `transition`: A (n, n);
    `transition_covariance`: Q (n, n), may be singular; `observation`: C (k, n);
    `observation_covariance`: R (k, k), positive definite; `transition_input`: B (n, r);
    `transition_offset`: b (n,); `observation_input`: D (k, r);
    `observation_offset`: d (k,). The units are yours; time counts samples. With an axis of time, the
    entry at t is that of the step into t, so that the first one of A, B, b and Q is not used.

    Everything is computed in float64, whether x64 is switched on in JAX or not; only derivatives with
    respect to the matrices (of `vfe.filter(model, y).log_evidence`, say) want `with jax.enable_x64(True):`.

    **Raises:** `ValueError` for shapes that do not fit (each is named), values that are not finite, and
    covariances that are not symmetric and positive (semi-)definite.

    **Example:**
    ```python
    model = vfe.StateSpace(                      # a level that wanders, seen with noise
        initial_mean=[0.0], initial_covariance=[[100.0]],
        transition=[[1.0]], transition_covariance=[[0.1]],
        observation=[[1.0]], observation_covariance=[[1.0]],
    )
    vfe.smooth(model, y).mean
    ```

    **Source:** Kalman 1960; Särkkä 2013, chapter 4.
    """

    initial_mean: Float[Array, " n"]
    initial_covariance: Float[Array, "n n"]
    transition: Float[Array, "*time n n"]
    transition_covariance: Float[Array, "*time n n"]
    observation: Float[Array, "*time k n"]
    observation_covariance: Float[Array, "*time k k"]
    transition_input: Float[Array, "*time n r"]
    transition_offset: Float[Array, "*time n"]
    observation_input: Float[Array, "*time k r"]
    observation_offset: Float[Array, "*time k"]

    def __init__(
        self,
        *,
        initial_mean: Any,
        initial_covariance: Any,
        transition: Any,
        transition_covariance: Any,
        observation: Any,
        observation_covariance: Any,
        transition_input: Any = None,
        transition_offset: Any = None,
        observation_input: Any = None,
        observation_offset: Any = None,
    ):
        given = {
            "initial_mean": initial_mean,
            "initial_covariance": initial_covariance,
            "transition": transition,
            "transition_covariance": transition_covariance,
            "observation": observation,
            "observation_covariance": observation_covariance,
            "transition_input": transition_input,
            "transition_offset": transition_offset,
            "observation_input": observation_input,
            "observation_offset": observation_offset,
        }
        with jax.enable_x64(True):
            arrays = {name: double(name, value) for name, value in given.items() if value is not None}
            n = _last(arrays, "initial_mean", 1)
            k = _last(arrays, "observation", 2, -2)
            r = _last(
                arrays, "transition_input" if transition_input is not None else "observation_input", 2
            )
            wanted = {
                "initial_mean": (n,),
                "initial_covariance": (n, n),
                "transition": (n, n),
                "transition_covariance": (n, n),
                "observation": (k, n),
                "observation_covariance": (k, k),
                "transition_input": (n, r),
                "transition_offset": (n,),
                "observation_input": (k, r),
                "observation_offset": (k,),
            }
            for name, shape in wanted.items():
                array = arrays.setdefault(name, jnp.zeros(shape, jnp.float64))
                timed = not name.startswith("initial") and array.ndim == len(shape) + 1
                if array.shape[timed:] != shape:
                    axis = "" if name.startswith("initial") else f", or {('time', *shape)}"
                    raise ValueError(
                        f"StateSpace: {name} has shape {array.shape}; wanted {shape}{axis}, for {n} states "
                        f"(initial_mean), {k} observed (observation) and {r} inputs."
                    )
                _check_finite(name, array)
                setattr(self, name, array)
            lengths = {
                name: arrays[name].shape[0]
                for name, shape in wanted.items()
                if arrays[name].ndim > len(shape)
            }
            if len(set(lengths.values())) > 1:
                raise ValueError(f"StateSpace: the lengths of the axes of time differ: {lengths}.")
            _check_covariance("initial_covariance", self.initial_covariance, definite=False)
            _check_covariance("transition_covariance", self.transition_covariance, definite=False)
            _check_covariance("observation_covariance", self.observation_covariance, definite=True)

    @property
    def length(self) -> int | None:
        """The number of samples, where some matrix has an axis of time; otherwise None."""
        for name, axes in TIMED.items():
            array = getattr(self, name)
            if array.ndim > axes:
                return array.shape[0]
        return None

    def init(self) -> "OnlineState":
        """The belief before the first sample, for `step`. Its size does not grow with time."""
        from vfe.dynamics.linear.exact_filtering import start

        return start(self)

    def step(self, state: "OnlineState", y: Any, inputs: Any = None) -> "tuple[OnlineState, Now]":
        """One sample arrives: the belief after it, equal to that of `vfe.filter` over the whole series.

        **Arguments:** `state`: of `init` or of the step before; `y`: (k,), NaN where missing; `inputs`:
        (r,), the inputs of this sample.

        **Returns:** the state to go on from, and the belief now: mean, covariance, surprise in nats.

        **Raises:** `ValueError` for shapes that do not fit, or after the last of matrices that vary.

        **Example:**
        ```python
        state = model.init()
        for value in y:
            state, now = model.step(state, value)
        ```
        """
        from vfe.dynamics.linear.exact_filtering import advance

        return advance(self, state, y, inputs)


TIMED = {
    "transition": 2,
    "transition_covariance": 2,
    "observation": 2,
    "observation_covariance": 2,
    "transition_input": 2,
    "transition_offset": 1,
    "observation_input": 2,
    "observation_offset": 1,
}


def double(name: str, value: Any) -> Array:
    """Numbers as a float64 array. **Raises:** `ValueError` that names what is no array of numbers."""
    if isinstance(value, jax.Array) and not jnp.iscomplexobj(value):
        return value if value.dtype == np.float64 else value.astype(jnp.float64)
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value)):
        return jnp.asarray(value, jnp.float64)
    return jnp.asarray(real_numbers(name, value))


def _last(arrays: dict[str, Array], name: str, axes: int, axis: int = -1) -> int:
    array = arrays.get(name)
    if array is None:
        return 0
    if array.ndim < axes:
        raise ValueError(
            f"StateSpace: {name} has shape {array.shape}; wanted {axes} axes"
            f"{' (or one more for time)' if axes > 1 else ''}."
        )
    return array.shape[axis]


def _check_finite(name: str, array: Array) -> None:
    if not isinstance(array, Tracer) and not np.isfinite(np.asarray(array)).all():
        raise ValueError(f"StateSpace: {name} has values that are not finite; wanted numbers.")


def _check_covariance(name: str, array: Array, definite: bool) -> None:
    if isinstance(array, Tracer) or not array.size:
        return
    values = np.asarray(array)
    scale = np.abs(values).max()
    apart = np.abs(values - np.swapaxes(values, -1, -2)).max()
    if apart > ASYMMETRY * scale:
        raise ValueError(
            f"StateSpace: {name} is not symmetric (its two triangles differ by up to {apart:.3g}); write "
            f"0.5 * ({name} + {name}.T) if that is what you mean."
        )
    smallest = np.linalg.eigvalsh(values).min()
    if definite and smallest <= 0:
        raise ValueError(
            f"StateSpace: {name} is not positive definite (smallest eigenvalue {smallest:.3g}); every "
            "observed element needs some noise, a small variance if it is nearly exact."
        )
    if smallest < -INDEFINITE * scale:
        raise ValueError(
            f"StateSpace: {name} is not positive semi-definite (smallest eigenvalue {smallest:.3g}); give "
            "a covariance, such as factor @ factor.T."
        )
