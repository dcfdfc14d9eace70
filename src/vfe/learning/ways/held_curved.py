"""F at a GaussNewtonLaplace belief held fixed in z, with its curvature written out."""

from typing import Any

from jaxtyping import PRNGKeyArray

from vfe.conditioning import Conditioned
from vfe.curvature import curved
from vfe.free_energy import FreeEnergy
from vfe.learning.perceiving import measured
from vfe.learning.plan import Plan
from vfe.learning.ways.base import AbstractMeasure


class HeldCurved(AbstractMeasure):
    """q(z) = N(mode, curvature⁻¹) stays; for the beliefs that a contrast compares."""

    def hold(self, c: Conditioned, belief: Any) -> Any:
        return curved(c, belief.location)

    def descended(
        self, plan: Plan, c: Conditioned, family: Any, held: Any, key: PRNGKeyArray
    ) -> FreeEnergy:
        return measured(plan, c, held, key)

    def at_rest(self, plan: Plan, c: Conditioned, held: Any, key: PRNGKeyArray) -> FreeEnergy:
        return measured(plan, c, held, key)
