"""One step of learning: perceive a minibatch, then move the parameters."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.beliefs import Amortised, GaussNewtonLaplace, Point
from vfe.conditioning import Conditioned
from vfe.curvature import flat_errors
from vfe.free_energy import FreeEnergy, default_expectation, free_energy_at, free_energy_of
from vfe.learning.contrast import Contrast
from vfe.learning.gradient import CentredNudging, StochasticTrace, TotalDerivative
from vfe.learning.nudging import Phases, centred_difference, find_phases
from vfe.learning.parallel import ALONE, Placement
from vfe.learning.shared import blended, narrow, narrowed, settled, widened
from vfe.learning.store import count_of, put_rows, rows_of
from vfe.learning.trainable import is_amortised, joined
from vfe.perception.feed_forward import FeedForward
from vfe.perception.loop import AbstractSolver
from vfe.perception.perceive import Settings, default_solver, perceive_one, start_belief
from vfe.perception.status import Status
from vfe.perception.together import relax


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that stays the same from step to step, hashable.

    `whole`: the observations of the data set, None where nobody knows; `keep`: whether beliefs are kept
    from visit to visit; `placement`: the devices that share a minibatch.
    """

    family: Any
    solver: Any
    settings: Settings
    gradient: Any
    contrast: Contrast | None
    optimiser: Any
    parameter_steps: int
    augment: Any
    whole: int | None
    keep: bool
    placement: Placement = ALONE

    @property
    def node(self) -> str:
        """The node whose labels are contrasted."""
        if self.contrast is None:
            raise ValueError("learn: labels without a contrast.")
        return self.contrast.node


def together(plan: Plan, conditioned: Conditioned) -> bool:
    """Whether a minibatch is perceived in one loop: modes that start afresh at each visit."""
    fresh = plan.family in (Point, GaussNewtonLaplace) and not plan.keep and plan.contrast is None
    stepwise = plan.solver is None or isinstance(plan.solver, AbstractSolver)
    return fresh and stepwise and conditioned.repeats is None and not conditioned.discrete


def relax_batch(plan: Plan, batch: Conditioned, key: PRNGKeyArray) -> tuple[Point, Array]:
    """The modes of a minibatch, without a derivative."""
    held = jax.tree.map(lambda a: jax.lax.stop_gradient(a) if eqx.is_array(a) else a, batch)
    one = _first(held)
    solver = plan.solver if plan.solver is not None else default_solver(one, Point.start(one, key))
    s = plan.settings
    belief, good = relax(
        held,
        solver,
        key,
        max_steps=s.max_steps,
        rtol=s.rtol,
        atol=s.atol,
        expectation=s.expectation,
    )
    return jax.lax.stop_gradient(belief), good


def _settle(plan: Plan, batch: Conditioned, key: PRNGKeyArray) -> tuple[Any, Array]:
    """The modes of a minibatch; both phases of it where it is nudged."""
    if not isinstance(plan.gradient, CentredNudging):
        return relax_batch(plan, batch, key)
    strength = plan.gradient.strength
    # The gradient that drives a phase is proportional to the strength, and so is what may be left of it.
    atol = plan.settings.atol * strength
    near = dataclasses.replace(plan, settings=dataclasses.replace(plan.settings, atol=atol))
    return find_phases(batch, lambda c: relax_batch(near, c, key), strength, atol, key)


def _first(batch: Conditioned) -> Conditioned:
    arrays = (batch.observed, batch.masks)
    observed, masks = jax.tree.map(lambda a: a[0], arrays)
    return dataclasses.replace(batch, observed=observed, masks=masks)


def _renewed(plan: Plan, c: Conditioned, key: PRNGKeyArray) -> Conditioned:
    """One observation with its arrays passed through `augment`."""
    if plan.augment is None:
        return c
    fresh = plan.augment(key, dict(c.observed))
    for name, array in fresh.items():
        if name not in c.observed or jnp.shape(array) != c.observed[name].shape:
            raise ValueError(
                f"learn: augment changed the shape of {name!r} to {jnp.shape(array)}; wanted that of "
                "one observation."
            )
    return dataclasses.replace(c, observed={**c.observed, **fresh})


def _visit(plan: Plan, c: Conditioned, family: Any, key: PRNGKeyArray, start: Any) -> tuple[Any, Array]:
    """The E step of one observation; where it fails the old belief stays."""
    held = jax.tree.map(lambda a: jax.lax.stop_gradient(a) if eqx.is_array(a) else a, c)
    if isinstance(plan.gradient, CentredNudging):
        # Its loss is that of the feed-forward pass, where the free phase is at rest.
        return start_belief(held, family, key), jnp.ones((), bool)
    belief, _, outcome = perceive_one(held, family, plan.solver, plan.settings, key, start)
    good = outcome.status < Status.indefinite.value
    start = start_belief(held, family, key) if start is None else start
    belief = jax.tree.map(lambda new, old: jnp.where(good, new, old), belief, start)
    return jax.lax.stop_gradient(belief), good


