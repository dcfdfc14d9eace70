"""Generative networks: a label, a latent or both above, the image below, hidden levels between."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

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
from vfe.networks.repeated import Repeated


class FromCauses(eqx.Module):
    """g(√K · one-hot(label), latent): a layer applied to a label of K states and what stands beside it.

    The factor √K gives the one-hot vector a mean square of one per element, like the latent's.

    **Arguments:** `inner`: a layer of one vector, (K + size of the latent,); `labels`: K.

    **Example:** `vfe.networks.FromCauses(layer, 10)`.
    """

    inner: Callable[[Array], Array]
    labels: int = eqx.field(static=True)

    def __call__(self, label: Int[Array, ""], *latent: Float[Array, "..."]) -> Array:
        one_hot = jnp.sqrt(float(self.labels)) * jax.nn.one_hot(label, self.labels)
        return self.inner(jnp.concatenate([one_hot, *map(jnp.ravel, latent)]))


def generative(
    layers: Sequence[Layer],
    *,
    labels: int | None = None,
    latent: int | tuple[int, ...] | None = None,
    output: str = "gaussian",
    scale: float | Learnable | None = None,
    output_scale: float | Learnable | None = None,
) -> Model:
    """p(x, z, label) = p(x | z₁) p(z₁ | z₂) … p(z_{n−1} | z_n, label) p(z_n) p(label): the image below.

    z_n ~ N(0, I) is the latent, label ~ uniform over K states; both enter the first layer, as
    √K · one-hot(label) followed by the latent (either alone, without the other); z_i ~ N(g_i(z_{i+1}), s²)
    below, and x at the bottom. Without `labels` the network is unsupervised; without `latent` the topmost
    level is z_{n−1} ~ N(g(label), s²), and what varies within a label is the hidden levels' noise. By
    default s² = 1 / (number of layers).

    What is clamped is said at the call: {"x": x} infers label and levels, {"x": x, "label": y} supervises
    (as learning does), {"label": y} imagines (`percept.sample(key)["x"]`), NaN in x is filled in
    (`percept.prediction("x")`).

    **Arguments:** `layers`: callables of one value, from the top down, the first one of K + size of the
    latent elements; `labels`: K; `latent`: its shape; `output`: "gaussian" (x with standard deviation
    `output_scale`, by default 0.2, what suits pixels between 0 and 1), "bernoulli" (x is 0 or 1) or
    "categorical"; `scale`: s. Numbers, or `vfe.learnable(...)` for beliefs that have an entropy.

    **Raises:** `ValueError` where neither `labels` nor `latent` is given, for a label without a hidden
    level, layers whose shapes do not chain (both are named), layers that keep a state or draw at
    random, and an `output_scale` of what has none.

    **Example:**
    ```python
    layers = vfe.networks.dense([10 + 16, 64, 784], key=jax.random.key(0))
    model = vfe.networks.generative(layers, labels=10, latent=16)
    ```

    **Source:** Friston 2005; Rao and Ballard 1999.
    """
    shape = None if latent is None else as_shape(latent)
    if labels is None and shape is None:
        raise ValueError(
            "generative: got neither labels nor latent; give labels= (how many there are), latent= (the "
            "shape of the topmost cause), or both."
        )
    if labels is not None and labels < 2:
        raise ValueError(f"generative: got labels={labels}; wanted at least 2.")
    if shape is not None and (not shape or min(shape) < 1):
        raise ValueError(f"generative: got latent={latent!r}; wanted a size, or a shape.")
    least = 1 if labels is None else 2
    if len(layers) < least:
        raise ValueError(
            f"generative: got {len(layers)} layers; wanted at least {least}"
            + (", with a hidden level below the label." if least == 2 else ".")
        )
    nodes: dict[str, AbstractConditional] = {}
    top = f"z{sum(map(levels_of, layers))}"
    if shape is not None:
        nodes[top] = gaussian(jnp.zeros(shape))
    above, size = "the latent", shape or ()
    if labels is not None:
        above = "the label" if shape is None else "label and latent together"
        size = (labels + (0 if shape is None else int(np.prod(shape))),)
    shapes = chain_shapes("generative", layers, size, above)
    spread = sum(map(levels_of, layers)) ** -0.5 if scale is None else scale
    names = level_names(layers[:-1])
    if labels is None:
        last = add_levels(nodes, layers[:-1], names, top, spread, shapes[:-1])
    else:
        if isinstance(layers[0], Repeated):
            raise ValueError(
                "generative: the first layer, which takes the label, is a Repeated; put a layer of its own "
                "before it."
            )
        nodes["label"] = categorical(jnp.full(labels, 1.0 / labels))
        parents = ("label",) if shape is None else ("label", top)
        nodes[names[0]] = gaussian(FromCauses(layers[0], labels), scale=spread, parents=parents)
        last = add_levels(nodes, layers[1:-1], names[1:], names[0], spread, shapes[1:-1])
    layer = below(nodes[last], layers[-1])
    nodes["x"] = observed("generative", output, layer, shapes[-1], last, output_scale, 0.2)
    return Model(**nodes)
