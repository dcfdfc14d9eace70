"""Two small models that several experiments share: tables of a few states, and three Gaussian levels."""

from typing import Any

import jax.numpy as jnp
import numpy as np

import vfe


def tables() -> tuple[np.ndarray, np.ndarray]:
    """p(z), (5,), and p(x | z), (5, 7), rows summing to one: drawn once, so that numbers can be compared.

    **Example:** `tables()[1].sum(1)` is 1 for every cause.
    """
    random = np.random.default_rng(0)
    return random.dirichlet(np.ones(5)), random.dirichlet(np.ones(7), 5)


def discrete_model() -> vfe.Model:
    """p(x, z) = p(x | z) p(z): five causes, seven sensations. **Example:** `discrete_model().order`."""
    prior, likelihood = tables()
    return vfe.Model(
        z=vfe.categorical(prior),
        x=vfe.categorical(vfe.learnable(likelihood.T), parents="z"),
    )


def gaussian_hierarchy(seed: int = 0) -> vfe.Model:
    """p(x | z1) p(z1 | z2) p(z2), linear and Gaussian, of 4, 3 and 2 elements.

    **Example:** `vfe.exact.log_evidence(gaussian_hierarchy(), {"x": x})`.
    """
    random = np.random.default_rng(seed)

    def affine(out: int, into: int) -> vfe.Affine:
        return vfe.Affine(random.normal(size=(out, into)), random.normal(size=out))

    return vfe.Model(
        z2=vfe.gaussian(jnp.asarray(random.normal(size=2)), scale=1.2),
        z1=vfe.gaussian(affine(3, 2), scale=0.8, parents="z2"),
        x=vfe.gaussian(affine(4, 3), scale=vfe.learnable(0.6), parents="z1"),
    )


def gaussian_divergence(mean: Any, covariance: Any, other: Any, spread: Any) -> np.ndarray:
    """KL(N(mean, covariance) ‖ N(other, spread)) in nats, with any leading axes:
    ½ (tr(spread⁻¹ covariance) + dᵀ spread⁻¹ d − n + ln |spread| − ln |covariance|), d from mean to other.

    **Example:** `gaussian_divergence([0.0], [[1.0]], [1.0], [[1.0]])` is 0.5.
    """
    covariance, spread = np.asarray(covariance), np.asarray(spread)
    inverse, apart = np.linalg.inv(spread), np.asarray(mean) - np.asarray(other)
    traced = np.einsum("...ij,...ji->...", inverse, covariance)
    distance = np.einsum("...i,...ij,...j->...", apart, inverse, apart)
    volumes = np.linalg.slogdet(spread)[1] - np.linalg.slogdet(covariance)[1]
    return 0.5 * (traced + distance - apart.shape[-1] + volumes)
