"""Repeated levels in one node: the same map again and again, each time with noise of its own."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.conditionals import AbstractGaussianNode, Plate, as_parents
from vfe.densities import LOG_2PI
from vfe.noise import AbstractNoise, IndependentNoise, make_noise


def identity(z: Array) -> Array:
    """z itself."""
    return z


class CascadeNormal(dist.Distribution):
    """p(z_1 … z_L) = Π_l N(z_l; g_l(z_{l−1}), s_l²), z_0 = start: one value is all levels, (L, *level).

    Going down takes a scan; errors and densities of given values take one map over the levels.
    """

    def __init__(self, layers: Any, start: Array, scale: Array) -> None:
        self.layers, self.start, self.scale = layers, start, scale
        super().__init__((), scale.shape)

    def push(self, error: Float[Array, "levels *level"]) -> Float[Array, "levels *level"]:
        """z_l = g_l(z_{l−1}) + s_l ∘ e_l from the top down."""
        arrays, static = eqx.partition(self.layers, eqx.is_array)

        def down(z: Array, each: tuple[Any, Array]) -> tuple[Array, Array]:
            layer, noise = each
            z = eqx.combine(layer, static)(z) + noise
            return z, z

        return jax.lax.scan(down, self.start, (arrays, self.scale * error))[1]

    def errors(self, value: Float[Array, "levels *level"]) -> Float[Array, "levels *level"]:
        """e_l = (z_l − g_l(z_{l−1})) / s_l, all levels at once."""
        above = jnp.concatenate([self.start[None], value[:-1]])
        return (value - eqx.filter_vmap(lambda layer, z: layer(z))(self.layers, above)) / self.scale

    @property
    def mean(self) -> Array:
        """Every level at its conditional mean, from the top down."""
        return self.push(jnp.zeros_like(self.scale))

    @property
    def support(self) -> Any:
        return dist.constraints.independent(dist.constraints.real, self.event_dim)

    def sample(self, key: PRNGKeyArray | None, sample_shape: tuple[int, ...] = ()) -> Array:
        assert key is not None
        noise = jax.random.normal(key, (*sample_shape, *self.event_shape), self.scale.dtype)
        function = self.push
        for _ in sample_shape:
            function = jax.vmap(function)
        return function(noise)

    def log_prob(self, value: Any, intermediates: Any = None) -> Array:
        error = self.errors(jnp.asarray(value))
        return -0.5 * jnp.sum(error**2) - jnp.sum(jnp.log(self.scale)) - 0.5 * error.size * LOG_2PI


class Cascade(AbstractGaussianNode):
    """p(z_1 … z_L | parent) with the same kind of map at every level; made by [`cascade`][vfe.cascade]."""

    layers: Any
    start: Callable[[Array], Array]
    noise: AbstractNoise
    levels: int = eqx.field(static=True)
    parents: tuple[str, ...] = eqx.field(static=True)
    shared: bool = eqx.field(static=True, default=False)
    plate: Plate | None = eqx.field(static=True, default=None)

    def __call__(self, *parents: Array) -> dist.Distribution:
        (parent,) = parents
        start = self.start(parent)
        one = jax.tree.map(lambda a: a[0] if eqx.is_array(a) else a, self.layers)
        found = eqx.filter_eval_shape(one, start)
        if found.shape != start.shape:
            raise ValueError(
                "a cascade's layers must keep the shape of a level; got "
                f"{found.shape} for a level of shape {start.shape}"
            )
        shape = (self.levels, *start.shape)
        density: Any = self.noise.density(jnp.zeros(shape, start.dtype), ())
        return CascadeNormal(self.layers, start, density.scale)

    @property
    def has_constant_noise(self) -> bool:
        return True


def cascade(
    layers: Callable[[Array], Array],
    *,
    parents: str,
    scale: Any = None,
    start: Callable[[Array], Array] | None = None,
) -> Cascade:
    """p(z_1 … z_L | parent) = Π_l N(z_l; g_l(z_{l−1}), s²), z_0 = start(parent): L levels as one node.

    The levels are one axis of the node's value, (L, *level), from the top down; children read the last,
    z[-1]. Compiling takes as long for a hundred levels as for one.

    **Arguments:** `layers`: a callable module that keeps the shape of a level, every array with a leading
    axis of L (`vfe.networks.Repeated(list).layers`, or `eqx.filter_vmap` of a constructor); `parents`: the
    one parent; `scale`: s, a number or an array that broadcasts to (L, *level), or `vfe.learnable` of it
    (shape (L, 1) for one precision per level); `start`: what of the parent the first level sees, by
    default its value.

    **Raises:** `ValueError` for layers without a common leading axis, layers that change the shape (when
    the model is built), or a scale that is a function.

    **Example:**
    ```python
    layers = vfe.networks.Repeated([vfe.networks.Dense(jnp.eye(3), jnp.zeros(3), jnp.tanh)] * 20).layers
    vfe.Model(x=vfe.given(3), z=vfe.cascade(layers, parents="x", scale=0.1))
    ```

    **Source:** Friston 2005 (hierarchies of Gaussian levels).
    """
    names = as_parents(parents)
    if len(names) != 1:
        raise ValueError(f"cascade: got parents {list(names)}; wanted one.")
    lengths = {a.shape[0] if a.ndim else 0 for a in jax.tree.leaves(eqx.filter(layers, eqx.is_array))}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f"cascade: the arrays of the layers have leading axes {sorted(lengths)}; wanted one length for "
            "all, the number of levels."
        )
    noise = make_noise(scale, None, None)
    if not isinstance(noise, IndependentNoise):
        raise ValueError("cascade: the scale must be a number or an array, not a function of the parents.")
    return Cascade(layers=layers, start=start or identity, noise=noise, levels=lengths.pop(), parents=names)
