"""Data sets that share latents: one belief about them all, and its F per observation is descended."""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Float, PRNGKeyArray

from vfe.conditioning import Conditioned
from vfe.free_energy import FreeEnergy
from vfe.learning.natural import metric
from vfe.learning.perceiving import renewed, visited
from vfe.learning.shared import blended, narrowed, settled, widened
from vfe.learning.ways.base import AbstractMeasure, AbstractWay, Minibatch, Visit, live
from vfe.model import Model


@dataclasses.dataclass(frozen=True)
class SharedLatents(AbstractWay):
    """F / N of the data set, or of a minibatch that stands for it."""

    measure: AbstractMeasure

    def visit(self, batch: Minibatch) -> Visit:
        plan, data, store = batch.plan, batch.data, batch.store
        complete = batch.size == plan.whole
        old = store["belief"] if complete else narrowed(store["belief"], batch.index)

        def one(c: Conditioned, k: PRNGKeyArray, r: PRNGKeyArray, start: Any) -> tuple[Any, Array]:
            return visited(plan, renewed(plan, c, r), batch.family, k, start)

        belief, answered = data.over(one, batch.perceive_key, batch.renew_key, old)
        if complete:
            return Visit(belief, answered, {"belief": belief, "visits": store["visits"] + 1})
        # What is shared is believed on the strength of all visits, not of this minibatch alone.
        belief = blended(old, belief, store["visits"])
        belief = settled(data, belief, plan.solver, plan.settings, batch.perceive_key)
        return Visit(belief, answered, widened(store, batch.index, belief))

    def loss(
        self, batch: Minibatch, visit: Visit, model: Model, family: Any, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], tuple[FreeEnergy, Any]]:
        plan = batch.plan

        def one(c: Conditioned, k: PRNGKeyArray, r: PRNGKeyArray, held: Any) -> FreeEnergy:
            return self.measure.descended(plan, renewed(plan, c, r), family, held, k)

        found = live(batch, visit, model).over(one, key, batch.renew_key, visit.held)
        return found.total / plan.whole, (found, None)

    def completed(self, batch: Minibatch, visit: Visit, found: FreeEnergy, key: PRNGKeyArray) -> FreeEnergy:
        return found

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
        data = live(batch, visit, model_of(learned))
        keys = key, batch.renew_key
        whole = batch.size if batch.plan.whole is None else batch.plan.whole

        def average(total: Array) -> Array:
            return total / whole

        return metric(batch.plan, data, visit.held, keys, learned, model_of, average)
