"""Supervised networks: the input above, the target below, hidden levels between."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jaxtyping import Array

from vfe.conditionals import categorical, gaussian, given
from vfe.maps import Learnable
from vfe.model import Model


def supervised(
    layers: Sequence[Callable[[Array], Array]],
    *,
    inputs: int | tuple[int, ...],
    output: str = "categorical",
    scale: float | Learnable | None = None,
    output_scale: float | Learnable = 1.0,
) -> Model:
    """p(y, z | x) = p(y | z₁) p(z₁ | z₂) … p(z_n | x): a predictive-coding network as a model.

    z_i ~ N(g_i(z_{i+1}), s²) with the layers' outputs as means; the nodes are x (a `vfe.given` input),
    z_n … z1, and y. By default s² = 1 / (number of layers): the hidden noise of all levels together is
    of the order of one output variance, whatever the depth.

    **Arguments:** `layers`: callables of one value, from the input down (`vfe.networks.dense`, Equinox
    modules, your own); `inputs`: the shape of x; `output`: "categorical" (the last layer gives logits
    and y is an integer) or "gaussian" (y is an array, with standard deviation `output_scale`);
    `scale`: s, a number or `vfe.learnable(...)`.

    **Raises:** `ValueError` for fewer than two layers, or layers whose shapes do not chain (both are
    named).

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
    if output not in ("categorical", "gaussian"):
        raise ValueError(f'supervised: got output={output!r}; wanted "categorical" or "gaussian".')
    shape = (inputs,) if isinstance(inputs, int) else tuple(inputs)
    spread = len(layers) ** -0.5 if scale is None else scale
    nodes: dict[str, Any] = {"x": given(shape)}
    above = "x"
    _check_chain(layers, shape)
    for number, layer in enumerate(layers[:-1]):
        name = f"z{len(layers) - 1 - number}"
        nodes[name] = gaussian(layer, scale=spread, parents=above)
        above = name
    if output == "categorical":
        nodes["y"] = categorical(logits=layers[-1], parents=above)
    else:
        nodes["y"] = gaussian(layers[-1], scale=output_scale, parents=above)
    return Model(**nodes)


def _check_chain(layers: Sequence[Callable[[Array], Array]], shape: tuple[int, ...]) -> None:
    struct = jax.ShapeDtypeStruct(shape, jax.numpy.result_type(float))
    before = f"the input of shape {shape}"
    for number, layer in enumerate(layers):
        try:
            struct = jax.eval_shape(layer, struct)
        except Exception as error:
            raise ValueError(
                f"supervised: layer {number} ({type(layer).__name__}) does not fit {before}: {error}"
            ) from error
        before = f"layer {number} ({type(layer).__name__}), which gives shape {struct.shape}"
