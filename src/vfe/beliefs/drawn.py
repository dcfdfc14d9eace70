"""Beliefs whose entropy has no closed form: averages are taken over draws, with ln q at each."""

import abc
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.beliefs.base import AbstractBelief
from vfe.conditioning import Conditioned, Layout, Slot


class Draws(eqx.Module):
    """Weighted draws from one belief, in antithetic pairs: draw i of each stratum and its mirror image.

    `coordinates`: (strata, 2, pairs, n); `weights`: of the strata, (strata,), their sum one;
    `log_densities`: ln q(z_i | hidden nodes before i) at every draw, (strata, 2, pairs) by node, in the
    unconstrained coordinates. `basis`: of single draws with weights of their own (one to a stratum), what
    these weights average exactly: orthonormal columns, (strata, d).
    """

    coordinates: Float[Array, "strata two pairs n"]
    weights: Float[Array, " strata"]
    log_densities: dict[str, Float[Array, "strata two pairs"]]
    basis: Float[Array, "strata d"] | None = None

    def mean(self, values: Float[Array, "strata two pairs *rest"]) -> Float[Array, "*rest"]:
        """⟨f⟩ = Σ_k w_k of the mean over stratum k."""
        return jnp.tensordot(self.weights, values.mean((1, 2)), 1)

    def standard_error(self, values: Float[Array, "strata two pairs"]) -> Float[Array, ""]:
        """Of that mean, from the means of the pairs within each stratum (NaN where there is one pair).

        With a `basis`, from what it leaves unexplained.
        """
        if self.basis is not None:
            single = values.reshape(-1)
            left = single - self.basis @ (self.basis.T @ single)
            count, explained = self.basis.shape
            return jnp.sqrt(jnp.sum(left**2) / (count - explained) * jnp.sum(self.weights**2))
        pairs = values.mean(1)
        if pairs.shape[1] < 2:
            return jnp.full((), jnp.nan)
        return jnp.sqrt(jnp.sum(self.weights**2 * pairs.var(1, ddof=1)) / pairs.shape[1])

    def proposals(self) -> "Draws":
        """To weigh themselves: draws whose weights come from a regression are of equal weight again.

        Those weights may be negative, and hang on all the draws together.
        """
        if self.basis is None:
            return self
        shape = (1, 1, len(self.weights))
        logs = {n: log.reshape(shape) for n, log in self.log_densities.items()}
        coordinates = self.coordinates.reshape(*shape, -1)
        return Draws(coordinates, jnp.ones(1, self.weights.dtype), logs)

    @property
    def log_density(self) -> Float[Array, "strata two pairs"]:
        """ln q at every draw."""
        return sum(self.log_densities.values(), jnp.zeros(()))


class AbstractDrawn(AbstractBelief):
    """A belief about continuous nodes that can be drawn from, with its density at every draw.

    Draws are differentiable in the belief's parameters (reparametrised), so that F, averaged over a fixed
    base sample, can be descended.
    """

    layout: eqx.AbstractVar[Layout]

    @property
    @abc.abstractmethod
    def family(self) -> "AbstractDrawnFamily":
        """The family it belongs to."""

    @abc.abstractmethod
    def draws(self, key: PRNGKeyArray, samples: int) -> Draws:
        """About so many draws, of one belief without leading axes."""

    @abc.abstractmethod
    def coordinates_density(self, u: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
        """ln q at unconstrained coordinates, with the leading axes of belief and coordinates together."""

    @abc.abstractmethod
    def leading_axes(self) -> tuple[int, ...]:
        """The leading axes: one belief per index."""

    @property
    def names(self) -> tuple[str, ...]:
        return self.layout.names

    def entropies(self) -> dict[str, Array]:
        """−⟨ln q(z_i | hidden nodes before i)⟩ over 4096 fixed draws.

        F itself takes energies and entropies over the same draws, so that their errors cancel.
        """
        one = self._entropies_of_one
        for _ in self.leading_axes():
            one = jax.vmap(one)
        return one(self)

    def _entropies_of_one(self, belief: "AbstractDrawn") -> dict[str, Array]:
        draws = belief.draws(jax.random.key(0), 4096)
        return {n: -draws.mean(logs) for n, logs in draws.log_densities.items()}

    def log_density(self, values: Mapping[str, Array]) -> Array:
        u = self.layout.encode(values)
        return self.coordinates_density(u) - self.layout.log_jacobian(u)

    def aligned(self, layout: Layout) -> "AbstractDrawn":
        """Itself, where its nodes are those of `layout`, in that order."""
        if self.layout != layout:
            raise ValueError(
                f"the belief is about {list(self.names)}; the hidden continuous nodes are "
                f"{list(layout.names)}, in this order."
            )
        return self


class AbstractDrawnFamily(eqx.Module):
    """A family of such beliefs, by its settings."""

    @abc.abstractmethod
    def size(self, layout: Layout) -> int:
        """How many numbers parametrise a belief."""

    @abc.abstractmethod
    def from_vector(self, layout: Layout, vector: Float[Array, "*batch m"]) -> AbstractDrawn:
        """The belief with these parameters, as an encoder gives them."""

    @abc.abstractmethod
    def start(self, conditioned: Conditioned, key: PRNGKeyArray) -> AbstractDrawn:
        """Where perception starts for one observation."""


class DrawnMarginal(eqx.Module):
    """The marginal of one continuous node as draws of equal weight, on the first axis."""

    slot: Slot = eqx.field(static=True)
    draws: Float[Array, "draws *batch_and_event"]

    @property
    def mean(self) -> Array:
        """⟨z⟩, (*leading axes, *event), over the draws."""
        return self.draws.mean(0)

    @property
    def variance(self) -> Array:
        """⟨(z − ⟨z⟩)²⟩ by element, in squared units of z."""
        return self.draws.var(0)

    @property
    def sd(self) -> Array:
        """The standard deviation by element, in units of z."""
        return self.draws.std(0)
