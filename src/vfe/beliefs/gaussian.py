"""Gaussian beliefs: diagonal, by node, joint, and Laplace."""

import abc
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.beliefs.continuous import AbstractGaussian
from vfe.conditioning import Conditioned, Layout
from vfe.densities import LOG_2PI


class DiagonalGaussian(AbstractGaussian):
    """q(u) = Π_j N(u_j; m_j, s_j²): every element independent.

    S = Σ_j ½ (1 + ln 2π) + ln s_j.

    **Example:** `vfe.perceive(model, {"x": x}, belief=vfe.DiagonalGaussian)`.
    """

    layout: Layout = eqx.field(static=True)
    location: Float[Array, "*batch n"]
    log_scale: Float[Array, "*batch n"]

    @classmethod
    def size(cls, layout: Layout) -> int:
        return 2 * layout.size

    @classmethod
    def from_vector(cls, layout: Layout, vector: Array) -> "DiagonalGaussian":
        location, log_scale = jnp.split(vector, 2, axis=-1)
        return cls(layout, location, log_scale)

    @classmethod
    def from_factor(cls, layout: Layout, location: Array, factor: Array) -> "DiagonalGaussian":
        return cls(layout, location, jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)))

    @classmethod
    def start(cls, conditioned: Conditioned, key: PRNGKeyArray) -> "DiagonalGaussian":
        location = conditioned.start()
        return cls(conditioned.layout, location, jnp.full_like(location, -1.0))

    def log_diagonal(self) -> Array:
        return self.log_scale

    def factor(self) -> Array:
        return jnp.exp(self.log_scale)[..., None] * jnp.eye(self.layout.size)

    def displaced(self, noise: Array) -> Array:
        return self.location + jnp.exp(self.log_scale) * noise

    def elementwise(self, u: Array) -> Array:
        white = (u - self.location) * jnp.exp(-self.log_scale)
        return -0.5 * white**2 - self.log_scale - 0.5 * LOG_2PI


