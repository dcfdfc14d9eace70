"""Approximate beliefs about whole sequences: starts, the best of their ends, and what is told of it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vfe.discrete.course import Course, affordable
from vfe.discrete.pomdp import POMDP
from vfe.discrete.states.beliefs import FactorisedStates
from vfe.discrete.states.exact import exact_marginals
from vfe.discrete.states.factorised import (
    Descent,
    Factors,
    Potentials,
    best,
    descend,
    free_energy,
    potentials,
    random_factors,
    total,
)
from vfe.discrete.states.likelihoods import log_likelihoods
from vfe.discrete.states.marginal import marginal_descent
from vfe.discrete.states.mean_field import mean_field_sweep
from vfe.discrete.states.settings import Marginal, MeanField, Structured
from vfe.discrete.states.structured import Chains, independent, structured_sweep


def smooth_factorised(
    model: POMDP, course: Course, settings: MeanField | Structured | Marginal
) -> FactorisedStates:
    """Approximate beliefs given all outcomes; what is impossible is passed over, and `skipped`.

    **Example:** `smooth_factorised(model, course, MeanField())`.
    """
    exact, evidence = None, None
    if affordable(model, course):
        exact, surprise, impossible = exact_marginals(model, course)
        evidence = -jnp.where(impossible, 0.0, surprise).sum(-1)
    else:
        impossible = _excluded(model, course)
    course = passed_over(course, impossible)
    begin = () if exact is None else (exact,)
    if isinstance(settings, Structured) and len(model.states) > 1:
        # What is known without this: q = Π_t Π_f q(s_f,t) is one of the chains' products.
        plain = MeanField(settings.starts, settings.max_sweeps, settings.tolerance, settings.seed)
        begin = (_smooth(model, course, plain, begin, blank=False)[0].factors, *begin)
    chains, free, trace, converged = _smooth(model, course, settings, begin, blank=True)
    kept = chains.pairs if isinstance(settings, Structured) else None
    return FactorisedStates(
        chains.factors, free, evidence, trace, converged, impossible, kept, model, course
    )


def passed_over(course: Course, where: Any) -> Course:
    """A course whose outcomes at some times are missing. **Example:** `passed_over(course, impossible)`."""
    there = jnp.asarray(where)[..., None, None]
    weights = tuple(jnp.where(there, 1.0, weight) for weight in course.weights)
    return Course(weights, course.controls, course.present)


@eqx.filter_jit
def _excluded(model: POMDP, course: Course) -> Array:
    """Where some modality has an outcome that no state can cause; all that is known without sums."""

    def one(course: Course) -> Array:
        logs = log_likelihoods(model, course.weights)
        most = jnp.stack([log.reshape(len(log), -1).max(1) for log in logs])
        return jnp.isneginf(most).any(0)

    return (jax.vmap(one) if course.many else one)(course)


@eqx.filter_jit
def _smooth(model: POMDP, course: Course, settings: Any, begin: tuple[Factors, ...], blank: bool) -> Any:
    def one(course: Course, begin: tuple[Factors, ...]) -> Any:
        held = potentials(model, course)
        found = _found(model, held, settings, begin)
        chains = found.state if isinstance(found.state, Chains) else independent(found.state)
        pairs = chains.pairs if isinstance(settings, Structured) else None
        free = free_energy(model, held, chains.factors, pairs)
        if blank:
            over, after = ~course.present[:, None], ~course.present[1:, None, None]
            chains = Chains(
                tuple(jnp.where(over, jnp.nan, q) for q in chains.factors),
                tuple(jnp.where(after, jnp.nan, q) for q in chains.pairs),
            )
        return chains, free, found.trace, found.converged

    return (jax.vmap(one) if course.many else one)(course, begin)


def _found(model: POMDP, held: Potentials, settings: Any, begin: tuple[Factors, ...]) -> Descent:
    length = len(held.present)
    uniform = tuple(jnp.full((length, size), 1 / size) for size in model.states)
    rest = (settings.max_sweeps, settings.tolerance)
    if isinstance(settings, Marginal):
        return marginal_descent(model, held, uniform, settings.damping, *rest)
    if isinstance(settings, Structured):

        def chained(factors: Factors) -> Descent:
            return descend(
                independent(factors),
                lambda one: structured_sweep(model, held, one),
                lambda one: total(free_energy(model, held, one.factors, one.pairs)),
                *rest,
            )

        # With one factor the first sweep is exact.
        if len(model.states) == 1:
            return chained(uniform)
        return best(jax.vmap(chained)(_starts([*begin, uniform], settings)))

    def single(factors: Factors) -> Descent:
        return descend(
            factors,
            lambda one: mean_field_sweep(model, held, one),
            lambda one: total(free_energy(model, held, one)),
            *rest,
        )

    # Two sweeps of independent chains know where the sequence is heading.
    chains, _ = jax.lax.scan(
        lambda one, _: (structured_sweep(model, held, one), None), independent(uniform), length=2
    )
    return best(jax.vmap(single)(_starts([uniform, *begin, chains.factors], settings)))


def _starts(begin: list[Factors], settings: MeanField | Structured) -> Factors:
    given = jax.tree.map(lambda *leaves: jnp.stack(leaves), *begin[: settings.starts])
    missing = settings.starts - len(begin)
    if missing < 1:
        return given
    keys = jax.random.split(jax.random.key(settings.seed), missing)
    drawn = jax.vmap(lambda key: random_factors(key, begin[0]))(keys)
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), given, drawn)


def told(found: FactorisedStates) -> FactorisedStates:
    """The same without the sweeps that were not made. **Example:** `told(found)`."""
    made = int(np.isfinite(found.trace).sum(-1).max())
    return eqx.tree_at(lambda one: one.trace, found, found.trace[..., :made])
