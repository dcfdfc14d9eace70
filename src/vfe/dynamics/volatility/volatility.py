"""The hierarchical Gaussian filter: beliefs about states, and about how fast they change."""

import abc
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

# Predicted probabilities of a binary input are kept this far from 0 and 1.
EDGE = 1e-6


class AbstractInput(eqx.Module):
    """What the lowest state is seen through."""

    @abc.abstractmethod
    def predict(self, mean: Array, precision: Array) -> Array:
        """The input that is expected, from the prediction of the lowest state."""

    @abc.abstractmethod
    def learn(self, u: Array, mean: Array, precision: Array) -> tuple[Array, Array]:
        """Posterior mean and precision of the lowest state, from its prediction and one input."""

    @abc.abstractmethod
    def surprise(self, u: Array, mean: Array, precision: Array) -> Array:
        """−ln p(u | past) in nats."""

    @abc.abstractmethod
    def check(self, u: np.ndarray) -> None:
        """Refuse inputs that are not of this kind."""


class BinaryInput(AbstractInput):
    """u ∈ {0, 1}, p(u = 1 | x) = 1 / (1 + e^{−x}), x the lowest state.

    With p the probability expected, π = π̂ + p (1 − p) and μ = μ̂ + (u − p) / π.

    **Example:** `vfe.dynamics.BinaryInput()`.
    """

    def predict(self, mean: Array, precision: Array) -> Array:
        return jnp.clip(jax.nn.sigmoid(mean), EDGE, 1 - EDGE)

    def learn(self, u: Array, mean: Array, precision: Array) -> tuple[Array, Array]:
        p = self.predict(mean, precision)
        after = precision + p * (1 - p)
        return mean + (u - p) / after, after

    def surprise(self, u: Array, mean: Array, precision: Array) -> Array:
        p = self.predict(mean, precision)
        return -(u * jnp.log(p) + (1 - u) * jnp.log1p(-p))

    def check(self, u: np.ndarray) -> None:
        wrong = np.argwhere(~(np.isnan(u) | (u == 0) | (u == 1)))
        if wrong.size:
            where = tuple(int(i) for i in wrong[0])
            raise ValueError(
                f"filter: input {where} is {u[where]}; wanted 0, 1 or NaN (missing) for BinaryInput(), or "
                "input=vfe.dynamics.ContinuousInput(precision=...)."
            )


class ContinuousInput(AbstractInput):
    """u ~ N(x, 1 / precision), x the lowest state.

    With π_u the precision, π = π̂ + π_u and μ = μ̂ + (π_u / π) (u − μ̂).

    **Raises:** `ValueError` for a precision that is not positive.

    **Example:** `vfe.dynamics.ContinuousInput(precision=1e4)`.
    """

    precision: Float[Array, ""]

    def __init__(self, precision: Any) -> None:
        self.precision = _double("ContinuousInput: precision", precision)
        _positive("ContinuousInput: precision", self.precision)

    def predict(self, mean: Array, precision: Array) -> Array:
        return mean

    def learn(self, u: Array, mean: Array, precision: Array) -> tuple[Array, Array]:
        after = precision + self.precision
        return mean + self.precision / after * (u - mean), after

    def surprise(self, u: Array, mean: Array, precision: Array) -> Array:
        variance = 1 / precision + 1 / self.precision
        return 0.5 * (jnp.log(2 * jnp.pi * variance) + (u - mean) ** 2 / variance)

    def check(self, u: np.ndarray) -> None:
        if np.isinf(u).any():
            where = tuple(int(i) for i in np.argwhere(np.isinf(u))[0])
            raise ValueError(f"filter: input {where} is infinite; wanted numbers, or NaN where missing.")


class AbstractVolatilityUpdate(eqx.Module):
    """How the belief about a state's volatility follows from what the state did."""

    @abc.abstractmethod
    def __call__(
        self, tonic: Array, coupling: Array, elapsed: Array, before: Array, child: "Step", parent: "Step"
    ) -> tuple[Array, Array]:
        """Mean and precision of the parent; `before`: the child's precision at the step before."""


