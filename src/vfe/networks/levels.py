"""What the makers of networks share: layers that chain, levels between them, what is observed below."""

import inspect
import numbers
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vfe.cascade import Cascade, cascade
from vfe.conditionals import AbstractConditional, bernoulli, categorical, gaussian
from vfe.maps import Learnable
from vfe.networks.layers import Composed, identity
from vfe.networks.repeated import FromLast, Repeated

Layer = Callable[[Array], Array]

OUTPUTS = ("gaussian", "bernoulli", "categorical")


def chain_shapes(
    maker: str, layers: Sequence[Layer], shape: tuple[int, ...], above: str, word: str = "layer"
) -> list[tuple[int, ...]]:
    """The shapes that layers give one after the other; `above` says what the first one is applied to.

    **Raises:** `ValueError` for a layer that does not fit what is above it (both are named), gives no
    array of numbers, or is no function of one value: it keeps a state, or draws at random.
    """
    struct = jax.ShapeDtypeStruct(shape, jnp.result_type(float))
    before = f"{above} of shape {shape}"
    shapes = []
    for number, layer in enumerate(layers):
        name = f"{word} {number} ({_title(layer)})"
        if not callable(layer):
            raise TypeError(f"{maker}: {name} is not callable; wanted a function of one value.")
        for reason in _not_a_map(layer):
            raise ValueError(f"{maker}: {name} {reason}")
        try:
            found = eqx.filter_eval_shape(layer, struct)
        except Exception as error:
            raise ValueError(f"{maker}: {name} does not fit {before}: {error}") from error
        if not isinstance(found, jax.ShapeDtypeStruct) or not jnp.issubdtype(found.dtype, jnp.floating):
            kind = found.dtype if isinstance(found, jax.ShapeDtypeStruct) else type(found).__name__
            raise ValueError(f"{maker}: {name} gives {kind}; wanted one array of real numbers.")
        struct = found
        before = f"{name}, which gives shape {struct.shape}"
        shapes.append(tuple(struct.shape))
    return shapes


def as_shape(size: int | tuple[int, ...]) -> tuple[int, ...]:
    """A size, or a shape, as a shape."""
    return (int(size),) if isinstance(size, numbers.Integral) else tuple(size)  # pyright: ignore[reportArgumentType]


def _title(layer: Any) -> str:
    """The name of a layer in an error: its class, and what it is made of."""
    name = type(layer).__name__
    if isinstance(layer, Composed | eqx.nn.Sequential):
        parts = layer.parts if isinstance(layer, Composed) else layer.layers
        return f"{name}: {', '.join(map(_title, parts))}"
    return name if isinstance(layer, eqx.Module) else getattr(layer, "__name__", name)


def _not_a_map(layer: Any) -> Iterator[str]:
    """Why something inside a layer makes it no function of one value with parameters to learn."""

    def stop(part: Any) -> bool:
        return isinstance(part, eqx.nn.StatefulLayer | eqx.nn.Dropout | eqx.nn.StateIndex)

    for part in jax.tree.leaves(layer, is_leaf=stop):
        name = type(part).__name__
        if isinstance(part, eqx.nn.BatchNorm):
            yield (
                "contains a BatchNorm, whose output depends on the other observations of a batch and on "
                "a running state: the mean of a level must be a function of one observation's value. Use "
                "eqx.nn.GroupNorm, eqx.nn.LayerNorm or eqx.nn.RMSNorm."
            )
        elif isinstance(part, eqx.nn.SpectralNorm):
            yield "contains a SpectralNorm, which keeps a state; use eqx.nn.WeightNorm."
        elif isinstance(part, eqx.nn.StateIndex):
            yield "keeps a state, which the mean of a level cannot; leave the stateful part out."
        elif isinstance(part, eqx.nn.Dropout) and not part.inference and part.p != 0:
            yield (
                f"contains a {name}, which draws at random, and the mean of a level is a fixed function. "
                "Say the noise as the level's scale, or switch it off with "
                "eqx.nn.inference_mode(layer)."
            )
        for inside in _wrapped(part):
            yield (
                f"contains a function around a {type(inside).__name__}, whose parameters would be hidden "
                "from learning; write eqx.filter_vmap(...) instead of jax.vmap(...)."
            )


