"""F[q] = ⟨E⟩_q − S[q], node by node, in its three readings, and which kind of number it is."""

import enum
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.averages import added, expected_terms
from vfe.beliefs import (
    LOG_2PI,
    AbstractBelief,
    AbstractDiscrete,
    AbstractDrawn,
    AbstractDrawnFamily,
    AbstractGaussian,
    AbstractLaplace,
    Amortised,
    Enumerated,
    EnumeratedBelief,
    MeanField,
    Particles,
    Point,
)
from vfe.conditioning import Conditioned, condition
from vfe.curvature import check_gauss_newton, spread
from vfe.declared import is_quadratic
from vfe.expectation import AbstractExpectation, Enumerate, MonteCarlo, Taylor
from vfe.model import Model


class Kind(enum.StrEnum):
    """What kind of number an F is; different kinds are never compared or added."""

    exact = "exact"
    monte_carlo = "monte_carlo"
    approximation = "approximation"
    energy = "energy"


class Estimate(eqx.Module):
    """A number with its standard error (zero where it is exact), in nats."""

    value: Array
    standard_error: Array

    def __repr__(self) -> str:
        return f"Estimate(value={self.value}, standard_error={self.standard_error})"


class FreeEnergy(eqx.Module):
    """F by node, in nats, with any leading axes (one F per observation).

    F = energy − entropy = complexity − accuracy = −ln p(x) + divergence.

    `observed`: −⟨ln p⟩ of what was observed, by node; `hidden`: ⟨−ln p⟩ of hidden nodes; `entropies`:
    S(z_i | hidden nodes above), or None under a Point belief; `shared`: hidden or observed nodes that
    have one value for the whole data set, whose terms enter once; `weight`: what the terms of single
    observations are multiplied by in `total`; `error`: the standard error of `total`, if Monte Carlo.
    """

    observed: dict[str, Array]
    hidden: dict[str, Array]
    entropies: dict[str, Array] | None
    error: Array | None
    weight: Array
    kind: Kind = eqx.field(static=True)
    shared: tuple[str, ...] = eqx.field(static=True)
    order: tuple[str, ...] = eqx.field(static=True)

    def _sum(self, terms: Mapping[str, Array]) -> Array:
        """Sum over nodes; over observations too where some nodes are shared by all of them."""
        result: Any = None
        for name, value in terms.items():
            if self.shared:
                # NumPy's float64 stays what it is where x64 is off.
                added = np.sum(value) if isinstance(value, np.ndarray) else jnp.sum(value)
                value: Any = added * (1.0 if name in self.shared else self.weight)
            result = value if result is None else result + value
        return jnp.zeros(()) if result is None else result

    @property
    def energy(self) -> Array:
        """⟨−ln p(x, z)⟩_q."""
        return self._sum(self.observed) + self._sum(self.hidden)

    @property
    def entropy(self) -> Array:
        """S[q]. **Raises:** `ValueError` under a belief without entropy."""
        return self._sum(self._entropies("entropy"))

    def _entropies(self, word: str) -> dict[str, Array]:
        if self.entropies is None:
            raise ValueError(
                f"{word}: this belief has no entropy, so what was computed is an energy "
                "(prior_energy − accuracy); use vfe.Laplace or a Gaussian belief for a free energy."
            )
        return self.entropies

    @property
    def total(self) -> Array:
        """F = energy − entropy; the energy alone under a belief without entropy."""
        return self.energy if self.entropies is None else self.energy - self.entropy

    @property
    def accuracy(self) -> Array:
        """Σ over observed nodes of ⟨ln p(x | parents)⟩_q."""
        return -self._sum(self.observed)

    @property
    def complexity(self) -> Array:
        """KL(q ‖ Π over hidden nodes of p(z_i | parents_i)), observed parents held at their values."""
        entropies = self._entropies("complexity")
        return self._sum(self.hidden) - self._sum(entropies)

    @property
    def prior_energy(self) -> Array:
        """⟨−ln p(z_i | parents)⟩ over the hidden nodes: what stands for complexity under Point."""
        return self._sum(self.hidden)

    @property
    def by_level(self) -> dict[str, Array]:
        """F_i = energy_i − S_i by node; their (weighted) sum is the total."""
        observed: Any = self.observed
        hidden: Any = self.hidden
        entropies: Any = self.entropies or {}
        return {
            n: observed.get(n, 0.0) + hidden.get(n, 0.0) - entropies.get(n, 0.0)
            for n in self.order
            if n in observed or n in hidden
        }

    @property
    def per_observation(self) -> Array:
        """The part of F that belongs to each observation."""
        return sum((v for n, v in self.by_level.items() if n not in self.shared), jnp.zeros(()))

    @property
    def shared_part(self) -> Array:
        """The part of F that belongs to shared nodes, which enters once for the whole data set."""
        return sum((jnp.sum(v) for n, v in self.by_level.items() if n in self.shared), jnp.zeros(()))

    @property
    def standard_error(self) -> Array:
        """The standard error of `total`: zero unless it is a Monte Carlo number."""
        return jnp.zeros_like(self.total) if self.error is None else self.error

    def divergence(self, log_evidence: "Array | float | Estimate") -> Estimate:
        """KL(q ‖ p(z | x)) = F + ln p(x), with the standard errors of both.

        An estimated ln p(x) is low in expectation, so this is then a lower estimate and may come out
        negative. **Raises:** `ValueError` where F is an energy.
        """
        if self.kind is Kind.energy:
            raise ValueError(
                "divergence: under a Point belief or Particles what was computed is an energy, and "
                "its divergence from the posterior is undefined."
            )
        if isinstance(log_evidence, Estimate):
            value, other = log_evidence.value, log_evidence.standard_error
        else:
            value, other = log_evidence, 0.0
        return Estimate(self.total + value, (self.standard_error**2 + other**2) ** 0.5)

    def _with(self, function: Any, error: Array | None) -> "FreeEnergy":
        terms = (self.observed, self.hidden, self.entropies)
        observed, hidden, entropies = jax.tree.map(function, terms)
        return FreeEnergy(
            observed, hidden, entropies, error, self.weight, self.kind, self.shared, self.order
        )

    def _collapse(self, scale: Any, word: str) -> "FreeEnergy":
        if self.shared:
            raise ValueError(
                f"{word}: latents are shared, so `total` is already the sum over the data set; see "
                "`per_observation` and `shared_part`."
            )
        shape = jnp.shape(self.total)
        n = int(np.prod(shape, dtype=int))
        error = None if self.error is None else jnp.sqrt((self.error**2).sum()) * scale(n)
        return self._with(lambda v: _spread(v, shape).sum() * scale(n), error)

    def sum(self) -> "FreeEnergy":
        """The F of all observations together; standard errors add in squares."""
        return self._collapse(lambda n: 1.0, "sum")

    def mean(self) -> "FreeEnergy":
        """The average F over the observations, with the Monte Carlo error of that average."""
        return self._collapse(lambda n: 1.0 / n, "mean")

    def reshape(self, shape: tuple[int, ...]) -> "FreeEnergy":
        """The same with other leading axes."""

        def one(v: Array) -> Array:
            return v.reshape(shape) if v.ndim else v

        error = None if self.error is None else one(self.error)
        return self._with(one, error)

    def __getitem__(self, index: Any) -> "FreeEnergy":
        """The F of some of the observations."""
        if self.shared:
            raise ValueError("index: latents are shared, so the observations have one F together.")
        shape = jnp.shape(self.total)
        error = None if self.error is None else self.error[index]
        return self._with(lambda v: _spread(v, shape)[index], error)

    def __add__(self, other: "FreeEnergy") -> "FreeEnergy":
        """F of two independent sets of data, node by node.

        **Raises:** `ValueError` where the kinds differ.
        """
        if not isinstance(other, FreeEnergy):
            return NotImplemented
        same_kind(self, other)
        if self.shared or other.shared:
            raise ValueError("add: latents are shared; perceive all the data at once instead.")

        def join(a: dict[str, Array] | None, b: dict[str, Array] | None) -> Any:
            if a is None or b is None:
                return None
            return {n: a.get(n, 0.0) + b.get(n, 0.0) for n in (*a, *(m for m in b if m not in a))}

        error = None
        if self.error is not None and other.error is not None:
            error = jnp.sqrt(self.error**2 + other.error**2)
        order = (*self.order, *(n for n in other.order if n not in self.order))
        return FreeEnergy(
            join(self.observed, other.observed),
            join(self.hidden, other.hidden),
            join(self.entropies, other.entropies),
            error,
            self.weight,
            self.kind,
            (),
            order,
        )

    def table(self) -> str:
        """The numbers as a table: energy, entropy and F by level, and the readings of the total."""
        shape = jnp.shape(self.total)
        many = bool(shape) and not self.shared
        one = self.mean() if many else self
        count = f", mean of {int(np.prod(shape))} observations" if many else ""
        rows = [f"free energy in nats ({self.kind.value}{count})"]
        rows.append(f"{'level':<14}{'energy':>14}{'entropy':>14}{'F':>14}")
        for n, f in one.by_level.items():
            e = np.sum(one.observed.get(n, 0.0)) + np.sum(one.hidden.get(n, 0.0))
            s = np.sum((one.entropies or {}).get(n, 0.0))
            entropy = f"{float(s):14.4f}" if one.entropies and n in one.entropies else f"{'-':>14}"
            rows.append(f"{n:<14}{float(e):14.4f}{entropy}{float(np.sum(f)):14.4f}")
        total = float(one.total)
        error = "" if one.error is None else f" ± {float(one.error):.4f}"
        if one.entropies is None:
            rows.append(f"{'energy':<14}{total:14.4f}{error}")
            rows.append(
                f"  = prior energy {float(one.prior_energy):.4f} − accuracy {float(one.accuracy):.4f}"
                "   (no entropy: not a bound on surprise)"
            )
        else:
            entropy = float(one.entropy)
            rows.append(f"{'F':<14}{float(one.energy):14.4f}{entropy:14.4f}{total:14.4f}{error}")
            rows.append(f"  = energy {float(one.energy):.4f} − entropy {entropy:.4f}")
            rows.append(f"  = complexity {float(one.complexity):.4f} − accuracy {float(one.accuracy):.4f}")
        return "\n".join(rows)

    def __repr__(self) -> str:
        leaves = jax.tree.leaves((self.observed, self.hidden))
        if any(isinstance(v, Tracer | jax.ShapeDtypeStruct) for v in leaves):
            return f"FreeEnergy(kind={self.kind.value}, nodes={list(self.order)}, traced)"
        return self.table()