class StandardUpdate(AbstractVolatilityUpdate):
    """The precision first, at the predicted mean; it can become negative, where the quadratic form fails.

    With v = t e^{ω + κ μ̂}, w = v π̂_child and δ = (1 / π + (μ − μ̂)²) π̂ − 1 of the child,
    π = π̂ + ½ κ² w (w + (2 w − 1) δ) and μ = μ̂ + ½ κ w δ / π.

    **Example:** `vfe.dynamics.StandardUpdate()`.

    **Source:** Mathys et al. 2011, 2014.
    """

    def __call__(
        self, tonic: Array, coupling: Array, elapsed: Array, before: Array, child: "Step", parent: "Step"
    ) -> tuple[Array, Array]:
        w = elapsed * jnp.exp(tonic + coupling * parent.predicted_mean) * child.predicted_precision
        delta = _volatility_error(child, child.predicted_precision)
        precision = parent.predicted_precision + 0.5 * coupling**2 * w * (w + (2 * w - 1) * delta)
        return parent.predicted_mean + 0.5 * coupling * w * delta / precision, precision


class EnhancedUpdate(AbstractVolatilityUpdate):
    """The mean first, by the predicted precision, then the precision at that mean, which never falls.

    μ = μ̂ + ½ κ w δ / π̂; then, with v, w and δ anew at μ, π = π̂ + max(0, ½ κ² w (w + (2 w − 1) δ)).
    The update of the "enhanced" filter (eHGF), whose precisions stay positive.

    **Example:** `vfe.dynamics.EnhancedUpdate()`.

    **Source:** the eHGF of the HGF toolbox (Frässle et al. 2021, TAPAS).
    """

    def __call__(
        self, tonic: Array, coupling: Array, elapsed: Array, before: Array, child: "Step", parent: "Step"
    ) -> tuple[Array, Array]:
        w = elapsed * jnp.exp(tonic + coupling * parent.predicted_mean) * child.predicted_precision
        delta = _volatility_error(child, child.predicted_precision)
        mean = parent.predicted_mean + 0.5 * coupling * w * delta / parent.predicted_precision
        v = elapsed * jnp.exp(tonic + coupling * mean)
        expected = 1 / (1 / before + v)
        w = v * expected
        delta = _volatility_error(child, expected)
        gained = 0.5 * coupling**2 * w * (w + (2 * w - 1) * delta)
        return mean, parent.predicted_precision + jnp.maximum(0.0, gained)


class Step(eqx.Module):
    """One state's prediction and what came after it."""

    predicted_mean: Array
    predicted_precision: Array
    mean: Array
    precision: Array


def _volatility_error(child: Step, expected: Array) -> Array:
    """(1 / π + (μ − μ̂)²) π̂ − 1: how much more a state moved than was expected."""
    return (1 / child.precision + (child.mean - child.predicted_mean) ** 2) * expected - 1


