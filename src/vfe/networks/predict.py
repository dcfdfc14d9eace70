"""What a network says of its output before it has seen any: the feed-forward pass."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vfe.conditioning import condition
from vfe.densities import expected
from vfe.model import Model


def predict(model: Model, inputs: Mapping[str, Any], node: str = "y") -> Array:
    """The mean of a node with every hidden level at its conditional mean: one pass from the top down.

    For a discrete node the probabilities of its states, (..., K). The hidden levels' spread is left out:
    `percept.prediction` averages over it.

    **Raises:** `ValueError` for unknown nodes and missing inputs.

    **Example:** `vfe.networks.predict(model, {"x": x}).argmax(-1)`.
    """
    model.require(node)
    if node in inputs:
        raise ValueError(f"predict: {node!r} is among the inputs; leave it out.")
    conditioned, batch = condition(model, inputs)
    if any(not conditioned.model.describe(n).given for n in conditioned.observed):
        raise ValueError(
            "predict: only inputs (vfe.given nodes) may be said; with observed nodes below, use "
            'vfe.perceive(...).prediction("' + node + '").'
        )
    found = _means(model, conditioned.observed, node)
    return found.reshape(*batch, *found.shape[1:])


@eqx.filter_jit
def _means(model: Model, inputs: dict[str, Array], node: str) -> Array:
    def one(values: dict[str, Array]) -> Array:
        values = dict(values)
        for info in model.info:
            if info.name in values:
                continue
            density = model.density(info.name, values)
            if info.name == node:
                return expected(density)
            values[info.name] = jnp.asarray(density.mean)
        raise AssertionError("the node is in the model")

    return jax.vmap(one)(inputs)
