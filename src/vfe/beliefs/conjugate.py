"""Beliefs in the exponential family that goes with each node's support: gamma, Dirichlet, normal."""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.beliefs.continuous import LOG_2PI
from vfe.beliefs.drawn import AbstractDrawn, AbstractDrawnFamily, Draws
from vfe.conditioning import Conditioned, Layout, Slot


class Conjugate(AbstractDrawnFamily):
    """The family q(z) = Π_i q(z_i): gamma for positive elements, Dirichlet for simplexes, normal for real.

    Averages are taken over draws, with weights that make those of the sufficient statistics T exact (ln z
    and z; ln θ_k; z and z²): where E is linear in them, which is what conjugate means, F is exact, and
    `vfe.NaturalGradient`, η ← (1 − ρ) η − ρ c with c the regression of E on T, reaches the posterior in
    one step. Elsewhere F is Monte Carlo. It wants about twice as many draws as there are statistics.

    **Raises:** `ValueError` for other supports.

    **Example:** `vfe.perceive(model, {"x": counts}, belief=vfe.Conjugate(), solver=vfe.NaturalGradient())`.

    **Source:** Salimans and Knowles 2013 (regression on sufficient statistics); Khan and Rue 2021.
    """

    def size(self, layout: Layout) -> int:
        return sum(_size(s) for s in layout.slots)

    def from_vector(self, layout: Layout, vector: Float[Array, "*batch m"]) -> "ConjugateBelief":
        return ConjugateBelief(layout, vector)

    def start(self, conditioned: Conditioned, key: PRNGKeyArray) -> "ConjugateBelief":
        """Gamma(1, 1), Dirichlet(1 … 1), and normals at the mean of their prior with sd 1/e."""
        layout, location = conditioned.layout, conditioned.start()
        for s in layout.slots:
            if s.support.kind not in ("real", "positive", "simplex") or s.support.lower != 0.0:
                raise ValueError(
                    f"Conjugate: node {s.name!r} has a {s.support.name} support; wanted real, positive or "
                    "simplex. Use a Gaussian belief, vfe.Mixture or vfe.Flow."
                )
        parts = []
        for s in layout.slots:
            if s.support.is_real:
                parts += [location[s.where], jnp.full(s.stop - s.start, -1.0)]
            else:
                parts.append(jnp.zeros(_size(s)))
        return ConjugateBelief(layout, jnp.concatenate(parts))


