"""The importance-weighted bound of the encoder's belief; F over the same draws is reported."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.averages import Terms, draws_of, over_draws
from vfe.conditioning import Conditioned
from vfe.free_energy import FreeEnergy, Kind
from vfe.learning.perceiving import encoded, renewed
from vfe.learning.plan import Plan
from vfe.learning.ways.base import AbstractWay, Minibatch, Visit, mean
from vfe.learning.ways.encoded import unperceived
from vfe.model import Model


@dataclasses.dataclass(frozen=True)
class ImportanceWeightedObservations(AbstractWay):
    """The mean over the minibatch of −ln Σ_k w_k mean p(x, z) / q(z) over `samples` draws."""

    samples: int

    def visit(self, batch: Minibatch) -> Visit:
        return unperceived(batch)

    def loss(
        self, batch: Minibatch, visit: Visit, model: Model, family: Any, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], tuple[FreeEnergy, Any]]:
        plan = batch.plan

        def one(c: Conditioned, k: PRNGKeyArray, r: PRNGKeyArray) -> tuple[Array, FreeEnergy]:
            return self._of_one(plan, renewed(plan, c, r), family, k)

        keys = batch.each(key), batch.each(batch.renew_key)
        bounds, found = dataclasses.replace(batch.data, model=model).over(one, *keys)
        return mean(bounds, visit.answered), (found, None)

    def _of_one(
        self, plan: Plan, c: Conditioned, family: Any, key: PRNGKeyArray
    ) -> tuple[Array, FreeEnergy]:
        draws = draws_of(encoded(plan, c, family, key), key, self.samples)
        terms, surprises = over_draws(c, draws)
        counts = surprises.shape[1] * surprises.shape[2]
        logs = jnp.log(draws.weights)[:, None, None] - surprises - jnp.log(counts)
        return -jax.nn.logsumexp(logs), _as_free_energy(c, terms)

    def completed(self, batch: Minibatch, visit: Visit, found: FreeEnergy, key: PRNGKeyArray) -> FreeEnergy:
        return found

    def stored(self, batch: Minibatch, visit: Visit, more: Any) -> Any:
        return visit.store


def _as_free_energy(c: Conditioned, terms: Terms) -> FreeEnergy:
    return FreeEnergy(
        terms.energies.observed,
        terms.energies.hidden,
        terms.entropies,
        terms.error,
        c.weight,
        Kind.monte_carlo,
        (),
        c.model.order,
    )
