"""⟨E_i⟩ and S_i by node under a belief: what F is made of, and what is averaged over draws."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.beliefs import (
    AbstractBelief,
    AbstractDiscrete,
    AbstractDrawn,
    AbstractGaussian,
    Categorical,
    Draws,
    EnumeratedBelief,
    GaussNewtonLaplace,
    MeanField,
    Particles,
    Point,
    entropy_of,
)
from vfe.conditioning import Conditioned, Energies
from vfe.curvature import check_gauss_newton, second_order
from vfe.expectation import AbstractExpectation, MonteCarlo, Taylor, standard_error


class Terms(eqx.Module):
    """What F is made of: ⟨E_i⟩ and S_i by node (None without entropy), and the standard error of their
    difference (None without draws)."""

    energies: Energies
    entropies: dict[str, Array] | None
    error: Array | None


def expected_terms(
    conditioned: Conditioned,
    belief: AbstractBelief,
    expectation: AbstractExpectation,
    key: PRNGKeyArray,
    of: Callable[..., Energies] = Conditioned.energies,
) -> Terms:
    """⟨E_i⟩_q and S_i by node for one observation.

    `of`: a function like `Conditioned.energies` whose average is taken in its place.

    **Raises:** `ValueError` where the belief's averages want another expectation.
    """
    if isinstance(belief, EnumeratedBelief):
        return _over_enumerated(conditioned, belief, expectation, key, of)
    if isinstance(belief, AbstractDrawn):
        return _over_draws(conditioned, belief, expectation, key, of)
    if isinstance(belief, Particles):
        each = jax.vmap(lambda u: of(conditioned, u))(belief.pooled())
        return Terms(jax.tree.map(lambda e: e.mean(0), each), None, None)
    weigh, probabilities, continuous = None, None, belief
    if isinstance(belief, MeanField):
        probabilities, continuous = belief.discrete.probabilities(), belief.continuous
    elif isinstance(belief, AbstractDiscrete):
        if isinstance(belief, Categorical):
            probabilities = belief.probabilities()
        else:
            weigh = belief.weigh()
        return Terms(of(conditioned, jnp.zeros(0), weigh, probabilities), belief.entropies(), None)

    def function(u: Array) -> Energies:
        return of(conditioned, u, weigh, probabilities)

    if isinstance(continuous, Point):
        return Terms(function(continuous.location), belief.entropies(), None)
    if not isinstance(continuous, AbstractGaussian):
        raise TypeError(f"got a {type(continuous).__name__} for the belief; wanted one of vfe's beliefs.")
    entropies = belief.entropies()
    if isinstance(continuous, GaussNewtonLaplace) and isinstance(expectation, Taylor):
        # One curvature in both places: the expansion of E takes the one that made the covariance.
        check_gauss_newton(conditioned)
        energies = added(function(continuous.location), second_order(conditioned, continuous))
        return Terms(energies, entropies, None)
    energies, draws = expectation.average(function, continuous, key)
    if draws is None:
        return Terms(energies, entropies, None)
    totals = jax.vmap(lambda e: e.total(conditioned.weight, conditioned.shared))(draws)
    return Terms(energies, entropies, standard_error(totals))


def _over_enumerated(
    conditioned: Conditioned,
    belief: EnumeratedBelief,
    expectation: AbstractExpectation,
    key: PRNGKeyArray,
    of: Callable[..., Energies],
) -> Terms:
    """Σ_l q(l) of the terms under q(z | l); the entropy of l beside them."""
    states = jnp.arange(belief.log_probabilities.shape[-1])

    def one(state: Array, inner: AbstractBelief) -> Terms:
        return expected_terms(conditioned.clamp(belief.node, state), inner, expectation, key, of)

    each = eqx.filter_vmap(one)(states, belief.conditional)
    p = belief.probabilities

    def over_states(values: Array) -> Array:
        return (jnp.where(p > 0, p, 0.0) * jnp.where(p > 0, values, 0.0)).sum(0)

    energies = jax.tree.map(over_states, each.energies)
    entropies = None
    if each.entropies is not None:
        entropies = {belief.node: entropy_of(p), **jax.tree.map(over_states, each.entropies)}
    error = None if each.error is None else jnp.sqrt(((p * each.error) ** 2).sum())
    return Terms(energies, entropies, error)


def _over_draws(
    conditioned: Conditioned,
    belief: AbstractDrawn,
    expectation: AbstractExpectation,
    key: PRNGKeyArray,
    of: Callable[..., Energies],
) -> Terms:
    if not isinstance(expectation, MonteCarlo):
        raise ValueError(
            f"a {type(belief).__name__} has no closed-form averages: got expectation="
            f"{type(expectation).__name__}(); wanted vfe.MonteCarlo(...)."
        )
    return over_draws(conditioned, belief.draws(key, expectation.samples), of)[0]


def over_draws(
    conditioned: Conditioned, draws: Draws, of: Callable[..., Energies] = Conditioned.energies
) -> tuple[Terms, Float[Array, "strata two pairs"]]:
    """E and ln q over the same draws; beside the terms, E + ln q at each draw, −ln of its weight."""
    each = jax.vmap(jax.vmap(jax.vmap(lambda u: of(conditioned, u))))(draws.coordinates)
    energies = jax.tree.map(draws.mean, each)
    entropies = {n: -draws.mean(logs) for n, logs in draws.log_densities.items()}
    weight, shared = conditioned.weight, conditioned.shared
    totals = jax.vmap(jax.vmap(jax.vmap(lambda e: e.total(weight, shared))))(each)
    logs = sum(
        (logs * (1.0 if n in shared else weight) for n, logs in draws.log_densities.items()),
        jnp.zeros(()),
    )
    surprises = totals + logs
    return Terms(energies, entropies, draws.standard_error(surprises)), surprises


def draws_of(belief: Any, key: PRNGKeyArray, samples: int) -> Draws:
    """Draws to be weighed: independent ones of a Gaussian belief, or a drawn belief's own.

    **Raises:** `TypeError` for other beliefs.
    """
    if isinstance(belief, AbstractDrawn):
        return belief.proposals(key, samples)
    if not isinstance(belief, AbstractGaussian):
        raise TypeError(
            f"got a {type(belief).__name__}, which has no density over continuous nodes; wanted a Gaussian "
            "belief, vfe.Mixture or vfe.Flow."
        )
    noise = jax.random.normal(key, (1, 1, samples, belief.layout.size), belief.location.dtype)
    u = belief.displaced(noise)
    logs = belief.elementwise(u)
    parts = {s.name: logs[..., s.where].sum(-1) for s in belief.layout.slots}
    return Draws(u, jnp.ones(1, u.dtype), parts)


def expected_energies(
    conditioned: Conditioned,
    belief: AbstractBelief,
    expectation: AbstractExpectation,
    key: PRNGKeyArray,
    of: Callable[..., Energies] = Conditioned.energies,
) -> Energies:
    """⟨E_i⟩_q by node for one observation; of another such function where `of` is given."""
    return expected_terms(conditioned, belief, expectation, key, of).energies


def added(energies: Energies, more: Energies) -> Energies:
    """The sum of two, node by node, over the nodes of the first."""

    def both(a: dict[str, Array], b: dict[str, Array]) -> dict[str, Array]:
        return {n: v + b.get(n, 0.0) for n, v in a.items()}

    return Energies(both(energies.observed, more.observed), both(energies.hidden, more.hidden))
