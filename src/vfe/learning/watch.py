"""F of beliefs that learning keeps: about data it does not learn from, and those of the last visits."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from vfe.conditioning import Conditioned
from vfe.free_energy import FreeEnergy
from vfe.learning.perceiving import encoded, measured, visited
from vfe.learning.plan import Plan
from vfe.learning.store import count_of
from vfe.learning.trainable import is_amortised, joined


@eqx.filter_jit
def watch_step(
    plan: Plan,
    learned: Any,
    fixed: Any,
    conditioned: Conditioned,
    labels: Array | None,
    store: Any,
    key: PRNGKeyArray,
) -> tuple[Any, FreeEnergy]:
    """Let beliefs about held-out data follow the parameters, and measure their F."""
    model, family = joined(learned, fixed, plan.family)
    live = dataclasses.replace(conditioned, model=model)
    whole = live.repeats is not None
    size = count_of(live)
    many = (lambda k: k) if whole else (lambda k: jax.random.split(k, size))
    one_key, two_key = jax.random.split(key)
    if is_amortised(plan.family):

        def from_encoder(c: Conditioned, k: Any, label: Array | None) -> FreeEnergy:
            c = c if label is None else c.clamp(plan.node, label)
            return measured(plan, c, encoded(plan, c, family, k), k)

        return None, plan.placement.everywhere(live.over(from_encoder, many(two_key), labels))

    def follow(c: Conditioned, k: Any, m: Any, start: Any, label: Array | None) -> Any:
        c = c if label is None else c.clamp(plan.node, label)
        belief, _ = visited(plan, c, family, k, start)
        return belief, measured(plan, c, belief, m)

    belief, found = live.over(follow, many(one_key), many(two_key), store["belief"], labels)
    return plan.placement.everywhere(({"belief": belief}, found))


@eqx.filter_jit
def remembered(
    plan: Plan,
    state: dict[str, Any],
    fixed: Any,
    conditioned: Conditioned,
    labels: Array | None,
    key: PRNGKeyArray,
) -> FreeEnergy:
    """F of the beliefs kept from the last visits, under the model as it is now."""
    model, family = joined(state["learned"], fixed, plan.family)
    live = dataclasses.replace(conditioned, model=model)
    whole = live.repeats is not None
    keys = key if whole else jax.random.split(key, count_of(live))
    belief = (state["store"] or {}).get("belief")
    if belief is not None and labels is not None:
        belief = jax.tree.map(lambda a: a[jnp.arange(labels.shape[0]), labels], belief)

    def one(c: Conditioned, k: Any, label: Array | None, belief: Any) -> FreeEnergy:
        c = c if label is None else c.clamp(plan.node, label)
        if belief is None:
            amortised = is_amortised(plan.family)
            belief = encoded(plan, c, family, k) if amortised else visited(plan, c, family, k, None)[0]
        return measured(plan, c, belief, k)

    return plan.placement.everywhere(live.over(one, keys, labels, belief))
