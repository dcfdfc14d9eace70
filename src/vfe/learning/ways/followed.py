"""F with the belief's own dependence on the parameters: the total derivative."""

import dataclasses
from typing import Any

from jaxtyping import PRNGKeyArray

from vfe.conditioning import Conditioned
from vfe.free_energy import FreeEnergy
from vfe.learning.perceiving import measured
from vfe.learning.plan import Plan
from vfe.learning.ways.base import AbstractMeasure
from vfe.perception.perceive import perceive_one


class Followed(AbstractMeasure):
    """The belief moves with the parameters, by the implicit function theorem."""

    def hold(self, c: Conditioned, belief: Any) -> Any:
        return belief

    def descended(
        self, plan: Plan, c: Conditioned, family: Any, held: Any, key: PRNGKeyArray
    ) -> FreeEnergy:
        # At the belief found, one step more is enough to attach its derivative.
        near = dataclasses.replace(plan.settings, max_steps=1)
        return perceive_one(c, family, plan.solver, near, key, held)[1]

    def at_rest(self, plan: Plan, c: Conditioned, held: Any, key: PRNGKeyArray) -> FreeEnergy:
        return measured(plan, c, held, key)
