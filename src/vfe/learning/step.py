"""One step of learning: perceive a minibatch, then move the parameters."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray

from vfe.conditioning import Conditioned
from vfe.free_energy import FreeEnergy
from vfe.learning.plan import Plan, Strengths
from vfe.learning.shared import narrow
from vfe.learning.store import count_of, rows_of
from vfe.learning.trainable import joined
from vfe.learning.ways import Minibatch, way_of


class Report(eqx.Module):
    """What a step says of itself.

    `free_energy`: F before the parameters moved; `answered`: which observations got a belief; `sound`: of
    every learned array, in the order of `jax.tree.leaves`, whether the step left it finite.
    """

    free_energy: FreeEnergy
    answered: Array
    sound: Array


@eqx.filter_jit
def steps(
    plan: Plan,
    state: dict[str, Any],
    fixed: Any,
    conditioned: Conditioned,
    labels: Array | None,
    indices: Array,
    key: PRNGKeyArray,
    first: Array,
    strengths: Strengths,
) -> tuple[dict[str, Any], Report]:
    """Several steps in one call on arrays that the device holds, `indices` (steps, batch).

    Calling a compiled step costs a few milliseconds, which is more than the step of a small model takes.
    """

    def one(state: dict[str, Any], index: Array, key: PRNGKeyArray) -> tuple[dict[str, Any], Report]:
        if conditioned.repeats is not None:
            batch = narrow(conditioned, index)
        else:
            batch = dataclasses.replace(
                conditioned,
                observed=rows_of(conditioned.observed, index),
                masks=rows_of(conditioned.masks, index),
            )
        chosen = None if labels is None else labels[index]
        return step(plan, state, fixed, batch, chosen, index, key, strengths)

    return _one_after_the_other(plan, one, state, indices, key, first)


@eqx.filter_jit
def steps_on(
    plan: Plan,
    state: dict[str, Any],
    fixed: Any,
    batches: Conditioned,
    key: PRNGKeyArray,
    first: Array,
    strengths: Strengths,
) -> tuple[dict[str, Any], Report]:
    """Several steps in one call on minibatches brought for them: observed and masks (steps, batch, …)."""

    def one(state: dict[str, Any], arrays: Any, key: PRNGKeyArray) -> tuple[dict[str, Any], Report]:
        observed, masks = arrays
        batch = dataclasses.replace(batches, observed=observed, masks=masks)
        return step(plan, state, fixed, batch, None, jnp.arange(count_of(batch)), key, strengths)

    return _one_after_the_other(plan, one, state, (batches.observed, batches.masks), key, first)


def _one_after_the_other(
    plan: Plan, one: Any, state: dict[str, Any], each: Any, key: PRNGKeyArray, first: Array
) -> tuple[dict[str, Any], Report]:
    dynamic, static = eqx.partition(state, eqx.is_array)

    def body(dynamic: Any, now: Any) -> Any:
        here, number = now
        after, report = one(eqx.combine(dynamic, static), here, jax.random.fold_in(key, number))
        return plan.placement.everywhere(eqx.filter(after, eqx.is_array)), report

    numbers = first + jnp.arange(jax.tree.leaves(each)[0].shape[0])
    dynamic, report = jax.lax.scan(body, dynamic, (each, numbers))
    return eqx.combine(dynamic, static), plan.placement.everywhere(report)


def step(
    plan: Plan,
    state: dict[str, Any],
    fixed: Any,
    data: Conditioned,
    labels: Array | None,
    index: Array,
    key: PRNGKeyArray,
    strengths: Strengths,
) -> tuple[dict[str, Any], Report]:
    """Perceive a minibatch, then move the parameters.

    `index`: which observations of the whole these are, for what is kept of them.
    """
    model, family = joined(state["learned"], fixed, plan.family)
    data = dataclasses.replace(
        data,
        model=model,
        observed=plan.placement.spread(data.observed),
        masks=plan.placement.spread(data.masks),
    )
    perceive_key, measure_key, renew_key, choose_key = jax.random.split(key, 4)
    batch = Minibatch(
        plan, data, family, index, labels, strengths, state["store"], perceive_key, renew_key, choose_key
    )
    way = way_of(plan, data)
    visit = way.visit(batch)

    def loss(learned: Any, key: PRNGKeyArray) -> tuple[Array, Any]:
        return way.loss(batch, visit, *joined(learned, fixed, plan.family), key)

    learned, memory = state["learned"], state["optimiser"]
    first, optimiser = None, optax.with_extra_args_support(plan.optimiser)
    for number in range(plan.parameter_steps):
        here = jax.random.fold_in(measure_key, number)
        (_, aside), slope = eqx.filter_value_and_grad(loss, has_aux=True)(learned, here)
        first = (*aside, here) if first is None else first
        slope = jax.tree.map(lambda a: jnp.where(jnp.any(visit.answered), a, 0.0), slope)

        def fisher(learned: Any = learned, here: PRNGKeyArray = here) -> Any:
            return way.metric(batch, visit, learned, lambda p: joined(p, fixed, plan.family)[0], here)

        update, memory = optimiser.update(slope, memory, learned, fisher=fisher)
        learned = eqx.apply_updates(learned, update)
    assert first is not None  # parameter_steps is at least 1
    found, more, here = first
    free_energy = way.completed(batch, visit, found, here)
    store = way.stored(batch, visit, more)
    new = {**state, "learned": learned, "optimiser": memory, "store": store}
    sound = [
        jnp.all(jnp.isfinite(after) | jnp.isinf(before))
        for before, after in zip(jax.tree.leaves(state["learned"]), jax.tree.leaves(learned), strict=True)
    ]
    return new, Report(jax.lax.stop_gradient(free_energy), visit.answered, jnp.stack(sound))
