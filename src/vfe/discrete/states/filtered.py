"""Factorised beliefs about the states so far: one step after the other, from product to product."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vfe.discrete.course import Course
from vfe.discrete.pomdp import POMDP
from vfe.discrete.states.beliefs import FilteredFactors
from vfe.discrete.states.elimination import move_factors
from vfe.discrete.states.likelihoods import joint_log_likelihood, log_likelihoods
from vfe.discrete.states.one_step import mean_field_step
from vfe.discrete.states.settings import MeanField
from vfe.discrete.tables import SMALLEST, log_table

# −ln p(o_t) under a product of factors is summed over joint states up to this many.
SUMMED = 4096


@eqx.filter_jit
def filter_factorised(model: POMDP, course: Course, settings: MeanField) -> FilteredFactors:
    """Mean-field beliefs so far. Where a step's outcomes are impossible, they are passed over.

    **Example:** `filter_factorised(model, course, MeanField())`.
    """
    known = model.joint_size <= SUMMED

    def one(course: Course) -> FilteredFactors:
        logs = log_likelihoods(model, course.weights)

        def surprise(prior: Any, now: tuple[Array, ...]) -> Array:
            if not known:
                top = jnp.stack([jnp.max(log) for log in now])
                return jnp.where(jnp.isneginf(top).any(), jnp.inf, 0.0)
            joint = jnp.zeros(())
            for table in prior:
                # Zero is never quite zero in these beliefs.
                joint = jnp.add.outer(joint, log_table(jnp.where(table > SMALLEST, table, 0.0)))
            joint = joint + joint_log_likelihood(model, tuple(log[None] for log in now))[0]
            return -jax.nn.logsumexp(joint)

        def step(prior: Any, now: tuple[Array, tuple[Array, ...]]) -> Any:
            controls, seen = now
            hidden = surprise(prior, seen)
            impossible = jnp.isposinf(hidden)
            seen = tuple(jnp.where(impossible, 0.0, log) for log in seen)
            factors, free, converged = mean_field_step(
                model,
                prior,
                seen,
                starts=settings.starts,
                key=jax.random.key(settings.seed),
                max_sweeps=settings.max_sweeps,
                tolerance=settings.tolerance,
            )
            hidden = jnp.where(impossible, 0.0, hidden)
            following = move_factors(model, factors, controls)
            return following, (factors, prior, free, hidden, converged, impossible)

        first = tuple(jnp.asarray(table) for table in model.D)
        controls = jnp.concatenate([course.controls, jnp.zeros((1, len(model.B)), int)])
        _, found = jax.lax.scan(step, first, (controls, logs))
        factors, predicted, free, hidden, converged, impossible = found
        here = course.present
        factors, predicted = (
            tuple(jnp.where(here[:, None], q, jnp.nan) for q in each) for each in (factors, predicted)
        )
        terms = (free.observed, free.hidden, free.entropies)
        terms = jax.tree.map(lambda a: jnp.where(here, a, 0.0), terms)
        free = eqx.tree_at(lambda f: (f.observed, f.hidden, f.entropies), free, terms)
        free = eqx.tree_at(lambda f: f.weight, free, jnp.ones(()))
        exact = jnp.where(here, hidden, 0.0) if known else None
        return FilteredFactors(factors, predicted, free, exact, converged, impossible & here)

    if not course.many:
        return one(course)
    found = jax.vmap(one)(course)
    return eqx.tree_at(lambda f: f.free_energy.weight, found, jnp.ones(()))
