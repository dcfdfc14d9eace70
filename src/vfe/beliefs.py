"""Recognition densities q(z): what is believed about the hidden nodes.

A belief holds unconstrained arrays, with any leading axes (one belief per observation), and a static
layout that says which part of a vector belongs to which node. Continuous nodes come parents before
children, so that the Cholesky factor of a covariance splits the entropy by level with the chain rule.
"""

import abc
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vfe.conditioning import Conditioned, Layout, Slot
from vfe.model import Model

LOG_2PI = float(np.log(2 * np.pi))


class AbstractBelief(eqx.Module):
    """A density over the hidden nodes, for one observation or with leading axes for many."""

    @property
    @abc.abstractmethod
    def names(self) -> tuple[str, ...]:
        """The nodes it is about."""

    @abc.abstractmethod
    def entropies(self) -> dict[str, Array] | None:
        """S(z_i | hidden nodes before i) in nats, by node; None where the belief has no entropy."""

    @abc.abstractmethod
    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> dict[str, Array]:
        """Values of every node, (*shape, *leading axes, *event)."""

    @abc.abstractmethod
    def log_density(self, values: Mapping[str, Array]) -> Array:
        """ln q(values) in nats, with the leading axes of the belief."""

    @abc.abstractmethod
    def __getitem__(self, name: str) -> Any:
        """The marginal of one node."""


# ------------------------------------------------------------------------------- continuous nodes


class AbstractContinuous(AbstractBelief):
    """A belief about continuous nodes, in one vector of unconstrained coordinates."""

    layout: eqx.AbstractVar[Layout]
    location: eqx.AbstractVar[Array]

    @property
    def names(self) -> tuple[str, ...]:
        return self.layout.names

    @classmethod
    @abc.abstractmethod
    def size(cls, layout: Layout) -> int:
        """How many numbers parametrise it."""

    @classmethod
    @abc.abstractmethod
    def from_vector(cls, layout: Layout, vector: Float[Array, "*batch m"]) -> "AbstractContinuous":
        """The belief with these parameters, as an encoder gives them."""

    @classmethod
    @abc.abstractmethod
    def start(cls, conditioned: Conditioned, key: PRNGKeyArray) -> "AbstractContinuous":
        """Where perception starts for one observation."""

    @abc.abstractmethod
    def factor(self) -> Float[Array, "*batch n n"] | None:
        """Lower triangular L with covariance L Lᵀ; None where there is no spread."""


