"""Probabilistic PCA, the linear model to beat, as a vfe model with closed forms."""

import jax.numpy as jnp
import numpy as np

import vfe
from vfe.conditionals import Gaussian


def probabilistic_pca(x: np.ndarray, dimensions: int) -> vfe.Model:
    """The maximum-likelihood linear-Gaussian model: z ~ N(0, I), x ~ N(W z + mean, σ² I).

    W Wᵀ + σ² I keeps the covariance's `dimensions` largest eigenvalues; σ² is the mean of the rest.

    **Arguments:** `x`: (N, pixels). **Returns:** a model with nodes z and x.

    **Raises:** `ValueError` unless 1 ≤ dimensions < pixels.

    **Example:** `vfe.exact.log_evidence(probabilistic_pca(x, 24), {"x": held_out})`.

    **Source:** Tipping and Bishop 1999.
    """
    if not 1 <= dimensions < x.shape[1]:
        raise ValueError(f"probabilistic_pca: dimensions={dimensions}; wanted 1 … {x.shape[1] - 1}.")
    mean = x.mean(0, dtype=np.float64)
    values, vectors = np.linalg.eigh(np.cov((x - mean).T, bias=True))
    values, vectors = values[::-1], vectors[:, ::-1]
    variance = values[dimensions:].mean()
    weight = vectors[:, :dimensions] * np.sqrt(values[:dimensions] - variance)
    return vfe.Model(
        z=vfe.gaussian(jnp.zeros(dimensions)),
        x=vfe.gaussian(vfe.Affine(weight, mean), scale=np.sqrt(variance), parents="z"),
    )


def filled_in(model: vfe.Model, x: np.ndarray) -> np.ndarray:
    """The conditional mean of the missing (NaN) pixels given the others, exactly; (N, pixels)."""
    belief = vfe.exact.posterior(model, {"x": x})
    node = model["x"]
    if not (isinstance(node, Gaussian) and isinstance(node.mean, vfe.Affine)):
        raise TypeError("filled_in: node 'x' is not linear; wanted a model made by probabilistic_pca.")
    affine = node.mean
    guess = np.asarray(belief["z"].mean @ affine.weight.T + affine.bias)
    return np.where(np.isnan(x), guess, x)
