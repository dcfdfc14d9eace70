"""Centred nudging: the difference of the energies at two nudged equilibria is descended."""

import dataclasses
from typing import Any

from jaxtyping import Array, Float, PRNGKeyArray

from vfe.conditioning import Conditioned
from vfe.free_energy import FreeEnergy
from vfe.learning.gradient import CentredNudging
from vfe.learning.nudging import Phases, centred_difference, find_phases
from vfe.learning.perceiving import measured, relaxed, renewed
from vfe.learning.ways.base import AbstractWay, Minibatch, Visit, filled_in, in_place, live, mean
from vfe.learning.ways.observations import fresh
from vfe.model import Model


@dataclasses.dataclass(frozen=True)
class Nudged(AbstractWay):
    """(E_β(z_β) − E_−β(z_−β)) / 2β on average; F is reported at the feed-forward pass."""

    gradient: CentredNudging

    def visit(self, batch: Minibatch) -> Visit:
        plan, strength = batch.plan, self.gradient.strength
        # The gradient that drives a phase is proportional to the strength; so is what may be left of it.
        atol = plan.settings.atol * strength
        near = dataclasses.replace(plan, settings=dataclasses.replace(plan.settings, atol=atol))
        key = batch.perceive_key
        phases, answered = find_phases(fresh(batch), lambda c: relaxed(near, c, key), strength, atol, key)
        return Visit(phases, answered, batch.store, stand_ins=in_place(answered))

    def loss(
        self, batch: Minibatch, visit: Visit, model: Model, family: Any, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], tuple[FreeEnergy, Any]]:
        plan, put = batch.plan, visit.put
        here = live(batch, visit, model)
        renewals = put(batch.each(batch.renew_key))

        def difference(c: Conditioned, r: PRNGKeyArray, phases: Phases) -> Array:
            return centred_difference(renewed(plan, c, r), phases, self.gradient.strength)

        found = here.over(self._at_rest(batch), put(batch.each(key)), renewals, put(visit.held))
        value = mean(here.over(difference, renewals, put(visit.held)), visit.answered)
        return value, (found, None)

    def completed(self, batch: Minibatch, visit: Visit, found: FreeEnergy, key: PRNGKeyArray) -> FreeEnergy:
        keys = batch.each(key), batch.each(batch.renew_key)
        again = lambda: batch.data.over(self._at_rest(batch), *keys, visit.held)  # noqa: E731
        return filled_in(visit.answered, found, again)

    def stored(self, batch: Minibatch, visit: Visit, more: Any) -> Any:
        return visit.store

    def _at_rest(self, batch: Minibatch) -> Any:
        def one(c: Conditioned, k: PRNGKeyArray, r: PRNGKeyArray, phases: Phases) -> FreeEnergy:
            return measured(batch.plan, renewed(batch.plan, c, r), phases.free, k)

        return one