class AbstractGaussian(AbstractContinuous):
    """q(u) = N(u; location, L Lᵀ) over unconstrained coordinates u."""

    @abc.abstractmethod
    def log_diagonal(self) -> Float[Array, "*batch n"]:
        """ln diag L: all that the entropy needs."""

    @classmethod
    @abc.abstractmethod
    def from_factor(cls, layout: Layout, location: Array, factor: Array) -> "AbstractGaussian":
        """The belief with this mean and (as far as its family allows) this factor."""

    @classmethod
    def from_moments(
        cls, model: Model, mean: Mapping[str, Any], covariance: Any
    ) -> "AbstractGaussian":
        """A belief from the means of its nodes and their joint covariance.

        **Arguments:** `model`, for the shapes; `mean`: an array per node, with any leading axes, each
        flattened in row-major order into the rows of `covariance`, (..., n, n), *in the order of
        this dictionary*.

        **Raises:** `ValueError` for shapes that do not fit, a covariance that is not positive
        definite, or one that couples nodes (elements) which the family keeps independent.

        **Example:** `vfe.JointGaussian.from_moments(model, {"z": jnp.zeros(2)}, jnp.eye(2))`.
        """
        entries = [
            (n, model.describe(n).shape, model.describe(n).support, False) for n in mean
        ]
        layout = Layout.of(entries)
        parts = []
        for s in layout.slots:
            if not s.support.is_real:
                raise ValueError(
                    f"from_moments: node {s.name!r} has a {s.support.name} support; give Gaussians "
                    "over its unconstrained coordinates with from_factor."
                )
            value = jnp.asarray(mean[s.name], float)
            cut = value.ndim - len(s.shape)
            if cut < 0 or value.shape[cut:] != s.shape:
                raise ValueError(
                    f"from_moments: the mean of {s.name!r} has shape {value.shape}; wanted "
                    f"{('...', *s.shape)}."
                )
            parts.append(value.reshape(*value.shape[:cut], -1))
        location = jnp.concatenate(parts, -1)
        matrix = jnp.asarray(covariance, float)
        if matrix.shape[-2:] != (layout.size, layout.size):
            raise ValueError(
                f"from_moments: the covariance has shape {matrix.shape}; the means have "
                f"{layout.size} elements together."
            )
        factor = jnp.linalg.cholesky(matrix)
        belief = cls.from_factor(layout, location, factor)
        if not isinstance(factor, jax.core.Tracer):
            if not np.isfinite(np.asarray(factor)).all():
                raise ValueError("from_moments: the covariance is not positive definite.")
            kept = belief.factor()
            if not np.allclose(np.asarray(kept), np.asarray(factor), atol=1e-6 * np.abs(factor).max()):
                raise ValueError(
                    f"from_moments: the covariance couples elements that a {cls.__name__} keeps "
                    "independent; use vfe.JointGaussian."
                )
        return belief

    def entropies(self) -> dict[str, Array]:
        """S_i = ½ n_i (1 + ln 2π) + Σ_{j in i} ln L_jj."""
        logs = self.log_diagonal()
        return {
            s.name: (0.5 * (1 + LOG_2PI) + logs[..., s.where]).reshape(
                *logs.shape[:-1], *s.coordinates[: int(s.repeated)], -1
            ).sum(-1)
            for s in self.layout.slots
        }

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> dict[str, Array]:
        noise = jax.random.normal(key, (*shape, *self.location.shape), self.location.dtype)
        u = self.location + jnp.einsum("...ij,...j->...i", self.factor(), noise)
        return self.layout.decode(u)

    def log_density(self, values: Mapping[str, Array]) -> Array:
        """ln N(u; location, L Lᵀ) − ln |det dz/du| at u = coordinates of the values."""
        u = self.layout.encode(values)
        residual = jnp.broadcast_to(u - self.location, u.shape)[..., None]
        factor = jnp.broadcast_to(self.factor(), (*u.shape, self.layout.size))
        white = jax.scipy.linalg.solve_triangular(factor, residual, lower=True)[..., 0]
        jacobian = jnp.zeros(u.shape[:-1])
        for s in self.layout.slots:
            if not s.support.is_real:
                flat = u[..., s.where].reshape(-1, *s.coordinates)
                jacobian += jax.vmap(s.support.log_jacobian)(flat).reshape(u.shape[:-1])
        return (
            -0.5 * (white**2).sum(-1)
            - self.log_diagonal().sum(-1)
            - 0.5 * self.layout.size * LOG_2PI
            - jacobian
        )

    def aligned(self, layout: Layout) -> "AbstractGaussian":
        """The same density with its nodes in the order of `layout`."""
        if self.layout == layout:
            return self
        if sorted(self.names) != sorted(layout.names) or self.layout.size != layout.size:
            raise ValueError(
                f"the belief is about {list(self.names)}; the hidden continuous nodes are "
                f"{list(layout.names)}."
            )
        index = np.concatenate(
            [np.arange(self.layout.slot(n).start, self.layout.slot(n).stop) for n in layout.names]
        )
        factor = self.factor()
        covariance = (factor @ jnp.swapaxes(factor, -1, -2))[..., index[:, None], index[None, :]]
        return type(self).from_factor(
            layout, self.location[..., index], jnp.linalg.cholesky(covariance)
        )

    def covariance(self) -> Float[Array, "*batch n n"]:
        """The covariance of all coordinates together, in the order of `names`."""
        factor = self.factor()
        return factor @ jnp.swapaxes(factor, -1, -2)

    def __getitem__(self, name: str) -> "GaussianMarginal":
        slot = self.layout.slot(name)
        return GaussianMarginal(slot, self.location[..., slot.where], self.factor()[..., slot.where, :])


