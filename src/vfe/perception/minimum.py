"""Descent to a minimum: where steps end at a saddle, it is left along its most negative curvature."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vfe.perception.loop import AbstractSolver, Outcome, run, stride_of
from vfe.perception.objective import AbstractObjective
from vfe.perception.status import Status

ESCAPES = 2


def run_to_minimum(
    objective: AbstractObjective, solver: AbstractSolver, vector: Array, limits: tuple[int, float, float]
) -> tuple[Array, Outcome]:
    """Run, and where that ends at a saddle leave it and run on, at most `ESCAPES` times."""

    def going(carry: Any) -> Array:
        number, _, _, moved = carry
        return (number <= ESCAPES) & moved

    def once(carry: Any) -> Any:
        number, vector, before, _ = carry
        vector, outcome = run(objective, solver, vector, *limits, done=before.steps)
        both = _joined(before, outcome, stride_of(limits[0]))
        outcome = jax.tree.map(lambda a, b: jnp.where(number == 0, a, b), outcome, both)
        stopped = outcome.status == Status.converged.value
        stopped |= outcome.status == Status.precision.value
        again = stopped & (number < ESCAPES) & (outcome.steps < limits[0])
        away = jax.lax.cond(again, lambda v: _escape(objective, v), lambda v: v, vector)
        return number + 1, away, outcome, jnp.any(away != vector)

    nothing = ended(jnp.zeros((), vector.dtype), limits[0], Status.max_steps)
    first = (jnp.zeros((), int), vector, nothing, jnp.ones((), bool))
    _, vector, outcome, _ = jax.lax.while_loop(going, once, first)
    return vector, outcome


def _escape(objective: Any, vector: Array) -> Array:
    """Where to go on from a saddle: down its most negative curvature; from a minimum, nowhere."""
    curvature = jax.hessian(objective.value)(vector)
    values, directions = jnp.linalg.eigh(0.5 * (curvature + curvature.T))
    saddle = values[0] <= 0
    length = 1.0 / jnp.sqrt(jnp.maximum(jnp.abs(values[0]), 1e-3 * jnp.abs(values[-1])))
    moves = jnp.asarray([1.0, -1.0, 0.1, -0.1, 0.01, -0.01], vector.dtype) * length
    trials = vector + moves[:, None] * directions[:, 0]
    energies = jax.vmap(objective.value)(trials)
    energies = jnp.where(jnp.isfinite(energies), energies, jnp.inf)
    best = jnp.argmin(energies)
    # A flat minimum has no curvature either: there, no trial is lower.
    return jnp.where(saddle & (energies[best] < objective.value(vector)), trials[best], vector)


def _joined(first: Outcome, then: Outcome, stride: int) -> Outcome:
    """Two stretches of one perception: steps add up, and the trace ends where the second ended."""
    late = jnp.arange(first.trace.shape[-1]) > -(-first.steps // stride)
    trace = jnp.where(late, then.trace[-1], first.trace).at[-1].set(then.trace[-1])
    return Outcome(
        then.status, first.steps + then.steps, trace, then.gradient, then.scale, then.failed_state
    )


def ended(value: Array, max_steps: int, status: Status) -> Outcome:
    """An outcome without a step."""
    points = -(-max_steps // stride_of(max_steps)) + 1
    zero = jnp.zeros((), value.dtype)
    trace = jnp.full((points,), value)
    return Outcome(jnp.asarray(status.value), jnp.zeros((), int), trace, zero, zero, jnp.full((), -1))
