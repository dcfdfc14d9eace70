"""The one loop of perception: a solver supplies `init` and `step`; the loop counts, tests and records."""

import abc
import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vfe.beliefs import Point
from vfe.conditioning import Conditioned
from vfe.declared import hidden_gaussians
from vfe.expectation import AbstractExpectation
from vfe.perception.objective import AbstractObjective, pose, pose_in_errors
from vfe.perception.status import Status


class Progress(eqx.Module):
    """Where a solver is: parameters, the objective and its gradient there, its own memory.

    `stalled`: no step lowers the objective any more. `number`: how many steps came before, which the loop
    says when it asks for one; in a loop over a batch it is the same for all observations.
    """

    vector: Float[Array, " m"]
    value: Float[Array, ""]
    gradient: Float[Array, " m"]
    stalled: Array
    memory: Any
    number: Array | int = 0


def move(
    objective: AbstractObjective,
    progress: Progress,
    vector: Array,
    memory: Any,
    stalled: Array | None = None,
) -> Progress:
    """Progress at new parameters, with the objective and its gradient evaluated there."""
    value, gradient = objective.evaluate(vector)
    return Progress(vector, value, gradient, progress.stalled if stalled is None else stalled, memory)


class AbstractSolver(eqx.Module):
    """How a step is made. Settings only; frozen.

    `monotone`: whether its steps are meant never to raise the objective; the loop then sees to it.
    """

    @property
    @abc.abstractmethod
    def monotone(self) -> bool:
        """Whether no step may raise the objective (beyond rounding)."""

    @abc.abstractmethod
    def pose(
        self, conditioned: Conditioned, belief: Any, expectation: AbstractExpectation, key: PRNGKeyArray
    ) -> tuple[AbstractObjective, Float[Array, " m"]]:
        """The objective in the coordinates this method works in, and those of the belief."""

    @abc.abstractmethod
    def check(self, conditioned: Conditioned, belief: Any) -> None:
        """Refuse a belief or a model the method cannot handle, naming what is in the way."""

    def limited(self, max_steps: int) -> "AbstractSolver":
        """The same method where at most so many steps will be made: it may prepare for fewer."""
        return self

    @abc.abstractmethod
    def init(self, objective: AbstractObjective, vector: Float[Array, " m"]) -> Any:
        """The solver's memory before the first step."""

    @abc.abstractmethod
    def step(self, objective: AbstractObjective, progress: Progress) -> Progress:
        """Where the solver is after one more step; see `move` and `Progress`."""


class AbstractBeliefSolver(AbstractSolver):
    """A method that moves the parameters of a belief."""

    def pose(
        self, conditioned: Conditioned, belief: Any, expectation: AbstractExpectation, key: PRNGKeyArray
    ) -> tuple[AbstractObjective, Float[Array, " m"]]:
        return pose(conditioned, belief, expectation, key)


class AbstractErrorSolver(AbstractSolver):
    """A method that moves standardised prediction errors: modes under Gaussian hidden nodes."""

    def pose(
        self, conditioned: Conditioned, belief: Any, expectation: AbstractExpectation, key: PRNGKeyArray
    ) -> tuple[AbstractObjective, Float[Array, " m"]]:
        return pose_in_errors(conditioned, belief, expectation, key)

    def check(self, conditioned: Conditioned, belief: Any) -> None:
        name = type(self).__name__
        if not isinstance(belief, Point):
            raise ValueError(
                f"{name} finds modes: got a {type(belief).__name__}; use belief=vfe.Laplace or vfe.Point, "
                "or solver=vfe.Descent()."
            )
        reason = hidden_gaussians(conditioned)
        if reason is not None:
            raise ValueError(f"{name}: {reason}; use solver=vfe.Descent().")


class Outcome(eqx.Module):
    """How a loop ended, for one observation.

    `trace`: the objective in nats at evenly spaced steps (see `stride`), the last value repeated;
    `gradient`: the largest element of what is left of it; `scale`: the largest it has been;
    `failed_state`: the first state of an enumerated node that has no answer, −1 where every one has.
    """

    status: Int[Array, "*batch"]
    steps: Int[Array, "*batch"]
    trace: Float[Array, "*batch points"]
    gradient: Float[Array, "*batch"]
    scale: Float[Array, "*batch"]
    failed_state: Int[Array, "*batch"]


TRACE_POINTS = 201


