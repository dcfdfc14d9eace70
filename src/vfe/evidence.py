"""ln p(x) where no closed form exists: importance sampling from a belief, or annealing."""

import abc
import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.beliefs import (
    LOG_2PI,
    AbstractBelief,
    AbstractDiscrete,
    AbstractDrawn,
    AbstractGaussian,
    Amortised,
    EnumeratedBelief,
    MeanField,
)
from vfe.conditioning import Conditioned, condition
from vfe.exact import log_evidence as exact_log_evidence
from vfe.exact import why_not_exact
from vfe.free_energy import Estimate, align, leading_axes
from vfe.model import Model
from vfe.perception import Percept, perceive

MOST_STATES = 256
PARTICLES_AT_ONCE = 2**15
UNRELIABLE = 0.4
ACCEPTANCE = 0.7
MODE_STEPS = 20

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


class ImportanceSampling(AbstractEvidenceMethod):
    """ln p(x) ≈ ln (1/S) Σ_s p(x, z_s) / r(z_s), z_s ~ r: draws around a fitted belief.

    The proposal r has the belief's location and shape and the tails of a Student t, so that the weights
    stay bounded where the posterior's tails are Gaussian. Discrete nodes are summed out, each state
    of an `vfe.Enumerated` belief with draws of its own; a `vfe.Mixture`, a `vfe.Flow` or a `vfe.Conjugate`
    belief is drawn from as it is, the former two in antithetic pairs (S rounded down to whole pairs of
    every component). What the belief has missed (another mode) is missing from the estimate too, and its
    standard error does not tell: use `vfe.AnnealedImportanceSampling` where that may be.

    **Arguments:** `samples`: S; `degrees_of_freedom` of the t, or None for a Gaussian; `inflate`:
    what the belief's standard deviations are multiplied by.

    **Raises:** `ValueError` for settings out of range; for `inflate`, and for fewer than two pairs, with
    beliefs that are drawn from as they are.

    **Example:** `vfe.log_evidence(model, {"x": x}, method=vfe.ImportanceSampling(samples=5000))`.

    **Source:** Geweke 1989 (importance sampling with split-t proposals); Owen 2013, chapter 9.
    """

    samples: int = eqx.field(static=True, default=1000)
    degrees_of_freedom: float | None = eqx.field(static=True, default=5.0)
    inflate: float = eqx.field(static=True, default=1.0)

    def __check_init__(self) -> None:
        if self.samples < 2:
            raise ValueError(f"ImportanceSampling: got samples={self.samples}; wanted at least 2.")
        if self.degrees_of_freedom is not None and not self.degrees_of_freedom > 0:
            raise ValueError(
                f"ImportanceSampling: got degrees_of_freedom={self.degrees_of_freedom}; wanted a "
                "positive number, or None for a Gaussian proposal."
            )
        if not self.inflate > 0:
            raise ValueError(f"ImportanceSampling: got inflate={self.inflate}; wanted a positive number.")

    @property
    def particles(self) -> int:
        return self.samples

    def fit(self, model: Model, observed: Mapping[str, Any]) -> Any:
        return perceive(model, observed).belief

    def estimate(self, conditioned: Conditioned, belief: Any, key: PRNGKeyArray) -> Pair:
        if isinstance(belief, EnumeratedBelief):
            return _over_states(conditioned, belief.node, belief, self.estimate, key)
        if isinstance(belief, AbstractDiscrete):
            return self._discrete(conditioned, belief, key)
        if isinstance(belief, AbstractDrawn):
            return self._drawn(conditioned, belief.aligned(conditioned.layout), key)
        belief = _gaussian(belief, "ImportanceSampling").aligned(conditioned.layout)
        size, degrees = belief.layout.size, self.degrees_of_freedom
        factor = self.inflate * belief.factor()
        log_scale = belief.log_diagonal().sum() + size * jnp.log(self.inflate)
        energy = _summed(conditioned)
        noise_key, tail_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, (self.samples, size), factor.dtype)
        if degrees is not None:
            chi_square = 2.0 * jax.random.gamma(tail_key, 0.5 * degrees, (self.samples, 1), factor.dtype)
            noise = noise * jnp.sqrt(degrees / chi_square)

        def log_weight(e: Array) -> Array:
            square = jnp.sum(e**2)
            if degrees is None:
                log_proposal = -0.5 * square - 0.5 * size * LOG_2PI
            else:
                half = 0.5 * (degrees + size)
                log_proposal = (
                    jax.scipy.special.gammaln(half)
                    - jax.scipy.special.gammaln(0.5 * degrees)
                    - 0.5 * size * jnp.log(degrees * jnp.pi)
                    - half * jnp.log1p(square / degrees)
                )
            return -energy(belief.location + factor @ e) - log_proposal + log_scale

        return _log_mean(jax.lax.map(log_weight, noise, batch_size=min(self.samples, PARTICLES_AT_ONCE)))

    def _drawn(self, conditioned: Conditioned, belief: AbstractDrawn, key: PRNGKeyArray) -> Pair:
        """From the belief itself, each component of a mixture with its own draws and weight."""
        if self.inflate != 1.0:
            raise ValueError(
                f"ImportanceSampling: got inflate={self.inflate} and a {type(belief).__name__}, which is "
                "drawn from as it is; leave inflate= out, or give a Gaussian belief."
            )
        draws = belief.proposals(key, self.samples)
        if draws.coordinates.shape[1] > 1 and draws.coordinates.shape[2] < 2:
            raise ValueError(
                f"ImportanceSampling: got samples={self.samples}; a {type(belief).__name__} of "
                f"{len(draws.weights)} components wants {4 * len(draws.weights)} or more: two pairs "
                "of each."
            )
        energy, shape = _summed(conditioned), draws.coordinates.shape[:-1]
        flat = draws.coordinates.reshape(-1, draws.coordinates.shape[-1])
        energies = jax.lax.map(energy, flat, batch_size=min(len(flat), PARTICLES_AT_ONCE)).reshape(shape)
        logs = -energies - draws.log_density
        logs = jnp.where(jnp.isnan(logs), -jnp.inf, logs)
        top = jnp.max(logs)
        top = jnp.where(jnp.isfinite(top), top, 0.0)
        # The two of a pair are alike where p / q is even: its error is that of the means of pairs.
        mean, error = draws.mean(jnp.exp(logs - top)), draws.standard_error(jnp.exp(logs - top))
        some = mean > 0
        mean = jnp.where(some, mean, 1.0)
        return jnp.where(some, jnp.log(mean) + top, -jnp.inf), jnp.where(some, error / mean, 0.0)

    def _discrete(self, conditioned: Conditioned, belief: AbstractDiscrete, key: PRNGKeyArray) -> Pair:
        if conditioned.repeats is not None:
            raise ValueError(
                "log_evidence: latents are shared by all observations and the hidden nodes are discrete; "
                "no estimate is implemented for that."
            )
        states = belief.sample(key, (self.samples,))

        def log_weight(drawn: dict[str, Array]) -> Array:
            held = conditioned
            for name in conditioned.discrete:
                held = held.clamp(name, drawn[name])
            return -held.energy(jnp.zeros(0)) - belief.log_density(drawn)

        return _log_mean(jax.lax.map(log_weight, states, batch_size=min(self.samples, PARTICLES_AT_ONCE)))