class GaussianMarginal(eqx.Module):
    """The marginal of one continuous node under a Gaussian belief."""

    slot: Slot = eqx.field(static=True)
    location: Float[Array, "*batch k"]
    rows: Float[Array, "*batch k n"]

    def _shaped(self, flat: Array) -> Array:
        return flat.reshape(*flat.shape[:-1], *self.slot.coordinates)

    def _draws(self) -> Array:
        """Values at 4096 fixed draws: for moments without a closed form (constrained supports)."""
        noise = jax.random.normal(jax.random.key(0), (4096, self.rows.shape[-1]), self.location.dtype)
        u = self.location + jnp.einsum("...kn,sn->s...k", self.rows, noise)
        return self.slot.support.decode(self._shaped(u))

    @property
    def mean(self) -> Array:
        """⟨z⟩, (*leading axes, *event); by 4096 fixed draws where the support is constrained."""
        if self.slot.support.is_real:
            return self._shaped(self.location)
        return self._draws().mean(0)

    @property
    def mode(self) -> Array:
        """The value at the mode of the unconstrained coordinates."""
        return self.slot.support.decode(self._shaped(self.location))

    @property
    def variance(self) -> Array:
        """⟨(z − ⟨z⟩)²⟩ by element, in squared units of z."""
        if self.slot.support.is_real:
            return self._shaped((self.rows**2).sum(-1))
        return self._draws().var(0)

    @property
    def sd(self) -> Array:
        """The standard deviation by element, in units of z."""
        return jnp.sqrt(self.variance)

    @property
    def covariance(self) -> Float[Array, "*batch k k"]:
        """The covariance of the flattened unconstrained coordinates."""
        return self.rows @ jnp.swapaxes(self.rows, -1, -2)


class PointMarginal(eqx.Module):
    """One value, without spread."""

    mean: Array

    @property
    def mode(self) -> Array:
        return self.mean


class Point(AbstractContinuous):
    """q = δ(z − ẑ): one value per node, found as the mode in unconstrained coordinates.

    The differential entropy of δ is −∞, so what is left of F is an *energy*: comparable between
    Point beliefs over the same variables only, and no bound on surprise.

    **Example:** `vfe.perceive(model, {"x": x}, belief=vfe.Point)`.
    """

    layout: Layout = eqx.field(static=True)
    location: Float[Array, "*batch n"]

    @classmethod
    def size(cls, layout: Layout) -> int:
        return layout.size

    @classmethod
    def from_vector(cls, layout: Layout, vector: Array) -> "Point":
        return cls(layout, vector)

    @classmethod
    def start(cls, conditioned: Conditioned, key: PRNGKeyArray) -> "Point":
        return cls(conditioned.layout, conditioned.start())

    @classmethod
    def from_values(cls, model: Model, values: Mapping[str, Any]) -> "Point":
        """The Point belief at these values, with any leading axes.

        **Example:** `vfe.Point.from_values(model, {"z": jnp.zeros(2)})`.
        """
        layout = Layout.of(
            [(n, model.describe(n).shape, model.describe(n).support, False) for n in values]
        )
        return cls(layout, layout.encode(values))

    def aligned(self, layout: Layout) -> "Point":
        """The same values with the nodes in the order of `layout`."""
        if self.layout == layout:
            return self
        if sorted(self.names) != sorted(layout.names):
            raise ValueError(
                f"the belief is about {list(self.names)}; the hidden continuous nodes are "
                f"{list(layout.names)}."
            )
        return Point(layout, layout.encode(self.layout.decode(self.location)))

    def factor(self) -> None:
        return None

    def entropies(self) -> None:
        return None

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> dict[str, Array]:
        u = jnp.broadcast_to(self.location, (*shape, *self.location.shape))
        return self.layout.decode(u)

    def log_density(self, values: Mapping[str, Array]) -> Array:
        raise TypeError("a Point belief has no density; use vfe.Laplace for one around the mode.")

    def __getitem__(self, name: str) -> PointMarginal:
        return PointMarginal(self.layout.decode(self.location)[self.layout.slot(name).name])


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