def _spread(value: Any, shape: tuple[int, ...]) -> Any:
    """An array over all leading axes; NumPy's stay NumPy's, whose float64 JAX may not be set to hold."""
    return (np if isinstance(value, np.ndarray) else jnp).broadcast_to(value, shape)


def same_kind(*all_of: FreeEnergy) -> Kind:
    """The one kind of several F. **Raises:** `ValueError` where they differ."""
    kinds = {f.kind for f in all_of}
    if len(kinds) != 1:
        raise ValueError(
            f"free energies of different kinds ({', '.join(sorted(k.value for k in kinds))}) cannot "
            "be added or compared; evaluate them with the same belief family and expectation."
        )
    return kinds.pop()


def default_expectation(conditioned: Conditioned, belief: Any) -> AbstractExpectation:
    """How ⟨·⟩ is taken by default, for a belief or a family of beliefs.

    Enumerate for discrete nodes alone; Taylor where E is declared quadratic, and for Laplace beliefs,
    whose definition it is; else Monte Carlo.
    """
    if not conditioned.layout.size:
        return Enumerate()
    while isinstance(belief, Enumerated | EnumeratedBelief | Amortised):
        belief = belief.conditional if isinstance(belief, EnumeratedBelief) else belief.family
    if isinstance(belief, AbstractDrawn | AbstractDrawnFamily):
        # Their freedom is enough to fit a small base sample instead of the posterior.
        return MonteCarlo(256)
    if is_laplace(belief) or is_quadratic(conditioned):
        return Taylor()
    return MonteCarlo()


