"""What stays the same from step to step of learning."""

import dataclasses
from typing import Any

from vfe.beliefs import GaussNewtonLaplace, Point
from vfe.learning.contrast import Contrast
from vfe.learning.parallel import ALONE, Placement
from vfe.perception.perceive import Settings


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that stays the same from step to step, hashable.

    `whole`: the observations of the data set, None where nobody knows; `keep`: whether beliefs are kept
    from visit to visit; `placement`: the devices that share a minibatch.
    """

    family: Any
    solver: Any
    settings: Settings
    gradient: Any
    contrast: Contrast | None
    optimiser: Any
    parameter_steps: int
    augment: Any
    whole: int | None
    keep: bool
    placement: Placement = ALONE

    @property
    def node(self) -> str:
        """The node whose labels are contrasted."""
        if self.contrast is None:
            raise ValueError("learn: labels without a contrast.")
        return self.contrast.node


def sought(family: Any) -> Any:
    """The family of what perception looks for and learning keeps.

    Of a GaussNewtonLaplace belief that is its mode: the curvature there follows from it.
    """
    return Point if family is GaussNewtonLaplace else family
