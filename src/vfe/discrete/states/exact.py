"""Exact beliefs about the states of a `POMDP` and their F: forward, and backward."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vfe.discrete.course import Course
from vfe.discrete.pomdp import POMDP
from vfe.discrete.states.beliefs import FilteredStates, SmoothedStates, marginals
from vfe.discrete.states.elimination import chosen, start, step
from vfe.discrete.states.forward_backward import Forward, ratio, run_backward, run_forward
from vfe.discrete.states.joint import marginal
from vfe.discrete.states.likelihoods import log_likelihoods
from vfe.discrete.states.parallel import parallel_backward, parallel_forward
from vfe.free_energy import FreeEnergy, Kind
from vfe.series.methods import ParallelInTime, Sequential

METHODS = {
    Sequential: (run_forward, run_backward),
    ParallelInTime: (parallel_forward, parallel_backward),
}
# Steps of a chain are worked on together, as long as their tables have no more entries than this.
TOGETHER = 2**22


@eqx.filter_jit
def exact_filter(model: POMDP, course: Course, method: type = Sequential) -> FilteredStates:
    """Exact beliefs given the outcomes so far; the surprise of what is impossible is infinite.

    **Example:** `exact_filter(model, course)`.
    """

    def one(course: Course) -> FilteredStates:
        return _filtered(METHODS[method][0](model, course), course)

    return (jax.vmap(one) if course.many else one)(course)


@eqx.filter_jit
def exact_smooth(model: POMDP, course: Course, method: type = Sequential) -> SmoothedStates:
    """Exact beliefs given all outcomes; what is impossible is passed over, its surprise infinite.

    **Example:** `exact_smooth(model, course)`.
    """

    def one(course: Course) -> Any:
        ahead, back = METHODS[method]
        forward = ahead(model, course)
        joint = back(model, course, forward)
        there = forward.impossible[:, None, None]
        kept = tuple(jnp.where(there, 1.0, weight) for weight in course.weights)
        course = Course(kept, course.controls, course.present)
        free = _free_energy(model, course, forward, joint)
        return _over(joint, course.present), _filtered(forward, course), free

    joint, filtered, free = (jax.vmap(one) if course.many else one)(course)
    return SmoothedStates(joint, filtered, free, model, course)


@eqx.filter_jit
def exact_marginals(model: POMDP, course: Course) -> tuple[tuple[Array, ...], Array, Array]:
    """Marginals by factor given all outcomes, surprise by time, and where outcomes are impossible.

    **Example:** `exact_marginals(model, course)[0]`.
    """

    def one(course: Course) -> Any:
        forward = run_forward(model, course)
        joint = run_backward(model, course, forward)
        return marginals(joint), jnp.where(course.present, forward.surprise, 0.0), forward.impossible

    return (jax.vmap(one) if course.many else one)(course)


def _filtered(forward: Forward, course: Course) -> FilteredStates:
    here = course.present
    surprise = jnp.where(here, forward.surprise, 0.0)
    return FilteredStates(
        _over(forward.joint, here), _over(forward.predicted, here), surprise, forward.impossible
    )


def _over(joint: Array, present: Array) -> Array:
    """NaN where a sequence is over."""
    return jnp.where(present.reshape(-1, *[1] * (joint.ndim - 1)), joint, jnp.nan)


def _free_energy(model: POMDP, course: Course, filtered: Forward, joint: Array) -> FreeEnergy:
    def move(now: tuple[Array, Array, Array, Array]) -> tuple[Any, Any]:
        controls, belief, later, predicted = now
        found = step(model, chosen(model, controls), belief, ratio(later, predicted))
        return found.energies, found.entropies

    names, here = model.labels, course.present
    together = max(1, TOGETHER // (model.joint_size * max(model.states)))
    steps = (course.controls, filtered.joint[:-1], joint[1:], filtered.predicted[1:])
    moved = jax.lax.map(move, steps, batch_size=together)
    # Zero where a sequence is over.
    first, moved = start(model, joint[0]), jax.tree.map(lambda a: jnp.where(here[1:], a, 0.0), moved)
    hidden, entropies = (
        {f: jnp.concatenate([a[None], b]) for f, a, b in zip(names.factors, one, rest, strict=True)}
        for one, rest in zip(first, moved, strict=True)
    )
    observed = {}
    logs = log_likelihoods(model, course.weights)
    for name, log, depends in zip(names.modalities, logs, model.A_dependencies, strict=True):
        belief = jax.vmap(lambda one, d=depends: marginal(one, d))(joint)
        cost = jnp.where(belief > 0, -belief * log, 0.0).reshape(len(joint), -1).sum(1)
        observed[name] = jnp.where(here, cost, 0.0)
    order = (*hidden, *observed)
    return FreeEnergy(observed, hidden, entropies, None, jnp.ones(()), Kind.exact, (), order)