def is_laplace(belief: Any) -> bool:
    """Whether a belief, or a family of beliefs, is a mode with a curvature."""
    return issubclass(belief if isinstance(belief, type) else type(belief), AbstractLaplace)


def kind_of(conditioned: Conditioned, belief: Any, expectation: AbstractExpectation) -> Kind:
    """What kind of number F is for this belief, taken with this expectation."""
    if isinstance(belief, EnumeratedBelief):
        return kind_of(conditioned.clamp(belief.node, jnp.zeros((), int)), belief.conditional, expectation)
    if isinstance(belief, MeanField):
        return kind_of(conditioned, belief.continuous, expectation)
    if isinstance(belief, Point | Particles):
        return Kind.energy
    if isinstance(belief, AbstractDrawn):
        return Kind.monte_carlo
    if isinstance(belief, AbstractDiscrete):
        return Kind.exact
    if isinstance(belief, AbstractLaplace) and not isinstance(expectation, MonteCarlo):
        return Kind.exact if is_quadratic(conditioned) else Kind.approximation
    if isinstance(expectation, MonteCarlo):
        return Kind.monte_carlo
    return Kind.exact if is_quadratic(conditioned) else Kind.approximation


def free_energy_of(
    conditioned: Conditioned,
    belief: AbstractBelief,
    expectation: AbstractExpectation,
    key: PRNGKeyArray,
) -> FreeEnergy:
    """F of one belief for one observation (or one data set that shares latents)."""
    terms = expected_terms(conditioned, belief, expectation, key)
    kind = kind_of(conditioned, belief, expectation)
    hidden = terms.energies.hidden
    if kind is Kind.energy and conditioned.partial:
        hidden = {n: e - _idle(conditioned, belief).get(n, 0.0) for n, e in hidden.items()}
    return FreeEnergy(
        terms.energies.observed,
        hidden,
        None if kind is Kind.energy else terms.entropies,
        terms.error if kind is Kind.monte_carlo else None,
        conditioned.weight,
        kind,
        tuple(n for n in conditioned.shared if n in hidden or n in terms.energies.observed)
        if conditioned.repeats is not None
        else (),
        conditioned.model.order,
    )