class AbstractCholesky(AbstractGaussian):
    """q(u) = N(u; m, L Lᵀ) by the logarithms of L's diagonal and some of the elements below it."""

    layout: Layout = eqx.field(static=True)
    location: Float[Array, "*batch n"]
    log_scale: Float[Array, "*batch n"]
    below: Float[Array, "*batch k"]

    @classmethod
    @abc.abstractmethod
    def elements(cls, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the elements below the diagonal that L may have."""

    @classmethod
    def size(cls, layout: Layout) -> int:
        return 2 * layout.size + len(cls.elements(layout)[0])

    @classmethod
    def from_vector(cls, layout: Layout, vector: Array) -> Self:
        n = layout.size
        return cls(layout, vector[..., :n], vector[..., n : 2 * n], vector[..., 2 * n :])

    @classmethod
    def from_factor(cls, layout: Layout, location: Array, factor: Array) -> Self:
        rows, columns = cls.elements(layout)
        diagonal = jnp.diagonal(factor, axis1=-2, axis2=-1)
        return cls(layout, location, jnp.log(diagonal), factor[..., rows, columns])

    @classmethod
    def start(cls, conditioned: Conditioned, key: PRNGKeyArray) -> Self:
        location, layout = conditioned.start(), conditioned.layout
        below = jnp.zeros(len(cls.elements(layout)[0]))
        return cls(layout, location, jnp.full_like(location, -1.0), below)

    def log_diagonal(self) -> Array:
        return self.log_scale

    def factor(self) -> Array:
        rows, columns = self.elements(self.layout)
        diagonal = jnp.exp(self.log_scale)[..., None] * jnp.eye(self.layout.size)
        return diagonal.at[..., rows, columns].set(self.below)


class NodeGaussian(AbstractCholesky):
    """q(u) = Π_i N(u_i; m_i, L_i L_iᵀ): a full covariance within each node, none between nodes.

    **Example:** `vfe.perceive(model, {"x": x}, belief=vfe.NodeGaussian)`.
    """

    @classmethod
    def elements(cls, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = np.tril_indices(layout.size, -1)
        block = np.zeros(layout.size, int)
        for number, s in enumerate(layout.slots):
            block[s.where] = number
        keep = block[rows] == block[columns]
        return rows[keep], columns[keep]


class JointGaussian(AbstractCholesky):
    """q(u) = N(u; m, L Lᵀ): one full covariance for all nodes together.

    **Example:** `vfe.perceive(model, {"x": x}, belief=vfe.JointGaussian)`.
    """

    @classmethod
    def elements(cls, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
        return np.tril_indices(layout.size, -1)


def precision_of(belief: AbstractGaussian) -> Float[Array, "n n"]:
    """The inverse of a belief's covariance, for one observation."""
    if isinstance(belief, AbstractLaplace):
        return belief.root @ belief.root.T
    factor = belief.factor()
    inverse = jax.scipy.linalg.solve_triangular(factor, jnp.eye(factor.shape[-1]), lower=True)
    return inverse.T @ inverse


class AbstractLaplace(AbstractGaussian):
    """q(u) = N(u; μ, H⁻¹), H = R Rᵀ with R upper triangular: μ the mode of E and H a curvature there."""

    layout: Layout = eqx.field(static=True)
    location: Float[Array, "*batch n"]
    root: Float[Array, "*batch n n"]

    @classmethod
    def size(cls, layout: Layout) -> int:
        return layout.size

    @classmethod
    def from_vector(cls, layout: Layout, vector: Array) -> Self:
        return cls(layout, vector, jnp.broadcast_to(jnp.eye(layout.size), (*vector.shape, layout.size)))

    @classmethod
    def from_precision(cls, layout: Layout, location: Array, precision: Array) -> Self:
        """N(location, precision⁻¹), through the upper triangular root R Rᵀ = precision."""
        return cls(layout, location, upper_root(precision))

    @classmethod
    def from_factor(cls, layout: Layout, location: Array, factor: Array) -> Self:
        identity = jnp.broadcast_to(jnp.eye(layout.size), factor.shape)
        inverse = jax.scipy.linalg.solve_triangular(factor, identity, lower=True)
        return cls(layout, location, jnp.swapaxes(inverse, -1, -2))

    @classmethod
    def start(cls, conditioned: Conditioned, key: PRNGKeyArray) -> Self:
        return cls.from_vector(conditioned.layout, conditioned.start())

    def log_diagonal(self) -> Array:
        return -jnp.log(jnp.diagonal(self.root, axis1=-2, axis2=-1))

    def factor(self) -> Array:
        identity = jnp.broadcast_to(jnp.eye(self.layout.size), self.root.shape)
        return jax.scipy.linalg.solve_triangular(jnp.swapaxes(self.root, -1, -2), identity, lower=True)


def upper_root(matrix: Float[Array, "*batch n n"]) -> Float[Array, "*batch n n"]:
    """R upper triangular with R Rᵀ = matrix."""
    return jnp.linalg.cholesky(matrix[..., ::-1, ::-1])[..., ::-1, ::-1]


class Laplace(AbstractLaplace):
    """q(u) = N(u; μ, H⁻¹): μ the mode of E and H its curvature there, the exact Hessian.

    F = E(μ) + ½ ln |H| − ½ n ln 2π: exact where E is quadratic, elsewhere an approximation that may
    read far below −ln p(x).

    **Source:** Friston et al. 2007, Variational free energy and the Laplace approximation.
    """


class GaussNewtonLaplace(AbstractLaplace):
    """q(u) = N(u; μ, H⁻¹): μ the mode of E and H its Gauss–Newton curvature there, never indefinite.

    In standardised errors e, z = g(parents) + s ∘ e, H is I + Jᵀ J, J how the observed nodes' predictions
    move with e in units of their noise: F = ½ |e|² − ln p(x | z) + ½ ln |I + J Jᵀ|. Exact where E is
    quadratic, elsewhere an approximation. For Gaussian hidden nodes of constant spread and Gaussian,
    Bernoulli or categorical observed ones. `vfe.learn` evaluates it through the smaller of output space
    and error space and keeps modes, not curvatures, so networks of any size can be trained on the whole
    F; elsewhere a belief holds n × n numbers.

    **Example:** `vfe.perceive(model, {"x": x}, belief=vfe.GaussNewtonLaplace)`.

    **Source:** Friston et al. 2007; Papaspiliopoulos et al. 2007 (the non-centred form); Immer et al. 2021.
    """