def stride_of(max_steps: int) -> int:
    """How many steps lie between two points of a trace."""
    return max(1, -(-max_steps // (TRACE_POINTS - 1)))


def run(
    objective: AbstractObjective,
    solver: AbstractSolver,
    vector: Float[Array, " m"],
    max_steps: int,
    rtol: float,
    atol: float,
    done: Array | int = 0,
) -> tuple[Float[Array, " m"], Outcome]:
    """Step until ‖gradient‖∞ ≤ atol + rtol · (the largest it has been), or until steps run out.

    `done`: how many of the `max_steps` were used before.
    """
    solver = solver.limited(max_steps)
    evaluate = jax.value_and_grad(objective.value)
    stride = stride_of(max_steps)
    points = -(-max_steps // stride) + 1
    value, gradient = evaluate(vector)
    first = Progress(vector, value, gradient, jnp.zeros((), bool), solver.init(objective, vector))
    dynamic, static = eqx.partition(first, eqx.is_array)
    size = largest(gradient)
    trace = jnp.full((points,), value)

    def finite(value: Array, gradient: Array) -> Array:
        return jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient))

    def going(carry: Any) -> Array:
        dynamic, steps, scale, _ = carry
        p = eqx.combine(dynamic, static)
        arrived = largest(p.gradient) <= atol + rtol * scale
        return ~arrived & ~p.stalled & (steps + done < max_steps) & finite(p.value, p.gradient)

    def body(carry: Any) -> Any:
        dynamic, steps, scale, trace = carry
        p = eqx.combine(dynamic, static)
        new = advance(objective, solver, p, steps)
        dynamic, _ = eqx.partition(new, eqx.is_array)
        steps = steps + 1
        index = jnp.arange(points)
        trace = jnp.where(index >= -(-steps // stride), new.value, trace)
        return dynamic, steps, jnp.maximum(scale, largest(new.gradient)), trace

    dynamic, steps, scale, trace = jax.lax.while_loop(
        going, body, (dynamic, jnp.zeros((), int), size, trace)
    )
    p = eqx.combine(dynamic, static)
    left = largest(p.gradient)
    status = jnp.where(
        ~finite(p.value, p.gradient),
        Status.diverged.value,
        jnp.where(
            left <= atol + rtol * scale,
            Status.converged.value,
            jnp.where(p.stalled, Status.precision.value, Status.max_steps.value),
        ),
    )
    return p.vector, Outcome(status, steps, trace, left, scale, jnp.full((), -1))


def advance(
    objective: AbstractObjective, solver: AbstractSolver, progress: Progress, number: Array
) -> Progress:
    """One step; where a method that is meant to descend would rise, it stays and has stalled."""
    new = solver.step(objective, dataclasses.replace(progress, number=number))
    if not solver.monotone:
        return new
    rises = ~descends(progress, new)
    vector, value, gradient = (
        jnp.where(rises, before, after)
        for before, after in (
            (progress.vector, new.vector),
            (progress.value, new.value),
            (progress.gradient, new.gradient),
        )
    )
    return Progress(vector, value, gradient, new.stalled | rises, new.memory)


def descends(before: Progress, after: Progress) -> Array:
    """Whether a step lowers the objective (or leaves it alone).

    Where two values agree up to rounding, the slopes at both ends tell: the change along a short step
    d is ½ (g₀ + g₁)ᵀ d, which has far more digits than the difference of the values.
    """
    slack = rounding(before.value)
    change = 0.5 * jnp.sum((before.gradient + after.gradient) * (after.vector - before.vector))
    clearly = after.value < before.value - slack
    return clearly | ((after.value <= before.value + slack) & (change <= 0))


def attempt(objective: AbstractObjective, progress: Progress, vector: Array) -> tuple[Progress, Array]:
    """Go to `vector` if the objective descends, and stay otherwise; and whether it went.

    One proposal a step: under vmap a search inside the step would make every observation wait for the
    one that searches longest.
    """
    trial = move(objective, progress, vector, progress.memory)
    accepted = descends(progress, trial)
    kept = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), trial, progress)
    return kept, accepted


def rounding(value: Array) -> Array:
    """How far two evaluations of an objective of this size may differ by rounding alone."""
    return 16 * jnp.finfo(value.dtype).eps * jnp.maximum(1.0, jnp.abs(value))


def largest(gradient: Array) -> Array:
    """‖gradient‖∞, by which stopping is decided."""
    return jnp.max(jnp.abs(gradient), initial=0.0)
