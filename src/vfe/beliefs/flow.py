"""A belief of any smooth shape: a Gaussian pushed through invertible layers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.beliefs.drawn import AbstractDrawn, AbstractDrawnFamily, DrawnMarginal, Draws
from vfe.conditioning import Conditioned, Layout
from vfe.densities import LOG_2PI

ONE = float(np.log(np.expm1(1.0)))
"""softplus(ONE) = 1."""

BISECTIONS = 40
NEWTON_STEPS = 3


class Flow(AbstractDrawnFamily):
    """The family u = T_L ∘ … ∘ T_1(m + s ∘ ε), ε ~ N(0, I): a normalising flow.

    T(v) = v + R tanh(Q v + b), R and Q lower triangular with R_jj Q_jj > −1, so that every layer is
    invertible and its Jacobian triangular; the order of the elements within each node alternates from
    layer to layer, that of the nodes stays, so that the entropy splits by node. At R = 0 it is a
    `vfe.DiagonalGaussian`. A belief has n (n + 2) numbers a layer: for tens of elements, not thousands.

    **Arguments:** `layers`: L.

    **Raises:** `ValueError` for fewer than one layer.

    **Example:** `vfe.perceive(model, {"x": x}, belief=vfe.Flow(2))`.

    **Source:** Rezende and Mohamed 2015; van den Berg et al. 2018 (triangular Sylvester flows).
    """

    layers: int = eqx.field(static=True, default=2)

    def __check_init__(self) -> None:
        if type(self.layers) is not int or self.layers < 1:
            raise ValueError(f"Flow: got layers={self.layers!r}; wanted 1, 2, …")

    def size(self, layout: Layout) -> int:
        return 2 * layout.size + self.layers * layout.size * (layout.size + 2)

    def from_vector(self, layout: Layout, vector: Array) -> "FlowBelief":
        n = layout.size
        rest = vector[..., 2 * n :].reshape(*vector.shape[:-1], self.layers, n * (n + 2))
        return FlowBelief(layout, vector[..., :n], vector[..., n : 2 * n], rest)

    def start(self, conditioned: Conditioned, key: PRNGKeyArray) -> "FlowBelief":
        """A Gaussian, with layers that bend it a little: at R = 0 exactly, Q and b would not move."""
        location, n = conditioned.start(), conditioned.layout.size
        rest = 0.1 * jax.random.normal(key, (self.layers, n * (n + 2)), location.dtype)
        return FlowBelief(conditioned.layout, location, jnp.full_like(location, -1.0), rest)


class FlowBelief(AbstractDrawn):
    """q of u = T_L ∘ … ∘ T_1(location + exp(log_scale) ∘ ε), the layers' numbers in `bends`."""

    layout: Layout = eqx.field(static=True)
    location: Float[Array, "*batch n"]
    log_scale: Float[Array, "*batch n"]
    bends: Float[Array, "*batch layers k"]

    @property
    def family(self) -> Flow:
        return Flow(self.bends.shape[-2])

    def leading_axes(self) -> tuple[int, ...]:
        return self.location.shape[:-1]

    def _order(self, layer: int) -> np.ndarray:
        """Where each element of a layer's order lies in the layout: turned round in every second layer."""
        parts = [np.arange(s.start, s.stop) for s in self.layout.slots]
        return np.concatenate([p[::-1] if layer % 2 else p for p in parts])

    def _layer(self, layer: int) -> tuple[Array, Array, Array]:
        """R, Q and b of a layer, (..., n, n), (..., n, n), (..., n)."""
        n = self.layout.size
        raw = self.bends[..., layer, :]
        slope, steepness, offset = (raw[..., i * n : (i + 1) * n] for i in range(3))
        rows, columns = np.tril_indices(n, -1)
        below = raw[..., 3 * n :].reshape(*raw.shape[:-1], 2, len(rows))
        diagonal = jnp.exp(steepness)
        # R_jj Q_jj = softplus(…) − 1 > −1, and zero where the number is.
        product = jax.nn.softplus(slope + ONE) - 1.0
        eye = jnp.eye(n, dtype=raw.dtype)
        outer = (product / diagonal)[..., None] * eye
        inner = diagonal[..., None] * eye
        outer = outer.at[..., rows, columns].set(below[..., 0, :])
        return outer, inner.at[..., rows, columns].set(below[..., 1, :]), offset

    def _push(self, noise: Float[Array, "*batch n"]) -> tuple[Array, Array]:
        """The coordinates of base noise, and ln q(u_j | …) of every element, in the order of the layout."""
        u = self.location + jnp.exp(self.log_scale) * noise
        logs = -0.5 * noise**2 - 0.5 * LOG_2PI - self.log_scale
        for layer in range(self.bends.shape[-2]):
            u, size = self._forward(layer, u)
            logs = logs - size
        return u, logs

    def _forward(self, layer: int, u: Array) -> tuple[Array, Array]:
        order = self._order(layer)
        outer, inner, offset = self._layer(layer)
        v = u[..., order]
        bent = jnp.tanh(jnp.einsum("...ij,...j->...i", inner, v) + offset)
        v = v + jnp.einsum("...ij,...j->...i", outer, bent)
        product = jnp.diagonal(outer, axis1=-2, axis2=-1) * jnp.diagonal(inner, axis1=-2, axis2=-1)
        back = np.argsort(order)
        return v[..., back], jnp.log1p(product * (1.0 - bent**2))[..., back]

    def draws(self, key: PRNGKeyArray, samples: int) -> Draws:
        pairs = max(1, samples // 2)
        half = jax.random.normal(key, (1, 1, pairs, self.layout.size), self.location.dtype)
        u, logs = self._push(jnp.concatenate([half, -half], 1))
        parts = {s.name: logs[..., s.where].sum(-1) for s in self.layout.slots}
        return Draws(u, jnp.ones(1, u.dtype), parts)

    def coordinates_density(self, u: Array) -> Array:
        """ln q, through the inverse of every layer, element by element."""
        return _density(self, u)

    def _inverse(self, layer: int, u: Array) -> Array:
        order = self._order(layer)
        outer, inner, offset = self._layer(layer)
        wanted = u[..., order]
        shape = jnp.broadcast_shapes(wanted.shape, offset.shape)
        n = shape[-1]
        wanted, offset = (jnp.broadcast_to(a, shape) for a in (wanted, offset))
        outer, inner = (jnp.broadcast_to(a, (*shape, n)) for a in (outer, inner))

        def element(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            v, bent = carry
            target = wanted[..., j] - jnp.sum(outer[..., j, :] * bent, -1)
            shift = jnp.sum(inner[..., j, :] * v, -1) + offset[..., j]
            a, q = outer[..., j, j], inner[..., j, j]

            def excess(x: Array) -> Array:
                return x + a * jnp.tanh(q * x + shift) - target

            def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
                low, high = ends
                middle = 0.5 * (low + high)
                above = excess(middle) > 0
                return jnp.where(above, low, middle), jnp.where(above, middle, high)

            def newton(_: Array, x: Array) -> Array:
                return x - excess(x) / (1.0 + a * q * (1.0 - jnp.tanh(q * x + shift) ** 2))

            low, high = jax.lax.fori_loop(0, BISECTIONS, halve, (target - jnp.abs(a), target + jnp.abs(a)))
            x = jax.lax.fori_loop(0, NEWTON_STEPS, newton, 0.5 * (low + high))
            return v.at[..., j].set(x), bent.at[..., j].set(jnp.tanh(q * x + shift))

        v, _ = jax.lax.fori_loop(0, n, element, (jnp.zeros(shape), jnp.zeros(shape)))
        return v[..., np.argsort(order)]

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> dict[str, Array]:
        noise = jax.random.normal(key, (*shape, *self.location.shape), self.location.dtype)
        return self.layout.decode(self._push(noise)[0])

    def __getitem__(self, name: str) -> DrawnMarginal:
        """Its marginal, as 4096 fixed draws in antithetic pairs."""
        half = jax.random.normal(jax.random.key(0), (2048, *self.location.shape), self.location.dtype)
        drawn = self.layout.decode(self._push(jnp.concatenate([half, -half]))[0])
        return DrawnMarginal(self.layout.slot(name), drawn[name])


@eqx.filter_jit
def _density(belief: FlowBelief, u: Array) -> Array:
    # Compiled as a whole: each of the loops inside would be compiled anew at every call.
    for layer in reversed(range(belief.bends.shape[-2])):
        u = belief._inverse(layer, u)
    noise = (u - belief.location) * jnp.exp(-belief.log_scale)
    return belief._push(noise)[1].sum(-1)
