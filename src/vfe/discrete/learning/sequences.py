"""Evidence and expected counts of whole sequences under tables whose columns may sum to less than one."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vfe.discrete.pomdp import POMDP
from vfe.discrete.states.joint import joint_likelihood, joint_transition, marginal, move
from vfe.discrete.tables import entropy, log_table

Tables = tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]


class Course(eqx.Module):
    """What was seen and done: padded steps are those not `present`, at the end; −1 is a missing outcome."""

    outcomes: Int[Array, "*batch time m"]
    controls: Int[Array, "*batch steps f"]
    present: Bool[Array, "*batch time"]


class Levels(eqx.Module):
    """By time: beliefs about joint states, energies of modalities and factors, entropies of factors."""

    joint: Float[Array, "*batch_time_states"]
    observed: dict[str, Array]
    hidden: dict[str, Array]
    entropies: dict[str, Array]


def log_mass(model: POMDP, course: Course) -> Float[Array, ""]:
    """ln Σ over paths of Π D Π A Π B for one sequence: ln p(o) where the columns sum to one.

    **Example:** `log_mass(model, course)`.
    """
    first = jnp.ones(())
    for table in model.D:
        first = jnp.multiply.outer(first, table)

    def weigh(belief: Array, outcomes: Array) -> tuple[Array, Array]:
        both = belief * joint_likelihood(model, outcomes).reshape(model.states)
        mass = both.sum()
        return both / jnp.where(mass > 0, mass, 1.0), mass

    # Recomputed backwards: the derivative would else keep everything that every move computes.
    @jax.checkpoint
    def step(belief: Array, now: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        controls, outcomes, present = now
        found, mass = weigh(move(model, belief, controls), outcomes)
        return jnp.where(present, found, belief), jnp.where(present, mass, 1.0)

    belief, mass = weigh(first, course.outcomes[0])
    rest = (course.controls, course.outcomes[1:], course.present[1:])
    _, masses = jax.lax.scan(step, belief, rest)
    return jnp.log(mass) + jnp.log(masses).sum()


def expected_counts(model: POMDP, course: Course) -> tuple[Float[Array, ""], Tables]:
    """ln of the mass of all sequences, and how often each entry of A, B and D was used, in expectation.

    ⟨n⟩ = θ ∂ ln Z / ∂θ, over sequences (batch, time, …).

    **Example:** `expected_counts(model, course)[1][0][0]`, for A[0].

    **Source:** Baum, Petrie, Soules and Weiss 1970, by the derivative of ln Z (Eisner 2016, "Inside-outside
    and forward-backward algorithms are just backprop").
    """

    def total(tables: Tables) -> Array:
        with_tables = eqx.tree_at(lambda m: (m.A, m.B, m.D), model, tables)
        return jax.vmap(lambda one: log_mass(with_tables, one))(course).sum()

    tables: Tables = jax.tree.map(jnp.asarray, (model.A, model.B, model.D))
    mass, slopes = jax.value_and_grad(total)(tables)
    return mass, jax.tree.map(jnp.multiply, tables, slopes)


def levels(model: POMDP, course: Course) -> Levels:
    """Smoothed beliefs of one sequence and the terms of F by time, which sum to −ln of its mass.

    The entropy of a factor is the one given the factors before it and the states of the time before.

    **Example:** `levels(model, course).joint`.
    """
    count = len(model.states)
    first = jnp.ones(())
    for table in model.D:
        first = jnp.multiply.outer(first, table)
    likelihood = jax.vmap(lambda o: joint_likelihood(model, o).reshape(model.states))(course.outcomes)

    def forward(belief: Array, now: tuple[Array, Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        controls, seen, present = now
        predicted = move(model, belief, controls)
        found = predicted * seen
        found = jnp.where(present, found / found.sum(), belief)
        return found, (found, predicted)

    start = first * likelihood[0]
    start = start / start.sum()
    rest = (course.controls, likelihood[1:], course.present[1:])
    _, (after, predicted) = jax.lax.scan(forward, start, rest)
    filtered = jnp.concatenate([start[None], after])

    def back(
        later: Array, now: tuple[Array, ...]
    ) -> tuple[Array, tuple[Array, dict[str, Array], dict[str, Array]]]:
        belief, expected, controls, present = now
        ratio = jnp.where(expected > 0, later / jnp.where(expected > 0, expected, 1.0), 0.0).ravel()
        pair = ratio[:, None] * joint_transition(model, controls) * belief.ravel()
        earlier = jnp.where(present, pair.sum(0).reshape(model.states), later)
        pair = pair.reshape(model.states * 2)
        lost, spread = {}, {}
        for f, (table, depends) in enumerate(zip(model.B, model.B_dependencies, strict=True)):
            name = model.labels.factors[f]
            own = marginal(pair, (f, *(count + g for g in depends)))
            cost = -log_table(jnp.take(jnp.asarray(table), controls[f], axis=-1))
            lost[name] = _where(present, jnp.where(own > 0, own * cost, 0.0).sum())
            spread[name] = _where(present, _conditional(pair, f, tuple(range(count, 2 * count))))
        return earlier, (earlier, lost, spread)

    given = (filtered[:-1], predicted, course.controls, course.present[1:])
    _, (earlier, lost, spread) = jax.lax.scan(back, filtered[-1], given, reverse=True)
    joint = jnp.concatenate([earlier, filtered[-1:]])
    observed, hidden, entropies = {}, {}, {}
    for m, (table, depends) in enumerate(zip(model.A, model.A_dependencies, strict=True)):
        belief = jax.vmap(lambda q, depends=depends: marginal(q, depends))(joint)
        cost = -log_table(table)[jnp.maximum(course.outcomes[:, m], 0)]
        each = jnp.where(belief > 0, belief * cost, 0.0).reshape(len(joint), -1).sum(1)
        there = (course.outcomes[:, m] >= 0) & course.present
        observed[model.labels.modalities[m]] = _where(there, each)
    for f, table in enumerate(model.D):
        name, own = model.labels.factors[f], marginal(joint[0], (f,))
        begin = -jnp.where(own > 0, own * log_table(table), 0.0).sum()
        hidden[name] = jnp.concatenate([begin[None], lost[name]])
        entropies[name] = jnp.concatenate([_conditional(joint[0], f, ())[None], spread[name]])
    return Levels(joint, observed, hidden, entropies)


def _conditional(belief: Array, f: int, given: tuple[int, ...]) -> Array:
    """The entropy of axis f given those before it and some others."""
    before = (*range(f), *given)
    return _entropy(marginal(belief, (*before, f))) - _entropy(marginal(belief, before))


def _entropy(belief: Array) -> Array:
    return entropy(belief, tuple(range(belief.ndim)))


def _where(there: Array, value: Array) -> Array:
    return jnp.where(there, value, 0.0)
