"""Nodes whose belief is over joint states; most of what they contribute to G is linear in it."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from vfe.discrete.planning.goal import Goal, inductive_value
from vfe.discrete.planning.nodes import (
    LARGEST_JOINT,
    AbstractNodes,
    Counts,
    check_terms,
    gains_of,
    needs_outcomes,
    preferences,
)
from vfe.discrete.planning.predicted import by_factor, likelihoods, next_states
from vfe.discrete.planning.terms import Terms
from vfe.discrete.pomdp import POMDP
from vfe.discrete.states.joint import joint_transition, spread
from vfe.discrete.tables import entropy

# Up to so many entries of all transitions between joint states are made, and nodes moved by one product;
# beyond, factor after factor.
LARGEST_TRANSITIONS = 1_000_000


class JointNodes(AbstractNodes):
    """Beliefs as (nodes, joint states).

    `ambiguities` (states,): Σ_m H(o_m | s); `outcomes` (outcomes, states): of all modalities together
    (averages="joint"; only those that can occur), or one modality after the other; `groups`: where in it
    each modality is; `A_gains`, `B_gains`: see `gains_of`; `now`: by factor, before the plan begins.

    **Example:** `joint_nodes(model, belief, Terms(), None, None, None).start(belief)`.
    """

    model: POMDP
    terms: Terms
    goal: Goal | None
    now: tuple[Array, ...]
    ambiguities: Float[Array, " states"]
    outcomes: Float[Array, "outcomes states"]
    A_gains: tuple[Array | None, ...] | None
    B_gains: tuple[Array | None, ...] | None

    def start(self, belief: Any) -> Any:
        """The belief from which the plan begins, as one node."""
        return jnp.asarray(belief).reshape(1, -1)

    def onward(
        self, nodes: Any, controls: Int[Array, "a factors"], parents: Int[Array, "a n"] | None
    ) -> tuple[Any, dict[str, Array]]:
        """The nodes after each action from its parents, and the information about B."""
        model, size = self.model, self.model.joint_size
        if len(controls) * size**2 <= LARGEST_TRANSITIONS:
            moves = jax.vmap(lambda chosen: joint_transition(model, chosen))(controls)
            if parents is None:
                after = jnp.einsum("aij,nj->ani", moves, nodes)
            else:
                after = jnp.einsum("aij,anj->ani", moves, nodes[parents])
        else:

            def one(chosen: Array, q: Array) -> Array:
                return next_states(model, q.reshape(model.states), chosen).ravel()

            def each(chosen: Array, row: Array | None) -> Array:
                return jax.vmap(lambda q: one(chosen, q))(nodes if row is None else nodes[row])

            if parents is None:
                after = jax.vmap(lambda chosen: each(chosen, None))(controls)
            else:
                after = jax.vmap(each)(controls, parents)
        return after, self._transitions(nodes, controls, parents, after)

    def values(self, nodes: Any, step: int) -> dict[str, Float[Array, " n"]]:
        """The terms that depend on where a step leads to."""
        weights, found = self.terms.weights, {}
        if "utility" in weights:
            found["utility"] = nodes @ self._preferred(step, normalised=False)
        ambiguity = nodes @ self.ambiguities
        if "ambiguity" in weights:
            found["ambiguity"] = ambiguity
        if needs_outcomes(self.terms):
            # Entropies of modalities add up, so that one sum over their outcomes serves.
            disorder = entropy(nodes @ self.outcomes.T, 1)
            if "state_information" in weights:
                # Rounding can leave −1e−17 where an outcome says nothing.
                found["state_information"] = jnp.maximum(disorder - ambiguity, 0.0)
            if "risk" in weights:
                found["risk"] = -disorder - nodes @ self._preferred(step, normalised=True)
        if self.A_gains is not None:
            found["A_information"] = self._A_information(nodes)
        if "inductive" in weights and self.goal is not None:
            goal = self.goal
            found["inductive"] = jax.vmap(
                lambda q: inductive_value(goal, self.now, by_factor(q.reshape(self.model.states)))
            )(nodes)
        return found

    def _preferred(self, step: int, *, normalised: bool) -> Float[Array, " states"]:
        """Σ_m ⟨C_m(o) | s⟩ of every joint state."""
        rows = preferences(self.model, step, normalised=normalised)
        whole = jnp.zeros(self.model.states)
        for table, row, depends in zip(self.model.A, rows, self.model.A_dependencies, strict=True):
            whole = whole + spread(jnp.tensordot(row, jnp.asarray(table), 1), depends, len(self.now))
        return whole.ravel()

    def _A_information(self, nodes: Array) -> Array:
        total = jnp.zeros(len(nodes))
        model, count = self.model, len(self.now)
        for gains, table, depends in zip(self.A_gains or (), model.A, model.A_dependencies, strict=True):
            if gains is None:
                continue
            if self.terms.averages == "joint":
                whole = jnp.broadcast_to(spread(gains, depends, count), model.states)
                total = total + nodes @ whole.ravel()
            else:
                both = (_rows(jnp.asarray(table), depends, model), _rows(gains, depends, model))
                total = total + ((nodes @ both[0].T) * (nodes @ both[1].T)).sum(1)
        return total

    def _transitions(
        self, nodes: Array, controls: Array, parents: Array | None, after: Array
    ) -> dict[str, Array]:
        if self.B_gains is None:
            return {}
        model, count = self.model, len(self.now)
        total = jnp.zeros(after.shape[:2])
        landed = jax.vmap(jax.vmap(lambda q: by_factor(q.reshape(model.states))))(after)
        for f, (gains, depends) in enumerate(zip(self.B_gains, model.B_dependencies, strict=True)):
            if gains is None:
                continue
            chosen = jnp.moveaxis(jnp.take(gains, controls[:, f], axis=-1), -1, 0)
            if self.terms.averages == "joint":
                whole = jax.vmap(
                    lambda g, d=depends: jnp.broadcast_to(spread(g, d, count), model.states).ravel()
                )(chosen)
                gained = jnp.einsum("aj,nj->an", whole, nodes)
                total = total + (gained if parents is None else jnp.take_along_axis(gained, parents, 1))
            else:
                whole = jax.vmap(lambda g, d=depends: _rows(g, d, model))(chosen)
                before = (
                    jnp.broadcast_to(nodes, (len(controls), *nodes.shape))
                    if parents is None
                    else nodes[parents]
                )
                total = total + jnp.einsum("aij,anj,ani->an", whole, before, landed[f])
        return {"B_information": total}


def joint_nodes(
    model: POMDP,
    belief: Any,
    terms: Terms,
    A_counts: Counts,
    B_counts: Counts,
    goal: Goal | None,
    possible: Int[Array, " outcomes"] | None = None,
) -> JointNodes:
    """Nodes for a plan from a joint belief (*states). **Raises:** as `check_terms`.

    **Arguments:** `possible`: the joint outcomes that can occur, from `possible_outcomes`.

    **Example:** `joint_nodes(model, belief, Terms(), None, None, None)`.
    """
    check_terms(model, terms, A_counts, B_counts, goal)
    averaged = terms.averages == "joint"
    ambiguities = jnp.zeros(model.states)
    for table, depends in zip(model.A, model.A_dependencies, strict=True):
        ambiguities = ambiguities + spread(entropy(table), depends, len(model.states))
    if not needs_outcomes(terms):
        outcomes = jnp.zeros((0, model.joint_size))
    elif averaged:
        outcomes = joint_outcomes(model, possible)
    else:
        outcomes = jnp.concatenate(
            [_rows(jnp.asarray(t), d, model) for t, d in zip(model.A, model.A_dependencies, strict=True)]
        )
    return JointNodes(
        model,
        terms,
        goal,
        by_factor(jnp.asarray(belief).reshape(model.states)),
        ambiguities.ravel(),
        outcomes,
        gains_of(A_counts, model.A, averaged=averaged) if "A_information" in terms.weights else None,
        gains_of(B_counts, model.B, averaged=averaged) if "B_information" in terms.weights else None,
    )


def joint_outcomes(
    model: POMDP, possible: Int[Array, " outcomes"] | None
) -> Float[Array, "outcomes states"]:
    """p(o_1 … o_M | s) of the joint outcomes that can occur, or of all.

    **Example:** `joint_outcomes(model, None).shape`.
    """
    if possible is None:
        return likelihoods(model)
    count = len(model.states)
    whole = jnp.ones((len(possible), *model.states))
    places = np.unravel_index(np.arange(math.prod(model.outcomes)), model.outcomes)
    for m, (table, depends) in enumerate(zip(model.A, model.A_dependencies, strict=True)):
        rows = jnp.asarray(table)[jnp.asarray(places[m])[possible]]
        whole = whole * jax.vmap(lambda row, d=depends: spread(row, d, count))(rows)
    return whole.reshape(len(possible), -1)


def possible_outcomes(model: POMDP) -> Int[np.ndarray, " outcomes"] | None:
    """The joint outcomes that some state can give, by number in C order; None where tables are traced.

    **Example:** `possible_outcomes(model)`.
    """
    if any(isinstance(table, Tracer) for table in model.A):
        return None
    count = len(model.states)
    if math.prod(model.outcomes) * model.joint_size > LARGEST_JOINT:
        return None
    whole = np.ones((1, model.joint_size), bool)
    for table, depends in zip(model.A, model.A_dependencies, strict=True):
        axes = np.argsort(depends)
        ordered = np.transpose(np.asarray(table) > 0, (0, *(1 + axes)))
        shape = [model.states[f] if f in depends else 1 for f in range(count)]
        rows = np.broadcast_to(ordered.reshape(-1, *shape), (len(ordered), *model.states))
        whole = (whole[:, None] & rows.reshape(1, len(ordered), -1)).reshape(-1, model.joint_size)
    return np.flatnonzero(whole.any(1))


def _rows(table: Array, depends: tuple[int, ...], model: POMDP) -> Float[Array, "first states"]:
    """A table (first, *states it depends on) over all joint states."""
    count = len(model.states)
    whole = jax.vmap(lambda row: jnp.broadcast_to(spread(row, depends, count), model.states))(table)
    return whole.reshape(len(table), -1)