class AnnealedImportanceSampling(AbstractEvidenceMethod):
    """ln p(x) ≈ ln of the average, over chains, of Π_t p_{β_t}(u_{t−1}) / p_{β_{t−1}}(u_{t−1}).

    Each chain starts with a draw from the prior (or the belief that is given) p₀ and walks along
    p_β(u) ∝ p₀(u)^(1−β) p(x, u)^β, β from 0 to 1, with Hamiltonian moves in unconstrained coordinates
    that leave p_β as it is: every mode that the prior reaches is found, whichever one perception ends in.

    Coordinates are scaled by p₀'s covariance and by the curvature at a mode. Where the temperatures lie
    (mostly by equal thermodynamic length) and how long a move is (70 % accepted) is read off a pilot
    run whose weights are thrown away, so the average weight itself stays unbiased. Discrete nodes are
    summed out: every joint state has chains of its own.

    **Arguments:** `temperatures`: how many steps from β = 0 to 1; `chains`; `steps`: moves per
    temperature; `leapfrogs` per move (1 is Langevin's move).

    **Raises:** `ValueError` for settings out of range.

    **Example:** `vfe.log_evidence(model, {"x": x}, method=vfe.AnnealedImportanceSampling(chains=32))`.

    **Source:** Neal 2001, Annealed importance sampling; Gelman and Meng 1998 (where the temperatures
    lie); Wu et al. 2017 (decoder models).
    """

    temperatures: int = eqx.field(static=True, default=500)
    chains: int = eqx.field(static=True, default=64)
    steps: int = eqx.field(static=True, default=1)
    leapfrogs: int = eqx.field(static=True, default=2)

    def __check_init__(self) -> None:
        if self.temperatures < 2 or self.chains < 2 or self.steps < 1 or self.leapfrogs < 1:
            raise ValueError(
                f"AnnealedImportanceSampling: got temperatures={self.temperatures}, chains={self.chains}, "
                f"steps={self.steps}, leapfrogs={self.leapfrogs}; wanted at least 2, 2, 1 and 1."
            )

    @property
    def particles(self) -> int:
        return self.chains

    def fit(self, model: Model, observed: Mapping[str, Any]) -> Any:
        return None

    def estimate(self, conditioned: Conditioned, belief: Any, key: PRNGKeyArray) -> Pair:
        if isinstance(belief, EnumeratedBelief):
            return _over_states(conditioned, belief.node, belief, self.estimate, key)
        if belief is None and conditioned.discrete:
            _check_states(conditioned)
            return _over_states(conditioned, next(iter(conditioned.discrete)), None, self.estimate, key)
        if not conditioned.layout.size:
            if isinstance(belief, AbstractDiscrete):
                raise ValueError(
                    "AnnealedImportanceSampling moves continuous nodes, and all hidden ones are discrete; "
                    "use method=vfe.ImportanceSampling()."
                )
            return -conditioned.energy(jnp.zeros(0)), jnp.zeros(())
        base = _prior(conditioned) if belief is None else _around(belief, conditioned)
        return _anneal(self, _summed(conditioned), base, key)


