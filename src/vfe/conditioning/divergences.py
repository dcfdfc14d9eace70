"""How far the conditionals of one model are from those of another, at the values of one observation."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from vfe.conditioning.posterior import Conditioned, Energies, average, outer
from vfe.densities import divergence
from vfe.model import Model, NodeInfo


def divergences(
    conditioned: Conditioned,
    other: Model,
    names: tuple[str, ...],
    u: Float[Array, " n"],
    weigh: Callable[[tuple[str, ...]], Array] | None = None,
    probabilities: Mapping[str, Array] | None = None,
) -> Energies:
    """KL(p(node | parents) ‖ p_other(node | parents)) of some nodes, their parents at the coordinates u.

    As `Conditioned.energies`: averaged over the hidden discrete parents, in nats; zero for nodes that are
    not in `names`. Of observed nodes those elements count that are present.

    **Raises:** `ValueError` for densities without a closed form, naming the node.
    """
    model = conditioned.model

    def reduce(family: tuple[str, ...], table: Array, q: Mapping[str, Array]) -> Array:
        return average(weigh(family) if weigh is not None else outer(q, family), table)

    def measure(i: NodeInfo, values: Any, masks: Any, originals: Any, dummies: Any) -> Any:
        zero = jnp.zeros(())
        if i.name not in names:
            return zero, zero
        here, there = model.nodes[i.name], other.nodes[i.name]
        hidden = i.name in conditioned.hidden or i.name in conditioned.clamped
        mask = None if hidden else masks.get(i.name)
        parents = model.parent_values(i.name, values)
        try:
            if i.plate is None:
                found = divergence(here(*parents), there(*parents), mask)
            else:

                def member(mask: Array | None, *inner: Array) -> Array:
                    return divergence(here(*inner), there(*inner), mask)

                each = mask if mask is not None else jnp.ones(i.shape, bool)
                found = jnp.sum(model.over_members(i.name, member)(each, *parents))
        except ValueError as error:
            raise ValueError(f"node {i.name!r}: {error}.") from error
        return (zero, found) if hidden else (found, zero)

    return conditioned.at(u, reduce, dict(probabilities or {}), measure, jacobians=False)