class HierarchicalGaussianFilter(eqx.Module):
    """States that wander, each as fast as the state above it says.

    x_i(t) ~ N(x_i(t − τ), τ e^{ω_i + κ_i x_{i+1}}), the highest with e^{ω_n} alone; the input is seen
    through the lowest. One pass of closed-form updates of Gaussian beliefs, one per state (a quadratic
    approximation of the mean-field posterior).

    **Arguments:** for n states from the lowest up: `tonic_volatility`: ω (n,); `volatility_coupling`: κ
    (n − 1,), by default ones; `initial_mean` (n,), by default zeros; `initial_precision` (n,), by default
    ones; `input`: `vfe.dynamics.BinaryInput()` or `vfe.dynamics.ContinuousInput(precision=...)`; `update`:
    `vfe.dynamics.EnhancedUpdate()` (default) or `vfe.dynamics.StandardUpdate()`. What is called a filter of
    two or three levels has one or two states for a binary input (the input is a level), two or three for
    a continuous one.

    **Raises:** `ValueError` for lengths that do not fit, or precisions that are not positive.

    **Example:**
    ```python
    learner = vfe.dynamics.HierarchicalGaussianFilter(
        input=vfe.dynamics.BinaryInput(), tonic_volatility=[-3.0, -4.0]
    )
    beliefs = vfe.filter(learner, [1, 1, 0, 1, 0, 0, 0, 0])
    beliefs.predicted_input, beliefs.surprise
    ```

    **Source:** Mathys et al. 2011, 2014.
    """

    input: AbstractInput
    tonic_volatility: Float[Array, " n"]
    volatility_coupling: Float[Array, " n-1"]
    initial_mean: Float[Array, " n"]
    initial_precision: Float[Array, " n"]
    update: AbstractVolatilityUpdate

    def __init__(
        self,
        *,
        input: AbstractInput,
        tonic_volatility: Any,
        volatility_coupling: Any = None,
        initial_mean: Any = None,
        initial_precision: Any = None,
        update: AbstractVolatilityUpdate | None = None,
    ) -> None:
        name = "HierarchicalGaussianFilter"
        if not isinstance(input, AbstractInput):
            raise TypeError(f"{name}: got input={input!r}; wanted vfe.dynamics.BinaryInput() or the like.")
        self.input = input
        self.update = EnhancedUpdate() if update is None else update
        if not isinstance(self.update, AbstractVolatilityUpdate):
            raise TypeError(
                f"{name}: got update={update!r}; wanted vfe.dynamics.EnhancedUpdate() or StandardUpdate()."
            )
        self.tonic_volatility = _double(f"{name}: tonic_volatility", tonic_volatility)
        if self.tonic_volatility.ndim != 1 or not self.tonic_volatility.size:
            raise ValueError(
                f"{name}: tonic_volatility has shape {self.tonic_volatility.shape}; wanted (n,), a number "
                "for every state, from the lowest up."
            )
        n = self.tonic_volatility.size
        given = {
            "volatility_coupling": (volatility_coupling, n - 1, 1.0),
            "initial_mean": (initial_mean, n, 0.0),
            "initial_precision": (initial_precision, n, 1.0),
        }
        for field, (value, size, default) in given.items():
            array = _double(f"{name}: {field}", np.full(size, default) if value is None else value)
            if array.shape != (size,):
                raise ValueError(
                    f"{name}: {field} has shape {array.shape}; wanted {(size,)}, as there are {n} states."
                )
            setattr(self, field, array)
        _positive(f"{name}: initial_precision", self.initial_precision)

    @property
    def states(self) -> int:
        """How many states there are."""
        return self.tonic_volatility.shape[0]

    def step(self, mean: Array, precision: Array, u: Array, elapsed: Array) -> dict[str, Array]:
        """One input after another: predictions, then beliefs; a missing input leaves the predictions."""
        seen = ~jnp.isnan(u)
        value = jnp.where(seen, u, 0.0)
        above = jnp.append(self.volatility_coupling * mean[1:], 0.0)
        drift = elapsed * jnp.exp(self.tonic_volatility + above)
        expected = 1 / (1 / precision + drift)
        found: list[Step] = []
        for i in range(self.states):
            prediction = Step(mean[i], expected[i], mean[i], expected[i])
            if i == 0:
                after = self.input.learn(value, mean[0], expected[0])
            else:
                after = self.update(
                    self.tonic_volatility[i - 1],
                    self.volatility_coupling[i - 1],
                    elapsed,
                    precision[i - 1],
                    found[-1],
                    prediction,
                )
            new = [jnp.where(seen, a, b) for a, b in zip(after, (mean[i], expected[i]), strict=True)]
            found.append(Step(mean[i], expected[i], *new))
        return {
            "mean": jnp.stack([s.mean for s in found]),
            "precision": jnp.stack([s.precision for s in found]),
            "predicted_mean": mean,
            "predicted_precision": expected,
            "predicted_input": self.input.predict(mean[0], expected[0]),
            "surprise": jnp.where(seen, self.input.surprise(value, mean[0], expected[0]), 0.0),
        }

    def run(self, u: Float[Array, " time"], elapsed: Float[Array, " time"]) -> dict[str, Array]:
        """All inputs in turn, under `jax.lax.scan`."""

        def body(carry: tuple[Array, Array], now: tuple[Array, Array]) -> Any:
            found = self.step(*carry, *now)
            return (found["mean"], found["precision"]), found

        return jax.lax.scan(body, (self.initial_mean, self.initial_precision), (u, elapsed))[1]


def _double(name: str, value: Any) -> Array:
    """A float64 array of finite numbers, or whatever is being traced."""
    if isinstance(value, Tracer):
        return value
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: got {value!r}; wanted numbers.") from error
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: got {value!r}; wanted finite numbers.")
    return cast(Array, array)


def _positive(name: str, value: Any) -> None:
    if not isinstance(value, Tracer) and not (np.asarray(value) > 0).all():
        raise ValueError(f"{name} is {value}; wanted positive numbers.")
