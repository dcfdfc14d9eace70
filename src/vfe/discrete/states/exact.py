"""Exact beliefs about the states of a `POMDP`: forward, and backward."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vfe.discrete.course import read_course
from vfe.discrete.pomdp import POMDP
from vfe.discrete.states.beliefs import FilteredStates, SmoothedStates
from vfe.discrete.states.joint import joint_likelihood, joint_transition, ordered
from vfe.discrete.tables import entropy, log_table
from vfe.dynamics.filtering import filter, smooth
from vfe.dynamics.precision import released
from vfe.free_energy import FreeEnergy, Kind


@filter.register
def filter_pomdp(model: POMDP, y: Any, *, actions: Any = None) -> FilteredStates:
    """Beliefs about the states at every time, given the outcomes up to it: exact, over joint states.

    p(s_t | o_1 … o_t) ∝ Π_m A_m[o_m,t | s_t] Σ_s p(s_t | s, u_t−1) p(s | o_1 … o_t−1).

    **Arguments:** `y`: outcomes (time, modalities), or (time,) for one, NaN where missing; `actions`:
    (time − 1, factors), the control of each factor from a time to the next, or (time − 1,) for one factor;
    zero if not given.

    **Raises:** `ValueError` for outcomes and actions out of range or impossible under the model, with the
    time; for too many joint states.

    **Example:** `vfe.filter(model, [0, 1, 1]).factors[0]`.

    **Source:** Rabiner 1989, "A tutorial on hidden Markov models".
    """
    outcomes, controls = read_course(model, y, actions, "filter")
    with jax.enable_x64(True):
        found = jax.tree.map(np.asarray, _filter(model, jnp.asarray(outcomes), jnp.asarray(controls)))
    _check(found.surprise, "filter")
    return released(found)


@smooth.register
def smooth_pomdp(model: POMDP, y: Any, *, actions: Any = None) -> SmoothedStates:
    """Beliefs about the states at every time and every two, given all outcomes: exact, with F = −ln p(o).

    **Arguments, raises:** as `vfe.filter` of a `POMDP`.

    **Example:** `vfe.smooth(model, [0, 1, 1]).free_energy.total.sum()`.

    **Source:** Rabiner 1989, "A tutorial on hidden Markov models".
    """
    outcomes, controls = read_course(model, y, actions, "smooth")
    with jax.enable_x64(True):
        found = jax.tree.map(np.asarray, _smooth(model, jnp.asarray(outcomes), jnp.asarray(controls)))
    _check(found.filtered.surprise, "smooth")
    return released(found)


@eqx.filter_jit
def _filter(
    model: POMDP, outcomes: Int[Array, "time m"], controls: Int[Array, "steps f"]
) -> FilteredStates:
    likelihood = jax.vmap(lambda o: joint_likelihood(model, o))(outcomes)
    start = jnp.ones(())
    for table in model.D:
        start = jnp.multiply.outer(start, table)

    def weigh(predicted: Array, seen: Array) -> tuple[Array, Array]:
        both = predicted * seen
        mass = both.sum()
        return both / jnp.where(mass > 0, mass, 1.0), -jnp.log(mass)

    def step(belief: Array, now: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array, Array]]:
        control, seen = now
        predicted = joint_transition(model, control) @ belief
        belief, surprise = weigh(predicted, seen)
        return belief, (belief, predicted, surprise)

    prior = start.ravel()
    first, surprise = weigh(prior, likelihood[0])
    _, rest = jax.lax.scan(step, first, (controls, likelihood[1:]))
    joint, predicted, surprises = (
        jnp.concatenate([one[None], others])
        for one, others in zip((first, prior, surprise), rest, strict=True)
    )
    shape = (len(outcomes), *model.states)
    return FilteredStates(joint.reshape(shape), predicted.reshape(shape), surprises)


@eqx.filter_jit
def _smooth(
    model: POMDP, outcomes: Int[Array, "time m"], controls: Int[Array, "steps f"]
) -> SmoothedStates:
    filtered = _filter(model, outcomes, controls)
    length, shape = len(outcomes), model.states
    flat = filtered.joint.reshape(length, -1)
    predicted = filtered.predicted.reshape(length, -1)

    def back(later: Array, now: tuple[Array, Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        belief, expected, control = now
        ratio = jnp.where(expected > 0, later / jnp.where(expected > 0, expected, 1.0), 0.0)
        pair = ratio[:, None] * joint_transition(model, control) * belief
        belief = pair.sum(0)
        return belief, (belief, pair)

    _, (earlier, pairs) = jax.lax.scan(back, flat[-1], (flat[:-1], predicted[1:], controls), reverse=True)
    joint = jnp.concatenate([earlier, flat[-1:]]).reshape(length, *shape)
    pairs = pairs.reshape(length - 1, *shape, *shape)
    return SmoothedStates(joint, pairs, filtered, _free_energy(model, outcomes, controls, joint, pairs))


def _free_energy(model: POMDP, outcomes: Array, controls: Array, joint: Array, pairs: Array) -> FreeEnergy:
    count = len(model.states)
    now = tuple(range(1, count + 1))
    observed, hidden, entropies = {}, {}, {}
    for m, (table, depends) in enumerate(zip(model.A, model.A_dependencies, strict=True)):
        away = tuple(f for f in now if f - 1 not in depends)
        belief = ordered(joint.sum(away), depends)
        there = outcomes[:, m] >= 0
        cost = -log_table(table)[jnp.maximum(outcomes[:, m], 0)]
        lost = (jnp.where(belief > 0, belief * cost, 0.0)).reshape(len(joint), -1).sum(1)
        observed[model.labels.modalities[m]] = jnp.where(there, lost, 0.0)
    for f, (table, depends) in enumerate(zip(model.B, model.B_dependencies, strict=True)):
        first = joint[0].sum(tuple(g for g in range(count) if g != f))
        start = -jnp.where(first > 0, first * log_table(model.D[f]), 0.0).sum()
        later = [1 + g for g in range(count) if g != f]
        before = [1 + count + g for g in range(count) if g not in depends]
        pair = pairs.sum((*later, *before))
        pair = jnp.moveaxis(ordered(jnp.moveaxis(pair, 1, -1), depends), -1, 1)
        cost = -log_table(jnp.moveaxis(jnp.asarray(table), -1, 0))[controls[:, f]]
        moved = jnp.where(pair > 0, pair * cost, 0.0).reshape(len(pairs), -1).sum(1)
        hidden[model.labels.factors[f]] = jnp.concatenate([start[None], moved])
        kept = [1 + g for g in range(f + 1, count)]
        more = _entropies(pairs.sum(tuple(kept))) - _entropies(pairs.sum((1 + f, *kept)))
        own = joint[:1].sum(tuple(kept))
        entropies[model.labels.factors[f]] = jnp.concatenate(
            [_entropies(own) - _entropies(own.sum(1 + f)), more]
        )
    order = (*hidden, *observed)
    return FreeEnergy(observed, hidden, entropies, None, jnp.ones(()), Kind.exact, (), order)


def _entropies(belief: Float[Array, "time *states"]) -> Float[Array, " time"]:
    return entropy(belief, tuple(range(1, belief.ndim)))


def _check(surprise: np.ndarray, verb: str) -> None:
    bad = ~np.isfinite(surprise)
    if bad.any():
        raise ValueError(
            f"{verb}: the outcomes at time {int(bad.argmax())} are impossible under the model (their "
            "surprise is infinite); give every outcome some probability in A, or every move in B."
        )
