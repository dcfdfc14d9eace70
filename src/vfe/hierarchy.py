"""A chain of levels in one line."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from vfe.conditionals import AbstractConditional, Given, gaussian
from vfe.maps import MLP, learnable
from vfe.model import Model


def hierarchy(levels: Sequence[int | AbstractConditional], *, key: PRNGKeyArray | None = None) -> Model:
    """p(x, z₁ … z_n) = p(x | z₁) p(z₁ | z₂) … p(z_n): levels from the top down to the senses.

    The nodes are named z_n, …, z1, x, each the parent of the next.

    **Arguments:** `levels`: a node made without parents (`vfe.gaussian(top_down)`, …) or with
    `parents="above"` (which a table wants: `vfe.categorical(table, parents="above")`), or a number of
    elements: at the top a standard normal, below a Gaussian whose mean is a `vfe.MLP` of the level
    above and whose scale is learned; `key`: draws the weights where a level is a number.

    **Raises:** `ValueError` for fewer than two levels, parents already given, or a missing key.

    **Example:** `vfe.hierarchy([4, 16, 64], key=jax.random.key(0))`.
    """
    if len(levels) < 2:
        raise ValueError(f"hierarchy: got {len(levels)} levels; wanted at least 2, the senses last.")
    names = [f"z{i}" for i in range(len(levels) - 1, 0, -1)] + ["x"]
    nodes: dict[str, Any] = {}
    above: str | None = None
    for number, (name, level) in enumerate(zip(names, levels, strict=True)):
        parents = () if above is None else (above,)
        if isinstance(level, int | np.integer) and not isinstance(level, bool):
            level = int(level)
            if level < 1:
                raise ValueError(f"hierarchy: level {number} has {level} elements; wanted at least 1.")
            if above is None:
                node = gaussian(jax.numpy.zeros(level))
            else:
                if key is None:
                    raise ValueError("hierarchy: levels given as numbers want key=, for the weights.")
                info = Model(**nodes).describe(above)
                if info.discrete:
                    raise ValueError(
                        f"hierarchy: level {number} is a number below a discrete level, whose states "
                        "are no quantities; give it as vfe.gaussian(vfe.Table(means))."
                    )
                size = info.size
                width = 2 * max(size, level)
                top_down = MLP(size, level, width, 1, key=jax.random.fold_in(key, number))
                node = gaussian(top_down, scale=learnable(1.0), parents=above)
        elif isinstance(level, AbstractConditional):
            if isinstance(level, Given) and above is not None:
                raise ValueError(
                    f"hierarchy: level {number} is an input, which nothing above it could reach; put it at "
                    "the top."
                )
            if level.parents and (level.parents != ("above",) or above is None):
                raise ValueError(
                    f"hierarchy: level {number} already has the parents {level.parents}; make it "
                    'without, or with parents="above" below the top: they follow from its place.'
                )
            node = dataclasses.replace(level, parents=parents)
        else:
            raise TypeError(
                f"hierarchy: level {number} is a {type(level).__name__}; wanted a number of elements "
                "or a node."
            )
        nodes[name] = node
        above = name
    return Model(**nodes)