def _encoded(plan: Plan, c: Conditioned, family: Any, key: PRNGKeyArray) -> Any:
    """The encoder's belief; where a discrete node is enumerated, with q(l) ∝ exp(−F_l)."""
    if isinstance(family, Amortised):
        return family.start(c, key)
    return perceive_one(c, family, FeedForward(), plan.settings, key, None)[0]


class FixedErrors(eqx.Module):
    """A GaussNewtonLaplace belief as learning holds it: q(e) is fixed, and z moves with the parents."""

    errors: Float[Array, "*batch n"]


def _measure(plan: Plan, c: Conditioned, belief: Any, key: PRNGKeyArray) -> FreeEnergy:
    if isinstance(belief, FixedErrors):
        return free_energy_at(c, belief.errors, key if isinstance(plan.gradient, StochasticTrace) else None)
    belief = belief.free if isinstance(belief, Phases) else belief
    expectation = plan.settings.expectation or default_expectation(c, belief)
    return free_energy_of(c, belief, expectation, key)


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
    on: Array,
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
        return step(plan, state, fixed, batch, chosen, index, key, on)

    return _one_after_the_other(plan, one, state, indices, key, first)


@eqx.filter_jit
def steps_on(
    plan: Plan,
    state: dict[str, Any],
    fixed: Any,
    batches: Conditioned,
    key: PRNGKeyArray,
    first: Array,
) -> tuple[dict[str, Any], Report]:
    """Several steps in one call on minibatches brought for them: observed and masks (steps, batch, …)."""

    def one(state: dict[str, Any], arrays: Any, key: PRNGKeyArray) -> tuple[dict[str, Any], Report]:
        observed, masks = arrays
        batch = dataclasses.replace(batches, observed=observed, masks=masks)
        return step(plan, state, fixed, batch, None, jnp.arange(count_of(batch)), key, jnp.zeros((), bool))

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
    batch: Conditioned,
    labels: Array | None,
    index: Array,
    key: PRNGKeyArray,
    on: Array,
) -> tuple[dict[str, Any], Report]:
    """Perceive a minibatch, then move the parameters.

    `index`: which observations of the whole these are, for what is kept of them.
    """
    model, family = joined(state["learned"], fixed, plan.family)
    batch = dataclasses.replace(
        batch,
        observed=plan.placement.spread(batch.observed),
        masks=plan.placement.spread(batch.masks),
    )
    size = count_of(batch)
    whole = batch.repeats is not None
    store = state["store"]
    perceive_key, measure_key, renew_key, choose_key = jax.random.split(key, 4)
    many = (lambda k: k) if whole else (lambda k: jax.random.split(k, size))
    contrast = plan.contrast
    extra: dict[str, Any] = {}
    if contrast is not None and labels is not None:
        chosen = jax.vmap(contrast.choose)(many(choose_key), labels, store["last"][index])
        old = jax.tree.map(lambda a: a[index[:, None], chosen], store.get("belief"))

        def visit_labels(c: Conditioned, k: Any, r: Any, labels: Array, start: Any) -> Any:
            c = _renewed(plan, c, r)
            return eqx.filter_vmap(lambda l, s: _visit(plan, c.clamp(contrast.node, l), family, k, s))(
                labels, start
            )

        visit, extra = visit_labels, {"chosen": chosen}
    else:
        old = None if not store else store["belief"]
        if old is not None and not (whole and size == plan.whole):
            old = (narrowed if whole else rows_of)(old, index)

        def visit_one(c: Conditioned, k: Any, r: Any, start: Any) -> Any:
            return _visit(plan, _renewed(plan, c, r), family, k, start)

        visit = visit_one

    held = dataclasses.replace(batch, model=model)
    belief, good = None, jnp.ones(() if whole else (size,), bool)
    amortised = is_amortised(plan.family)
    measured = batch
    total = not amortised and isinstance(plan.gradient, TotalDerivative)
    if not amortised:
        arguments = (extra["chosen"], old) if contrast is not None else (old,)
        if together(plan, batch):
            fresh = held.over(lambda c, r: _renewed(plan, c, r).observed, many(renew_key))
            belief, good = _settle(plan, dataclasses.replace(held, observed=fresh), perceive_key)
        else:
            belief, good = held.over(visit, many(perceive_key), many(renew_key), *arguments)
    if whole and not amortised:
        # What is shared is believed on the strength of all visits, not of this minibatch alone.
        if size == plan.whole:
            store = {"belief": belief, "visits": store["visits"] + 1}
        else:
            belief = blended(old, belief, store["visits"])
            belief = settled(held, belief, plan.solver, plan.settings, perceive_key)
            store = widened(store, index, belief)
    visited = belief
    if plan.family is GaussNewtonLaplace and not total and contrast is None:

        def errors(c: Conditioned, r: Any, b: Any) -> FixedErrors:
            return FixedErrors(flat_errors(_renewed(plan, c, r), b.location))

        belief = held.over(errors, many(renew_key), visited)
    # An observation without an answer must not reach the gradient, not even times zero: another one
    # stands in for it, with no weight.
    fine = good if good.ndim <= 1 else jnp.all(good, -1)
    pick = None
    if not whole and not amortised:
        pick = jnp.where(fine, jnp.arange(size), jnp.argmax(fine))
        batch = dataclasses.replace(
            batch, observed=rows_of(batch.observed, pick), masks=rows_of(batch.masks, pick)
        )
    put = (lambda tree: tree) if pick is None else (lambda tree: rows_of(tree, pick))
    # At the belief found, one step more is enough to attach its derivative.
    near = dataclasses.replace(plan.settings, max_steps=1)

    def loss(learned: Any, key: PRNGKeyArray) -> tuple[Array, Any]:
        model, family = joined(learned, fixed, plan.family)
        live = dataclasses.replace(batch, model=model)
        if contrast is not None:

            def each(c: Conditioned, k: Any, r: Any, labels: Array, beliefs: Any) -> FreeEnergy:
                c = _renewed(plan, c, r)

                def held_at(label: Array, belief: Any) -> FreeEnergy:
                    here = c.clamp(plan.node, label)
                    if total:
                        return perceive_one(here, family, plan.solver, near, k, belief)[1]
                    belief = _encoded(plan, here, family, k) if amortised else belief
                    return _measure(plan, here, belief, k)

                return eqx.filter_vmap(held_at)(labels, beliefs)

            found = live.over(each, put(many(key)), put(many(renew_key)), put(extra["chosen"]), put(belief))
            totals = found.total
            true = jax.tree.map(lambda a: a[:, 0], found)
            terms = jax.vmap(contrast.term)(jnp.where(fine[:, None], totals, 0.0))
            value = _mean(true.total, fine) + jnp.where(on, contrast.weight, 0.0) * _mean(terms, fine)
            return value, (true, totals)
        if amortised:

            def encoded(c: Conditioned, k: Any, r: Any) -> FreeEnergy:
                c = _renewed(plan, c, r)
                return _measure(plan, c, _encoded(plan, c, family, k), k)

            found = live.over(encoded, many(key), many(renew_key))
        elif total:

            def one(c: Conditioned, k: Any, r: Any, b: Any) -> FreeEnergy:
                return perceive_one(_renewed(plan, c, r), family, plan.solver, near, k, b)[1]

            found = live.over(one, put(many(key)), put(many(renew_key)), put(belief))
        else:

            def one(c: Conditioned, k: Any, r: Any, b: Any) -> FreeEnergy:
                return _measure(plan, _renewed(plan, c, r), b, k)

            found = live.over(one, put(many(key)), put(many(renew_key)), put(belief))
        if isinstance(plan.gradient, CentredNudging):
            strength = plan.gradient.strength

            def difference(c: Conditioned, r: Any, b: Any) -> Array:
                return centred_difference(_renewed(plan, c, r), b, strength)

            return _mean(live.over(difference, put(many(renew_key)), put(belief)), fine), (found, None)
        if whole:
            return found.total / plan.whole, (found, None)
        return _mean(found.total, fine), (found, None)

    def completed(found: FreeEnergy, key: PRNGKeyArray) -> FreeEnergy:
        """F of every observation: where perception failed, that of the belief it had before."""
        if pick is None:
            return found

        def again() -> FreeEnergy:
            def one(c: Conditioned, k: Any, r: Any, label: Array | None, b: Any) -> FreeEnergy:
                c = _renewed(plan, c, r)
                return _measure(plan, c if label is None else c.clamp(plan.node, label), b, k)

            label, kept = None, belief
            if contrast is not None:
                label, kept = extra["chosen"][:, 0], jax.tree.map(lambda a: a[:, 0], belief)
            live = dataclasses.replace(measured, model=model)
            other = live.over(one, many(key), many(renew_key), label, kept)
            return jax.tree.map(lambda a, b: jnp.where(_like(fine, a), a, b), found, other)

        return jax.lax.cond(jnp.all(fine), lambda: found, again)

    learned, memory = state["learned"], state["optimiser"]
    first = None
    for number in range(plan.parameter_steps):
        here = jax.random.fold_in(measure_key, number)
        (_, aux), slope = eqx.filter_value_and_grad(loss, has_aux=True)(learned, here)
        first = (*aux, here) if first is None else first
        slope = jax.tree.map(lambda a: jnp.where(jnp.any(fine), a, 0.0), slope)
        update, memory = plan.optimiser.update(slope, memory, learned)
        learned = eqx.apply_updates(learned, update)
    assert first is not None  # parameter_steps is at least 1
    found, totals, here = first
    free_energy = completed(found, here)
    new = {**state, "learned": learned, "optimiser": memory}
    if contrast is not None:
        where = (index[:, None], extra["chosen"])
        last = jnp.where(fine[:, None], totals, store["last"][where])
        new["store"] = {"last": store["last"].at[where].set(last)}
        if not amortised:
            new["store"]["belief"] = jax.tree.map(lambda a, b: a.at[where].set(b), store["belief"], belief)
    elif whole:
        new["store"] = store
    elif store is not None:
        new["store"] = {"belief": put_rows(store["belief"], index, visited)}
    sound = [
        jnp.all(jnp.isfinite(after) | jnp.isinf(before))
        for before, after in zip(jax.tree.leaves(state["learned"]), jax.tree.leaves(learned), strict=True)
    ]
    return new, Report(jax.lax.stop_gradient(free_energy), fine, jnp.stack(sound))


