"""−ln p of one value under one numpyro distribution, with elements that may be missing; KL between two."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float
from numpyro.distributions.kl import kl_divergence

LOG_2PI = math.log(2 * math.pi)
_CATEGORICAL = (dist.CategoricalLogits, dist.CategoricalProbs)


def base_density(density: Any) -> Any:
    """The density inside any number of `Independent` wrappers."""
    while isinstance(density, dist.Independent):
        density = density.base_dist
    return density


def energy(
    density: dist.Distribution, value: Array, mask: Bool[Array, "..."] | None = None
) -> Float[Array, ""]:
    """−ln p(value) in nats, or −ln of the marginal density of the elements that `mask` keeps.

    For a full covariance Σ the marginal uses the sub-block of Σ (not of its inverse): the missing
    rows and columns become those of an identity, whose constant is then taken out.

    **Raises:** `ValueError` where the density has vector events that cannot be marginalised.
    """
    if mask is None:
        return -jnp.sum(_log_prob(density, value))
    base = base_density(density)
    if isinstance(base, dist.MultivariateNormal):
        # numpyro's lazy_property is a plain attribute once read; its annotation says otherwise.
        covariance: Array = base.covariance_matrix  # pyright: ignore[reportAssignmentType]
        size = covariance.shape[-1]
        both = mask[..., :, None] & mask[..., None, :]
        block = jnp.where(both, covariance, jnp.eye(size, dtype=covariance.dtype))
        present = dist.MultivariateNormal(base.loc, covariance_matrix=block)
        constant = 0.5 * jnp.log(2 * jnp.pi) * jnp.sum(~mask)
        return -jnp.sum(present.log_prob(jnp.where(mask, value, base.loc))) - constant
    support = base.support
    if support is None:
        raise ValueError(f"a {type(base).__name__} declares no support, so no element may be missing")
    filled = jnp.where(_expand(mask, value, base), value, support.feasible_like(value))
    log_prob = _log_prob(base, filled)
    keep = jnp.all(mask, axis=tuple(range(log_prob.ndim, mask.ndim)))
    return -jnp.sum(jnp.where(keep, log_prob, 0.0))


def _log_prob(density: dist.Distribution, value: Array) -> Array:
    base = base_density(density)
    if isinstance(base, dist.BernoulliLogits):
        # numpyro's clips at a logit of zero, where its derivative is then 0 or 1 instead of x − ½.
        return value * base.logits - jax.nn.softplus(base.logits)
    return jnp.asarray(density.log_prob(value))


def _expand(mask: Array, value: Array, base: dist.Distribution) -> Array:
    if base.event_dim == 0:
        return mask
    axes = tuple(range(-base.event_dim, 0))
    return jnp.broadcast_to(jnp.all(mask, axis=axes, keepdims=True), value.shape)


def axes_missing_together(density: dist.Distribution) -> int:
    """How many trailing axes of a value can only be missing as a whole; 0 where single elements may be."""
    base = base_density(density)
    return 0 if isinstance(base, dist.MultivariateNormal) else base.event_dim


def expected(density: dist.Distribution) -> Array:
    """The probabilities of the states of a categorical density; the mean of any other."""
    if isinstance(density, dist.CategoricalLogits | dist.CategoricalProbs):
        return jnp.asarray(density.probs)  # pyright: ignore[reportArgumentType]
    return jnp.asarray(density.mean)


def divergence(one: dist.Distribution, other: dist.Distribution, mask: Array | None = None) -> Array:
    """KL(one ‖ other) in nats of two densities of one kind, over the elements that `mask` keeps.

    Its second derivative in the parameters of `other`, where both are equal, is the Fisher information.

    **Raises:** `ValueError` for kinds without a closed form here.

    **Example:** `divergence(dist.Normal(0.0, 1.0), dist.Normal(1.0, 1.0))` is 0.5.
    """
    return _apart(base_density(one), base_density(other), mask)


def _apart(one: Any, other: Any, mask: Array | None) -> Array:
    if isinstance(one, dist.BernoulliLogits) and isinstance(other, dist.BernoulliLogits):
        a: Any = one.logits
        b: Any = other.logits
        each = jax.nn.sigmoid(a) * (a - b) - jax.nn.softplus(a) + jax.nn.softplus(b)
    elif isinstance(one, _CATEGORICAL) and isinstance(other, _CATEGORICAL):
        p = jnp.asarray(one.probs)
        a, b = one.logits, other.logits
        apart = jax.nn.log_softmax(a, -1) - jax.nn.log_softmax(b, -1)
        # A state without probability does not count, however different its logarithms.
        each = (p * jnp.where(p > 0, apart, 0.0)).sum(-1)
    elif isinstance(one, dist.MultivariateNormal) and isinstance(other, dist.MultivariateNormal):
        if mask is not None:
            both = mask[..., :, None] & mask[..., None, :]
            one, other = (
                dist.MultivariateNormal(
                    jnp.where(mask, d.loc, 0.0),
                    covariance_matrix=jnp.where(
                        both, jnp.asarray(d.covariance_matrix), jnp.eye(d.loc.shape[-1])
                    ),
                )
                for d in (one, other)
            )
        return jnp.sum(kl_divergence(one, other))
    else:
        try:
            each = kl_divergence(one, other)
        except NotImplementedError:  # what numpyro raises for pairs it has no closed form of
            raise ValueError(
                f"a {type(one).__name__} has no Fisher information here; there is one of Gaussian, "
                "Bernoulli, categorical, gamma and Dirichlet nodes"
            ) from None
    if mask is None:
        return jnp.sum(each)
    keep = jnp.all(mask, axis=tuple(range(jnp.ndim(each), mask.ndim)))
    return jnp.sum(jnp.where(keep, each, 0.0))
