"""Which arrays of a model learning may change."""

import warnings
from collections.abc import Callable
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp

from vfe.beliefs import Amortised, Enumerated, Point
from vfe.conditionals import AbstractGaussianNode
from vfe.conditioning import Conditioned
from vfe.maps import Fixed
from vfe.model import Model


def trainable(model: Model, where: Callable[[Model], Any] | None = None, encoder: Any = None) -> Any:
    """A tree of booleans over the model's leaves: True where learning may change the array.

    **Arguments:** `where`: a function from the model to the leaf, subtree or tuple of these to learn,
    as in `equinox.tree_at`, e.g. `lambda m: (m["x"].noise, m["z1"].mean.weight)`; arrays that are
    `vfe.Fixed` are learned where they are named. By default every floating array that is not. Where there
    is an `encoder`, the model may have nothing to learn (`lambda m: ()`).

    **Raises:** `ValueError` where nothing is left to learn.
    """
    if where is None:
        spec = unfixed(model)
    else:
        nothing = jax.tree.map(lambda _: False, model)
        picked = where(model)
        targets = picked if isinstance(picked, tuple | list) else (picked,)
        count = len(targets)

        def subtrees(m: Model) -> tuple[Any, ...]:
            found = where(m)
            return tuple(found) if isinstance(found, tuple | list) else (found,)

        marked = tuple(jax.tree.map(lambda a: bool(eqx.is_inexact_array(a)), t) for t in targets)
        spec = eqx.tree_at(subtrees, nothing, marked) if count else nothing
    if not any(jax.tree.leaves(spec)) and not any(jax.tree.leaves(unfixed(encoder))):
        raise ValueError(
            "learn: nothing to learn; give the model a vfe.Affine, vfe.MLP or vfe.Table, mark a number "
            "with vfe.learnable(...), or name leaves with where=."
        )
    return spec


def unfixed(tree: Any) -> Any:
    """True at every floating array that is not `vfe.Fixed`."""

    def mark(node: Any) -> Any:
        if isinstance(node, Fixed):
            return jax.tree.map(lambda _: False, node)
        return bool(eqx.is_inexact_array(node))

    return jax.tree.map(mark, tree, is_leaf=lambda x: isinstance(x, Fixed))


def refuse_point_precisions(conditioned: Conditioned, family: Any, spec: Model) -> None:
    """Refuse precisions that an energy without entropy would drive to infinity.

    A Point belief has no entropy to resist a hidden variance that goes to zero: with the errors at
    zero the energy falls without bound as the precision grows. The precision of an observed node that
    cannot be predicted without error is bounded by the data, so it is allowed, with a warning.

    **Raises:** `ValueError` that names the node.
    """
    while isinstance(family, Enumerated | Amortised):
        family = family.family
    if family is not Point:
        return
    for name in (*conditioned.layout.names, *conditioned.observed):
        if name not in conditioned.model.nodes:
            continue
        node, marks = conditioned.model.nodes[name], spec.nodes[name]
        learned = isinstance(node, AbstractGaussianNode) and any(
            jax.tree.leaves(cast(AbstractGaussianNode, marks).noise)
        )
        if not learned:
            continue
        if name in conditioned.layout.names:
            raise ValueError(
                f"learn: under a Point belief the precision of the hidden node {name!r} has no optimum "
                "(the energy falls without bound as its variance goes to zero). Use belief=vfe.Laplace "
                "or a Gaussian belief, keep the scale fixed, or make the precision a node with a "
                "vfe.gamma prior."
            )
        warnings.warn(
            f"learn: the precision of the observed node {name!r} is learned under a Point belief, which "
            "overstates it (no entropy), and without bound if the node can be predicted without error.",
            stacklevel=4,
        )


def noises(model: Model, nodes: tuple[str, ...] | None = None) -> Callable[[Model], tuple[Any, ...]]:
    """A `where` that picks the precisions of these Gaussian nodes (by default of all of them)."""
    found = tuple(n for n in model.order if isinstance(model.nodes[n], AbstractGaussianNode))
    for name in nodes or ():
        model.require(name)
        if name not in found:
            raise ValueError(f"attend: node {name!r} has no precision; Gaussian nodes are {list(found)}.")
    chosen = found if nodes is None else tuple(nodes)
    if not chosen:
        raise ValueError("attend: no Gaussian node, so there is no precision to learn.")
    return lambda m: tuple(cast(AbstractGaussianNode, m.nodes[n]).noise for n in chosen)


def split(model: Model, spec: Any, family: Any) -> tuple[Any, Any]:
    """What is learned, and the rest: model and (for amortised beliefs) encoder."""
    encoder = encoder_of(family)
    return eqx.partition((model, encoder), (spec, unfixed(encoder)))


def joined(learned: Any, fixed: Any, family: Any) -> tuple[Model, Any]:
    """The model and the family with what was learned put back."""
    model, encoder = eqx.combine(learned, fixed)
    return model, with_encoder(family, encoder)


def is_amortised(family: Any) -> bool:
    """Whether beliefs come from an encoder, perhaps one for each state of a discrete node."""
    while isinstance(family, Enumerated):
        family = family.family
    return isinstance(family, Amortised)


def encoder_of(family: Any) -> Any:
    """The encoder inside a family; None where there is none."""
    while isinstance(family, Enumerated):
        family = family.family
    return family.encoder if isinstance(family, Amortised) else None


def with_encoder(family: Any, encoder: Any) -> Any:
    """The same family with another encoder inside."""
    if isinstance(family, Enumerated):
        return Enumerated(family.node, with_encoder(family.family, encoder), family.restarts)
    if isinstance(family, Amortised):
        return Amortised(encoder, family.family, family.inputs)
    return family


def size(learned: Any) -> int:
    """How many numbers are learned."""
    return sum(int(jnp.size(a)) for a in jax.tree.leaves(learned))
