"""Plans: the options of an agent with their expected free energies, however they were found."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vfe.discrete.planning.expected_free_energy import expected_free_energy
from vfe.discrete.planning.goal import Goal
from vfe.discrete.planning.nodes import Counts
from vfe.discrete.planning.policies import Policies
from vfe.discrete.planning.predicted import joint
from vfe.discrete.planning.search import Search, search
from vfe.discrete.planning.terms import Terms
from vfe.discrete.pomdp import POMDP
from vfe.discrete.tables import log_table


class Plan(eqx.Module):
    """What the options are worth and how probable they are.

    `expected_free_energy` (options,): G, nats; `log_probabilities` (options,): ln q(π), −∞ for
    what no habit allows; `terms`: by name,
    (options, steps), in the sign of the name; of a search, none; `lost`: the largest share of the
    probability at some depth that a search did not go on with.
    """

    expected_free_energy: Float[Array, " options"]
    log_probabilities: Float[Array, " options"]
    terms: dict[str, Float[Array, "options steps"]]
    lost: Float[Array, ""]

    @property
    def probabilities(self) -> Float[Array, " options"]:
        """q(π) ∝ exp(ln E(π) − γ G(π))."""
        return jnp.exp(self.log_probabilities)


def make_plan(
    model: POMDP,
    belief: Any,
    how: Policies | Search,
    terms: Terms,
    precision: Any,
    *,
    A_counts: Counts = None,
    B_counts: Counts = None,
    goal: Goal | None = None,
    possible: Int[Array, " outcomes"] | None = None,
) -> Plan:
    """G and q of every policy of a list, or of every action of a search.

    **Example:** `make_plan(model, belief, every_policy(model, 2), Terms(), 16.0).log_probabilities`.
    """
    extras: Any = {"A_counts": A_counts, "B_counts": B_counts, "goal": goal, "possible": possible}
    log_habit = 0.0 if model.E is None else log_table(model.E)
    if isinstance(how, Search):
        found = search(model, joint(model, belief), how, terms, precision=precision, **extras)
        total, by_term = found.total, {}
        lost = found.lost.max(initial=0.0)
    else:
        valued = expected_free_energy(model, belief, how, terms, **extras)
        total, by_term, lost = valued.total, valued.terms, jnp.zeros(())
    log_q = jax.nn.log_softmax(log_habit - precision * total)
    return Plan(total, log_q, by_term, lost)


def first_actions(how: Policies | Search, actions: Int[Array, "actions factors"]) -> Array:
    """The first action of every option: (options, factors). **Example:** `first_actions(policies, all)`."""
    return actions if isinstance(how, Search) else jnp.asarray(how.first)
