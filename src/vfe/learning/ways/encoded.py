"""F of the encoder's belief: model and encoder descend it together."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.conditioning import Conditioned
from vfe.free_energy import FreeEnergy
from vfe.learning.perceiving import encoded, measured, renewed
from vfe.learning.plan import Plan
from vfe.learning.ways.base import AbstractMeasure, AbstractWay, Minibatch, Visit, mean
from vfe.model import Model


class Encoded(AbstractMeasure):
    """The belief is a function of the data, the encoder's, and nothing is held."""

    def hold(self, c: Conditioned, belief: Any) -> Any:
        return belief

    def descended(
        self, plan: Plan, c: Conditioned, family: Any, held: Any, key: PRNGKeyArray
    ) -> FreeEnergy:
        return measured(plan, c, encoded(plan, c, family, key), key)

    def at_rest(self, plan: Plan, c: Conditioned, held: Any, key: PRNGKeyArray) -> FreeEnergy:
        raise AssertionError("an encoder always has an answer")


class EncodedObservations(AbstractWay):
    """The mean of F over the minibatch; nothing is perceived beforehand, and nothing is kept."""

    def visit(self, batch: Minibatch) -> Visit:
        return unperceived(batch)

    def loss(
        self, batch: Minibatch, visit: Visit, model: Model, family: Any, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], tuple[FreeEnergy, Any]]:
        keys = batch.each(key), batch.each(batch.renew_key)
        found = encoded_free_energy(batch, model, family, *keys)
        return mean(found.total, visit.answered), (found, None)

    def completed(self, batch: Minibatch, visit: Visit, found: FreeEnergy, key: PRNGKeyArray) -> FreeEnergy:
        return found

    def stored(self, batch: Minibatch, visit: Visit, more: Any) -> Any:
        return visit.store


class EncodedTogether(AbstractWay):
    """F of a data set that shares latents, per observation, under the encoder's belief about it all."""

    def visit(self, batch: Minibatch) -> Visit:
        return Visit(None, jnp.ones((), bool), batch.store)

    def loss(
        self, batch: Minibatch, visit: Visit, model: Model, family: Any, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], tuple[FreeEnergy, Any]]:
        found = encoded_free_energy(batch, model, family, key, batch.renew_key)
        return found.total / batch.size, (found, None)

    def completed(self, batch: Minibatch, visit: Visit, found: FreeEnergy, key: PRNGKeyArray) -> FreeEnergy:
        return found

    def stored(self, batch: Minibatch, visit: Visit, more: Any) -> Any:
        return visit.store


def unperceived(batch: Minibatch) -> Visit:
    """Nothing is perceived beforehand: the encoder always has an answer."""
    return Visit(None, jnp.ones(batch.size, bool), batch.store)


def encoded_free_energy(
    batch: Minibatch, model: Model, family: Any, keys: PRNGKeyArray, renewals: PRNGKeyArray
) -> FreeEnergy:
    """F of the minibatch under the encoder's beliefs."""
    plan = batch.plan

    def one(c: Conditioned, k: PRNGKeyArray, r: PRNGKeyArray) -> FreeEnergy:
        c = renewed(plan, c, r)
        return measured(plan, c, encoded(plan, c, family, k), k)

    return dataclasses.replace(batch.data, model=model).over(one, keys, renewals)
