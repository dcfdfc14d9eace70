"""What is known of a posterior from declared types alone: no callable is ever probed."""

from vfe.cascade import Cascade
from vfe.conditionals import (
    AbstractConditional,
    AbstractGaussianNode,
    CategoricalTable,
    Gaussian,
    only_discrete_parents_matter,
)
from vfe.conditioning import Conditioned
from vfe.model import Model


def why_not_quadratic(conditioned: Conditioned) -> str | None:
    """Why E(u) is not declared quadratic in the hidden continuous values; None where it is.

    Every term that contains one must be a `gaussian` whose mean is `vfe.Affine` (or numbers) and whose
    spread has no hidden continuous parent; a discrete parent may enter through `vfe.Table`.
    """
    continuous = set(conditioned.layout.names)
    for slot in conditioned.layout.slots:
        if not slot.support.is_real:
            return f"node {slot.name!r} has a {slot.support.name} support"
    for info in conditioned.model.info:
        if info.given or info.name in conditioned.pruned:
            continue
        touched = continuous & {info.name, *info.parents}
        if not touched:
            continue
        node = conditioned.model.nodes[info.name]
        if not isinstance(node, Gaussian):
            return _not_gaussian(info.name, node)
        if not continuous & set(info.parents):
            continue
        if only_discrete_parents_matter(node):
            continue
        if not node.has_affine_mean:
            return f"the mean of node {info.name!r} is not a vfe.Affine"
        if not node.has_constant_noise:
            return f"the spread of node {info.name!r} depends on its parents"
    return None


def _not_gaussian(name: str, node: AbstractConditional) -> str:
    if isinstance(node, Cascade):
        return f"node {name!r} is a vfe.cascade, whose map from level to level is not declared linear"
    return f"node {name!r} is not a vfe.gaussian"


def is_quadratic(conditioned: Conditioned) -> bool:
    """Whether E(u) is declared quadratic in the hidden continuous values."""
    return why_not_quadratic(conditioned) is None


def why_not_linear_gaussian(model: Model) -> str | None:
    """Why a model is not declared linear-Gaussian as a whole; None where it is."""
    for info in model.info:
        if info.given:
            continue
        node = model.nodes[info.name]
        if not isinstance(node, Gaussian):
            return _not_gaussian(info.name, node)
        if not (node.has_affine_mean and node.has_constant_noise):
            return f"the mean of node {info.name!r} is not a vfe.Affine, or its spread has parents"
    return None


def why_not_discrete(conditioned: Conditioned) -> str | None:
    """Why the hidden nodes cannot be summed over; None where they can."""
    for slot in conditioned.layout.slots:
        return f"node {slot.name!r} is hidden and continuous"
    if conditioned.repeats is not None:
        return "latents are shared by all observations"
    return None


def has_tables_only(model: Model) -> str | None:
    """Why a model is not made of tables; None where it is."""
    for info in model.info:
        if not info.given and not isinstance(model.nodes[info.name], CategoricalTable):
            return f"node {info.name!r} is not a vfe.categorical table"
    return None


def hidden_gaussians(conditioned: Conditioned) -> str | None:
    """Why the hidden continuous nodes are not all Gaussian; None where they are."""
    for name in conditioned.layout.names:
        if not isinstance(conditioned.model.nodes[name], AbstractGaussianNode):
            return f"node {name!r} is hidden and not a vfe.gaussian"
    return None
