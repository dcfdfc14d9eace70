"""F of beliefs refined from the encoder's guess: the model descends it, the encoder follows."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.beliefs import AbstractBelief
from vfe.conditioning import Conditioned
from vfe.free_energy import FreeEnergy, default_expectation
from vfe.learning.cross_entropy import cross_entropy
from vfe.learning.perceiving import encoded, measured, renewed, visited
from vfe.learning.ways.base import AbstractWay, Minibatch, Visit, filled_in, in_place, live, mean
from vfe.model import Model


@dataclasses.dataclass(frozen=True)
class RefinedObservations(AbstractWay):
    """Beliefs are perceived from the encoder's guess on and held; `distillation`: how much the encoder
    follows them rather than its own F."""

    distillation: float

    def visit(self, batch: Minibatch) -> Visit:
        plan = batch.plan

        def one(c: Conditioned, k: PRNGKeyArray, r: PRNGKeyArray) -> tuple[Any, Array]:
            c = renewed(plan, c, r)
            guess = jax.lax.stop_gradient(encoded(plan, c, batch.family, k))
            return visited(plan, c, batch.family.family, k, guess)

        keys = batch.each(batch.perceive_key), batch.each(batch.renew_key)
        beliefs, answered = batch.data.over(one, *keys)
        return Visit(beliefs, answered, batch.store, stand_ins=in_place(answered))

    def loss(
        self, batch: Minibatch, visit: Visit, model: Model, family: Any, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], tuple[FreeEnergy, Any]]:
        plan, put = batch.plan, visit.put

        def one(c: Conditioned, k: PRNGKeyArray, r: PRNGKeyArray, held: Any) -> Any:
            c = renewed(plan, c, r)
            guess = encoded(plan, c, family, k)
            # The encoder's own loss must not pull at the model.
            fixed = jax.tree.map(lambda a: jax.lax.stop_gradient(a) if eqx.is_array(a) else a, c)
            w, parts = self.distillation, jnp.zeros(())
            if w < 1:
                parts += (1 - w) * measured(plan, fixed, guess, k).total
            if w > 0:
                parts += w * self._followed(plan, c, held, guess, k)
            return measured(plan, c, held, k), parts

        arrays = put(batch.each(key)), put(batch.each(batch.renew_key)), put(visit.held)
        found, parts = live(batch, visit, model).over(one, *arrays)
        # F of the refined belief, which is held, reaches the model alone; the rest the encoder alone.
        return mean(found.total, visit.answered) + mean(parts, visit.answered), (found, None)

    def _followed(
        self, plan: Any, c: Conditioned, held: AbstractBelief, guess: AbstractBelief, key: PRNGKeyArray
    ) -> Array:
        """KL(refined ‖ guess) but for the refined belief's entropy, which does not move."""
        expectation = plan.settings.expectation or default_expectation(c, held)
        return cross_entropy(held, guess, getattr(expectation, "samples", 64), key)

    def completed(self, batch: Minibatch, visit: Visit, found: FreeEnergy, key: PRNGKeyArray) -> FreeEnergy:
        plan = batch.plan

        def one(c: Conditioned, k: PRNGKeyArray, r: PRNGKeyArray, held: Any) -> FreeEnergy:
            return measured(plan, renewed(plan, c, r), held, k)

        def again() -> FreeEnergy:
            return batch.data.over(one, batch.each(key), batch.each(batch.renew_key), visit.held)

        return filled_in(visit.answered, found, again)

    def stored(self, batch: Minibatch, visit: Visit, more: Any) -> Any:
        return visit.store
