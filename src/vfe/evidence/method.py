"""How ln p(x) is estimated: the kind of method, and what methods share."""

import abc
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.beliefs import AbstractGaussian, EnumeratedBelief, MeanField
from vfe.conditioning import Conditioned
from vfe.model import Model

MOST_STATES = 256
PARTICLES_AT_ONCE = 2**15

Pair = tuple[Array, Array]
"""ln of an average weight, and its standard error."""


class AbstractEvidenceMethod(eqx.Module):
    """How ln p(x) is estimated. Settings only; frozen."""

    @property
    @abc.abstractmethod
    def particles(self) -> int:
        """How many points one observation is evaluated at together: for the size of a chunk."""

    @abc.abstractmethod
    def fit(self, model: Model, observed: Mapping[str, Any]) -> Any:
        """The belief to start from where none is given; None for the prior."""

    @abc.abstractmethod
    def estimate(self, conditioned: Conditioned, belief: Any, key: PRNGKeyArray) -> Pair:
        """ln p(x) of one observation (or one data set that shares latents) and its standard error."""


def gaussian_part(belief: Any, word: str) -> AbstractGaussian:
    """A belief's Gaussian part. **Raises:** `TypeError` where it has none."""
    if isinstance(belief, MeanField):
        belief = belief.continuous
    if not isinstance(belief, AbstractGaussian):
        raise TypeError(
            f"{word}: got a belief of type {type(belief).__name__}; wanted a "
            "Gaussian one such as vfe.Laplace or vfe.JointGaussian (or vfe.Enumerated, vfe.MeanField)."
        )
    return belief


def check_states(conditioned: Conditioned) -> None:
    """**Raises:** `ValueError` where the joint states of the discrete nodes are too many to sum over."""
    joint = int(np.prod(list(conditioned.discrete.values()), dtype=object))
    if joint > MOST_STATES:
        raise ValueError(
            f"log_evidence: the hidden discrete nodes {list(conditioned.discrete)} have {joint:,} joint "
            f"states to sum over (the limit is {MOST_STATES}); observe some of them."
        )
    if conditioned.discrete and conditioned.repeats is not None:
        raise ValueError(
            "log_evidence: latents are shared by all observations, and some hidden nodes are discrete; "
            "no estimate is implemented for that."
        )


def summed(conditioned: Conditioned) -> Callable[[Array], Array]:
    """E(u) with the discrete nodes summed out: −ln Σ_k p(x, u, k), over all joint states."""
    if not conditioned.discrete:
        return conditioned.energy
    check_states(conditioned)
    sizes = tuple(conditioned.discrete.values())
    states = jnp.stack([g.ravel() for g in jnp.meshgrid(*map(jnp.arange, sizes), indexing="ij")])

    def energy(u: Array) -> Array:
        def at(state: Array) -> Array:
            held = conditioned
            for name, k in zip(conditioned.discrete, state, strict=True):
                held = held.clamp(name, k)
            return held.energy(u)

        each = jax.vmap(at)(states.T)
        # A state that the data exclude must not spoil the gradients of the others.
        return -jax.nn.logsumexp(jnp.where(jnp.isnan(each), -jnp.inf, -each))

    return energy


def over_states(
    conditioned: Conditioned, node: str, belief: EnumeratedBelief | None, estimate: Any, key: PRNGKeyArray
) -> Pair:
    """ln Σ_k p(x, k): an estimate for each state of a discrete node, and the error of their sum."""
    states = conditioned.discrete[node]
    keys = jax.random.split(key, states)
    if belief is None:
        logs, errors = eqx.filter_vmap(lambda k, key: estimate(conditioned.clamp(node, k), None, key))(
            jnp.arange(states), keys
        )
    else:
        logs, errors = eqx.filter_vmap(lambda k, b, key: estimate(conditioned.clamp(node, k), b, key))(
            jnp.arange(states), belief.conditional, keys
        )
        logs = jnp.where(jnp.isneginf(belief.log_probabilities), -jnp.inf, logs)
    total = jax.nn.logsumexp(logs)
    shares = jnp.exp(logs - jnp.where(jnp.isfinite(total), total, 0.0))
    return total, jnp.sqrt(jnp.sum(jnp.where(shares > 0, shares * errors, 0.0) ** 2))


def log_mean(log_weights: Float[Array, " samples"]) -> Pair:
    """ln of the mean weight, and by the delta method its standard error: sd(w) / (√S mean(w))."""
    logs = jnp.where(jnp.isnan(log_weights), -jnp.inf, log_weights)
    top = jnp.max(logs)
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    weights = jnp.exp(logs - top)
    mean = weights.mean()
    some = mean > 0
    error = jnp.std(weights, ddof=1) / jnp.sqrt(logs.size) / jnp.where(some, mean, 1.0)
    value = jnp.where(some, jnp.log(jnp.where(some, mean, 1.0)) + top, -jnp.inf)
    return value, jnp.where(some, error, 0.0)