def _idle(conditioned: Conditioned, belief: Any) -> dict[str, Array]:
    """What a belief without entropy would have for the coordinates of elements that are present."""
    if isinstance(belief, Particles):
        each = jax.vmap(conditioned.idle_energies)(belief.pooled())
        return jax.tree.map(lambda e: e.mean(0), each)
    return conditioned.idle_energies(belief.location)


def free_energy_at(
    conditioned: Conditioned, errors: Float[Array, " n"], probe: PRNGKeyArray | None = None
) -> FreeEnergy:
    """F of the GaussNewtonLaplace belief around these errors, as a function of errors and parameters.

    F = ½ |e|² + L(e) + ½ ln |I + J Jᵀ|, by node, through the smaller of output space and error space. Its
    derivative in the parameters at fixed errors is both the partial derivative of F and, as
    d ½ ln |I + Jᵀ J| = ½ tr(H⁻¹ d Jᵀ J), that of ⟨E⟩ at a fixed q(e): the M step in these coordinates. Of
    the parts by node only the values are split; the derivative of the entropy is on the highest level.
    """
    check_gauss_newton(conditioned)
    energies = conditioned.error_energies(errors)
    around = spread(conditioned, errors, probe)
    entropies = dict(around.entropies)
    for name, e in conditioned.layout.unpack(errors).items():
        # The energy of a level is ½ |e|² + ln |s| + ½ n ln 2π; ln |s| is what z = g + s ∘ e adds to S.
        size = energies.hidden[name] - 0.5 * jnp.sum(e**2) - 0.5 * e.size * LOG_2PI
        entropies[name] = entropies[name] + size
    if entropies:
        # A zero that carries the derivative of the whole entropy, on the highest level.
        top = next(iter(entropies))
        whole = around.log_determinant
        entropies[top] = entropies[top] - 0.5 * (whole - jax.lax.stop_gradient(whole))
    total = added(energies, around.energies)
    return FreeEnergy(
        total.observed,
        total.hidden,
        entropies,
        None,
        conditioned.weight,
        Kind.exact if is_quadratic(conditioned) else Kind.approximation,
        (),
        conditioned.model.order,
    )


