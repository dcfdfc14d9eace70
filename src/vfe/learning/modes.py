"""The modes that learning keeps in the place of GaussNewtonLaplace beliefs, and the beliefs around them."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from vfe.beliefs import GaussNewtonLaplace, Point
from vfe.conditioning import Conditioned
from vfe.curvature import curved
from vfe.model import Model

# Eight gigabytes in single precision.
MOST_NUMBERS = 2**31


class Modes(eqx.Module):
    """Modes of the observations, with what is observed of each.

    `contrasted`: the node for each of whose states there is a mode, if any.
    """

    points: Point
    conditioned: Conditioned
    contrasted: str | None = eqx.field(static=True)

    def beliefs(self, model: Model) -> GaussNewtonLaplace:
        """The beliefs around the modes, with the curvature that a model has there.

        **Raises:** `ValueError` where these would be too many numbers.
        """
        size, lead = self.points.layout.size, self.points.location.shape[:-1]
        total = int(jnp.size(self.points.location)) * size
        if total > MOST_NUMBERS:
            raise ValueError(
                f"belief: GaussNewtonLaplace beliefs of {lead[0]:,} observations about {size:,} hidden "
                f"elements would be {total:,} numbers (at most {MOST_NUMBERS:,}); their modes are in "
                "`modes`, and vfe.perceive(learned.model, some, belief=vfe.GaussNewtonLaplace) gives "
                "those of some observations."
            )
        return _curved(dataclasses.replace(self.conditioned, model=model), self.points, self.contrasted)


@eqx.filter_jit
def _curved(conditioned: Conditioned, points: Point, contrasted: str | None) -> GaussNewtonLaplace:
    if contrasted is None:
        return conditioned.over(lambda c, p: curved(c, p.location), points)

    def every(c: Conditioned, points: Point) -> GaussNewtonLaplace:
        def one(state: Array, p: Point) -> GaussNewtonLaplace:
            return curved(c.clamp(contrasted, state), p.location)

        return eqx.filter_vmap(one)(jnp.arange(points.location.shape[0]), points)

    return conditioned.over(every, points)
