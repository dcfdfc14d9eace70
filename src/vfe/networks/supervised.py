"""Supervised networks: the input above, the target below, hidden levels between."""

from collections.abc import Sequence

from vfe.conditionals import AbstractConditional, given
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


def supervised(
    layers: Sequence[Layer],
    *,
    inputs: int | tuple[int, ...],
    output: str = "categorical",
    scale: float | Learnable | None = None,
    output_scale: float | Learnable | None = None,
) -> Model:
    """p(y, z | x) = p(y | z₁) p(z₁ | z₂) … p(z_n | x): a predictive-coding network as a model.

    z_i ~ N(g_i(z_{i+1}), s²) with the layers' outputs as means; the nodes are x (a `vfe.given` input),
    z_n … z1, and y. A `Repeated` layer makes one node of its levels, such as z63to2. By default
    s² = 1 / (10 · number of layers): the hidden noise of all levels together is a tenth of one output
    variance, whatever the depth. (With ten times as much, learning on the energy alone loses up to two
    points of accuracy; between a third and three times as much, no difference was seen.)

    **Arguments:** `layers`: callables of one value, from the input down (`vfe.networks.dense`,
    `vfe.networks.convolutional`, Equinox modules, your own); a level has whatever shape its layer gives;
    `inputs`: the shape of x; `output`: "categorical" (the last layer gives logits and y is an integer),
    "gaussian" (y is an array, with standard deviation `output_scale`, 1 by default) or "bernoulli" (y is
    0 or 1);    `scale`: s, a number or `vfe.learnable(...)`.

    **Raises:** `ValueError` for fewer than two layers, layers whose shapes do not chain (both are
    named), layers that keep a state or draw at random, and an `output_scale` of what has none.

    **Example:**
    ```python
    layers = vfe.networks.dense([784, 256, 10], key=jax.random.key(0))
    model = vfe.networks.supervised(layers, inputs=784)
    ```

    **Source:** Friston 2005; Whittington and Bogacz 2017.
    """
    if len(layers) < 2:
        raise ValueError(
            f"supervised: got {len(layers)} layers; wanted at least two, with a hidden level between."
        )
    shape = as_shape(inputs)
    shapes = chain_shapes("supervised", layers, shape, "the input")
    spread = (10 * sum(map(levels_of, layers))) ** -0.5 if scale is None else scale
    nodes: dict[str, AbstractConditional] = {"x": given(shape)}
    above = add_levels(nodes, layers[:-1], level_names(layers[:-1]), "x", spread, shapes[:-1])
    last = below(nodes[above], layers[-1])
    nodes["y"] = observed("supervised", output, last, shapes[-1], above, output_scale, 1.0)
    return Model(**nodes)
