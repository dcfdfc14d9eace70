"""ln p(x) by annealing: chains that walk from the prior, or a belief, to the posterior."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.beliefs import LOG_2PI, AbstractDiscrete, EnumeratedBelief
from vfe.conditioning import Conditioned
from vfe.evidence.method import (
    AbstractEvidenceMethod,
    Pair,
    check_states,
    gaussian_part,
    log_mean,
    over_states,
    summed,
)
from vfe.model import Model

ACCEPTANCE = 0.7
MODE_STEPS = 20


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
            return over_states(conditioned, belief.node, belief, self.estimate, key)
        if belief is None and conditioned.discrete:
            check_states(conditioned)
            return over_states(conditioned, next(iter(conditioned.discrete)), None, self.estimate, key)
        if not conditioned.layout.size:
            if isinstance(belief, AbstractDiscrete):
                raise ValueError(
                    "AnnealedImportanceSampling moves continuous nodes, and all hidden ones are discrete; "
                    "use method=vfe.ImportanceSampling()."
                )
            return -conditioned.energy(jnp.zeros(0)), jnp.zeros(())
        base = _prior(conditioned) if belief is None else _around(belief, conditioned)
        return _anneal(self, summed(conditioned), base, key)


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
    gaussian = gaussian_part(belief, "AnnealedImportanceSampling").aligned(conditioned.layout)
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
    return log_mean(log_weights[1])


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
