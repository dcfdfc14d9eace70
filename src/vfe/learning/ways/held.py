"""F at a belief held fixed: ⟨∂E/∂θ⟩_q, the M step of EM."""

from typing import Any

from jaxtyping import PRNGKeyArray

from vfe.conditioning import Conditioned
from vfe.free_energy import FreeEnergy
from vfe.learning.perceiving import measured
from vfe.learning.plan import Plan
from vfe.learning.ways.base import AbstractMeasure


class Held(AbstractMeasure):
    """q(z) stays as perception found it."""

    def hold(self, c: Conditioned, belief: Any) -> Any:
        return belief

    def descended(
        self, plan: Plan, c: Conditioned, family: Any, held: Any, key: PRNGKeyArray
    ) -> FreeEnergy:
        return measured(plan, c, held, key)

    def at_rest(self, plan: Plan, c: Conditioned, held: Any, key: PRNGKeyArray) -> FreeEnergy:
        return measured(plan, c, held, key)
