"""Tree search in which every outcome would change the beliefs from which the next step is planned."""

import math
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from vfe.discrete.planning.goal import Goal
from vfe.discrete.planning.joint_nodes import joint_nodes, joint_outcomes
from vfe.discrete.planning.nodes import Counts, check_belief
from vfe.discrete.planning.policies import check_horizon, joint_actions
from vfe.discrete.planning.terms import Terms
from vfe.discrete.pomdp import POMDP

# Ways to beliefs that are looked at for each belief of the budget; many lead to the same one.
EDGES = 16


class Search(eqx.Module):
    """How a tree of actions and outcomes is searched.

    **Arguments:** `horizon`: steps; `budget`: how many different beliefs are gone on with at each depth,
    the most probable ones; `least`: outcomes less probable than this are never gone on with; `later`:
    "soft" weighs later actions by softmax(γ · value), "best" takes the best.

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


class Family(NamedTuple):
    """Which beliefs follow which: `pair` (edges,): node and action, `probability` (edges,) of the outcome,
    `child` (edges,): the belief it leads to; `reach` (children,): how probable each belief is to be met."""

    pair: Array
    probability: Array
    child: Array
    reach: Array


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
    possible: Int[Array, " outcomes"] | None = None,
) -> Searched:
    """G of every action when what is seen after it changes what is done next.

    G(u | q) = G_1(u | q) + Σ_o q(o | u) Σ_u' q(u' | o, u) G(u' | q(s | o, u)), beliefs updated exactly.

    Courses that lead to the same belief are gone on with once. Reading a cue twice is not worth twice its
    information: after the first reading the belief is sharp. Where the budget leaves outcomes out, those
    kept stand for all; where none was kept, the average over that depth does. Beliefs about A and B do
    not change within the tree.

    **Arguments:** `belief` (*states), over joint states; `precision`: γ of the later choices;
    the rest as `expected_free_energy`.

    **Raises:** as `expected_free_energy`.

    **Example:** `vfe.discrete.search(model, belief, vfe.discrete.Search(3)).total`.

    **Source:** Friston, Da Costa, Hafner, Hesp and Parr 2021, "Sophisticated inference".
    """
    if isinstance(belief, tuple):
        raise ValueError("search: got beliefs by factor; wanted one over joint states (model.states).")
    check_belief("search", model, belief)
    if not isinstance(precision, Tracer) and not (np.ndim(precision) == 0 and precision > 0):
        raise ValueError(f"search: got precision {precision!r}; wanted a number greater than zero.")
    # Arrays, so that other numbers do not make another program.
    weights: Any = jax.tree.map(jnp.asarray, Terms() if terms is None else terms)
    gamma = jnp.asarray(precision)
    return _search(model, belief, settings, weights, gamma, A_counts, B_counts, goal, possible)


@eqx.filter_jit
def _search(
    model: POMDP,
    belief: Array,
    settings: Search,
    terms: Terms,
    precision: Array,
    A_counts: Counts,
    B_counts: Counts,
    goal: Goal | None,
    possible: Array | None,
) -> Searched:
    kind = joint_nodes(model, belief, terms, A_counts, B_counts, goal, possible)
    actions = jnp.asarray(joint_actions(model))
    chances = joint_outcomes(model, possible)
    nodes = kind.start(belief)
    reach = jnp.ones(1, nodes.dtype)
    costs, families, lost = [], [], []
    for step in range(settings.horizon):
        after, moved = kind.onward(nodes, actions, None)
        count = after.shape[:2]
        values = kind.values(after.reshape(-1, after.shape[2]), step)
        values = {name: value.reshape(count) for name, value in values.items()}
        costs.append(terms.total({**values, **moved}).T)
        if step + 1 < settings.horizon:
            nodes, reach, family, dropped = _grow(chances, settings, jnp.swapaxes(after, 0, 1), reach)
            families.append(family)
            lost.append(dropped)
    total = costs.pop()
    for cost, family in zip(reversed(costs), reversed(families), strict=True):
        total = cost + _expected_later(settings, precision, total, family, cost.shape)
    return Searched(total[0], actions, jnp.stack(lost) if lost else jnp.zeros(0))


def _grow(
    chances: Array, settings: Search, after: Array, reach: Array
) -> tuple[Array, Array, Family, Array]:
    """The beliefs to go on with, how probable each is to be reached, whose children they are, and what
    share of the probability is not gone on with."""
    nodes, count = after.shape[:2]
    flat = after.reshape(nodes * count, -1)
    outcome = flat @ chances.T  # (nodes · actions, joint outcomes)
    mass = jnp.repeat(reach, count)[:, None] * outcome
    mass = jnp.where(outcome > settings.least, mass, 0.0)
    edges = min(EDGES * settings.budget, math.prod(mass.shape))
    weight, where = jax.lax.top_k(mass.ravel(), edges)
    pair, seen = where // len(chances), where % len(chances)
    weighed = flat[pair] * chances[seen]
    total = weighed.sum(1, keepdims=True)
    posterior = weighed / jnp.where(total > 0, total, 1.0)
    order, group = _alike(posterior, weight > 0)
    weight, pair, seen, posterior = (x[order] for x in (weight, pair, seen, posterior))

    width = min(settings.budget, edges)
    together = jax.ops.segment_sum(weight, group, edges)
    kept, groups = jax.lax.top_k(together, width)
    first = jax.ops.segment_min(jnp.arange(edges), group, edges)[groups]
    place = jnp.full(edges, -1).at[groups].set(jnp.arange(width))[group]
    probability = jnp.where((weight > 0) & (place >= 0), outcome[pair, seen], 0.0)
    dropped = 1 - kept.sum() / jnp.where(mass.sum() > 0, mass.sum(), 1.0)
    beliefs = posterior[jnp.clip(first, 0, edges - 1)]
    return beliefs, kept, Family(pair, probability, place, kept), jnp.maximum(dropped, 0.0)


def _alike(beliefs: Array, alive: Array) -> tuple[Array, Array]:
    """An order in which equal beliefs follow one another, and in it the number of each group of equals.

    Different ways to the same belief have the same future.
    """
    size = beliefs.shape[1]
    direction = jnp.asarray(np.random.default_rng(0).normal(size=size), beliefs.dtype)
    order = jnp.argsort(jnp.where(alive, beliefs @ direction, jnp.inf))
    sorted_beliefs = jnp.where(alive[order, None], beliefs[order], 0.0)
    apart = jnp.abs(jnp.diff(sorted_beliefs, axis=0)).max(1) > 32 * jnp.finfo(beliefs.dtype).eps
    return order, jnp.concatenate([jnp.zeros(1, int), jnp.cumsum(apart)])


def _expected_later(
    settings: Search, precision: Any, later: Array, family: Family, shape: tuple[int, ...]
) -> Array:
    if settings.later == "best":
        best = later.min(1)
    else:
        best = (jax.nn.softmax(-precision * later, axis=1) * later).sum(1)
    size = math.prod(shape)
    weight = jax.ops.segment_sum(family.probability, family.pair, size)
    value = jax.ops.segment_sum(family.probability * best[family.child], family.pair, size)
    reach = family.reach
    average = (reach * best).sum() / jnp.where(reach.sum() > 0, reach.sum(), 1.0)
    return jnp.where(weight > 0, value / jnp.where(weight > 0, weight, 1.0), average).reshape(shape)
