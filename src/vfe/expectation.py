"""How an average ⟨·⟩_q over the continuous nodes is taken; discrete nodes are always enumerated.

Each expectation turns a function of the coordinates u into its average under N(location, L Lᵀ). The
averages over discrete nodes are taken inside that function, locally to each conditional.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


class AbstractExpectation(eqx.Module):
    """An average under a Gaussian belief. Settings only; frozen."""

    @abc.abstractmethod
    def average(
        self,
        function: Callable[[Array], Any],
        location: Float[Array, " n"],
        factor: Float[Array, "n n"],
        key: PRNGKeyArray,
    ) -> tuple[Any, Any]:
        """⟨f(u)⟩ (a pytree like f's), and f at the draws it was averaged over, or None."""


class Enumerate(AbstractExpectation):
    """Sum over the discrete nodes, and nothing else: for beliefs about discrete nodes only.

    ⟨E_i⟩ = Σ_k q(k) E_i(k), k over the family of node i, never over the whole joint.
    """

    def average(
        self, function: Callable[[Array], Any], location: Array, factor: Array, key: PRNGKeyArray
    ) -> tuple[Any, Any]:
        if location.shape[-1]:
            raise ValueError(
                "Enumerate: the belief has continuous nodes; use vfe.Taylor or vfe.MonteCarlo."
            )
        return function(location), None


class Taylor(AbstractExpectation):
    """⟨f⟩ ≈ f(μ) + ½ tr(H C): the second-order expansion, exact where f is quadratic.

    Elsewhere it is no bound, and unbounded below in C wherever the curvature H is indefinite.
    """

    def average(
        self, function: Callable[[Array], Any], location: Array, factor: Array, key: PRNGKeyArray
    ) -> tuple[Any, Any]:
        value = function(location)
        if location.shape[-1] == 0:
            return value, None

        def second(direction: Array) -> Any:
            def first(u: Array) -> Any:
                return jax.jvp(function, (u,), (direction,))[1]

            return jax.jvp(first, (location,), (direction,))[1]

        curvatures = jax.vmap(second)(factor.T)
        return jax.tree.map(lambda v, c: v + 0.5 * c.sum(0), value, curvatures), None


class MonteCarlo(AbstractExpectation):
    """⟨f⟩ ≈ (1/S) Σ_s f(μ + L ε_s): an unbiased average over a fixed base sample.

    The base sample is made of antithetic pairs ±ε, so odd terms cancel; the standard error comes from
    the pairs' means.

    **Arguments:** `samples`: S, an even number of at least 4.
    """

    samples: int = eqx.field(static=True, default=64)

    def __check_init__(self) -> None:
        if self.samples < 4 or self.samples % 2:
            raise ValueError(
                f"MonteCarlo: got samples={self.samples}; wanted an even number of at least 4."
            )

    def average(
        self, function: Callable[[Array], Any], location: Array, factor: Array, key: PRNGKeyArray
    ) -> tuple[Any, Any]:
        half = jax.random.normal(key, (self.samples // 2, location.shape[-1]), location.dtype)
        noise = jnp.concatenate([half, -half])
        draws = jax.vmap(lambda e: function(location + factor @ e))(noise)
        return jax.tree.map(lambda d: d.mean(0), draws), draws


def standard_error(totals: Float[Array, " samples"]) -> Float[Array, ""]:
    """The standard error of the mean over antithetic pairs: sd of the pairs' means / √pairs."""
    half = totals.shape[0] // 2
    pairs = 0.5 * (totals[:half] + totals[half:])
    return jnp.std(pairs, ddof=1) / jnp.sqrt(half)
