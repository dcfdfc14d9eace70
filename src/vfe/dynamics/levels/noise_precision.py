"""Precisions of noise: a fixed part plus components whose log-precision is learned."""

from collections.abc import Sequence

import equinox as eqx
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike


class Precision(eqx.Module):
    """Π = V + Σ_j exp(λ_j) Q_j, with λ_j ~ N(mean_j, variance_j).

    Scalars stand for multiples of the identity, vectors for diagonals. Units: one over those of the noise,
    squared (noise on a flow has the units of the state per unit of time).

    **Arguments:** `fixed`: V; `components`: the Q_j, positive semi-definite; `mean`, `variance`: of the
    log-precisions, one each, or one for all.

    **Raises:** `ValueError` for a variance that is not positive; when put into a model, for a shape that
    does not fit, or a precision that is not positive definite.

    **Example:** `vfe.Precision(components=[1.0], mean=4.0, variance=1.0)`.

    **Source:** Friston 2008, "Hierarchical models in the brain", section on hyperparameters.
    """

    fixed: np.ndarray
    components: tuple[np.ndarray, ...]
    mean: np.ndarray
    variance: np.ndarray

    def __init__(
        self,
        fixed: ArrayLike = 0.0,
        components: Sequence[ArrayLike] = (),
        mean: ArrayLike = 0.0,
        variance: ArrayLike = 1.0,
    ):
        self.fixed = np.asarray(fixed, float)
        self.components = tuple(np.asarray(q, float) for q in components)
        self.mean = _each(mean, len(self.components), "mean")
        self.variance = _each(variance, len(self.components), "variance")
        if (self.variance <= 0).any():
            raise ValueError(
                f"Precision: got variances {self.variance} of the log-precisions; wanted them positive "
                "(for a known precision write fixed=)."
            )

    def expand(self, size: int, name: str) -> tuple[Float[np.ndarray, "n n"], Float[np.ndarray, "k n n"]]:
        """V and the Q_j as matrices; raises `ValueError` that begins with `name`."""
        fixed = matrix(self.fixed, size, f"{name}, fixed")
        components = [matrix(q, size, f"{name}, component {j}") for j, q in enumerate(self.components)]
        for what in (fixed, *components):
            if size and np.linalg.eigvalsh(what).min() < -1e-10 * max(np.abs(what).max(), 1e-300):
                raise ValueError(f"{name}: got a matrix with a negative eigenvalue:\n{what}")
        whole = fixed + sum(components, np.zeros((size, size)))
        if size and np.linalg.eigvalsh(whole).min() <= 1e-14 * np.abs(whole).max(initial=0.0):
            raise ValueError(
                f"{name}: got a precision that is not positive definite (smallest eigenvalue "
                f"{np.linalg.eigvalsh(whole).min():g}); wanted every direction of the noise to have "
                "some, such "
                "as a scalar above zero."
            )
        return fixed, np.array(components).reshape(len(components), size, size)


def precision(value: "Precision | ArrayLike") -> Precision:
    """A `Precision` as it is, numbers as a fixed one."""
    return value if isinstance(value, Precision) else Precision(fixed=value)


def matrix(value: np.ndarray, size: int, name: str) -> Float[np.ndarray, "n n"]:
    """A scalar as a multiple of the identity, a vector as a diagonal, a symmetric matrix as it is."""
    if not np.isfinite(value).all():
        raise ValueError(f"{name}: got {value}; wanted finite numbers.")
    if value.ndim == 0:
        return float(value) * np.eye(size)
    if value.shape == (size,):
        return np.diag(value)
    if value.shape != (size, size):
        raise ValueError(
            f"{name}: got shape {value.shape}; wanted a scalar, ({size},) or ({size}, {size})."
        )
    if not np.allclose(value, value.T, rtol=1e-10, atol=0):
        raise ValueError(f"{name}: got a matrix that is not symmetric:\n{value}")
    return (value + value.T) / 2


def _each(value: ArrayLike, count: int, name: str) -> np.ndarray:
    value = np.asarray(value, float)
    if value.ndim > 1 or (value.ndim == 1 and value.shape != (count,)) or not np.isfinite(value).all():
        raise ValueError(
            f"Precision: got {name} {value}; wanted one finite number, or one for each of the {count} "
            "components."
        )
    return np.broadcast_to(value, (count,)).copy()
