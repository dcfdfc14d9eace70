"""Two-way networks: an image and its label, both below the causes that they share."""

from collections.abc import Sequence

import jax.numpy as jnp

from vfe.conditionals import AbstractConditional, categorical, gaussian
from vfe.maps import Learnable
from vfe.model import Model
from vfe.networks.levels import (
    Layer,
    add_levels,
    as_shape,
    below,
    chain_shapes,
    level_names,
    levels_of,
    observed,
)


def two_way(
    to_image: Sequence[Layer],
    to_label: Sequence[Layer],
    *,
    latent: int | tuple[int, ...],
    common: Sequence[Layer] = (),
    output: str = "gaussian",
    scale: float | Learnable | None = None,
    output_scale: float | Learnable | None = None,
) -> Model:
    """p(x, label, z) = p(z_n) Π_i p(z_i | z_{i+1}) · p(x | z₁) · p(label | z_c): two children of one cause.

    z_n ~ N(0, I); z_i ~ N(g_i(z_{i+1}), s²) down to x; the label, label ~ softmax(h(z_c)), hangs on the
    level z_c where `common` ends (the latent itself by default), with levels y_m … y1 between where
    `to_label` has several layers. By default s² = 1 / (number of layers from the latent to x).

    Either may be clamped, missing, or partly hidden: {"x": x} and `percept.prediction("label")` recognise,
    {"label": y} and `percept.prediction("x")` imagine, NaN in x is filled in with or without the label.
    Both directions are inference in the same density: information goes up one branch and down the other.

    This is the two-view form of factor analysis (probabilistic canonical correlation analysis) made deep,
    and the joint density of images and labels that Hinton 2007 argues for, as a directed graph. It is not
    bidirectional predictive coding (Oliviers et al. 2025), which adds errors of bottom-up predictions to
    those of top-down ones on the same levels: a sum of energies that no density of a directed graph
    belongs to. Nor is it a supervised network run backwards (Sun and Orchard 2020).

    **Arguments:** `to_image`, `to_label`: callables of one value, from the level that both share down; the
    last one of `to_label` gives logits; `latent`: the shape of z_n; `common`: layers from the latent to
    the level that both share; `output`, `scale`, `output_scale`: as in `vfe.networks.generative`.

    **Raises:** `ValueError` for a branch without layers, layers whose shapes do not chain (both are
    named), layers that keep a state or draw at random, and an `output_scale` of what has none.

    **Example:**
    ```python
    one, two = jax.random.split(jax.random.key(0))
    model = vfe.networks.two_way(
        vfe.networks.dense([32, 128, 784], key=one), vfe.networks.dense([32, 10], key=two), latent=32
    )
    ```

    **Source:** Bach and Jordan 2005; Hinton 2007.
    """
    shape = as_shape(latent)
    if not shape or min(shape) < 1:
        raise ValueError(f"two_way: got latent={latent!r}; wanted a size, or a shape.")
    if not to_image or not to_label:
        raise ValueError(
            f"two_way: got {len(to_image)} layers to the image and {len(to_label)} to the label; wanted at "
            "least one each."
        )
    commons = chain_shapes("two_way", common, shape, "the latent", "common layer")
    shared = [shape, *commons][-1]
    above = "the level that both share,"
    images = chain_shapes("two_way", to_image, shared, above, "image layer")
    labels = chain_shapes("two_way", to_label, shared, above, "label layer")
    down = [*common, *to_image]
    spread = sum(map(levels_of, down)) ** -0.5 if scale is None else scale
    top = f"z{sum(map(levels_of, down))}"
    nodes: dict[str, AbstractConditional] = {top: gaussian(jnp.zeros(shape))}
    names = level_names(down[:-1])
    middle = add_levels(nodes, common, names[: len(common)], top, spread, commons)
    last = add_levels(nodes, to_image[:-1], names[len(common) :], middle, spread, images[:-1])
    aside = level_names(to_label[:-1], "y")
    beside = add_levels(nodes, to_label[:-1], aside, middle, spread, labels[:-1])
    if len(labels[-1]) != 1 or labels[-1][0] < 2:
        raise ValueError(
            f"two_way: the last label layer gives shape {labels[-1]}; wanted one logit per label, (K,)."
        )
    nodes["label"] = categorical(logits=below(nodes[beside], to_label[-1]), parents=beside)
    layer = below(nodes[last], to_image[-1])
    nodes["x"] = observed("two_way", output, layer, images[-1], last, output_scale, 0.2)
    return Model(**nodes)
