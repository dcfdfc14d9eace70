"""−⟨ln q(z)⟩ of one belief under another: what an encoder that follows refined beliefs descends."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.beliefs import LOG_2PI, AbstractDrawn, AbstractGaussian, Categorical, MeanField


def cross_entropy(of: Any, under: Any, samples: int, key: PRNGKeyArray) -> Float[Array, ""]:
    """−⟨ln q_under⟩_{q_of} in nats, for two beliefs of one family about one observation.

    Closed form for Gaussian and categorical beliefs, over `samples` draws of `of` for others.

    **Raises:** `TypeError` for beliefs without a density.

    **Example:** `cross_entropy(belief, belief, 64, key)` is the belief's entropy.
    """
    if isinstance(of, MeanField):
        continuous = cross_entropy(of.continuous, under.continuous, samples, key)
        return continuous + cross_entropy(of.discrete, under.discrete, samples, key)
    if isinstance(of, Categorical):
        return -sum(
            (jnp.sum(p * jax.nn.log_softmax(under.logits[n], -1)) for n, p in of.probabilities().items()),
            jnp.zeros(()),
        )
    if isinstance(of, AbstractGaussian):
        rows = jnp.concatenate([(of.location - under.location)[:, None], of.factor()], 1)
        white = jax.scipy.linalg.solve_triangular(under.factor(), rows, lower=True)
        return 0.5 * jnp.sum(white**2) + jnp.sum(under.log_diagonal() + 0.5 * LOG_2PI)
    if isinstance(of, AbstractDrawn):
        draws = of.draws(key, samples)
        return -draws.mean(under.coordinates_density(draws.coordinates))
    raise TypeError(f"got a {type(of).__name__}, which has no density to follow.")