def _wrapped(part: Any) -> Iterator[eqx.Module]:
    """Modules with parameters inside what a transformation such as `jax.vmap` returned."""
    if isinstance(part, eqx.Module) or not hasattr(part, "__wrapped__"):
        return
    inner = inspect.unwrap(part)
    around = inspect.getclosurevars(inner).nonlocals.values() if inspect.isfunction(inner) else ()
    for found in (inner, *around):
        if isinstance(found, eqx.Module) and any(map(eqx.is_inexact_array, jax.tree.leaves(found))):
            yield found


def level_names(layers: Sequence[Layer], letter: str = "z") -> list[str]:
    """The names of the levels below these layers: z_n … z1, and "z9to2" for levels 9 to 2 in one node."""
    remaining = sum(map(levels_of, layers))
    found = []
    for layer in layers:
        count = levels_of(layer)
        one, several = f"{letter}{remaining}", f"{letter}{remaining}to{remaining - count + 1}"
        found.append(several if isinstance(layer, Repeated) else one)
        remaining -= count
    return found


def levels_of(layer: Layer) -> int:
    """How many levels a layer stands for."""
    return layer.levels if isinstance(layer, Repeated) else 1


def add_levels(
    nodes: dict[str, AbstractConditional],
    layers: Sequence[Layer],
    names: Sequence[str],
    parent: str,
    scale: float | Learnable,
    shapes: Sequence[tuple[int, ...]],
) -> str:
    """Gaussian levels from the top down, each with the one above as its parent; the last one's name.

    A number to be learned is one for every level, those of repeated layers included.
    """
    for name, layer, shape in zip(names, layers, shapes, strict=True):
        if isinstance(layer, Repeated):
            start, spread = below(nodes[parent], identity), scale
            if isinstance(scale, Learnable) and jnp.ndim(scale.value) == 0:
                spread = Learnable(jnp.full((layer.levels, *[1] * len(shape)), scale.value))
            nodes[name] = cascade(layer.layers, scale=spread, parents=parent, start=start)
        else:
            nodes[name] = gaussian(below(nodes[parent], layer), scale=scale, parents=parent)
        parent = name
    return parent


def below(parent: AbstractConditional, layer: Layer) -> Layer:
    """The layer as a function of its parent's value, of which repeated levels show the last."""
    return FromLast(layer) if isinstance(parent, Cascade) else layer


def observed(
    maker: str,
    output: str,
    layer: Callable[..., Array],
    shape: tuple[int, ...],
    parents: str | tuple[str, ...],
    scale: float | Learnable | None,
    default: float,
) -> AbstractConditional:
    """The node at the bottom: its last layer gives a mean, or logits; `default`: the scale if none is said.

    **Raises:** `ValueError` for an unknown output, logits that are no vector, repeated layers, or a scale
    of an output that has none.
    """
    if isinstance(layer, Repeated) or (isinstance(layer, FromLast) and isinstance(layer.inner, Repeated)):
        raise ValueError(
            f"{maker}: the last layer is a Repeated, whose levels would have no noise; put a layer of its "
            "own after it."
        )
    if output == "gaussian":
        return gaussian(layer, scale=default if scale is None else scale, parents=parents)
    if output in OUTPUTS and scale is not None:
        raise ValueError(
            f"{maker}: got output_scale={scale!r} with output={output!r}, which has no scale; leave it "
            'out, or write output="gaussian".'
        )
    if output == "bernoulli":
        return bernoulli(layer, parents=parents)
    if output == "categorical":
        if not shape:
            raise ValueError(
                f"{maker}: the last layer gives one number; a categorical output wants a logit per state."
            )
        return categorical(logits=layer, parents=parents)
    raise ValueError(f"{maker}: got output={output!r}; wanted one of {', '.join(map(repr, OUTPUTS))}.")
