"""Tree search in which every outcome would change the beliefs from which the next step is planned."""

import math
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vfe.discrete.planning.expected_free_energy import (
    Counts,
    Prepared,
    prepare,
    state_terms,
    transition_terms,
)
from vfe.discrete.planning.goal import Goal
from vfe.discrete.planning.policies import check_horizon, joint_actions
from vfe.discrete.planning.predicted import by_factor, likelihoods, next_states
from vfe.discrete.planning.terms import Terms
from vfe.discrete.pomdp import POMDP


class Search(eqx.Module):
    """How a tree of actions and outcomes is searched.

    **Arguments:** `horizon`: steps; `budget`: how many beliefs are gone on with at each depth, the most
    probable ones; `least`: outcomes less probable than this are never gone on with; `later`: "soft"
    weighs later actions by softmax(γ · value), "best" takes the best.

    **Raises:** `ValueError` for numbers that make no search.

    **Example:** `vfe.discrete.Agent(model, plan=vfe.discrete.Search(3))`.

    **Source:** Friston, Da Costa, Hafner, Hesp and Parr 2021, "Sophisticated inference".
    """

    horizon: int = eqx.field(static=True)
    budget: int = eqx.field(static=True, default=256)
    least: float = eqx.field(static=True, default=1e-14)
    later: Literal["soft", "best"] = eqx.field(static=True, default="soft")

    def __check_init__(self):
        check_horizon("Search", self.horizon)
        if (
            isinstance(self.budget, bool)
            or not isinstance(self.budget, int | np.integer)
            or self.budget < 1
        ):
            raise ValueError(
                f"Search: got budget {self.budget!r}; wanted a number of beliefs, one or more."
            )
        if not 0 <= self.least < 1:
            raise ValueError(f"Search: got least {self.least!r}; wanted a probability below one.")
        if self.later not in ("soft", "best"):
            raise ValueError(f'Search: got later={self.later!r}; wanted "soft" or "best".')


class Searched(eqx.Module):
    """What a search found.

    `total` (actions,): G of every first action, with what follows it, nats; `actions` (actions, factors);
    `lost` (horizon − 1,): the share of the probability at each depth that the budget did not go on with.

    **Example:** `search(model, belief, Search(2)).exceeded`.
    """

    total: Float[Array, " actions"]
    actions: Array
    lost: Float[Array, " depths"]

    @property
    def exceeded(self) -> Array:
        """Whether the budget was too small for some outcome that could follow."""
        return (self.lost > 1e-6).any()


@eqx.filter_jit
def search(
    model: POMDP,
    belief: Float[Array, " *states"],
    settings: Search,
    terms: Terms | None = None,
    *,
    precision: Any = 1.0,
    A_counts: Counts = None,
    B_counts: Counts = None,
    goal: Goal | None = None,
) -> Searched:
    """G of every action when what is seen after it changes what is done next.

    G(u | q) = G_1(u | q) + Σ_o q(o | u) Σ_u' q(u' | o, u) G(u' | q(s | o, u)), beliefs updated exactly.

    Reading a cue twice is not worth twice its information: after the first reading the belief is sharp.
    Where the budget leaves outcomes out, those kept stand for all; where none was kept, the average over
    that depth does. Beliefs about A and B do not change within the tree.

    **Arguments:** `belief` (*states), over joint states; `precision`: γ of the later choices.

    **Raises:** as `expected_free_energy`.

    **Example:** `vfe.discrete.search(model, belief, vfe.discrete.Search(3)).total`.

    **Source:** Friston, Da Costa, Hafner, Hesp and Parr 2021, "Sophisticated inference".
    """
    terms = Terms() if terms is None else terms
    prepared = prepare(model, terms, A_counts, B_counts, goal)
    actions = jnp.asarray(joint_actions(model))
    chances = likelihoods(model)
    belief = jnp.asarray(belief)
    now = by_factor(belief)
    beliefs, reach = belief[None], jnp.ones(1, belief.dtype)
    costs, families, lost = [], [], []
    for step in range(settings.horizon):
        after, cost = _look(model, terms, prepared, goal, now, beliefs, actions, step)
        costs.append(cost)
        if step + 1 < settings.horizon:
            beliefs, reach, family, dropped = _grow(chances, settings, after, reach)
            families.append((*family, reach))
            lost.append(dropped)
    total = costs.pop()
    for cost, family in zip(reversed(costs), reversed(families), strict=True):
        total = cost + _expected_later(settings, precision, total, family, cost.shape)
    return Searched(total[0], actions, jnp.stack(lost) if lost else jnp.zeros(0))


def _look(
    model: POMDP,
    terms: Terms,
    prepared: Prepared,
    goal: Goal | None,
    now: tuple[Array, ...],
    beliefs: Array,
    actions: Array,
    step: int,
) -> tuple[Array, Array]:
    """The next beliefs (nodes, actions, *states) and G of the step alone (nodes, actions)."""

    def one(before: Array, controls: Array) -> tuple[Array, Array]:
        after = next_states(model, before, controls)
        values = state_terms(model, terms, prepared, goal, now, after, step)
        values |= transition_terms(model, terms, prepared, before, controls, after)
        return after, terms.total(values)

    return jax.vmap(lambda q: jax.vmap(lambda u: one(q, u))(actions))(beliefs)


def _grow(
    chances: Array, settings: Search, after: Array, reach: Array
) -> tuple[Array, Array, tuple[Array, Array], Array]:
    """The beliefs after the most probable outcomes: how probable each is, from which node and action."""
    nodes, count = after.shape[:2]
    flat = after.reshape(nodes * count, -1)
    outcome = flat @ chances.T  # (nodes · actions, joint outcomes)
    mass = jnp.repeat(reach, count)[:, None] * outcome
    mass = jnp.where(outcome > settings.least, mass, 0.0)
    width = min(settings.budget, math.prod(mass.shape))
    kept, where = jax.lax.top_k(mass.ravel(), width)
    pair, seen = where // len(chances), where % len(chances)
    weighed = flat[pair] * chances[seen]
    total = weighed.sum(1, keepdims=True)
    posterior = weighed / jnp.where(total > 0, total, 1.0)
    probability = jnp.where(kept > 0, outcome[pair, seen], 0.0)
    dropped = 1 - kept.sum() / jnp.where(mass.sum() > 0, mass.sum(), 1.0)
    return posterior.reshape(width, *after.shape[2:]), kept, (pair, probability), dropped


def _expected_later(
    settings: Search,
    precision: Any,
    later: Array,
    family: tuple[Array, Array, Array],
    shape: tuple[int, ...],
) -> Array:
    pair, probability, reach = family
    if settings.later == "best":
        best = later.min(1)
    else:
        best = (jax.nn.softmax(-precision * later, axis=1) * later).sum(1)
    size = math.prod(shape)
    weight = jax.ops.segment_sum(probability, pair, size)
    value = jax.ops.segment_sum(probability * best, pair, size)
    average = (reach * best).sum() / jnp.where(reach.sum() > 0, reach.sum(), 1.0)
    return jnp.where(weight > 0, value / jnp.where(weight > 0, weight, 1.0), average).reshape(shape)
