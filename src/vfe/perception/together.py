"""Modes of many observations in one loop: what learning uses when beliefs start afresh at each visit."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from vfe.beliefs import Point
from vfe.conditioning import Conditioned
from vfe.expectation import AbstractExpectation, Enumerate
from vfe.perception.loop import AbstractSolver, Progress, advance, largest
from vfe.perception.objective import ErrorObjective, LastObjective


def relax(
    conditioned: Conditioned,
    solver: AbstractSolver,
    key: PRNGKeyArray,
    *,
    max_steps: int,
    rtol: float,
    atol: float,
    expectation: AbstractExpectation | None = None,
) -> tuple[Point, Array]:
    """The Point beliefs about a batch, from the feed-forward pass on, and which of them are finite.

    The same steps and the same stop per observation as in `perceive`: an observation that has arrived
    stays where it is, so its answer does not depend on the others. But there is one loop over the batch,
    so the solver's memory is never copied to hold it back, which for deep networks is most of the time; and
    where the last step ends, only the objective is evaluated, not its derivative.

    **Arguments:** `conditioned`: a batch, whose arrays have one leading axis; the rest as in `perceive`.
    """
    chosen = Enumerate() if expectation is None else expectation
    solver = solver.limited(max_steps)

    def start(one: Conditioned) -> tuple[Progress, Array]:
        belief = Point.start(one, key)
        solver.check(one, belief)
        objective, vector = solver.pose(one, belief, chosen, key)
        if isinstance(objective, ErrorObjective):
            # The feed-forward pass is where there are no errors; said so, it is made once, not twice.
            vector = jnp.zeros_like(vector)
        value, gradient = jax.value_and_grad(objective.value)(vector)
        memory = solver.init(objective, vector)
        return Progress(vector, value, gradient, jnp.zeros((), bool), memory), largest(gradient)

    def finite(p: Progress) -> Array:
        return jnp.isfinite(p.value) & jnp.all(jnp.isfinite(p.gradient), -1)

    def unfinished(p: Progress, scale: Array) -> Array:
        left = jax.vmap(largest)(p.gradient)
        return (left > atol + rtol * scale) & ~p.stalled & finite(p)

    def going(carry: Any) -> Array:
        dynamic, scale, steps = carry
        return (steps < max_steps - 1) & jnp.any(unfinished(eqx.combine(dynamic, static), scale))

    def onward(p: Progress, scale: Array, steps: Array, last: bool) -> Progress:
        """One step of all that have not arrived; the others stay where they are."""
        busy = unfinished(p, scale)

        def one(c: Conditioned, p: Progress) -> Progress:
            objective, _ = solver.pose(c, Point.start(c, key), chosen, key)
            return advance(LastObjective(objective) if last else objective, solver, p, steps)

        new = conditioned.over(one, p)
        keep = lambda a, b: jnp.where(busy.reshape(-1, *[1] * (a.ndim - 1)), a, b)  # noqa: E731
        return Progress(
            keep(new.vector, p.vector),
            keep(new.value, p.value),
            keep(new.gradient, p.gradient),
            keep(new.stalled, p.stalled),
            new.memory,
        )

    def body(carry: Any) -> Any:
        dynamic, scale, steps = carry
        new = onward(eqx.combine(dynamic, static), scale, steps, last=False)
        scale = jnp.maximum(scale, jax.vmap(largest)(new.gradient))
        return eqx.filter(new, eqx.is_array), scale, steps + 1

    first, scale = conditioned.over(start)
    dynamic, static = eqx.partition(first, eqx.is_array)
    dynamic, scale, steps = jax.lax.while_loop(going, body, (dynamic, scale, jnp.zeros((), int)))
    before: Progress = eqx.combine(dynamic, static)

    def ended(p: Progress) -> tuple[Array, Array]:
        return p.vector, finite(p)

    vectors, good = jax.lax.cond(
        (steps < max_steps) & jnp.any(unfinished(before, scale)),
        lambda: ended(onward(before, scale, steps, last=True)),
        lambda: ended(before),
    )

    def place(c: Conditioned, vector: Array) -> Point:
        objective, _ = solver.pose(c, Point.start(c, key), chosen, key)
        return objective.belief(vector)

    vectors = jnp.where(good[:, None], vectors, first.vector)
    return conditioned.over(place, vectors), good
