"""Nodes whose belief is a product over factors, as published schemes keep it."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vfe.discrete.planning.goal import Goal, inductive_value
from vfe.discrete.planning.nodes import (
    AbstractNodes,
    Counts,
    check_terms,
    gains_of,
    needs_outcomes,
    preferences,
)
from vfe.discrete.planning.predicted import expected, joint, likelihoods, next_states
from vfe.discrete.planning.terms import Terms
from vfe.discrete.pomdp import POMDP
from vfe.discrete.tables import entropy


class FactorNodes(AbstractNodes):
    """Beliefs as tuples of (nodes, states), one for every factor.

    `now`: before the plan begins; `A_gains`, `B_gains`: see `gains_of`.

    **Example:** `factor_nodes(model, belief, Terms(), None, None, None).start(belief)`.
    """

    model: POMDP
    terms: Terms
    goal: Goal | None
    now: tuple[Array, ...]
    A_gains: tuple[Array | None, ...] | None
    B_gains: tuple[Array | None, ...] | None

    def start(self, belief: Any) -> Any:
        """The belief from which the plan begins, as one node."""
        return jax.tree.map(lambda q: jnp.asarray(q)[None], belief)

    def onward(
        self, nodes: Any, controls: Int[Array, "a factors"], parents: Int[Array, "a n"] | None
    ) -> tuple[Any, dict[str, Array]]:
        """The nodes after each action from its parents, and the information about B."""

        def one(before: Any, chosen: Array) -> tuple[Any, dict[str, Array]]:
            after = next_states(self.model, before, chosen)
            return after, self._transition(before, chosen, after)

        def each(chosen: Array, row: Array | None) -> tuple[Any, dict[str, Array]]:
            here = nodes if row is None else jax.tree.map(lambda q: q[row], nodes)
            return jax.vmap(lambda q: one(q, chosen))(here)

        if parents is None:
            return jax.vmap(lambda chosen: each(chosen, None))(controls)
        return jax.vmap(each)(controls, parents)

    def values(self, nodes: Any, step: int) -> dict[str, Float[Array, " n"]]:
        """The terms that depend on where a step leads to."""
        whole = None
        several = len(self.model.outcomes) > 1
        if needs_outcomes(self.terms) and self.terms.averages == "joint" and several:
            whole = likelihoods(self.model)
        return jax.vmap(lambda q: self._values(q, step, whole))(nodes)

    def _values(self, belief: tuple[Array, ...], step: int, whole: Array | None) -> dict[str, Array]:
        model, weights, found = self.model, self.terms.weights, {}
        outcomes = [
            expected(table, belief, depends)
            for table, depends in zip(model.A, model.A_dependencies, strict=True)
        ]

        def preferred(normalised: bool) -> Array:
            rows = preferences(model, step, normalised=normalised)
            parts = [q @ row for q, row in zip(outcomes, rows, strict=True)]
            return sum(parts[1:], parts[0])

        if "utility" in weights:
            found["utility"] = preferred(False)
        if "ambiguity" in weights or needs_outcomes(self.terms):
            ambiguity = sum(
                expected(entropy(table), belief, depends)
                for table, depends in zip(model.A, model.A_dependencies, strict=True)
            )
            if "ambiguity" in weights:
                found["ambiguity"] = ambiguity
            if needs_outcomes(self.terms):
                spread = (
                    sum(entropy(q) for q in outcomes)
                    if whole is None
                    else entropy(whole @ joint(model, belief).ravel())
                )
                if "state_information" in weights:
                    # Rounding can leave −1e−17 where an outcome says nothing.
                    found["state_information"] = jnp.maximum(spread - ambiguity, 0.0)
                if "risk" in weights:
                    found["risk"] = -spread - preferred(True)
        if self.A_gains is not None:
            found["A_information"] = sum(
                (
                    expected(gains, belief, depends)
                    if self.terms.averages == "joint"
                    else q @ expected(gains, belief, depends)
                    for gains, q, depends in zip(self.A_gains, outcomes, model.A_dependencies, strict=True)
                    if gains is not None
                ),
                jnp.zeros(()),
            )
        if "inductive" in weights and self.goal is not None:
            found["inductive"] = inductive_value(self.goal, self.now, belief)
        return found

    def _transition(
        self, before: tuple[Array, ...], controls: Array, after: tuple[Array, ...]
    ) -> dict[str, Array]:
        if self.B_gains is None:
            return {}
        gained: Any = jnp.zeros(())
        for f, (gains, depends) in enumerate(zip(self.B_gains, self.model.B_dependencies, strict=True)):
            if gains is None:
                continue
            gain = expected(jnp.take(gains, controls[f], axis=-1), before, depends)
            gained = gained + (gain if self.terms.averages == "joint" else after[f] @ gain)
        return {"B_information": gained}


def factor_nodes(
    model: POMDP, belief: Any, terms: Terms, A_counts: Counts, B_counts: Counts, goal: Goal | None
) -> FactorNodes:
    """Nodes for a plan from a product of beliefs. **Raises:** as `check_terms`.

    **Example:** `factor_nodes(model, tuple(model.D), Terms(), None, None, None)`.
    """
    check_terms(model, terms, A_counts, B_counts, goal)
    averaged = terms.averages == "joint"
    return FactorNodes(
        model,
        terms,
        goal,
        tuple(jnp.asarray(q) for q in belief),
        gains_of(A_counts, model.A, averaged=averaged) if "A_information" in terms.weights else None,
        gains_of(B_counts, model.B, averaged=averaged) if "B_information" in terms.weights else None,
    )
