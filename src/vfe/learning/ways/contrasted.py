"""Labels against their rivals: F of the true label, and the contrast between them."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.conditioning import Conditioned
from vfe.free_energy import FreeEnergy
from vfe.learning.contrast import Contrast
from vfe.learning.perceiving import renewed, visited
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
from vfe.learning.ways.encoded import Encoded
from vfe.model import Model


@dataclasses.dataclass(frozen=True)
class Contrasted(AbstractWay):
    """Beliefs are kept for every label; those of the true one and of some rivals are visited."""

    contrast: Contrast
    measure: AbstractMeasure

    def visit(self, batch: Minibatch) -> Visit:
        plan, contrast = batch.plan, self.contrast
        labels = chosen(contrast, batch)
        old = jax.tree.map(lambda a: a[batch.index[:, None], labels], batch.store["belief"])

        def one(c: Conditioned, k: PRNGKeyArray, r: PRNGKeyArray, labels: Array, start: Any) -> Any:
            c = renewed(plan, c, r)

            def at(label: Array, start: Any) -> Any:
                here = c.clamp(contrast.node, label)
                belief, good = visited(plan, here, batch.family, k, start)
                return belief, self.measure.hold(here, belief), good

            return eqx.filter_vmap(at)(labels, start)

        keys = batch.each(batch.perceive_key), batch.each(batch.renew_key)
        beliefs, held, good = batch.data.over(one, *keys, labels, old)
        where = (batch.index[:, None], labels)
        kept = jax.tree.map(lambda a, b: a.at[where].set(b), batch.store["belief"], beliefs)
        answered = jnp.all(good, -1)
        return Visit(held, answered, {**batch.store, "belief": kept}, labels, in_place(answered))

    def loss(
        self, batch: Minibatch, visit: Visit, model: Model, family: Any, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], tuple[FreeEnergy, Any]]:
        return contrasted(self.contrast, self.measure, batch, visit, model, family, key)

    def completed(self, batch: Minibatch, visit: Visit, found: FreeEnergy, key: PRNGKeyArray) -> FreeEnergy:
        plan = batch.plan
        assert visit.labels is not None  # `visit` chose them
        true, held = visit.labels[:, 0], jax.tree.map(lambda a: a[:, 0], visit.held)

        def one(c: Conditioned, k: PRNGKeyArray, r: PRNGKeyArray, label: Array, held: Any) -> FreeEnergy:
            c = renewed(plan, c, r).clamp(self.contrast.node, label)
            return self.measure.at_rest(plan, c, held, k)

        def again() -> FreeEnergy:
            return batch.data.over(one, batch.each(key), batch.each(batch.renew_key), true, held)

        return filled_in(visit.answered, found, again)

    def stored(self, batch: Minibatch, visit: Visit, more: Any) -> Any:
        return remembering(batch, visit, more)


@dataclasses.dataclass(frozen=True)
class ContrastedEncoder(AbstractWay):
    """The same with the encoder's belief for every label: only their F are kept, to choose rivals by."""

    contrast: Contrast

    def visit(self, batch: Minibatch) -> Visit:
        labels = chosen(self.contrast, batch)
        return Visit(None, jnp.ones(batch.size, bool), batch.store, labels)

    def loss(
        self, batch: Minibatch, visit: Visit, model: Model, family: Any, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], tuple[FreeEnergy, Any]]:
        return contrasted(self.contrast, Encoded(), batch, visit, model, family, key)

    def completed(self, batch: Minibatch, visit: Visit, found: FreeEnergy, key: PRNGKeyArray) -> FreeEnergy:
        return found

    def stored(self, batch: Minibatch, visit: Visit, more: Any) -> Any:
        return remembering(batch, visit, more)


def chosen(contrast: Contrast, batch: Minibatch) -> Array:
    """The labels compared for every observation, the true one first."""
    if batch.labels is None:
        raise ValueError("learn: a contrast without labels.")
    last = batch.store["last"][batch.index]
    return jax.vmap(contrast.choose)(batch.each(batch.choose_key), batch.labels, last)


def contrasted(
    contrast: Contrast,
    measure: AbstractMeasure,
    batch: Minibatch,
    visit: Visit,
    model: Model,
    family: Any,
    key: PRNGKeyArray,
) -> tuple[Float[Array, ""], tuple[FreeEnergy, Array]]:
    """The mean of F and of the contrast's term; beside it F of the true labels, and all F_l."""
    plan, put, answered = batch.plan, visit.put, visit.answered

    def each(c: Conditioned, k: PRNGKeyArray, r: PRNGKeyArray, labels: Array, held: Any) -> FreeEnergy:
        c = renewed(plan, c, r)

        def at(label: Array, held: Any) -> FreeEnergy:
            return measure.descended(plan, c.clamp(contrast.node, label), family, held, k)

        return eqx.filter_vmap(at)(labels, held)

    keys = put(batch.each(key)), put(batch.each(batch.renew_key))
    found = live(batch, visit, model).over(each, *keys, put(visit.labels), put(visit.held))
    totals = found.total
    true = jax.tree.map(lambda a: a[:, 0], found)
    terms = jax.vmap(contrast.term)(jnp.where(answered[:, None], totals, 0.0))
    weight = jnp.where(batch.strengths.contrast, contrast.weight, 0.0)
    return mean(true.total, answered) + weight * mean(terms, answered), (true, totals)


def remembering(batch: Minibatch, visit: Visit, totals: Array) -> dict[str, Any]:
    """What is kept, with the F_l just met."""
    where = (batch.index[:, None], visit.labels)
    store = batch.store["last"]
    last = jnp.where(visit.answered[:, None], totals, store[where])
    return {**visit.store, "last": store.at[where].set(last)}
