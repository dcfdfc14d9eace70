"""Layers for levels that are images, (channels, height, width), and a network of them."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.networks.layers import Dense, checked_gain, identity, rate_by_width, unit_gain


class Reshape(eqx.Module):
    """g(z) = z with another shape; a flat level is `Reshape(-1)` away.

    **Example:** `vfe.networks.Reshape(8, 7, 7)(jnp.zeros(392))`.
    """

    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, *shape: int):
        self.shape = shape

    def __call__(self, z: Array) -> Array:
        return jnp.reshape(z, self.shape)


class MaxPool(eqx.Module):
    """The largest value of every size × size window, side by side: g(z)_cij = max over the window of z_c.

    In a map between levels, the largest element of a window alone carries the prediction and receives the
    error; the others are free of feedback and stay at their own prior mean. g has a kink where two
    elements change rank: perception still never raises E, but Gauss–Newton steps shorten there. Applied to
    what comes before a nonlinearity φ that increases, max φ(z) = φ(max z), so that a level may hold the
    pooled pre-activations alone. `eqx.nn.AvgPool2d` is linear and shares the error out evenly.

    Rows and columns that fill no window are left out. The same as `eqx.nn.MaxPool2d(size, size)`, with
    a gradient that is several times faster on CPUs.

    **Example:** `vfe.networks.MaxPool(2)(jnp.zeros((8, 28, 28)))`.
    """

    size: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"MaxPool: got size={self.size}; wanted at least 1.")

    def __call__(self, z: Float[Array, "channels height width"]) -> Float[Array, "channels rows columns"]:
        p = self.size
        rows, columns = z.shape[1] // p * p, z.shape[2] // p * p
        if z.ndim != 3 or not rows or not columns:
            raise ValueError(f"MaxPool({p}): got {z.shape}; wanted (channels, height, width), both ≥ {p}.")
        corners = itertools.product(range(p), repeat=2)
        return functools.reduce(jnp.maximum, [z[:, i:rows:p, j:columns:p] for i, j in corners])


class Convolution(eqx.Module):
    """g(z) = pool(K ⋆ φ(z) + b), K = c · kernel: levels hold what comes before φ, after pooling.

    (K ⋆ u)_o = Σ_cij K_ocij · u_c shifted by (i, j), zeros beyond the border: the sides stay as they are
    until the pooling. `Composed(φ, eqx.nn.Conv2d(...))` does strides and dilations; inside the loops of
    perception XLA computes this one many times faster on CPUs.

    **Arguments:** `kernel`: (out, in, k, k), k odd; `bias`: (out,); `activation`: φ; `pool`: any callable
    of (channels, height, width), such as `MaxPool(2)` or `eqx.nn.AvgPool2d(2, 2)`; `multiplier`: c, as in
    `Dense`.

    **Example:** `vfe.networks.Convolution(jnp.ones((8, 1, 3, 3)), jnp.zeros(8), jax.nn.gelu)`.
    """

    kernel: Float[Array, "out in k k"]
    bias: Float[Array, " out"]
    activation: Callable[[Array], Array] = eqx.field(static=True, default=identity)
    pool: Callable[[Array], Array] = identity
    multiplier: float = eqx.field(static=True, default=1.0)

    def __call__(self, z: Float[Array, "channels height width"]) -> Float[Array, "out rows columns"]:
        found = convolve(self.multiplier * self.kernel, self.activation(z))
        return self.pool(found + self.bias[:, None, None])


def convolve(
    kernel: Float[Array, "out in k k"], z: Float[Array, "in height width"]
) -> Float[Array, "out height width"]:
    """K ⋆ z as one product of matrices, patches × kernel, with its derivatives.

    Convolutions of `jax.lax`, and above all their derivatives, are some tenfold slower inside
    `while_loop` and `scan` than outside on CPUs (jax issue 12868), and all of perception and learning is
    inside.
    """
    out, channels, k, other = kernel.shape
    if z.ndim != 3 or z.shape[0] != channels or k != other or k % 2 == 0:
        raise ValueError(
            f"a kernel of shape {kernel.shape} wants (out, in, k, k) with k odd, and a level of shape "
            f"({channels}, height, width); got {z.shape}"
        )
    height, width = z.shape[1:]
    last = jnp.pad(jnp.transpose(z, (1, 2, 0)), ((k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    shifts = itertools.product(range(k), repeat=2)
    patches = jnp.concatenate([last[i : i + height, j : j + width] for i, j in shifts], -1)
    weight = jnp.transpose(kernel, (2, 3, 1, 0)).reshape(k * k * channels, out)
    found = patches.reshape(height * width, k * k * channels) @ weight
    return jnp.transpose(found.reshape(height, width, out), (2, 0, 1))


def convolutional(
    image_shape: tuple[int, int, int],
    channels: Sequence[int] = (16, 32),
    *,
    outputs: int,
    key: PRNGKeyArray,
    kernel: int = 3,
    pool: Callable[[Array], Array] | None = None,
    hidden: Sequence[int] = (),
    activation: Callable[[Array], Array] = jax.nn.gelu,
    gain: float | None = None,
) -> list[Any]:
    """Convolutions with pooling, then dense layers: g_i(z) = pool(K ⋆ φ(z) + b), g(z) = W φ(z) + b.

    K ~ N(0, g / (k² n)) for a kernel of k × k over n channels, W ~ N(0, g / in), b = 0. In the first
    layer φ is the identity and g = 1, in the last g = c (below); between, g is `gain`, by default 1 /
    ⟨φ(u)²⟩ for u what the level above holds at the start (pooled values of independent standard
    normals, or these alone), so that levels keep a variance of order one. K and W are what is drawn, c
    · kernel and c · weight, with c = min(1, 256 / (k² n)) and min(1, 256 / in) below the first layer,
    by which a rate of learning transfers across widths (see `dense`). Images keep their sides through a
    convolution, with zeros beyond the border, and shrink by pooling alone.

    **Arguments:** `image_shape`: (channels, height, width) of the input; `channels`: of every convolution;
    `outputs`: the number of classes, or of elements of the output; `kernel`: k, odd; `pool`: a callable,
    by default `vfe.networks.MaxPool(2)`; `hidden`: sizes of dense levels before the output.

    **Raises:** `ValueError` for shapes, sizes or a kernel that are not positive (odd), a pool that does
    not fit, or a gain that is not positive.

    **Example:**
    ```python
    layers = vfe.networks.convolutional((1, 28, 28), outputs=10, key=jax.random.key(0))
    model = vfe.networks.supervised(layers, inputs=(1, 28, 28))
    ```

    **Source:** LeCun et al. 1998; He et al. 2015 (variance-preserving weights).
    """
    pool = MaxPool(2) if pool is None else pool
    if len(image_shape) != 3 or min((*image_shape, *channels, *hidden, outputs)) < 1 or not channels:
        raise ValueError(
            f"convolutional: got image_shape={tuple(image_shape)}, channels={tuple(channels)}, "
            f"hidden={tuple(hidden)}, outputs={outputs}; wanted (channels, height, width), at least one "
            "convolution, and sizes of at least 1."
        )
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"convolutional: got kernel={kernel}; wanted an odd number.")
    pooled = unit_gain(activation, "convolutional", pool) if gain is None else gain
    plain = unit_gain(activation, "convolutional") if gain is None else gain
    keys = iter(jax.random.split(key, len(channels) + len(hidden) + 1))
    found: list[Any] = []
    shape = tuple(image_shape)
    for number, (c_in, c_out) in enumerate(itertools.pairwise((image_shape[0], *channels))):
        variance = (1.0 if number == 0 else checked_gain(pooled, "convolutional")) / (kernel**2 * c_in)
        multiplier = 1.0 if number == 0 else rate_by_width(kernel**2 * c_in)
        noise = jax.random.normal(next(keys), (c_out, c_in, kernel, kernel))
        phi = identity if number == 0 else activation
        weight = jnp.sqrt(variance) / multiplier * noise
        found.append(Convolution(weight, jnp.zeros(c_out), phi, pool, multiplier))
        try:
            shape = jax.eval_shape(found[-1], jax.ShapeDtypeStruct(shape, jnp.result_type(float))).shape
        except Exception as error:
            raise ValueError(
                f"convolutional: convolution {number} with its pool does not fit {shape}: {error}"
            ) from error
    sizes = [shape[0] * shape[1] * shape[2], *hidden, outputs]
    for number, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        last = number == len(hidden)
        multiplier = rate_by_width(n_in)
        variance = (multiplier if last else pooled if number == 0 else plain) / n_in
        weight = jnp.sqrt(variance) / multiplier * jax.random.normal(next(keys), (n_out, n_in))
        found.append(Dense(weight, jnp.zeros(n_out), activation, multiplier))
    return found
