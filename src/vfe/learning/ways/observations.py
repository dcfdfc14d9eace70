"""Observations on their own: each is perceived, and the mean of their F is descended."""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Float, PRNGKeyArray

from vfe.conditioning import Conditioned
from vfe.free_energy import FreeEnergy
from vfe.learning.natural import metric
from vfe.learning.perceiving import relaxed, renewed, together, visited
from vfe.learning.store import put_rows, rows_of
from vfe.learning.ways.base import (
    AbstractMeasure,
    AbstractWay,
    Minibatch,
    Visit,
    filled_in,
    in_place,
    live,
    mean,
)
from vfe.model import Model


@dataclasses.dataclass(frozen=True)
class Observations(AbstractWay):
    """The mean of F over the observations that have an answer; `measure`: how F of one is taken."""

    measure: AbstractMeasure

    def visit(self, batch: Minibatch) -> Visit:
        plan, renewals = batch.plan, batch.each(batch.renew_key)
        beliefs, answered = perceived(batch)

        def hold(c: Conditioned, r: PRNGKeyArray, belief: Any) -> Any:
            return self.measure.hold(renewed(plan, c, r), belief)

        held = batch.data.over(hold, renewals, beliefs)
        store = batch.store
        if store is not None:
            store = {"belief": put_rows(store["belief"], batch.index, beliefs)}
        return Visit(held, answered, store, stand_ins=in_place(answered))

    def loss(
        self, batch: Minibatch, visit: Visit, model: Model, family: Any, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], tuple[FreeEnergy, Any]]:
        plan, put = batch.plan, visit.put

        def one(c: Conditioned, k: PRNGKeyArray, r: PRNGKeyArray, held: Any) -> FreeEnergy:
            return self.measure.descended(plan, renewed(plan, c, r), family, held, k)

        found = live(batch, visit, model).over(
            one, put(batch.each(key)), put(batch.each(batch.renew_key)), put(visit.held)
        )
        return mean(found.total, visit.answered), (found, None)

    def completed(self, batch: Minibatch, visit: Visit, found: FreeEnergy, key: PRNGKeyArray) -> FreeEnergy:
        plan = batch.plan

        def one(c: Conditioned, k: PRNGKeyArray, r: PRNGKeyArray, held: Any) -> FreeEnergy:
            return self.measure.at_rest(plan, renewed(plan, c, r), held, k)

        def again() -> FreeEnergy:
            return batch.data.over(one, batch.each(key), batch.each(batch.renew_key), visit.held)

        return filled_in(visit.answered, found, again)

    def stored(self, batch: Minibatch, visit: Visit, more: Any) -> Any:
        return visit.store

    def metric(
        self,
        batch: Minibatch,
        visit: Visit,
        learned: Any,
        model_of: Callable[[Any], Model],
        key: PRNGKeyArray,
    ) -> Callable[[Any], Any]:
        put = visit.put
        data = live(batch, visit, model_of(learned))
        keys = put(batch.each(key)), put(batch.each(batch.renew_key))

        def average(each: Array) -> Array:
            return mean(each, visit.answered)

        return metric(batch.plan, data, put(visit.held), keys, learned, model_of, average)


def perceived(batch: Minibatch) -> tuple[Any, Array]:
    """A belief about every observation: in one loop where all start afresh, else from what is kept."""
    plan, renewals = batch.plan, batch.each(batch.renew_key)
    if together(plan, batch.data):
        return relaxed(plan, fresh(batch), batch.perceive_key)

    def one(c: Conditioned, k: PRNGKeyArray, r: PRNGKeyArray, start: Any) -> tuple[Any, Array]:
        return visited(plan, renewed(plan, c, r), batch.family, k, start)

    old = None if batch.store is None else rows_of(batch.store["belief"], batch.index)
    return batch.data.over(one, batch.each(batch.perceive_key), renewals, old)


def fresh(batch: Minibatch) -> Conditioned:
    """The minibatch with its arrays passed through `augment`."""

    def one(c: Conditioned, r: PRNGKeyArray) -> tuple[dict[str, Array], dict[str, Array]]:
        c = renewed(batch.plan, c, r)
        return c.observed, c.masks

    observed, masks = batch.data.over(one, batch.each(batch.renew_key))
    return dataclasses.replace(batch.data, observed=observed, masks=masks)
