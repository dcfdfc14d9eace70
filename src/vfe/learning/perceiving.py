"""Beliefs about a minibatch, without a derivative: the E step of learning."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from vfe.beliefs import Amortised, GaussNewtonLaplace, Point
from vfe.conditioning import Conditioned
from vfe.curvature import flat_errors
from vfe.free_energy import FreeEnergy, default_expectation, free_energy_at, free_energy_of
from vfe.learning.gradient import CentredNudging
from vfe.learning.plan import Plan, sought
from vfe.perception.feed_forward import FeedForward
from vfe.perception.loop import AbstractSolver
from vfe.perception.perceive import default_solver, perceive_one, start_belief
from vfe.perception.status import Status
from vfe.perception.together import relax


def renewed(plan: Plan, c: Conditioned, key: PRNGKeyArray) -> Conditioned:
    """One observation with its arrays passed through `augment`.

    **Raises:** `ValueError` where that changes their shapes.
    """
    if plan.augment is None:
        return c
    fresh = dict(plan.augment(key, dict(c.observed)))
    for name, array in fresh.items():
        if name not in c.observed or jnp.shape(array) != c.observed[name].shape:
            raise ValueError(
                f"learn: augment changed the shape of {name!r} to {jnp.shape(array)}; wanted that of "
                "one observation."
            )
    masks = dict(c.masks)
    for name in plan.hides:
        there = ~jnp.isnan(fresh[name])
        fresh[name] = jnp.where(there, fresh[name], 0.0)
        masks[name] = there & masks[name] if name in masks else there
    return dataclasses.replace(c, observed={**c.observed, **typed(c, fresh)}, masks=masks)


def typed(c: Conditioned, arrays: dict[str, Array]) -> dict[str, Array]:
    """What `augment` made, whole numbers for discrete nodes."""
    discrete = {n for n in arrays if n not in c.model.plates and c.model.describe(n).discrete}
    return {n: a.astype(int) if n in discrete else a for n, a in arrays.items()}


def together(plan: Plan, conditioned: Conditioned) -> bool:
    """Whether a minibatch is perceived in one loop: modes that start afresh at each visit."""
    fresh = sought(plan.family) is Point and not plan.keep and plan.contrast is None
    stepwise = plan.solver is None or isinstance(plan.solver, AbstractSolver)
    return fresh and stepwise and conditioned.repeats is None and not conditioned.discrete


def relaxed(plan: Plan, batch: Conditioned, key: PRNGKeyArray) -> tuple[Point, Array]:
    """The modes of a minibatch in one loop, and which observations have one."""
    held = _held(batch)
    one = _first(held)
    solver = plan.solver if plan.solver is not None else default_solver(one, Point.start(one, key))
    s = plan.settings
    belief, good = relax(
        held,
        solver,
        key,
        max_steps=s.max_steps,
        rtol=s.rtol,
        atol=s.atol,
        expectation=s.expectation,
    )
    return jax.lax.stop_gradient(belief), good


def visited(plan: Plan, c: Conditioned, family: Any, key: PRNGKeyArray, start: Any) -> tuple[Any, Array]:
    """The belief about one observation, from `start` on; where perception fails that stays."""
    held = _held(c)
    family = sought(family)
    if isinstance(plan.gradient, CentredNudging):
        # Its loss is that of the feed-forward pass, where the free phase is at rest.
        return start_belief(held, family, key), jnp.ones((), bool)
    belief, _, outcome = perceive_one(held, family, plan.solver, plan.settings, key, start)
    good = outcome.status < Status.indefinite.value
    start = start_belief(held, family, key) if start is None else start
    belief = jax.tree.map(lambda new, old: jnp.where(good, new, old), belief, start)
    return jax.lax.stop_gradient(belief), good


def encoded(plan: Plan, c: Conditioned, family: Any, key: PRNGKeyArray) -> Any:
    """The encoder's belief; where a discrete node is enumerated, with q(l) ∝ exp(−F_l)."""
    if isinstance(family, Amortised):
        return family.start(c, key)
    return perceive_one(c, family, FeedForward(), plan.settings, key, None)[0]


def measured(plan: Plan, c: Conditioned, belief: Any, key: PRNGKeyArray) -> FreeEnergy:
    """F of a belief; of a mode that stands for a GaussNewtonLaplace belief, with the curvature there."""
    if plan.family is GaussNewtonLaplace and isinstance(belief, Point):
        return free_energy_at(c, flat_errors(c, belief.location))
    expectation = plan.settings.expectation or default_expectation(c, belief)
    return free_energy_of(c, belief, expectation, key)


def _held(conditioned: Conditioned) -> Conditioned:
    return jax.tree.map(lambda a: jax.lax.stop_gradient(a) if eqx.is_array(a) else a, conditioned)


def _first(batch: Conditioned) -> Conditioned:
    arrays = (batch.observed, batch.masks)
    observed, masks = jax.tree.map(lambda a: a[0], arrays)
    return dataclasses.replace(batch, observed=observed, masks=masks)