def align(belief: Any, conditioned: Conditioned) -> Any:
    """A belief checked against the hidden nodes, its continuous ones in the model's order."""
    names = set(conditioned.hidden)
    if set(belief.names) != names:
        raise ValueError(
            f"the belief is about {list(belief.names)}; the hidden nodes are "
            f"{list(conditioned.hidden)} (observed: {list(conditioned.observed)}, without observed "
            f"descendants: {list(conditioned.pruned)})."
        )
    if isinstance(belief, MeanField):
        return MeanField(belief.continuous.aligned(conditioned.layout), belief.discrete)
    if isinstance(belief, Point | AbstractGaussian | AbstractDrawn):
        return belief.aligned(conditioned.layout)
    return belief


def free_energy(
    model: Model,
    belief: Any,
    observed: Mapping[str, Any],
    *,
    expectation: AbstractExpectation | None = None,
    key: PRNGKeyArray | None = None,
    chunk: int | None = None,
) -> FreeEnergy:
    """F[q] = ⟨−ln p(x, z)⟩_q − S[q] of a given belief, by node, in nats.

    **Arguments:** `belief`: any belief, with the leading axes of the data or with none (one density
    for every observation), or `vfe.Amortised`; `expectation`: `vfe.Taylor()` where E is declared
    quadratic, else `vfe.MonteCarlo()`, by default; `key`: for Monte Carlo (a fixed one by default);
    `chunk`: at most so many observations at once, to bound memory.

    **Returns:** a `FreeEnergy` with the leading axes of the data.

    **Raises:** `ValueError` for data or beliefs that do not fit the model.

    **Example:**
    ```python
    belief = vfe.DiagonalGaussian.from_moments(model, {"z": jnp.zeros(2)}, jnp.eye(2))
    vfe.free_energy(model, belief, {"x": x}).total
    ```

    **Source:** equations (3) and (4) of the essay; Friston 2005.
    """
    conditioned, batch = condition(model, observed)
    key = jax.random.key(0) if key is None else key
    count = int(np.prod(batch, dtype=int))
    if isinstance(belief, Amortised):
        belief = conditioned.over(lambda c: belief.start(c, key))
        lead: tuple[int, ...] = (count,)
    else:
        belief = align(belief, conditioned)
        lead = leading_axes(belief)
        if lead not in ((), batch):
            raise ValueError(
                f"the belief has leading axes {lead} and the data {batch}; they must be the same, or "
                "the belief must have none."
            )
        if lead:
            belief = jax.tree.map(lambda a: a.reshape(count, *a.shape[len(lead) :]), belief)
    chosen = default_expectation(conditioned, belief) if expectation is None else expectation
    found = _evaluate(conditioned, belief, chosen, key, bool(lead), chunk)
    return found if conditioned.repeats is not None else found.reshape(batch)


@eqx.filter_jit
def _evaluate(
    conditioned: Conditioned,
    belief: Any,
    expectation: AbstractExpectation,
    key: Any,
    mapped: bool,
    chunk: int | None,
) -> FreeEnergy:
    if conditioned.repeats is not None:
        return free_energy_of(conditioned, belief, expectation, key)
    keys = jax.random.split(key, next(iter(conditioned.observed.values())).shape[0])
    if mapped:
        return conditioned.over(
            lambda c, k, b: free_energy_of(c, b, expectation, k), keys, belief, chunk=chunk
        )
    return conditioned.over(lambda c, k: free_energy_of(c, belief, expectation, k), keys, chunk=chunk)


def leading_axes(belief: Any) -> tuple[int, ...]:
    """The leading axes of a belief: one belief per index."""
    if isinstance(belief, MeanField):
        return leading_axes(belief.continuous)
    if isinstance(belief, EnumeratedBelief):
        return belief.log_probabilities.shape[:-1]
    if isinstance(belief, Particles):
        return belief.coordinates.shape[:-3]
    if isinstance(belief, AbstractDiscrete | AbstractDrawn):
        return belief.leading_axes()
    return belief.location.shape[:-1]