class ConjugateBelief(AbstractDrawn):
    """q(z) = Π_i q(z_i), each in the exponential family of its support.

    `parameters`, node after node: means and ln sd of normals, ln a and ln b of gammas, ln α of Dirichlets.
    """

    layout: Layout = eqx.field(static=True)
    parameters: Float[Array, "*batch m"]

    @property
    def family(self) -> Conjugate:
        return Conjugate()

    def leading_axes(self) -> tuple[int, ...]:
        return self.parameters.shape[:-1]

    def of(self, slot: Slot) -> tuple[Array, ...]:
        """Mean and sd, a and b, or (α,) of one node, with the shape of its value behind leading axes."""
        start = sum(_size(s) for s in self.layout.slots[: self.layout.slots.index(slot)])
        raw = self.parameters[..., start : start + _size(slot)]
        if slot.support.kind == "simplex":
            return (jnp.exp(raw).reshape(*raw.shape[:-1], *slot.shape),)
        one, two = (part.reshape(*raw.shape[:-1], *slot.shape) for part in jnp.split(raw, 2, -1))
        return (one if slot.support.is_real else jnp.exp(one)), jnp.exp(two)

    def natural(self) -> Float[Array, " t"]:
        """η, in the order of `statistics`: (m/s², −1/2s²), (a − 1, −b), α − 1."""
        found = []
        for s in self.layout.slots:
            p = self.of(s)
            if s.support.is_real:
                found += [p[0] / p[1] ** 2, -0.5 / p[1] ** 2]
            else:
                found += [p[0] - 1] if len(p) == 1 else [p[0] - 1, -p[1]]
        return jnp.concatenate([f.reshape(-1) for f in found])

    def with_natural(self, natural: Float[Array, " t"]) -> "ConjugateBelief":
        """The belief with these natural parameters; NaN where there is none."""
        parts, start = [], 0
        for s in self.layout.slots:
            eta = natural[start : start + _size(s)]
            start += _size(s)
            if s.support.kind == "simplex":
                parts.append(jnp.log(eta + 1))
                continue
            one, two = jnp.split(eta, 2)
            if s.support.is_real:
                parts += [-0.5 * one / two, -0.5 * jnp.log(-2 * two)]
            else:
                parts += [jnp.log(one + 1), jnp.log(-two)]
        return ConjugateBelief(self.layout, jnp.concatenate(parts))

    def means(self) -> Float[Array, " t"]:
        """⟨T⟩, in the order of `statistics`."""
        found = []
        for s in self.layout.slots:
            p = self.of(s)
            if s.support.is_real:
                found += [p[0], p[0] ** 2 + p[1] ** 2]
            elif len(p) == 1:
                found.append(digamma(p[0]) - digamma(p[0].sum(-1, keepdims=True)))
            else:
                found += [digamma(p[0]) - jnp.log(p[1]), p[0] / p[1]]
        return jnp.concatenate([f.reshape(-1) for f in found])

    def statistics(self, u: Float[Array, " n"]) -> Float[Array, " t"]:
        """T of one draw: z and z², ln z and z, ln θ."""
        found = []
        for name, z in self.layout.decode(u).items():
            kind = self.layout.slot(name).support.kind
            if kind == "simplex":
                found.append(jnp.log(z))
            else:
                found += [z, z**2] if kind == "real" else [jnp.log(z), z]
        return jnp.concatenate([f.reshape(-1) for f in found])

    def draws(self, key: PRNGKeyArray, samples: int) -> Draws:
        """Draws with weights for which those of T have their exact mean.

        **Raises:** `ValueError` where there are fewer than two draws for each of the statistics.
        """
        u = self._drawn(key, (samples,))
        basis, _, weights = self.regression(u)
        each = jax.vmap(self._by_node)(u)
        logs = {n: log[:, None, None] for n, log in each.items()}
        return Draws(u[:, None, None, :], weights, logs, basis)

    def proposals(self, key: PRNGKeyArray, samples: int) -> Draws:
        """Independent draws of equal weight."""
        u = self._drawn(key, (samples,))
        logs = {n: log[None, None] for n, log in jax.vmap(self._by_node)(u).items()}
        return Draws(u[None, None], jnp.ones(1, u.dtype), logs)

    def regression(self, u: Float[Array, "s n"]) -> tuple[Array, Array, Array]:
        """Q and R of the statistics about their means (in a scale of their own) after a column of ones, and
        the weights w of draws with Σ w f = ⟨f⟩ for all f linear in T."""
        means = self.means()
        if u.shape[0] < 2 * (means.size + 1):
            raise ValueError(
                f"Conjugate: {means.size} sufficient statistics want at least {2 * (means.size + 1)} "
                "draws; "
                f"got {u.shape[0]}. Write expectation=vfe.MonteCarlo({2 * (means.size + 1)}) or more."
            )
        centred = jax.vmap(self.statistics)(u) - means
        ones = jnp.ones((u.shape[0], 1), centred.dtype)
        basis, root = jnp.linalg.qr(jnp.concatenate([ones, centred / self._scale(centred)], 1))
        first = jnp.zeros(root.shape[0], root.dtype).at[0].set(1.0)
        weights = basis @ jax.scipy.linalg.solve_triangular(root, first, trans=1)
        return basis, root, weights

    def slopes(self, u: Float[Array, "s n"], values: Float[Array, " s"]) -> Float[Array, " t"]:
        """∂⟨f⟩/∂⟨T⟩: how f regresses on the statistics over these draws."""
        basis, root, _ = self.regression(u)
        centred = jax.vmap(self.statistics)(u) - self.means()
        return jax.scipy.linalg.solve_triangular(root, basis.T @ values)[1:] / self._scale(centred)

    @property
    def jacobian(self) -> Float[Array, " t"]:
        """ln |dz/du| of the coordinates u, which is linear in T: 1 for every ln z and ln θ, else 0."""
        parts = []
        for s in self.layout.slots:
            half = _size(s) // 2
            if s.support.kind == "simplex":
                parts.append(jnp.ones(_size(s)))
            else:
                parts += [jnp.full(half, 0.0 if s.support.is_real else 1.0), jnp.zeros(half)]
        return jnp.concatenate(parts)

    def by_statistic(self, values: Mapping[str, Array | float]) -> Float[Array, " t"]:
        """A number of each node, repeated for its statistics."""
        return jnp.concatenate([jnp.full(_size(s), values[s.name]) for s in self.layout.slots])

    @staticmethod
    def _scale(centred: Array) -> Array:
        return jax.lax.stop_gradient(jnp.sqrt((centred**2).mean(0)))

    def _drawn(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*batch n"]:
        parts = []
        for i, s in enumerate(self.layout.slots):
            here, p = jax.random.fold_in(key, i), self.of(s)
            if s.support.is_real:
                z = p[0] + p[1] * jax.random.normal(here, (*shape, *p[0].shape), p[0].dtype)
            else:
                log = jax.random.loggamma(here, p[0], (*shape, *p[0].shape), p[0].dtype)
                z = log - jnp.log(p[1]) if len(p) == 2 else s.support.encode(jax.nn.softmax(log, -1))
            lead = (*shape, *self.leading_axes())
            parts.append(z.reshape(*lead, s.stop - s.start))
        return jnp.concatenate(parts, -1)

    def _by_node(self, u: Float[Array, "*batch n"]) -> dict[str, Array]:
        """ln q(u_i) by node."""
        found = {}
        for s in self.layout.slots:
            coordinates = self.layout.unpack(u)[s.name]
            p, z = self.of(s), s.support.decode(coordinates)
            axes = tuple(range(-len(s.shape), 0))
            if s.support.is_real:
                found[s.name] = jnp.sum(
                    -0.5 * ((z - p[0]) / p[1]) ** 2 - jnp.log(p[1]) - 0.5 * LOG_2PI, axes
                )
            elif len(p) == 2:
                # The logarithm of z is the coordinate: z q(z) is its density.
                logs = p[0] * (jnp.log(p[1]) + coordinates) - p[1] * z - gammaln(p[0])
                found[s.name] = jnp.sum(logs, axes)
            else:
                # The Jacobian of the coordinates of a simplex is Π_k θ_k.
                rows = (p[0] * jnp.log(z) - gammaln(p[0])).sum(-1) + gammaln(p[0].sum(-1))
                found[s.name] = jnp.sum(rows, axes[1:])
        return found

    def coordinates_density(self, u: Array) -> Array:
        return sum(self._by_node(u).values(), jnp.zeros(()))

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> dict[str, Array]:
        return self.layout.decode(self._drawn(key, shape))

    def __getitem__(self, name: str) -> "ConjugateMarginal":
        slot = self.layout.slot(name)
        return ConjugateMarginal(slot, self.of(slot))


class ConjugateMarginal(eqx.Module):
    """The marginal of one node, in closed form.

    `parameters`: (mean, sd) of a normal; (a, b), shape and rate, of a gamma; (α,) of a Dirichlet.
    """

    slot: Slot = eqx.field(static=True)
    parameters: tuple[Float[Array, "*batch_and_event"], ...]

    @property
    def mean(self) -> Array:
        """⟨z⟩: the mean, a / b or α / Σ α, (*leading axes, *event)."""
        first = self.parameters[0]
        if self.slot.support.kind == "simplex":
            return first / first.sum(-1, keepdims=True)
        return first if self.slot.support.is_real else first / self.parameters[1]

    @property
    def variance(self) -> Array:
        """⟨(z − ⟨z⟩)²⟩ by element, in squared units of z."""
        first = self.parameters[0]
        if self.slot.support.kind == "simplex":
            mean = self.mean
            return mean * (1 - mean) / (first.sum(-1, keepdims=True) + 1)
        second = self.parameters[1]
        return second**2 if self.slot.support.is_real else first / second**2

    @property
    def sd(self) -> Array:
        """The standard deviation by element, in units of z."""
        return jnp.sqrt(self.variance)


def _size(slot: Slot) -> int:
    """How many parameters a node has: as many as it has statistics."""
    values = 1
    for n in slot.shape:
        values *= n
    return values if slot.support.kind == "simplex" else 2 * values
