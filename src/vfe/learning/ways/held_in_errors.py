"""F at a GaussNewtonLaplace belief held fixed in its errors: q(e) stays, and z moves with the parents."""

from typing import Any

from jaxtyping import Array, Float, PRNGKeyArray

from vfe.conditioning import Conditioned
from vfe.curvature import flat_errors
from vfe.free_energy import FreeEnergy, free_energy_at
from vfe.learning.plan import Plan
from vfe.learning.ways.base import AbstractMeasure


class HeldInErrors(AbstractMeasure):
    """½ ln |I + J Jᵀ| counts with its derivative at the errors: exact."""

    def hold(self, c: Conditioned, belief: Any) -> Float[Array, " n"]:
        return flat_errors(c, belief.location)

    def descended(
        self, plan: Plan, c: Conditioned, family: Any, held: Any, key: PRNGKeyArray
    ) -> FreeEnergy:
        return free_energy_at(c, held)

    def at_rest(self, plan: Plan, c: Conditioned, held: Any, key: PRNGKeyArray) -> FreeEnergy:
        return free_energy_at(c, held)


class HeldInErrorsByTrace(AbstractMeasure):
    """The same with that derivative estimated from one random direction."""

    def hold(self, c: Conditioned, belief: Any) -> Float[Array, " n"]:
        return flat_errors(c, belief.location)

    def descended(
        self, plan: Plan, c: Conditioned, family: Any, held: Any, key: PRNGKeyArray
    ) -> FreeEnergy:
        return free_energy_at(c, held, key)

    def at_rest(self, plan: Plan, c: Conditioned, held: Any, key: PRNGKeyArray) -> FreeEnergy:
        return free_energy_at(c, held)
