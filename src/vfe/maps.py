"""Deterministic maps from the values of a node's parents to a parameter of its density.

A map is any callable of the parents' values, in order. The classes here are the ones whose form is
*declared*, so that closed forms may rely on it, and the ones that most models need.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


class Fixed(eqx.Module):
    """An array that learning leaves alone.

    Learning looks for `Fixed` in a model and gives no gradient to what is inside.
    """

    value: Array


class Learnable(eqx.Module):
    """A request to learn a number that would otherwise be fixed; made by [`learnable`][vfe.learnable]."""

    value: Array


def learnable(value: Any) -> Learnable:
    """Mark a number given to a maker as a parameter that learning may change.

    Plain numbers given as a mean, a scale, a covariance or a precision are fixed.

    **Example:** `vfe.gaussian(vfe.learnable(jnp.zeros(3)), scale=vfe.learnable(0.5))`.
    """
    return Learnable(jnp.asarray(value, dtype=float))


def held(value: Any) -> Any:
    """`Learnable(v)` becomes the bare array v; anything else becomes `Fixed`."""
    if isinstance(value, Learnable):
        return value.value
    return Fixed(jnp.asarray(value))


def released(value: Any) -> Array:
    """The array inside `Fixed`, or the bare array."""
    return value.value if isinstance(value, Fixed) else value


class Summing(eqx.Module):
    """A map to probabilities, (K,) or (n, K), whose values are NaN where they do not sum to one (within
    10⁻³) or are negative: an energy computed from them would be that of no density.

    **Example:** `Summing(jax.nn.softmax)(jnp.zeros(2))` is `[0.5, 0.5]`.
    """

    inner: Callable[..., Array]

    def __call__(self, *parents: Array) -> Array:
        values = self.inner(*parents)
        good = (jnp.abs(values.sum(-1, keepdims=True) - 1.0) < 1e-3) & (values >= -1e-6).all(
            -1, keepdims=True
        )
        return jnp.where(good, values, jnp.nan)


class Constant(eqx.Module):
    """The map with no parents: always the same value."""

    value: Any

    def __call__(self, *parents: Array) -> Array:
        return released(self.value)


class Affine(eqx.Module):
    """The affine map g(z) = W z + b, declared as such, so that closed forms apply.

    With several parents, `weight` is a tuple with one matrix per parent, in order:
    g(z, w) = W_z z + W_w w + b.

    **Arguments:** `weight`: (out, in), or a tuple of such; `bias`: (out,), zero by default. Wrap
    either in `vfe.Fixed` to keep it out of learning.

    **Raises:** `ValueError` where the shapes do not fit.

    **Example:** `vfe.Affine(jnp.eye(3), jnp.zeros(3))(jnp.ones(3))` is `[1., 1., 1.]`.
    """

    weight: Any
    bias: Any

    def __init__(self, weight: Any, bias: Any = None):
        many = isinstance(weight, tuple | list)
        weights = tuple(
            w if isinstance(w, Fixed) else jnp.asarray(w, dtype=float)
            for w in (weight if many else [weight])
        )
        for w in weights:
            if released(w).ndim != 2:
                raise ValueError(
                    f"Affine: a weight has shape {released(w).shape}; wanted a matrix (out, in)."
                )
        outs = {released(w).shape[0] for w in weights}
        if len(outs) != 1:
            raise ValueError(
                f"Affine: the weights have {sorted(outs)} rows; all must have the same number."
            )
        (out,) = outs
        if bias is None:
            bias = jnp.zeros(out)
        bias = bias if isinstance(bias, Fixed) else jnp.asarray(bias, dtype=float)
        if released(bias).shape != (out,):
            raise ValueError(
                f"Affine: the bias has shape {released(bias).shape}; wanted {(out,)} to go with the weight."
            )
        self.weight = weights if many else weights[0]
        self.bias = bias

    def __call__(self, *parents: Float[Array, " _in"]) -> Float[Array, " out"]:
        weights = self.weight if isinstance(self.weight, tuple) else (self.weight,)
        if len(weights) != len(parents):
            raise ValueError(
                f"Affine: got {len(parents)} parents for {len(weights)} weight matrices; give one "
                "matrix per parent, as a tuple."
            )
        result = released(self.bias)
        for w, z in zip(weights, parents, strict=True):
            result = result + released(w) @ z
        return result

    @staticmethod
    def random(in_size: int, out_size: int, *, key: PRNGKeyArray) -> "Affine":
        """An `Affine` with weights drawn from N(0, 1/in) and no bias.

        **Example:** `vfe.Affine.random(3, 5, key=jax.random.key(0))`.
        """
        return Affine(jax.random.normal(key, (out_size, in_size)) / jnp.sqrt(in_size))


class MLP(eqx.Module):
    """A multilayer perceptron g(z) = W_D φ(… φ(W_0 z + b_0) …) + b_D (+ W_s z), learnable.

    Several parents are flattened and joined; integer parents must be turned into vectors by a map
    of your own first. Hidden weights are drawn from N(0, 1/in) and biases start at zero.

    **Arguments:** `in_size`, `out_size`; `width` of the hidden layers and `depth`, their number;
    `key`; `activation` (default `jnp.tanh`); `skip`: whether to add the linear term W_s z.

    **Example:** `vfe.MLP(2, 3, width=16, depth=1, key=jax.random.key(0))(jnp.zeros(2))`.
    """

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    shortcut: Array | None
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(
        self,
        in_size: int,
        out_size: int,
        width: int,
        depth: int,
        *,
        key: PRNGKeyArray,
        activation: Callable[[Array], Array] = jnp.tanh,
        skip: bool = False,
    ):
        sizes = [in_size, *[width] * depth, out_size]
        if min(sizes) < 1 or depth < 1:
            raise ValueError(
                f"MLP: got in_size={in_size}, out_size={out_size}, width={width}, depth={depth}; "
                "every size and the depth must be at least 1."
            )
        keys = jax.random.split(key, len(sizes))
        self.weights = tuple(
            jax.random.normal(k, (n_out, n_in)) / jnp.sqrt(n_in)
            for k, n_in, n_out in zip(keys[:-1], sizes[:-1], sizes[1:], strict=True)
        )
        self.biases = tuple(jnp.zeros(n) for n in sizes[1:])
        self.shortcut = (
            jax.random.normal(keys[-1], (out_size, in_size)) / jnp.sqrt(in_size) if skip else None
        )
        self.activation = activation

    def __call__(self, *parents: Array) -> Float[Array, " out"]:
        z = jnp.concatenate([jnp.ravel(p) for p in parents])
        if z.shape != (self.weights[0].shape[1],):
            raise ValueError(
                f"MLP: the parents have {z.size} elements together; in_size is {self.weights[0].shape[1]}."
            )
        h = z
        for w, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = self.activation(w @ h + b)
        h = self.weights[-1] @ h + self.biases[-1]
        return h if self.shortcut is None else h + self.shortcut @ z


class Table(eqx.Module):
    """A table of values, one row per state of the discrete parents: g(i, j) = values[i, j].

    **Arguments:** `values`: (K₁, K₂, …, *out), one leading axis per parent; `parents`: how many of
    the leading axes are indexed (default 1). Wrap `values` in `vfe.Fixed` to keep it fixed.

    **Example:** `vfe.Table(jnp.eye(3))(jnp.asarray(1))` is `[0., 1., 0.]`.
    """

    values: Any
    axes: int = eqx.field(static=True)

    def __init__(self, values: Any, parents: int = 1):
        self.values = values if isinstance(values, Fixed) else jnp.asarray(values, dtype=float)
        self.axes = parents
        if released(self.values).ndim < parents:
            raise ValueError(
                f"Table: values of shape {released(self.values).shape} cannot be indexed by "
                f"{parents} parents; give one leading axis per parent."
            )

    def __call__(self, *parents: Array) -> Array:
        if len(parents) != self.axes:
            raise ValueError(f"Table: got {len(parents)} parents; it is indexed by {self.axes}.")
        for p in parents:
            if jnp.ndim(p) != 0 or not jnp.issubdtype(jnp.result_type(p), jnp.integer):
                raise ValueError(
                    f"Table: a parent has shape {jnp.shape(p)} and type {jnp.result_type(p)}; "
                    "wanted one integer state."
                )
        return released(self.values)[tuple(parents)]


class Exp(eqx.Module):
    """exp of another map: a positive scale that is learned without constraints.

    **Arguments:** `inner`: a map of the same parents.

    **Example:** `vfe.gaussian(vfe.Table(means), scale=vfe.Exp(vfe.Table(logs)), parents="label")`.
    """

    inner: Callable[..., Array]

    def __call__(self, *parents: Array) -> Array:
        return jnp.exp(self.inner(*parents))


def as_map(value: Any, maker: str) -> Callable[..., Array]:
    """A number becomes a `Constant`; a callable stays what it is."""
    if callable(value):
        return cast(Callable[..., Array], value)
    if (
        isinstance(value, Sequence)
        or hasattr(value, "__array__")
        or isinstance(value, int | float | Learnable | Fixed)
    ):
        inner = released(value.value if isinstance(value, Learnable) else value)
        array = jnp.asarray(inner)
        if not jnp.issubdtype(array.dtype, jnp.floating):
            array = array.astype(float)
        return Constant(array if isinstance(value, Learnable) else Fixed(array))
    raise TypeError(
        f"{maker}: got {type(value).__name__}; wanted numbers, or a callable of the parents' values "
        "(vfe.Affine, vfe.MLP, vfe.Table, or your own)."
    )
