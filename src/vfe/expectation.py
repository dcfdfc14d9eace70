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

from vfe.beliefs import AbstractGaussian


class AbstractExpectation(eqx.Module):
    """An average under a Gaussian belief. Settings only; frozen."""

    @abc.abstractmethod
    def average(
        self, function: Callable[[Array], Any], belief: AbstractGaussian, key: PRNGKeyArray
    ) -> tuple[Any, Any]:
        """⟨f(u)⟩ (a pytree like f's), and f at the draws it was averaged over, or None."""


class Enumerate(AbstractExpectation):
    """Sum over the discrete nodes, and nothing else: for beliefs about discrete nodes only.

    ⟨E_i⟩ = Σ_k q(k) E_i(k), k over the family of node i, never over the whole joint.
    """

    def average(
        self, function: Callable[[Array], Any], belief: AbstractGaussian, key: PRNGKeyArray
    ) -> tuple[Any, Any]:
        if belief.location.shape[-1]:
            raise ValueError(
                "Enumerate: the belief has continuous nodes; use vfe.Taylor or vfe.MonteCarlo."
            )
        return function(belief.location), None


class Taylor(AbstractExpectation):
    """⟨f⟩ ≈ f(μ) + ½ tr(H C): the second-order expansion, exact where f is quadratic.

    Elsewhere it is no bound, and unbounded below in C wherever the curvature H is indefinite.
    """

    def average(
        self, function: Callable[[Array], Any], belief: AbstractGaussian, key: PRNGKeyArray
    ) -> tuple[Any, Any]:
        location = belief.location
        value = function(location)
        if location.shape[-1] == 0:
            return value, None

        def second(direction: Array) -> Any:
            def first(u: Array) -> Any:
                return jax.jvp(function, (u,), (direction,))[1]

            return jax.jvp(first, (location,), (direction,))[1]

        curvatures = jax.vmap(second)(belief.factor().T)
        return jax.tree.map(lambda v, c: v + 0.5 * c.sum(0), value, curvatures), None


class MonteCarlo(AbstractExpectation):
    """⟨f⟩ ≈ (1/S) Σ_s f(μ + L ε_s): an unbiased average over a fixed base sample.

    The base sample is made of antithetic pairs ±ε, so odd terms cancel; the standard error comes from
    the pairs' means. One draw, or one pair, is enough for a step of learning; its standard error is then
    NaN, as nobody can know it.

    **Arguments:** `samples`: S, 1 or an even number.

    **Raises:** `ValueError` for another number.
    """

    samples: int = eqx.field(static=True, default=64)

    def __check_init__(self) -> None:
        if self.samples != 1 and (self.samples < 2 or self.samples % 2):
            raise ValueError(f"MonteCarlo: got samples={self.samples}; wanted 1 or an even number.")

    def average(
        self, function: Callable[[Array], Any], belief: AbstractGaussian, key: PRNGKeyArray
    ) -> tuple[Any, Any]:
        location = belief.location
        half = jax.random.normal(key, (max(1, self.samples // 2), location.shape[-1]), location.dtype)
        noise = half if self.samples == 1 else jnp.concatenate([half, -half])
        draws = jax.vmap(lambda e: function(belief.displaced(e)))(noise)
        return jax.tree.map(lambda d: d.mean(0), draws), draws


def standard_error(totals: Float[Array, " samples"]) -> Float[Array, ""]:
    """The standard error of the mean over antithetic pairs: sd of the pairs' means / √pairs.

    NaN where there are not two pairs.
    """
    half = totals.shape[0] // 2
    if half < 2:
        return jnp.full((), jnp.nan, totals.dtype)
    pairs = 0.5 * (totals[:half] + totals[half:])
    return jnp.std(pairs, ddof=1) / jnp.sqrt(half)