class Base(eqx.Module):
    """Where annealing starts: a density p₀ over the coordinates u that can be drawn from.

    `draw(key)`: one u ~ p₀; `energy(u)`: −ln p₀(u) in nats, normalised.
    """

    draw: Callable[[PRNGKeyArray], Array]
    energy: Callable[[Array], Array]
    size: int = eqx.field(static=True)


def _prior(conditioned: Conditioned) -> Base:
    """The hidden continuous nodes' prior Π p(z_i | parents_i), discrete and observed parents held."""
    if conditioned.partial:
        raise ValueError(
            f"AnnealedImportanceSampling: nodes {list(conditioned.partial)} have children and missing "
            "elements, so the prior of what is missing cannot be drawn from here; start from a belief, "
            "belief=vfe.perceive(model, observed)."
        )
    layout, model = conditioned.layout, conditioned.model
    held = {**conditioned.states(conditioned.observed), **conditioned.common}

    def draw(key: PRNGKeyArray) -> Array:
        return layout.encode(model.sample(key, given=held))

    def energy(u: Array) -> Array:
        hidden = conditioned.energies(u).hidden
        return sum((jnp.sum(hidden[n]) for n in layout.names), jnp.zeros(()))

    return Base(draw, energy, layout.size)


def _around(belief: Any, conditioned: Conditioned) -> Base:
    """A Gaussian belief as a start."""
    gaussian = _gaussian(belief, "AnnealedImportanceSampling").aligned(conditioned.layout)
    location, factor = gaussian.location, jnp.asarray(gaussian.factor())
    constant = gaussian.log_diagonal().sum() + 0.5 * location.size * LOG_2PI

    def draw(key: PRNGKeyArray) -> Array:
        return location + factor @ jax.random.normal(key, location.shape, location.dtype)

    def energy(u: Array) -> Array:
        white = jax.scipy.linalg.solve_triangular(factor, u - location, lower=True)
        return 0.5 * jnp.sum(white**2) + constant

    return Base(draw, energy, location.size)


