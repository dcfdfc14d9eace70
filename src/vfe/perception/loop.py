"""The one loop of perception: a solver supplies `init` and `step`; the loop counts, tests and records."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vfe.perception.objective import Objective
from vfe.perception.status import Status


class Progress(eqx.Module):
    """Where a solver is: parameters, the objective and its gradient there, its own memory.

    `stalled`: no step lowers the objective any more.
    """

    vector: Float[Array, " m"]
    value: Float[Array, ""]
    gradient: Float[Array, " m"]
    stalled: Array
    memory: Any


class AbstractSolver(eqx.Module):
    """How a step is made. Settings only; frozen.

    `monotone`: whether its steps are meant never to raise the objective; the loop then sees to it.
    """

    @property
    @abc.abstractmethod
    def monotone(self) -> bool:
        """Whether no step may raise the objective (beyond rounding)."""

    @abc.abstractmethod
    def check(self, objective: Objective, belief: Any) -> None:
        """Refuse a belief or a model the method cannot handle, naming what is in the way."""

    @abc.abstractmethod
    def init(self, objective: Objective, vector: Float[Array, " m"]) -> Any:
        """The solver's memory before the first step."""

    @abc.abstractmethod
    def step(self, objective: Objective, progress: Progress) -> tuple[Array, Any, Array]:
        """New parameters, new memory, and whether nothing lowers the objective any more."""


class Outcome(eqx.Module):
    """How a loop ended, for one observation.

    `trace`: the objective in nats at evenly spaced steps (see `stride`), the last value repeated;
    `gradient`: the largest element of what is left of it; `scale`: the largest it has been.
    """

    status: Int[Array, "*batch"]
    steps: Int[Array, "*batch"]
    trace: Float[Array, "*batch points"]
    gradient: Float[Array, "*batch"]
    scale: Float[Array, "*batch"]


TRACE_POINTS = 201


def stride_of(max_steps: int) -> int:
    """How many steps lie between two points of a trace."""
    return max(1, -(-max_steps // (TRACE_POINTS - 1)))


def run(
    objective: Objective,
    solver: AbstractSolver,
    vector: Float[Array, " m"],
    max_steps: int,
    rtol: float,
    atol: float,
) -> tuple[Float[Array, " m"], Outcome]:
    """Step until ‖gradient‖∞ ≤ atol + rtol · (the largest it has been), or until steps run out."""
    evaluate = jax.value_and_grad(objective.value)
    stride = stride_of(max_steps)
    points = -(-max_steps // stride) + 1
    value, gradient = evaluate(vector)
    first = Progress(vector, value, gradient, jnp.zeros((), bool), solver.init(objective, vector))
    dynamic, static = eqx.partition(first, eqx.is_array)
    size = _largest(gradient)
    trace = jnp.full((points,), value)

    def finite(value: Array, gradient: Array) -> Array:
        return jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient))

    def going(carry: Any) -> Array:
        dynamic, steps, scale, _ = carry
        p = eqx.combine(dynamic, static)
        done = _largest(p.gradient) <= atol + rtol * scale
        return ~done & ~p.stalled & (steps < max_steps) & finite(p.value, p.gradient)

    def body(carry: Any) -> Any:
        dynamic, steps, scale, trace = carry
        p = eqx.combine(dynamic, static)
        vector, memory, stalled = solver.step(objective, p)
        value, gradient = evaluate(vector)
        if solver.monotone:
            rises = ~descends(p, vector, value, gradient)
            keep = lambda new, old: jnp.where(rises, old, new)  # noqa: E731
            vector, value, gradient = jax.tree.map(
                keep, (vector, value, gradient), (p.vector, p.value, p.gradient)
            )
            stalled = stalled | rises
        new = Progress(vector, value, gradient, stalled, memory)
        dynamic, _ = eqx.partition(new, eqx.is_array)
        steps = steps + 1
        index = jnp.arange(points)
        trace = jnp.where(index >= -(-steps // stride), value, trace)
        return dynamic, steps, jnp.maximum(scale, _largest(gradient)), trace

    dynamic, steps, scale, trace = jax.lax.while_loop(
        going, body, (dynamic, jnp.zeros((), int), size, trace)
    )
    p = eqx.combine(dynamic, static)
    left = _largest(p.gradient)
    status = jnp.where(
        ~finite(p.value, p.gradient),
        Status.diverged.value,
        jnp.where(
            left <= atol + rtol * scale,
            Status.converged.value,
            jnp.where(p.stalled, Status.precision.value, Status.max_steps.value),
        ),
    )
    return p.vector, Outcome(status, steps, trace, left, scale)


def descends(progress: Progress, vector: Array, value: Array, gradient: Array) -> Array:
    """Whether a step lowers the objective (or leaves it alone).

    Where two values agree up to rounding, the slopes at both ends tell: the change along a short step
    d is ½ (g₀ + g₁)ᵀ d, which has far more digits than the difference of the values.
    """
    slack = rounding(progress.value)
    change = 0.5 * jnp.sum((progress.gradient + gradient) * (vector - progress.vector))
    return (value < progress.value - slack) | ((value <= progress.value + slack) & (change <= 0))


def rounding(value: Array) -> Array:
    """How far two evaluations of an objective of this size may differ by rounding alone."""
    return 16 * jnp.finfo(value.dtype).eps * jnp.maximum(1.0, jnp.abs(value))


def _largest(gradient: Array) -> Array:
    return jnp.max(jnp.abs(gradient), initial=0.0)
