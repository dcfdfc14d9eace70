"""What stays the same from step to step of learning."""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from vfe.beliefs import GaussNewtonLaplace, Point
from vfe.learning.contrast import Contrast
from vfe.learning.objective import Tempered
from vfe.learning.parallel import ALONE, Placement
from vfe.perception.perceive import Settings


class Strengths(NamedTuple):
    """What changes from epoch to epoch: whether the contrast counts yet, and β of `vfe.Tempered`."""

    contrast: Array
    beta: Array


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that stays the same from step to step, hashable.

    `whole`: the observations of the data set, None where nobody knows; `keep`: whether beliefs are kept
    from visit to visit; `placement`: the devices that share a minibatch; `hides`: the nodes of which
    `augment` leaves elements out.
    """

    family: Any
    solver: Any
    settings: Settings
    gradient: Any
    objective: Any
    contrast: Contrast | None
    optimiser: Any
    parameter_steps: int
    augment: Any
    whole: int | None
    keep: bool
    placement: Placement = ALONE
    hides: tuple[str, ...] = ()

    def strengths(self, epoch: int, epochs: int) -> Strengths:
        """Those of an epoch (counted from zero) of a course of `epochs`."""
        on = self.contrast is not None and epoch >= self.contrast.delay * epochs
        beta = self.objective.at(epoch) if isinstance(self.objective, Tempered) else 1.0
        return Strengths(jnp.asarray(on), jnp.asarray(beta, float))

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
