"""Learning while living: the counts of an agent after every outcome."""

from typing import Any

import equinox as eqx
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from vfe.discrete.agents.records import AgentState
from vfe.discrete.learning.counts import DirichletTables
from vfe.discrete.learning.online import (
    filtered_pairs,
    independent_pairs,
    learn_likelihood,
    learn_preferences,
    learn_start,
    learn_transitions,
)
from vfe.discrete.pomdp import POMDP


class OnlineLearning(eqx.Module):
    """How an agent learns its tables while it lives: counts grow with every outcome.

    a ← a_0 + (1 − forgetting) (a − a_0) + rate × what was seen, with beliefs as they are at that time: A
    from the states believed in after the outcomes, B from q(s_t, s_t+1 | o_1 … o_t+1) (of a
    mean-field belief, from the product of two successive ones), D from the first
    outcomes of every episode, C from outcomes, E from the policies chosen.

    **Arguments:** `counts`: at first, of those tables that are learned; `rate`; `forgetting`: the share of
    what was learned that one step loses.

    **Raises:** `ValueError` for a rate or a share of forgetting out of range.

    **Example:**
    ```python
    counts = vfe.discrete.DirichletTables.flat(model, tables="B")
    vfe.discrete.Agent(model, learning=vfe.discrete.OnlineLearning(counts))
    ```

    **Source:** Friston, FitzGerald, Rigoli, Schwartenbeck and Pezzulo 2016, "Active inference and
    learning".
    """

    counts: DirichletTables
    rate: Any = 1.0
    forgetting: Any = 0.0

    def __check_init__(self):
        if not isinstance(self.rate, Tracer) and not (np.isfinite(self.rate) and self.rate > 0):
            raise ValueError(f"OnlineLearning: got rate {self.rate!r}; wanted a number greater than zero.")
        if not isinstance(self.forgetting, Tracer) and not 0 <= self.forgetting <= 1:
            raise ValueError(f"OnlineLearning: got forgetting {self.forgetting!r}; wanted a share, 0 to 1.")


def learn_step(
    learning: OnlineLearning,
    counts: DirichletTables,
    model: POMDP,
    before: AgentState,
    belief: Any,
    outcome: Array,
    possible: Array,
) -> DirichletTables:
    """Counts after outcomes: `before` is the state the agent was in, `belief` what it believes now.

    **Example:** `learn_step(learning, counts, model, state, belief, outcome, jnp.array(True))`.
    """
    first = before.time == 0
    options = {"rate": learning.rate, "forgetting": learning.forgetting, "prior": learning.counts}
    counts = learn_likelihood(counts, belief, outcome, present=possible, **options)
    counts = learn_preferences(counts, outcome, present=possible, **options)
    counts = learn_start(counts, belief, present=possible & first, **options)
    if any(table is not None for table in counts.B):
        if isinstance(belief, tuple):
            pairs = independent_pairs(before.belief, belief, model.B_dependencies)
        else:
            pairs = filtered_pairs(model, before.belief, belief, before.action)
        counts = learn_transitions(counts, pairs, before.action, present=possible & ~first, **options)
    return counts
