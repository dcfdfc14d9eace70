"""β · complexity − accuracy of the encoder's belief; F is reported."""

from typing import Any

from jaxtyping import Array, Float, PRNGKeyArray

from vfe.free_energy import FreeEnergy
from vfe.learning.ways.base import AbstractWay, Minibatch, Visit, mean
from vfe.learning.ways.encoded import encoded_free_energy, unperceived
from vfe.model import Model


class TemperedObservations(AbstractWay):
    """The mean of F + (β − 1) complexity over the minibatch."""

    def visit(self, batch: Minibatch) -> Visit:
        return unperceived(batch)

    def loss(
        self, batch: Minibatch, visit: Visit, model: Model, family: Any, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], tuple[FreeEnergy, Any]]:
        keys = batch.each(key), batch.each(batch.renew_key)
        found = encoded_free_energy(batch, model, family, *keys)
        tempered = found.total + (batch.strengths.beta - 1.0) * found.complexity
        return mean(tempered, visit.answered), (found, None)

    def completed(self, batch: Minibatch, visit: Visit, found: FreeEnergy, key: PRNGKeyArray) -> FreeEnergy:
        return found

    def stored(self, batch: Minibatch, visit: Visit, more: Any) -> Any:
        return visit.store
