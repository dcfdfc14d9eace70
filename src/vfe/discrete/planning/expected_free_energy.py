"""The expected free energy of courses of action, by term, step and policy; prefixes are evaluated once."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vfe.discrete.planning.factor_nodes import factor_nodes
from vfe.discrete.planning.goal import Goal
from vfe.discrete.planning.joint_nodes import joint_nodes
from vfe.discrete.planning.nodes import Counts, check_belief
from vfe.discrete.planning.policies import Policies
from vfe.discrete.planning.terms import Terms
from vfe.discrete.pomdp import POMDP


class ExpectedFreeEnergy(eqx.Module):
    """G of every policy, and where it comes from.

    `terms`: by name, (policies, steps), in the sign of the name: gains are gains, costs are costs, before
    weights; `total` (policies,): G, nats.

    **Example:** `expected_free_energy(model, belief, policies).terms["utility"].sum(1)`.
    """

    terms: dict[str, Float[Array, "policies steps"]]
    total: Float[Array, " policies"]


def expected_free_energy(
    model: POMDP,
    belief: Any,
    policies: Policies,
    terms: Terms | None = None,
    *,
    A_counts: Counts = None,
    B_counts: Counts = None,
    goal: Goal | None = None,
    possible: Int[Array, " outcomes"] | None = None,
) -> ExpectedFreeEnergy:
    """G of every policy from a belief about the states now.

    G(π) = Σ_h − utility_h − I(s_h; o_h) − …, under q(s_h | π) = B … B q(s_0); see `Terms`. Policies that
    begin alike share what they have in common.

    **Arguments:** `belief`: (*states) over joint states, or a tuple of (states,), one for every factor;
    `A_counts`, `B_counts`: Dirichlet counts, for the information about A and B (None: known tables);
    `possible`: the joint outcomes that can occur, by number, if that is known (a joint belief only).

    **Raises:** `ValueError` where a term lacks what it needs, or joint outcomes are too many.

    **Example:**
    ```python
    policies = vfe.discrete.every_policy(model, 2)
    vfe.discrete.expected_free_energy(model, tuple(model.D), policies).total
    ```

    **Source:** Parr, Pezzulo and Friston 2022, "Active Inference", equation 2.6.
    """
    check_belief("expected_free_energy", model, belief)
    if policies.sequences.shape[2] != len(model.B):
        raise ValueError(
            f"expected_free_energy: got policies over {policies.sequences.shape[2]} factors; the model has "
            f"{len(model.B)}."
        )
    # Arrays, so that other weights do not make another program.
    weights: Any = jax.tree.map(jnp.asarray, Terms() if terms is None else terms)
    return _evaluate(model, belief, policies, weights, A_counts, B_counts, goal, possible)


@eqx.filter_jit
def _evaluate(
    model: POMDP,
    belief: Any,
    policies: Policies,
    terms: Terms,
    A_counts: Counts,
    B_counts: Counts,
    goal: Goal | None,
    possible: Array | None,
) -> ExpectedFreeEnergy:
    if isinstance(belief, tuple):
        kind = factor_nodes(model, belief, terms, A_counts, B_counts, goal)
    else:
        kind = joint_nodes(model, belief, terms, A_counts, B_counts, goal, possible)
    nodes = kind.start(belief)
    found: dict[str, list[Array]] = {name: [] for name in terms.weights}
    for step, level in enumerate(policies.levels):
        parents = None if level.parents is None else jnp.asarray(level.parents)
        reached, moved = kind.onward(nodes, jnp.asarray(level.actions), parents)
        nodes, moved = jax.tree.map(lambda r: r.reshape(-1, *r.shape[2:]), (reached, moved))
        if level.place is not None:
            place = jnp.asarray(level.place)
            nodes, moved = jax.tree.map(lambda r, at=place: r[at], (nodes, moved))
        for name, value in {**kind.values(nodes, step), **moved}.items():
            found[name].append(value[jnp.asarray(level.of_policy)])
    stacked = {name: jnp.stack(values, 1) for name, values in found.items()}
    return ExpectedFreeEnergy(stacked, terms.total(stacked).sum(1))