def _anneal(
    method: AnnealedImportanceSampling, target: Callable[[Array], Array], base: Base, key: PRNGKeyArray
) -> Pair:
    draw_key, walk_key = jax.random.split(key)
    chains, few = method.chains, 256 + 10 * base.size
    draws = jax.vmap(base.draw)(jax.random.split(draw_key, few + 2 * chains))
    centre, root, curvature = _coordinates(target, draws[:few])
    starts = jnp.linalg.solve(root, (draws[few:] - centre).T).T.reshape(2, chains, base.size)

    def energies(v: Array) -> Array:
        u = centre + root @ v
        return jnp.stack([base.energy(u), target(u)])

    def move(v: Array, both: Array, momentum: Array, chance: Array, beta: Array, step: Array) -> Any:
        """One Hamiltonian move of one chain under p_β; metric (1 − β) + β · curvature, by coordinate."""
        mix = jnp.stack([1.0 - beta, beta])
        length = (0.8 + 0.4 * chance[0]) * step / jnp.sqrt(1.0 - beta + beta * curvature)

        def pull(v: Array) -> Array:
            gradient = jax.grad(lambda v: _mixed(mix, energies(v)))(v)
            return jnp.where(jnp.isfinite(gradient), gradient, 0.0)

        def leap(number: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            # Half a kick at both ends, a whole one between two drifts.
            v, momentum = carry
            whole = (number > 0) & (number < method.leapfrogs)
            momentum = momentum - jnp.where(whole, 1.0, 0.5) * length * pull(v)
            return v + jnp.where(number < method.leapfrogs, length, 0.0) * momentum, momentum

        end, last = jax.lax.fori_loop(0, method.leapfrogs + 1, leap, (v, momentum))
        new = energies(end)
        here = _mixed(mix, both) + 0.5 * jnp.sum(momentum**2)
        there = _mixed(mix, new) + 0.5 * jnp.sum(last**2)
        ratio = jnp.where(jnp.isfinite(there), here - there, -jnp.inf)
        accepted = jnp.log(chance[1]) < ratio
        share = jnp.exp(jnp.minimum(ratio, 0.0))
        return jnp.where(accepted, end, v), jnp.where(accepted, new, both), share

    def moves(key: PRNGKeyArray, v: Array, both: Array, beta: Array, step: Array) -> Any:
        def once(_: Any, carry: Any) -> Any:
            v, both, _, key = carry
            key, momentum_key, chance_key = jax.random.split(key, 3)
            momentum = jax.random.normal(momentum_key, v.shape, v.dtype)
            chance = jax.random.uniform(chance_key, (chains, 2), v.dtype)
            v, both, shares = jax.vmap(move, (0, 0, 0, 0, None, None))(
                v, both, momentum, chance, beta, step
            )
            return v, both, shares.mean(), key

        return jax.lax.fori_loop(0, method.steps, once, (v, both, jnp.zeros((), v.dtype), key))[:3]

    # A quarter of a Gaussian's period forgets where it came from; half of one would only mirror it.
    longest = np.log(0.5 * np.pi / method.leapfrogs)
    grid = jnp.linspace(0.0, 1.0, method.temperatures + 1, dtype=centre.dtype) ** 4

    def walk(plan: tuple[Array, Array, Array], inputs: Any) -> Any:
        """Every chain from β = 0 to 1; the next plan (temperatures, ln steps) is read off it."""
        betas, log_steps, adapting = plan
        v, key = inputs

        def advance(carry: Any, inputs: Any) -> Any:
            v, both, log_weight, log_step = carry
            before, beta, planned, key = inputs
            rise = both[:, 1] - both[:, 0]
            log_weight = log_weight - (beta - before) * jnp.where(jnp.isnan(rise), jnp.inf, rise)
            log_step = jnp.where(adapting > 0, log_step, planned)
            v, both, share = moves(key, v, both, beta, jnp.exp(log_step))
            spread = jnp.std(both[:, 1] - both[:, 0])
            after = jnp.minimum(log_step + 0.3 * (share - ACCEPTANCE), longest)
            return (v, both, log_weight, after), (log_step, jnp.where(jnp.isfinite(spread), spread, 0.0))

        both = jax.vmap(energies)(v)
        first = (v, both, jnp.zeros(chains, v.dtype), log_steps[0])
        keys = jax.random.split(key, method.temperatures + 1)
        inputs = (jnp.concatenate([betas[:1], betas[:-1]]), betas, log_steps, keys)
        (_, _, log_weight, _), (log_steps, spreads) = jax.lax.scan(advance, first, inputs)
        new = _schedule(betas, spreads)
        return (new, jnp.interp(new, betas, log_steps), jnp.zeros((), v.dtype)), log_weight

    # The first walk is the pilot, on a grid dense near the start; only the second one's weights count.
    log_step = jnp.full_like(grid, np.minimum(np.log(0.7 * base.size**-0.25), longest))
    plan = (grid, log_step, jnp.ones((), centre.dtype))
    _, log_weights = jax.lax.scan(walk, plan, (starts, jax.random.split(walk_key, 2)))
    return _log_mean(log_weights[1])


def _mixed(mix: Array, both: Array) -> Array:
    """(1 − β) E₀ + β E; infinite where either is not a number."""
    energy = jnp.sum(mix * both)
    return jnp.where(jnp.isnan(energy), jnp.inf, energy)


def _schedule(grid: Array, spreads: Array) -> Array:
    """Temperatures: four in five by equal thermodynamic length ∫ sd_β(E − E₀) dβ, one as in the grid."""
    parts = 0.5 * (spreads[1:] + spreads[:-1]) * jnp.diff(grid)
    length = jnp.concatenate([jnp.zeros(1, grid.dtype), jnp.cumsum(parts)])
    even = jnp.linspace(0.0, 1.0, grid.size, dtype=grid.dtype)
    share = jnp.where(length[-1] > 0, length / jnp.where(length[-1] > 0, length[-1], 1.0), even)
    return jnp.interp(even, 0.2 * even + 0.8 * share, grid).at[0].set(0.0).at[-1].set(1.0)


def _coordinates(
    target: Callable[[Array], Array], draws: Float[Array, "draws n"]
) -> tuple[Array, Float[Array, "n n"], Float[Array, " n"]]:
    """u = centre + root v: p₀ has unit covariance in v, and E diagonal curvature at a mode."""
    size = draws.shape[1]
    draws = jnp.where(jnp.isfinite(draws), draws, 0.0)
    centre = draws.mean(0)
    covariance = jnp.atleast_2d(jnp.cov(draws.T))
    ridge = 1e-6 * jnp.trace(covariance) / size + 1e-12
    white = jnp.linalg.cholesky(covariance + ridge * jnp.eye(size))

    def energy(v: Array) -> Array:
        return target(centre + white @ v)

    def curvature(v: Array) -> tuple[Array, Array]:
        hessian = jax.hessian(energy)(v)
        hessian = jnp.where(jnp.isfinite(hessian), hessian, 0.0)
        values, vectors = jnp.linalg.eigh(0.5 * (hessian + hessian.T))
        return jnp.abs(values), vectors

    lengths = jnp.asarray([0.0, 0.01, 0.1, 0.3, 1.0], draws.dtype)

    def newton(_: Any, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        v = carry[0]
        values, vectors = curvature(v)
        slope = vectors.T @ jax.grad(energy)(v)
        jump = vectors @ (slope / jnp.maximum(values, 1e-2))
        trials = v - lengths[:, None] * jnp.where(jnp.isfinite(jump), jump, 0.0)
        return _lowest(energy, trials), values, vectors

    v = _lowest(energy, jnp.linalg.solve(white, (draws[:32] - centre).T).T)
    first = (v, jnp.ones(size, draws.dtype), jnp.eye(size, dtype=draws.dtype))
    _, values, vectors = jax.lax.fori_loop(0, MODE_STEPS, newton, first)
    return centre, white @ vectors, jnp.maximum(values, 1e-3)


def _lowest(energy: Callable[[Array], Array], trials: Array) -> Array:
    """The trial of least finite energy."""
    found = jax.vmap(energy)(trials)
    return trials[jnp.argmin(jnp.where(jnp.isfinite(found), found, jnp.inf))]


def _gaussian(belief: Any, word: str) -> AbstractGaussian:
    if isinstance(belief, MeanField):
        belief = belief.continuous
    if not isinstance(belief, AbstractGaussian):
        raise TypeError(
            f"{word}: got a belief of type {type(belief).__name__}; wanted a "
            "Gaussian one such as vfe.Laplace or vfe.JointGaussian (or vfe.Enumerated, vfe.MeanField)."
        )
    return belief


def _check_states(conditioned: Conditioned) -> None:
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


def _summed(conditioned: Conditioned) -> Callable[[Array], Array]:
    """E(u) with the discrete nodes summed out: −ln Σ_k p(x, u, k), over all joint states."""
    if not conditioned.discrete:
        return conditioned.energy
    _check_states(conditioned)
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


def _over_states(
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


def _log_mean(log_weights: Float[Array, " samples"]) -> Pair:
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


def log_evidence(
    model: Model,
    observed: Mapping[str, Any],
    *,
    method: AbstractEvidenceMethod | None = None,
    belief: Any = None,
    key: PRNGKeyArray | None = None,
) -> Estimate:
    """ln p(x) in nats: in closed form where there is one, else estimated, with its standard error.

    The average weight is unbiased for p(x), so its logarithm is *low in expectation* (by about half
    the squared standard error): a divergence F + ln p(x) computed from it is a lower estimate. The
    effective number of samples is 1 / (standard_error² + 1/S).

    **Arguments:**

    - `observed`: as in `vfe.perceive`; NaN is missing.
    - `method`: `vfe.ImportanceSampling(...)` or `vfe.AnnealedImportanceSampling(...)`; by default the
      closed form (standard error 0), else importance sampling.
    - `belief`: where to draw from, or to start annealing: a belief, a `vfe.Percept`, a family such as
      `vfe.JointGaussian` (then perceived first). By default importance sampling perceives, and
      annealing starts from the prior.
    - `key`: a fixed one by default.

    **Returns:** an `Estimate` with the leading axes of the data (one number where latents are shared).

    **Raises:** `ValueError` for data or beliefs that do not fit, or too many discrete states; a
    `UserWarning` where the weights rest on so few samples that the estimate is probably low.

    **Example:**
    ```python
    estimate = vfe.log_evidence(model, {"x": x}, method=vfe.AnnealedImportanceSampling())
    estimate.value, estimate.standard_error
    percept.free_energy.divergence(estimate)
    ```

    **Source:** Neal 2001.
    """
    conditioned, batch = condition(model, observed)
    if method is not None and not isinstance(method, AbstractEvidenceMethod):
        raise TypeError(
            f"log_evidence: got {type(method).__name__} for a method; wanted vfe.ImportanceSampling() or "
            "vfe.AnnealedImportanceSampling(), or None for the closed form where there is one."
        )
    if not conditioned.hidden or (method is None and why_not_exact(conditioned) is None):
        value = exact_log_evidence(model, observed)
        return Estimate(value, jnp.zeros_like(value))
    method = ImportanceSampling() if method is None else method
    key = jax.random.key(0) if key is None else key
    if isinstance(belief, Percept):
        belief = belief.belief
    elif belief is None:
        belief = method.fit(model, observed)
    elif not isinstance(belief, AbstractBelief | Amortised):
        belief = perceive(model, observed, belief=belief).belief
    count = int(np.prod(batch, dtype=int))
    if isinstance(belief, Amortised):
        start = belief.start
        belief = conditioned.over(lambda c: start(c, key))
    elif belief is not None:
        belief = _spread(belief, conditioned, batch, count)
    value, error = _estimate_all(method, conditioned, belief, key, count)
    if conditioned.repeats is None:
        value, error = value.reshape(batch), error.reshape(batch)
    if not isinstance(error, Tracer):
        poor = int(np.sum(np.asarray(error) > UNRELIABLE))
        if poor:
            warnings.warn(
                f"log_evidence: {poor} of {np.size(error)} estimates have a standard error above "
                f"{UNRELIABLE} nats: a few weights outweigh the rest, and the values are probably low. "
                "Use more samples (chains, temperatures), a better belief, or "
                "method=vfe.AnnealedImportanceSampling().",
                stacklevel=2,
            )
    return Estimate(value, error)


def _spread(belief: Any, conditioned: Conditioned, batch: tuple[int, ...], count: int) -> Any:
    """The belief checked, with one entry per observation."""
    belief = align(belief, conditioned)
    lead = leading_axes(belief)
    if conditioned.repeats is not None:
        return belief
    if lead not in ((), batch):
        raise ValueError(f"log_evidence: the belief has leading axes {lead} and the data {batch}.")
    if not lead:
        return jax.tree.map(lambda a: jnp.broadcast_to(a, (count, *a.shape)), belief)
    return jax.tree.map(lambda a: a.reshape(count, *a.shape[len(lead) :]), belief)


@eqx.filter_jit
def _estimate_all(
    method: AbstractEvidenceMethod, conditioned: Conditioned, belief: Any, key: PRNGKeyArray, count: int
) -> Pair:
    """Every observation in turn, as many together as memory allows."""
    if conditioned.repeats is not None:
        return method.estimate(conditioned, belief, key)

    def one(inputs: Any) -> Pair:
        observed, masks, belief, key = inputs
        held = dataclasses.replace(conditioned, observed=observed, masks=masks)
        return method.estimate(held, belief, key)

    states = int(np.prod(list(conditioned.discrete.values()), dtype=object))
    together = max(1, PARTICLES_AT_ONCE // (method.particles * min(states, MOST_STATES)))
    inputs = (conditioned.observed, conditioned.masks, belief, jax.random.split(key, count))
    return jax.lax.map(one, inputs, batch_size=min(together, count))