def _like(flags: Array, array: Array) -> Array:
    return flags.reshape(*flags.shape, *[1] * (array.ndim - flags.ndim))


def _mean(values: Array, good: Array) -> Array:
    """The mean over the observations that have an answer."""
    return jnp.sum(jnp.where(good, values, 0.0)) / jnp.maximum(jnp.sum(good), 1)


@eqx.filter_jit
def watch_step(
    plan: Plan,
    learned: Any,
    fixed: Any,
    conditioned: Conditioned,
    labels: Array | None,
    store: Any,
    key: PRNGKeyArray,
) -> tuple[Any, FreeEnergy]:
    """Let beliefs about held-out data follow the parameters, and measure their F."""
    model, family = joined(learned, fixed, plan.family)
    live = dataclasses.replace(conditioned, model=model)
    whole = live.repeats is not None
    size = count_of(live)
    many = (lambda k: k) if whole else (lambda k: jax.random.split(k, size))
    one_key, two_key = jax.random.split(key)
    if labels is not None and not is_amortised(plan.family):
        node = plan.node

        def one(c: Conditioned, k: Any, m: Any, start: Any, label: Array) -> Any:
            c = c.clamp(node, label)
            belief, _ = _visit(plan, c, family, k, start)
            return belief, _measure(plan, c, belief, m)

        belief, found = live.over(one, many(one_key), many(two_key), store["belief"], labels)
        return plan.placement.everywhere(({"belief": belief}, found))
    if is_amortised(plan.family):

        def encoded(c: Conditioned, k: Any, label: Array | None) -> FreeEnergy:
            c = c if label is None else c.clamp(plan.node, label)
            return _measure(plan, c, _encoded(plan, c, family, k), k)

        return None, plan.placement.everywhere(live.over(encoded, many(two_key), labels))

    def follow(c: Conditioned, k: Any, m: Any, start: Any) -> Any:
        belief, _ = _visit(plan, c, family, k, start)
        return belief, _measure(plan, c, belief, m)

    belief, found = live.over(follow, many(one_key), many(two_key), store["belief"])
    return plan.placement.everywhere(({"belief": belief}, found))


@eqx.filter_jit
def remembered(
    plan: Plan,
    state: dict[str, Any],
    fixed: Any,
    conditioned: Conditioned,
    labels: Array | None,
    key: PRNGKeyArray,
) -> FreeEnergy:
    """F of the beliefs kept from the last visits, under the model as it is now."""
    model, family = joined(state["learned"], fixed, plan.family)
    live = dataclasses.replace(conditioned, model=model)
    whole = live.repeats is not None
    keys = key if whole else jax.random.split(key, count_of(live))
    belief = (state["store"] or {}).get("belief")
    if belief is not None and labels is not None:
        belief = jax.tree.map(lambda a: a[jnp.arange(labels.shape[0]), labels], belief)

    def one(c: Conditioned, k: Any, label: Array | None, belief: Any) -> FreeEnergy:
        c = c if label is None else c.clamp(plan.node, label)
        if belief is None:
            amortised = is_amortised(plan.family)
            belief = _encoded(plan, c, family, k) if amortised else _visit(plan, c, family, k, None)[0]
        return _measure(plan, c, belief, k)

    return plan.placement.everywhere(live.over(one, keys, labels, belief))
