"""The expected free energy of courses of action, by term, step and policy; prefixes are evaluated once."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import digamma
from jaxtyping import Array, Float, Int

from vfe.discrete.planning.goal import Goal, inductive_value
from vfe.discrete.planning.policies import Policies
from vfe.discrete.planning.predicted import by_factor, expected, joint, likelihoods, next_states
from vfe.discrete.planning.terms import Terms
from vfe.discrete.pomdp import POMDP
from vfe.discrete.tables import entropy

# Joint outcomes times joint states: what averages="joint" keeps in memory.
LARGEST_JOINT = 20_000_000

Counts = tuple[Array | None, ...] | None


class ExpectedFreeEnergy(eqx.Module):
    """G of every policy, and where it comes from.

    `terms`: by name, (policies, steps), in the sign of the name: gains are gains, costs are costs, before
    weights; `total` (policies,): G, nats.

    **Example:** `expected_free_energy(model, belief, policies).terms["utility"].sum(1)`.
    """

    terms: dict[str, Float[Array, "policies steps"]]
    total: Float[Array, " policies"]


class Prepared(NamedTuple):
    """What all nodes of a plan share: of the tables, by modality or factor."""

    outcome_entropies: tuple[Array, ...]
    preferences: tuple[Array, ...]
    log_preferences: tuple[Array, ...]
    A_gains: tuple[Array | None, ...] | None
    B_gains: tuple[Array | None, ...] | None
    joint_likelihoods: Array | None


@eqx.filter_jit
def expected_free_energy(
    model: POMDP,
    belief: Any,
    policies: Policies,
    terms: Terms | None = None,
    *,
    A_counts: Counts = None,
    B_counts: Counts = None,
    goal: Goal | None = None,
) -> ExpectedFreeEnergy:
    """G of every policy from a belief about the states now.

    G(π) = Σ_h − utility_h − I(s_h; o_h) − …, under q(s_h | π) = B … B q(s_0); see `Terms`. Policies that
    begin alike share what they have in common.

    **Arguments:** `belief`: (*states) over joint states, or a tuple of (states,), one for every factor;
    `A_counts`, `B_counts`: Dirichlet counts, for the information about A and B (None: known tables).

    **Raises:** `ValueError` where a term lacks what it needs, or joint outcomes are too many.

    **Example:**
    ```python
    policies = vfe.discrete.every_policy(model, 2)
    vfe.discrete.expected_free_energy(model, tuple(model.D), policies).total
    ```

    **Source:** Parr, Pezzulo and Friston 2022, "Active Inference", equation 2.6.
    """
    terms = Terms() if terms is None else terms
    prepared = prepare(model, terms, A_counts, B_counts, goal)
    belief = jax.tree.map(jnp.asarray, belief)
    now = by_factor(belief)
    beliefs = jax.tree.map(lambda b: b[None], belief)
    found: dict[str, list[Array]] = {name: [] for name in terms.weights}
    for step, level in enumerate(policies.levels):

        def on(controls: Array, parents: Array, beliefs: Any = beliefs) -> tuple[Any, Any]:
            before = jax.tree.map(lambda b: b[parents], beliefs)

            def one(q: Any) -> tuple[Any, Any]:
                after = next_states(model, q, controls)
                return after, transition_terms(model, terms, prepared, q, controls, after)

            return jax.vmap(one)(before)

        reached = jax.vmap(on)(jnp.asarray(level.actions), jnp.asarray(level.parents))
        place = jnp.asarray(level.place)
        beliefs, moved = jax.tree.map(lambda r, at=place: r.reshape(-1, *r.shape[2:])[at], reached)
        values = jax.vmap(lambda q, step=step: state_terms(model, terms, prepared, goal, now, q, step))(
            beliefs
        )
        for name, value in {**values, **moved}.items():
            found[name].append(value[jnp.asarray(level.of_policy)])
    stacked = {name: jnp.stack(values, 1) for name, values in found.items()}
    return ExpectedFreeEnergy(stacked, terms.total(stacked).sum(1))


def prepare(model: POMDP, terms: Terms, A_counts: Counts, B_counts: Counts, goal: Goal | None) -> Prepared:
    """What the terms of all nodes share. **Raises:** as `expected_free_energy`.

    **Example:** `prepare(model, Terms(), None, None, None).outcome_entropies`.
    """
    weights = terms.weights
    for name, needed in (("A_information", A_counts), ("B_information", B_counts), ("inductive", goal)):
        if name in weights and needed is None:
            what = "a goal (vfe.discrete.Goal)" if name == "inductive" else f"Dirichlet counts of {name[0]}"
            raise ValueError(f"expected_free_energy: the term {name} needs {what}; got none.")
    whole = None
    if terms.averages == "joint" and {"state_information", "risk"} & {*weights}:
        size = math.prod(model.outcomes) * model.joint_size
        if size > LARGEST_JOINT:
            raise ValueError(
                f"expected_free_energy: got {math.prod(model.outcomes)} joint outcomes of "
                f"{model.joint_size} joint states; averages over both are kept up to {LARGEST_JOINT}. Use "
                'vfe.discrete.Terms(averages="factorised"), or leave out state_information and risk.'
            )
        if len(model.outcomes) > 1:
            whole = likelihoods(model)
    joint_averages = terms.averages == "joint"
    preferences = tuple(jnp.atleast_2d(jnp.asarray(c)) for c in model.C)
    return Prepared(
        tuple(entropy(table) for table in model.A),
        preferences,
        tuple(jax.nn.log_softmax(c, -1) for c in preferences),
        _gains(A_counts, model.A, joint_averages) if "A_information" in weights else None,
        _gains(B_counts, model.B, joint_averages) if "B_information" in weights else None,
        whole,
    )


def count_divergence(counts: Array) -> Array:
    """KL[Dir(a + one more of o) ‖ Dir(a)] for every entry o of every column, nats; zero where a is zero.

    ln a_0 − ln a_o + ψ(a_o + 1) − ψ(a_0 + 1).

    **Example:** `count_divergence(jnp.ones((2, 3)))`.
    """
    present = counts > 0
    safe = jnp.where(present, counts, 1.0)
    total = jnp.where(present, counts, 0.0).sum(0)
    full = jnp.where(total > 0, total, 1.0)
    found = jnp.log(full) - jnp.log(safe) + digamma(safe + 1) - digamma(full + 1)
    return jnp.where(present, found, 0.0)


def state_terms(
    model: POMDP,
    terms: Terms,
    prepared: Prepared,
    goal: Goal | None,
    now: tuple[Array, ...],
    belief: Any,
    step: int | Int[Array, ""],
) -> dict[str, Array]:
    """The terms that depend on where a step leads to. `now`: by factor, before the plan begins.

    **Example:** `state_terms(model, terms, prepared, None, tuple(model.D), tuple(model.D), 0)`.
    """
    weights, found = terms.weights, {}
    outcomes = [
        expected(table, belief, depends)
        for table, depends in zip(model.A, model.A_dependencies, strict=True)
    ]
    if "utility" in weights:
        found["utility"] = _preferred(prepared.preferences, outcomes, step)
    if {"state_information", "risk", "ambiguity"} & {*weights}:
        ambiguity = sum(
            expected(h, belief, depends)
            for h, depends in zip(prepared.outcome_entropies, model.A_dependencies, strict=True)
        )
        if "ambiguity" in weights:
            found["ambiguity"] = ambiguity
        if {"state_information", "risk"} & {*weights}:
            if prepared.joint_likelihoods is None:
                spread = sum(entropy(q) for q in outcomes)
            else:
                spread = entropy(prepared.joint_likelihoods @ joint(model, belief).ravel())
            if "state_information" in weights:
                # Rounding can leave −1e−17 where an outcome says nothing.
                found["state_information"] = jnp.maximum(spread - ambiguity, 0.0)
            if "risk" in weights:
                found["risk"] = -spread - _preferred(prepared.log_preferences, outcomes, step)
    if prepared.A_gains is not None:
        found["A_information"] = sum(
            expected(gains, belief, depends)
            if terms.averages == "joint"
            else q @ expected(gains, belief, depends)
            for gains, q, depends in zip(prepared.A_gains, outcomes, model.A_dependencies, strict=True)
            if gains is not None
        )
    if "inductive" in weights and goal is not None:
        found["inductive"] = inductive_value(goal, now, by_factor(belief))
    return found


def transition_terms(
    model: POMDP, terms: Terms, prepared: Prepared, before: Any, controls: Array, after: Any
) -> dict[str, Array]:
    """The terms that depend on a step itself: the information about B.

    **Example:** `transition_terms(model, terms, prepared, before, controls, after)`.
    """
    if prepared.B_gains is None:
        return {}
    gained: Any = jnp.zeros(())
    landed = by_factor(after)
    for f, (gains, depends) in enumerate(zip(prepared.B_gains, model.B_dependencies, strict=True)):
        if gains is None:
            continue
        gain = expected(jnp.take(gains, controls[f], axis=-1), before, depends)
        gained = gained + (gain if terms.averages == "joint" else landed[f] @ gain)
    return {"B_information": gained}


def _preferred(tables: tuple[Array, ...], outcomes: list[Array], step: Any) -> Array:
    rows = [table[jnp.minimum(step, len(table) - 1)] for table in tables]
    return sum((q @ row for q, row in zip(outcomes[1:], rows[1:], strict=True)), outcomes[0] @ rows[0])


def _gains(counts: Counts, tables: tuple[Any, ...], averaged: bool) -> tuple[Array | None, ...]:
    if counts is None or len(counts) != len(tables):
        raise ValueError(
            f"expected_free_energy: got {0 if counts is None else len(counts)} arrays of counts for "
            f"{len(tables)} tables; wanted one each (None: not learned)."
        )
    found = []
    for k, (array, table) in enumerate(zip(counts, tables, strict=True)):
        if array is None:
            found.append(None)
            continue
        if jnp.shape(array) != jnp.shape(table):
            raise ValueError(
                f"expected_free_energy: got counts {k} of shape {jnp.shape(array)}; wanted "
                f"{jnp.shape(table)}, as the table."
            )
        counted = jnp.asarray(array)
        gains = count_divergence(counted)
        mean = counted / jnp.where(counted.sum(0) > 0, counted.sum(0), 1.0)
        found.append((mean * gains).sum(0) if averaged else gains)
    return tuple(found)
