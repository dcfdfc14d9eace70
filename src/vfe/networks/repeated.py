"""Layers that repeat, as one: compiling takes as long for a hundred levels as for one."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array


class Repeated(eqx.Module):
    """g_L ∘ … ∘ g_1 for layers of one kind that keep the shape, their arrays stacked on a leading axis.

    As a layer of a network its L levels become one node (see `vfe.cascade`) whose value has an axis over
    them; called like any other layer it is the pass through all of them without noise.

    **Arguments:** the layers, alike but for the numbers in their arrays.

    **Raises:** `ValueError` for no layers, or layers that are not alike.

    **Example:** `vfe.networks.Repeated([vfe.networks.Dense(jnp.eye(3), jnp.zeros(3), jnp.tanh)] * 20)`.
    """

    layers: Any

    def __init__(self, layers: Sequence[Callable[[Array], Array]]) -> None:
        layers = list(layers)
        if not layers:
            raise ValueError("Repeated: no layers; wanted at least one.")
        for number, layer in enumerate(layers):
            if not alike(layers[0], layer):
                raise ValueError(
                    f"Repeated: layer {number} ({type(layer).__name__}) is not like layer 0 "
                    f"({type(layers[0]).__name__}): wanted the same kind, shapes and settings."
                )
        if not any(map(eqx.is_array, jax.tree.leaves(layers[0]))):
            raise ValueError(
                f"Repeated: the layers ({type(layers[0]).__name__}) have no JAX arrays to stack; wanted "
                "modules with parameters."
            )
        static = eqx.partition(layers[0], eqx.is_array)[1]
        arrays = [eqx.filter(layer, eqx.is_array) for layer in layers]
        self.layers = eqx.combine(jax.tree.map(lambda *a: jnp.stack(a), *arrays), static)

    @property
    def levels(self) -> int:
        """How many layers there are."""
        return jax.tree.leaves(eqx.filter(self.layers, eqx.is_array))[0].shape[0]

    def __call__(self, z: Array) -> Array:
        arrays, static = eqx.partition(self.layers, eqx.is_array)

        def down(z: Array, layer: Any) -> tuple[Array, None]:
            return eqx.combine(layer, static)(z), None

        return jax.lax.scan(down, z, arrays)[0]


class FromLast(eqx.Module):
    """g(z_L): the layer below repeated levels reads the last of them."""

    inner: Callable[[Array], Array]

    def __call__(self, z: Array) -> Array:
        return self.inner(z[-1])


def alike(one: Any, other: Any) -> bool:
    """Whether two layers differ in the numbers of their arrays alone."""
    (a, here), (b, there) = (eqx.partition(layer, eqx.is_array) for layer in (one, other))
    if jax.tree.structure(a) != jax.tree.structure(b) or not eqx.tree_equal(here, there):
        return False
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(x.shape == y.shape and x.dtype == y.dtype for x, y in pairs)


def gathered(layers: Sequence[Any], at_least: int) -> list[Any]:
    """The same layers with every run of `at_least` or more alike ones as one `Repeated`."""
    runs: list[list[Any]] = []
    for layer in layers:
        if runs and alike(runs[-1][0], layer):
            runs[-1].append(layer)
        else:
            runs.append([layer])
    found: list[Any] = []
    for run in runs:
        found += [Repeated(run)] if len(run) >= at_least else run
    return found
