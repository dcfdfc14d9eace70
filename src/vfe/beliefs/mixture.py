"""A belief of several Gaussian components."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.beliefs.combined import MixtureMarginal
from vfe.beliefs.continuous import AbstractGaussian
from vfe.beliefs.drawn import AbstractDrawn, AbstractDrawnFamily, Draws
from vfe.beliefs.gaussian import AbstractLaplace, DiagonalGaussian
from vfe.conditioning import Conditioned, Layout


class Mixture(AbstractDrawnFamily):
    """The family q(u) = Σ_k w_k N(u; m_k, L_k L_kᵀ): posteriors with several modes.

    Where two causes explain the same sensation (x = z²), a single Gaussian pays about ln 2 nats for
    keeping to one of them. Every component is drawn from, with its weight, so F is differentiable in the
    weights too.

    **Arguments:** `components`: how many; `family` of each: `vfe.DiagonalGaussian` (default),
    `vfe.NodeGaussian` or `vfe.JointGaussian`.

    **Raises:** `ValueError` for fewer than two components, `TypeError` for another family.

    **Example:** `vfe.perceive(model, {"x": x}, belief=vfe.Mixture(2))`.

    **Source:** Bishop et al. 1998, Approximating posterior distributions in belief networks using mixtures;
    Roeder et al. 2017 (stratified draws).
    """

    components: int = eqx.field(static=True, default=2)
    family: Any = eqx.field(static=True, default=DiagonalGaussian)

    def __check_init__(self) -> None:
        if not isinstance(self.components, int) or self.components < 2:
            raise ValueError(f"Mixture: got components={self.components!r}; wanted 2, 3, …")
        good = isinstance(self.family, type) and issubclass(self.family, AbstractGaussian)
        if not good or issubclass(self.family, AbstractLaplace):
            raise TypeError(
                f"Mixture: got family={self.family!r}; wanted vfe.DiagonalGaussian, vfe.NodeGaussian or "
                "vfe.JointGaussian."
            )

    def size(self, layout: Layout) -> int:
        return self.components * (1 + self.family.size(layout))

    def from_vector(self, layout: Layout, vector: Array) -> "MixtureBelief":
        logits, rest = vector[..., : self.components], vector[..., self.components :]
        rest = rest.reshape(*rest.shape[:-1], self.components, self.family.size(layout))
        return MixtureBelief(layout, logits, self.family.from_vector(layout, rest))

    def start(self, conditioned: Conditioned, key: PRNGKeyArray) -> "MixtureBelief":
        """Components of equal weight, apart by about one unit, so that they can go to different modes."""
        first = self.family.start(conditioned, key)
        parts = jax.tree.map(lambda a: jnp.broadcast_to(a, (self.components, *a.shape)), first)
        # In mirrored pairs: by chance all might start on one side of two causes, and stay there.
        half = jax.random.normal(
            key, (-(-self.components // 2), *first.location.shape), parts.location.dtype
        )
        apart = jnp.concatenate([half, -half])[: self.components]
        parts = eqx.tree_at(lambda p: p.location, parts, parts.location + apart)
        return MixtureBelief(first.layout, jnp.zeros(self.components), parts)


class MixtureBelief(AbstractDrawn):
    """q(u) = Σ_k w_k N(u; m_k, L_k L_kᵀ), w = softmax(`logits`).

    `parts`: a Gaussian belief with the components as the last of its leading axes.
    """

    layout: Layout = eqx.field(static=True)
    logits: Float[Array, "*batch components"]
    parts: AbstractGaussian

    @property
    def probabilities(self) -> Float[Array, "*batch components"]:
        """The weights w."""
        return jax.nn.softmax(self.logits, -1)

    @property
    def family(self) -> Mixture:
        return Mixture(self.logits.shape[-1], type(self.parts))

    def leading_axes(self) -> tuple[int, ...]:
        return self.logits.shape[:-1]

    def draws(self, key: PRNGKeyArray, samples: int) -> Draws:
        """As many pairs of every component as of any other, at least one."""
        components = self.logits.shape[-1]
        pairs = max(1, samples // (2 * components))
        half = jax.random.normal(key, (components, 1, pairs, self.layout.size), self.logits.dtype)
        noise = jnp.concatenate([half, -half], 1)
        u = eqx.filter_vmap(lambda part, e: part.displaced(e))(self.parts, noise)
        return Draws(u, self.probabilities, self._by_node(u))

    def _prefixes(self, u: Float[Array, "*batch n"]) -> list[Float[Array, "*batch"]]:
        """ln q of the nodes up to each one, marginalised over those after it."""
        each = self.parts.elementwise(u[..., None, :]).cumsum(-1)
        logs = jax.nn.log_softmax(self.logits, -1)
        ends = [s.stop - 1 for s in self.layout.slots]
        return [jax.nn.logsumexp(logs + each[..., end], -1) for end in ends]

    def _by_node(self, u: Float[Array, "*batch n"]) -> dict[str, Array]:
        found, before = {}, jnp.zeros(())
        for name, upto in zip(self.names, self._prefixes(u), strict=True):
            found[name], before = upto - before, upto
        return found

    def coordinates_density(self, u: Array) -> Array:
        return self._prefixes(u)[-1]

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> dict[str, Array]:
        one, two = jax.random.split(key)
        lead = self.leading_axes()
        chosen = jax.random.categorical(one, self.logits, shape=(*shape, *lead))
        location = self.parts.location
        noise = jax.random.normal(two, (*shape, *location.shape), location.dtype)
        u = self.parts.displaced(noise)
        return self.layout.decode(jnp.take_along_axis(u, chosen[..., None, None], -2)[..., 0, :])

    def __getitem__(self, name: str) -> MixtureMarginal:
        return MixtureMarginal(self.probabilities, self.parts[name])