def _below(layout: Layout, joint: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the elements below the diagonal that a factor may have."""
    rows, columns = np.tril_indices(layout.size, -1)
    if joint:
        return rows, columns
    block = np.zeros(layout.size, int)
    for number, s in enumerate(layout.slots):
        block[s.where] = number
    keep = block[rows] == block[columns]
    return rows[keep], columns[keep]


class NodeGaussian(AbstractGaussian):
    """q(u) = Π_i N(u_i; m_i, L_i L_iᵀ): a full covariance within each node, none between nodes.

    **Example:** `vfe.perceive(model, {"x": x}, belief=vfe.NodeGaussian)`.
    """

    layout: Layout = eqx.field(static=True)
    location: Float[Array, "*batch n"]
    log_scale: Float[Array, "*batch n"]
    below: Float[Array, "*batch k"]

    @classmethod
    def size(cls, layout: Layout) -> int:
        return 2 * layout.size + len(_below(layout, False)[0])

    @classmethod
    def from_vector(cls, layout: Layout, vector: Array) -> "NodeGaussian":
        n = layout.size
        return cls(layout, vector[..., :n], vector[..., n : 2 * n], vector[..., 2 * n :])

    @classmethod
    def from_factor(cls, layout: Layout, location: Array, factor: Array) -> "NodeGaussian":
        rows, columns = _below(layout, False)
        diagonal = jnp.diagonal(factor, axis1=-2, axis2=-1)
        return cls(layout, location, jnp.log(diagonal), factor[..., rows, columns])

    @classmethod
    def start(cls, conditioned: Conditioned, key: PRNGKeyArray) -> "NodeGaussian":
        location = conditioned.start()
        below = jnp.zeros(len(_below(conditioned.layout, False)[0]))
        return cls(conditioned.layout, location, jnp.full_like(location, -1.0), below)

    def log_diagonal(self) -> Array:
        return self.log_scale

    def factor(self) -> Array:
        return _assemble(self.log_scale, self.below, _below(self.layout, False))


class JointGaussian(AbstractGaussian):
    """q(u) = N(u; m, L Lᵀ): one full covariance for all nodes together.

    **Example:** `vfe.perceive(model, {"x": x}, belief=vfe.JointGaussian)`.
    """

    layout: Layout = eqx.field(static=True)
    location: Float[Array, "*batch n"]
    log_scale: Float[Array, "*batch n"]
    below: Float[Array, "*batch k"]

    @classmethod
    def size(cls, layout: Layout) -> int:
        return 2 * layout.size + layout.size * (layout.size - 1) // 2

    @classmethod
    def from_vector(cls, layout: Layout, vector: Array) -> "JointGaussian":
        n = layout.size
        return cls(layout, vector[..., :n], vector[..., n : 2 * n], vector[..., 2 * n :])

    @classmethod
    def from_factor(cls, layout: Layout, location: Array, factor: Array) -> "JointGaussian":
        rows, columns = _below(layout, True)
        diagonal = jnp.diagonal(factor, axis1=-2, axis2=-1)
        return cls(layout, location, jnp.log(diagonal), factor[..., rows, columns])

    @classmethod
    def start(cls, conditioned: Conditioned, key: PRNGKeyArray) -> "JointGaussian":
        location = conditioned.start()
        below = jnp.zeros(len(_below(conditioned.layout, True)[0]))
        return cls(conditioned.layout, location, jnp.full_like(location, -1.0), below)

    def log_diagonal(self) -> Array:
        return self.log_scale

    def factor(self) -> Array:
        return _assemble(self.log_scale, self.below, _below(self.layout, True))


def _assemble(log_scale: Array, below: Array, index: tuple[np.ndarray, np.ndarray]) -> Array:
    factor = jnp.exp(log_scale)[..., None] * jnp.eye(log_scale.shape[-1])
    return factor.at[..., index[0], index[1]].set(below)


class Laplace(AbstractGaussian):
    """q(u) = N(u; μ, H⁻¹): μ the mode of E and H its curvature there.

    F = E(μ) + ½ ln |H| − ½ n ln 2π: exact where E is quadratic, elsewhere an approximation that may
    read far below −ln p(x).

    **Source:** Friston et al. 2007, Variational free energy and the Laplace approximation.
    """

    layout: Layout = eqx.field(static=True)
    location: Float[Array, "*batch n"]
    root: Float[Array, "*batch n n"]

    @classmethod
    def size(cls, layout: Layout) -> int:
        return layout.size

    @classmethod
    def from_vector(cls, layout: Layout, vector: Array) -> "Laplace":
        return cls(layout, vector, jnp.broadcast_to(jnp.eye(layout.size), (*vector.shape, layout.size)))

    @classmethod
    def from_precision(cls, layout: Layout, location: Array, precision: Array) -> "Laplace":
        """N(location, precision⁻¹), through the upper triangular root R Rᵀ = precision."""
        flipped = jnp.linalg.cholesky(precision[..., ::-1, ::-1])
        return cls(layout, location, flipped[..., ::-1, ::-1])

    @classmethod
    def from_factor(cls, layout: Layout, location: Array, factor: Array) -> "Laplace":
        identity = jnp.broadcast_to(jnp.eye(layout.size), factor.shape)
        inverse = jax.scipy.linalg.solve_triangular(factor, identity, lower=True)
        return cls(layout, location, jnp.swapaxes(inverse, -1, -2))

    @classmethod
    def start(cls, conditioned: Conditioned, key: PRNGKeyArray) -> "Laplace":
        return cls.from_vector(conditioned.layout, conditioned.start())

    def log_diagonal(self) -> Array:
        return -jnp.log(jnp.diagonal(self.root, axis1=-2, axis2=-1))

    def factor(self) -> Array:
        identity = jnp.broadcast_to(jnp.eye(self.layout.size), self.root.shape)
        return jax.scipy.linalg.solve_triangular(
            jnp.swapaxes(self.root, -1, -2), identity, lower=True
        )


# --------------------------------------------------------------------------------- discrete nodes


class CategoricalMarginal(eqx.Module):
    """The marginal of one discrete node."""

    probabilities: Float[Array, "*batch states"]

    @property
    def mode(self) -> Int[Array, "*batch"]:
        """The most probable state."""
        return jnp.argmax(self.probabilities, -1)

    @property
    def mean(self) -> Float[Array, "*batch"]:
        """⟨k⟩ over the states 0 … K − 1."""
        return (self.probabilities * jnp.arange(self.probabilities.shape[-1])).sum(-1)

    @property
    def entropy(self) -> Float[Array, "*batch"]:
        """−Σ_k q(k) ln q(k), in nats."""
        return entropy_of(self.probabilities)


def entropy_of(probabilities: Array) -> Array:
    """−Σ_k p ln p over the last axis, with 0 ln 0 = 0 and finite gradients."""
    safe = jnp.where(probabilities > 0, probabilities, 1.0)
    return -(probabilities * jnp.log(safe)).sum(-1)


class AbstractDiscrete(AbstractBelief):
    """A belief about scalar discrete nodes."""

    @abc.abstractmethod
    def weigh(self) -> Callable[[tuple[str, ...]], Array]:
        """A function from names to their joint probabilities (for one observation)."""


class Categorical(AbstractDiscrete):
    """q(k) = Π_i softmax(logits_i): discrete nodes, independent of each other.

    **Arguments:** `logits`: (..., K) per node, in topological order.

    **Example:** `vfe.Categorical.from_probabilities({"s": jnp.asarray([0.2, 0.8])})["s"].mode`.
    """

    logits: dict[str, Float[Array, "*batch states"]]
    order: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, logits: Mapping[str, Any], order: tuple[str, ...] | None = None):
        self.logits = {n: jnp.asarray(v, float) for n, v in logits.items()}
        self.order = tuple(logits) if order is None else order

    @classmethod
    def from_probabilities(cls, probabilities: Mapping[str, Any]) -> "Categorical":
        """The belief with these probabilities per node, which must sum to one.

        **Raises:** `ValueError` where they are negative or do not.
        """
        for n, p in probabilities.items():
            if not isinstance(p, jax.core.Tracer):
                numbers = np.asarray(p)
                if (numbers < 0).any() or not np.allclose(numbers.sum(-1), 1, atol=1e-5):
                    raise ValueError(f"Categorical: the probabilities of {n!r} must sum to one.")
        return cls({n: jnp.log(jnp.asarray(p, float)) for n, p in probabilities.items()})

    @classmethod
    def start(cls, conditioned: Conditioned, key: PRNGKeyArray) -> "Categorical":
        """Nearly uniform: a little noise breaks the symmetry between states."""
        logits = {}
        for i, (n, k) in enumerate(conditioned.discrete.items()):
            repeated = conditioned.repeats is not None and not conditioned.model.describe(n).shared
            shape = (conditioned.repeats, k) if repeated else (k,)
            logits[n] = 0.1 * jax.random.normal(jax.random.fold_in(key, i), shape)
        return cls(logits)

    @property
    def names(self) -> tuple[str, ...]:
        return self.order

    def probabilities(self) -> dict[str, Array]:
        """q(k) per node, (..., K)."""
        return {n: jax.nn.softmax(self.logits[n], -1) for n in self.order}

    def weigh(self) -> Callable[[tuple[str, ...]], Array]:
        from vfe.conditioning import outer

        found = self.probabilities()
        return lambda names: outer(found, names)

    def entropies(self) -> dict[str, Array]:
        return {n: entropy_of(p) for n, p in self.probabilities().items()}

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> dict[str, Array]:
        return {
            n: jax.random.categorical(
                jax.random.fold_in(key, i), self.logits[n], shape=(*shape, *self.logits[n].shape[:-1])
            )
            for i, n in enumerate(self.order)
        }

    def log_density(self, values: Mapping[str, Array]) -> Array:
        return sum(
            (_take(jax.nn.log_softmax(self.logits[n], -1), values[n]) for n in self.order),
            jnp.zeros(()),
        )

    def __getitem__(self, name: str) -> CategoricalMarginal:
        if name not in self.logits:
            raise ValueError(f"no hidden discrete node {name!r}; there are {list(self.order)}.")
        return CategoricalMarginal(jax.nn.softmax(self.logits[name], -1))


def _take(table: Array, states: Array) -> Array:
    table = jnp.broadcast_to(table, (*jnp.shape(states), table.shape[-1]))
    return jnp.take_along_axis(table, jnp.asarray(states)[..., None], -1)[..., 0]


class JointCategorical(AbstractDiscrete):
    """q(k) = Π_i q(k_i | separator_i): discrete nodes with their dependencies; each separator earlier.

    The form that variable elimination gives the exact posterior of a discrete graph.

    **Arguments:** `conditionals`: per node, ln q, (..., *states of its separator, states);
    `separators`: the nodes it depends on; in topological order.
    """

    conditionals: dict[str, Array]
    separators: tuple[tuple[str, tuple[str, ...]], ...] = eqx.field(static=True)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(n for n, _ in self.separators)

    def _cliques(self) -> dict[str, tuple[tuple[str, ...], Array]]:
        """The joint probabilities of each node with its separator, from the top down."""
        cliques: dict[str, tuple[tuple[str, ...], Array]] = {}
        for name, separator in self.separators:
            table = jnp.exp(self.conditionals[name])
            if separator:
                last = max(separator, key=self.names.index)
                above, joint = cliques[last]
                table = table * marginalise(joint, above, separator)[..., None]
            cliques[name] = ((*separator, name), table)
        return cliques

    def joint(self, names: tuple[str, ...]) -> Array:
        """q of some nodes that lie in one clique, (..., *states)."""
        cliques = self._cliques()
        last = max(names, key=self.names.index)
        above, table = cliques[last]
        return marginalise(table, above, names)

    def weigh(self) -> Callable[[tuple[str, ...]], Array]:
        cliques = self._cliques()

        def joint(names: tuple[str, ...]) -> Array:
            above, table = cliques[max(names, key=self.names.index)]
            return marginalise(table, above, names)

        return joint

    def entropies(self) -> dict[str, Array]:
        """S_i = −⟨ln q(k_i | separator_i)⟩."""
        found = {}
        for name, (scope, table) in self._cliques().items():
            logs = jnp.where(table > 0, self.conditionals[name], 0.0)
            found[name] = -(table * logs).sum(axis=tuple(range(-len(scope), 0)))
        return found

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> dict[str, Array]:
        values: dict[str, Array] = {}
        for i, (name, separator) in enumerate(self.separators):
            table = self.conditionals[name]
            batch = table.shape[: table.ndim - len(separator) - 1]
            table = jnp.broadcast_to(table, (*shape, *table.shape))
            for parent in separator:
                index = values[parent].reshape(
                    *shape, *batch, *[1] * (table.ndim - len(shape) - len(batch))
                )
                table = jnp.take_along_axis(table, index, axis=len(shape) + len(batch))
                table = jnp.squeeze(table, len(shape) + len(batch))
            values[name] = jax.random.categorical(jax.random.fold_in(key, i), table, axis=-1)
        return values

    def log_density(self, values: Mapping[str, Array]) -> Array:
        total = jnp.zeros(())
        for name, separator in self.separators:
            table = self.conditionals[name]
            batch = table.ndim - len(separator) - 1
            states = [jnp.asarray(values[n]) for n in (*separator, name)]
            shape = jnp.broadcast_shapes(*[s.shape for s in states], table.shape[:batch])
            lead = [
                jnp.arange(size).reshape(-1, *[1] * (batch - 1 - i))
                for i, size in enumerate(table.shape[:batch])
            ]
            index = tuple(jnp.broadcast_to(a, shape) for a in (*lead, *states))
            total = total + table[index]
        return total

    def __getitem__(self, name: str) -> CategoricalMarginal:
        if name not in self.names:
            raise ValueError(f"no hidden discrete node {name!r}; there are {list(self.names)}.")
        return CategoricalMarginal(self.joint((name,)))


def marginalise(table: Array, scope: tuple[str, ...], keep: tuple[str, ...]) -> Array:
    """Sum a table over the axes (its last len(scope)) of nodes not kept, and put them in order."""
    first = table.ndim - len(scope)
    drop = tuple(first + i for i, n in enumerate(scope) if n not in keep)
    table = table.sum(axis=drop)
    left = tuple(n for n in scope if n in keep)
    order = [*range(first), *(first + left.index(n) for n in keep)]
    return jnp.transpose(table, order)


# ------------------------------------------------------------------------- several kinds of nodes


class MeanField(AbstractBelief):
    """q(z, k) = q(z) q(k): continuous and discrete nodes, independent of each other."""

    continuous: AbstractContinuous
    discrete: Categorical

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.discrete.names, *self.continuous.names)

    def entropies(self) -> dict[str, Array] | None:
        above = self.continuous.entropies()
        return None if above is None else {**self.discrete.entropies(), **above}

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> dict[str, Array]:
        one, two = jax.random.split(key)
        return {**self.discrete.sample(one, shape), **self.continuous.sample(two, shape)}

    def log_density(self, values: Mapping[str, Array]) -> Array:
        return self.discrete.log_density(values) + self.continuous.log_density(values)

    def __getitem__(self, name: str) -> Any:
        return self.discrete[name] if name in self.discrete.names else self.continuous[name]


class MixtureMarginal(eqx.Module):
    """The marginal of a continuous node under an enumerated belief: a mixture over the states."""

    probabilities: Float[Array, "*batch states"]
    parts: Any

    def _weights(self, like: Array) -> Array:
        p = self.probabilities
        return p.reshape(*p.shape, *[1] * (like.ndim - p.ndim))

    @property
    def mean(self) -> Array:
        """Σ_k q(k) ⟨z⟩_k."""
        means = self.parts.mean
        return (self._weights(means) * means).sum(self.probabilities.ndim - 1)

    @property
    def variance(self) -> Array:
        """Σ_k q(k) (variance_k + ⟨z⟩_k²) − ⟨z⟩², by element."""
        means, axis = self.parts.mean, self.probabilities.ndim - 1
        spread = self.parts.variance + (means - jnp.expand_dims(self.mean, axis)) ** 2
        return (self._weights(means) * spread).sum(axis)

    @property
    def sd(self) -> Array:
        return jnp.sqrt(self.variance)


class EnumeratedBelief(AbstractBelief):
    """q(l, z) = q(l) q(z | l): one belief about the rest per state of a discrete node.

    `conditional` has the states as the last of its leading axes.
    """

    node: str = eqx.field(static=True)
    log_probabilities: Float[Array, "*batch states"]
    conditional: AbstractBelief

    @property
    def names(self) -> tuple[str, ...]:
        return (self.node, *self.conditional.names)

    @property
    def probabilities(self) -> Array:
        """q(l), (..., states)."""
        return jnp.exp(self.log_probabilities)

    def entropies(self) -> dict[str, Array] | None:
        """S(l) and Σ_l q(l) S(z_i | l)."""
        inner = self.conditional.entropies()
        if inner is None:
            return None
        p = self.probabilities
        return {self.node: entropy_of(p), **{n: (p * s).sum(-1) for n, s in inner.items()}}

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> dict[str, Array]:
        one, two = jax.random.split(key)
        lead = self.log_probabilities.shape[:-1]
        states = jax.random.categorical(one, self.log_probabilities, shape=(*shape, *lead))
        axis = len(shape) + len(lead)

        def pick(values: Array) -> Array:
            index = states.reshape(*states.shape, *[1] * (values.ndim - states.ndim))
            return jnp.squeeze(jnp.take_along_axis(values, index, axis=axis), axis)

        inner = self.conditional.sample(two, shape)
        return {self.node: states, **{n: pick(v) for n, v in inner.items()}}

    def log_density(self, values: Mapping[str, Array]) -> Array:
        states = jnp.asarray(values[self.node])
        inner = {
            n: jnp.expand_dims(jnp.asarray(values[n]), states.ndim) for n in self.conditional.names
        }
        logs = self.conditional.log_density(inner)
        return _take(self.log_probabilities, states) + _take(logs, states)

    def __getitem__(self, name: str) -> Any:
        if name == self.node:
            return CategoricalMarginal(self.probabilities)
        marginal = self.conditional[name]
        if isinstance(marginal, CategoricalMarginal):
            p = self.probabilities[..., None]
            return CategoricalMarginal((p * marginal.probabilities).sum(-2))
        return MixtureMarginal(self.probabilities, marginal)


class ParticleMarginal(eqx.Module):
    """The draws of one node, with the draws' axis after the leading ones."""

    draws: Array
    axis: int = eqx.field(static=True)

    @property
    def mean(self) -> Array:
        return self.draws.mean(self.axis)

    @property
    def variance(self) -> Array:
        return self.draws.var(self.axis)

    @property
    def sd(self) -> Array:
        return self.draws.std(self.axis)


class Particles(AbstractBelief):
    """Draws from the posterior: no density and no entropy; every expectation is an average.

    `coordinates`: (..., chains, draws, n) unconstrained; `r_hat` and `effective_sample_size` by
    element of the coordinates, (..., n).
    """

    layout: Layout = eqx.field(static=True)
    coordinates: Float[Array, "*batch chains draws n"]
    r_hat: Float[Array, "*batch n"]
    effective_sample_size: Float[Array, "*batch n"]

    @property
    def names(self) -> tuple[str, ...]:
        return self.layout.names

    def pooled(self) -> Float[Array, "*batch draws n"]:
        """All chains' draws together."""
        c = self.coordinates
        return c.reshape(*c.shape[:-3], -1, c.shape[-1])

    def entropies(self) -> None:
        return None

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> dict[str, Array]:
        pool = self.pooled()
        count = int(np.prod(shape, dtype=int))
        index = jax.random.randint(key, (count,), 0, pool.shape[-2])
        picked = jnp.moveaxis(pool[..., index, :], -2, 0)
        return self.layout.decode(picked.reshape(*shape, *picked.shape[1:]))

    def log_density(self, values: Mapping[str, Array]) -> Array:
        raise TypeError("Particles have no density; use vfe.Laplace or a Gaussian belief for one.")

    def __getitem__(self, name: str) -> ParticleMarginal:
        self.layout.slot(name)
        pool = self.pooled()
        return ParticleMarginal(self.layout.decode(pool)[name], pool.ndim - 2)


# ------------------------------------------------------------------- families built of other families


class Enumerated(eqx.Module):
    """The family q(l) q(z | l): every state of one discrete node gets a belief of its own.

    F_l is the free energy with the node held at l, −ln p(l) included; the best q(l) ∝ exp(−F_l), and
    F = −ln Σ_l exp(−F_l).

    **Arguments:** `node`: a discrete node; `family`: a belief class or another such family. Not
    `Point`, whose F_l would be energies.

    **Example:** `vfe.perceive(model, {"x": x}, belief=vfe.Enumerated("label", vfe.Laplace))`.
    """

    node: str = eqx.field(static=True)
    family: Any

    def __check_init__(self) -> None:
        if self.family is Point:
            raise ValueError(
                "Enumerated: Point below a discrete node gives energies, which cannot weigh its "
                "states; use vfe.Laplace or a Gaussian belief."
            )


class Amortised(eqx.Module):
    """The family q_φ(z | x): an encoder gives the parameters of a belief from the data (3).

    **Arguments:** `encoder`: a callable of the values of `inputs`, that returns a vector of
    `family.size(layout)` numbers (2 n for `DiagonalGaussian`); `family`: the belief class;
    `inputs`: the observed nodes it sees. Missing elements are seen as zeros.

    **Example:** `vfe.Amortised(encoder, vfe.DiagonalGaussian, inputs=("x",))`.
    """

    encoder: Callable[..., Array]
    family: Any = eqx.field(static=True)
    inputs: tuple[str, ...] = eqx.field(static=True, default=("x",))

    def start(self, conditioned: Conditioned, key: PRNGKeyArray) -> AbstractContinuous:
        """The encoder's belief for one observation."""
        for n in self.inputs:
            if n not in conditioned.observed:
                raise ValueError(
                    f"Amortised: the encoder wants node {n!r}, which is not observed; observed are "
                    f"{list(conditioned.observed)}."
                )
        layout = conditioned.layout
        vector = self.encoder(*[conditioned.observed[n] for n in self.inputs])
        size = self.family.size(layout)
        if vector.shape != (size,):
            raise ValueError(
                f"Amortised: the encoder returned shape {vector.shape}; {self.family.__name__} over "
                f"{list(layout.names)} wants ({size},)."
            )
        return self.family.from_vector(layout, vector)
