"""Layers: maps from the values of one level to the mean of the next, for one observation."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.cascade import identity
from vfe.networks.repeated import gathered

# Up to this width and this number of equal layers, weights move at the rate of the optimiser.
NARROW, SHALLOW = 256, 4


class Dense(eqx.Module):
    """g(z) = W φ(z) + b, W = c · weight: levels hold what comes before the nonlinearity.

    **Arguments:** `weight`: (out, in); `bias`: (out,); `activation`: φ; `multiplier`: c, which says how far
    W moves when an optimiser such as Adam moves `weight` by its rate (see `dense`).

    **Example:** `vfe.networks.Dense(jnp.ones((3, 2)), jnp.zeros(3), jnp.tanh)(jnp.zeros(2))`.
    """

    weight: Float[Array, "out in"]
    bias: Float[Array, " out"]
    activation: Callable[[Array], Array] = eqx.field(static=True, default=identity)
    multiplier: float = eqx.field(static=True, default=1.0)

    def __call__(self, z: Array) -> Array:
        return self.weight @ (self.multiplier * self.activation(jnp.ravel(z))) + self.bias


class Activated(eqx.Module):
    """g(z) = φ(W z + b), W = c · weight: levels hold what comes after the nonlinearity.

    **Arguments:** as in `Dense`.

    **Example:** `vfe.networks.Activated(jnp.ones((3, 2)), jnp.zeros(3), jnp.tanh)(jnp.zeros(2))`.
    """

    weight: Float[Array, "out in"]
    bias: Float[Array, " out"]
    activation: Callable[[Array], Array] = eqx.field(static=True, default=identity)
    multiplier: float = eqx.field(static=True, default=1.0)

    def __call__(self, z: Array) -> Array:
        return self.activation(self.weight @ (self.multiplier * jnp.ravel(z)) + self.bias)


class Residual(eqx.Module):
    """g(z) = z + scale · f(z): a level that its parent passes through.

    **Arguments:** `inner`: a layer that keeps the shape; `scale`: what it adds is multiplied by this.

    **Example:** `vfe.networks.Residual(layer, 0.5)`.
    """

    inner: Callable[[Array], Array]
    scale: float = eqx.field(static=True, default=1.0)

    def __call__(self, z: Array) -> Array:
        return z + self.scale * self.inner(z)


class Composed(eqx.Module):
    """g(z) = g_k(… g_2(g_1(z))): several steps between one level and the next, without noise between.

    Every part is any callable of one array: a layer, an Equinox module, a function. (`eqx.nn.Sequential`
    is a layer too, but hands its parts a key, which functions do not take.) A module that is made for one
    token or pixel is mapped with `eqx.filter_vmap(module)`: `jax.vmap` hides its parameters from learning.

    **Example:** `vfe.networks.Composed(eqx.nn.LayerNorm(8), jax.nn.gelu, layer)`.
    """

    parts: tuple[Callable[[Array], Array], ...]

    def __init__(self, *parts: Callable[[Array], Array]):
        self.parts = parts

    def __call__(self, z: Array) -> Array:
        for part in self.parts:
            z = part(z)
        return z


def dense(
    sizes: Sequence[int],
    *,
    key: PRNGKeyArray,
    activation: Callable[[Array], Array] = jax.nn.gelu,
    residual: bool = False,
    layer: type[Dense] | type[Activated] = Dense,
    gain: float | None = None,
    repeat_from: int = 8,
) -> list[Any]:
    """Dense layers for levels of these sizes, from the top down, with W ~ N(0, g / in), b = 0.

    g is `gain`, by default 1 / ⟨φ(u)²⟩ for u ~ N(0, 1), so that levels keep a variance of order one; 1 for
    the first layer, and c for the last (see below). Deep plain networks of an odd φ such as tanh want
    `gain=1.0`: with more, a small change of one level grows from level to level (the edge of chaos is at
    g φ′(0)² = 1). With `residual=True`, layers between levels of equal size become z + f(z) / √N, N the
    number of such layers, so that the variance stays of order one at any depth.

    A learning rate transfers across widths and depths, because W = c · weight with

        c = min(1, 256 / in) · min(1, 4 / N),   with the root of the second factor for residual layers,

    where `in` counts for every layer but the first, and N, the number of layers between levels of equal
    size, for these alone. `weight` is drawn with variance g / (c² in), so W is as said above; but where
    Adam moves every element of `weight` by its rate, W moves by c times the rate, and what a step changes
    at the output has one size for all widths beyond 256 and all depths. (For this the output itself starts
    smaller in wider networks, as 256 / in under the root.)

    **Arguments:** `sizes`: of every level, input and output included; `layer`: `Dense` or `Activated`;
    `repeat_from`: a run of at least so many layers of equal size is one `Repeated` layer, so that compiling
    does not depend on depth.

    **Raises:** `ValueError` for fewer than two sizes or one below 1, or a gain that is not positive.

    **Example:** `vfe.networks.dense([784, 256, 256, 10], key=jax.random.key(0))`.

    **Source:** He et al. 2015 (variance-preserving weights); Poole et al. 2016 (edge of chaos); Yang et
    al. 2022 (width), 2023 (depth 1/√L).
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"dense: got sizes {list(sizes)}; wanted at least two, each at least 1.")
    gain = unit_gain(activation, "dense") if gain is None else checked_gain(gain, "dense")
    pairs = list(itertools.pairwise(sizes))
    equal = [a == b and 0 < i < len(pairs) - 1 for i, (a, b) in enumerate(pairs)]
    slower = min(1.0, SHALLOW / max(1, sum(equal)))
    found: list[Any] = []
    for i, ((n_in, n_out), k) in enumerate(zip(pairs, jax.random.split(key, len(pairs)), strict=True)):
        first, last = i == 0, i == len(pairs) - 1
        phi = identity if (first if layer is Dense else last) else activation
        multiplier = 1.0 if first else rate_by_width(n_in)
        variance = (1.0 if first else multiplier if last else gain) / n_in
        if equal[i]:
            multiplier *= slower**0.5 if residual else slower
        weight = jnp.sqrt(variance) / multiplier * jax.random.normal(k, (n_out, n_in))
        one: Any = layer(weight, jnp.zeros(n_out), phi, multiplier)
        found.append(Residual(one, sum(equal) ** -0.5) if residual and equal[i] else one)
    # The first and the last layer stay their own: what they give is the highest level, and the output.
    return [*found[:1], *gathered(found[1:-1], repeat_from), *found[1:][-1:]]


def rate_by_width(n_in: int) -> float:
    """c = min(1, 256 / in): how far weights below the first layer move per unit of the learning rate."""
    return min(1.0, NARROW / n_in)


def unit_gain(
    activation: Callable[[Array], Array], maker: str, pooled: Callable[[Array], Array] | None = None
) -> float:
    """1 / ⟨φ(u)²⟩ for u ~ N(0, 1), or for what pooling makes of such u."""
    probe = jax.random.normal(jax.random.key(0), (4096,) if pooled is None else (1, 256, 256))
    square = float(jnp.mean(activation(probe if pooled is None else pooled(probe)) ** 2))
    return checked_gain(1.0 / square if square > 0 else jnp.inf, maker)


def checked_gain(gain: float, maker: str) -> float:
    """The gain, if it is a positive number."""
    if not 0 < gain < jnp.inf:
        raise ValueError(f"{maker}: got gain={gain}; wanted a positive number.")
    return float(gain)
