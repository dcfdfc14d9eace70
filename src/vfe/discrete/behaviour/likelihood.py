"""How probable recorded choices are under an agent that saw what came before them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Choices(eqx.Module):
    """What was seen and then done, by time.

    `outcomes` (time, modalities), −1 missing; `actions` (time, factors), each after the outcomes of its
    time, −1 where nothing was chosen; `mask` (time,): false for padding, which is passed over; `first`
    (time,): true where an episode begins.
    """

    outcomes: Int[Array, "*batch time m"]
    actions: Int[Array, "*batch time f"]
    mask: Bool[Array, "*batch time"]
    first: Bool[Array, "*batch time"]


def choice_log_probabilities(agent: Any, choices: Choices) -> Float[Array, "time actions"]:
    """ln p of every joint action (`agent.actions`) at every time, given outcomes and actions until then.

    Differentiable in the numbers that the agent was made of; pure JAX, for one subject (`jax.vmap` for
    more). The agent is asked `init`, `restart`, `observe`, `log_probabilities` and `take`.

    **Example:** `choice_log_probabilities(agent, choices)`, with an agent that has an `action_precision`.
    """

    def step(state: Any, now: Choices) -> tuple[Any, Array]:
        before = state
        again = agent.restart(state)
        state = jax.tree.map(lambda a, b: jnp.where(now.first, a, b), again, state)
        state, _ = agent.observe(state, now.outcomes)
        logs = agent.log_probabilities(state)
        acted = agent.take(state, jnp.maximum(now.actions, 0))
        state = jax.tree.map(lambda a, b: jnp.where((now.actions >= 0).all(), a, b), acted, state)
        kept = jax.tree.map(lambda new, old: jnp.where(now.mask, new, old), state, before)
        return kept, logs

    start = agent.init()
    # Numbers that the first state holds in single precision may come out of a step in double.
    one = jax.tree.map(lambda a: a[0], choices)
    shapes = jax.eval_shape(lambda s: step(s, one)[0], start)
    start = jax.tree.map(lambda a, s: jnp.asarray(a, s.dtype), start, shapes)
    return jax.lax.scan(step, start, choices)[1]


def log_likelihood(agent: Any, choices: Choices) -> Float[Array, ""]:
    """Σ_t ln p(action_t | outcomes up to t, actions before), nats, over the times of the mask.

    Differentiable, for one subject. −∞ for an action that the agent never takes.

    **Example:** `jax.grad(lambda b: log_likelihood(agent_of({"b": b}), choices))(1.0)`.

    **Source:** Daunizeau et al. 2010, "Observing the observer".
    """
    logs = choice_log_probabilities(agent, choices)
    chosen = (agent.actions == choices.actions[:, None]).all(-1) & choices.mask[:, None]
    return jnp.where(chosen, logs, 0.0).sum()


def predicted(agent: Any, choices: Choices) -> Int[Array, ""]:
    """How many of the recorded actions were the most probable ones.

    **Example:** `predicted(agent, choices) / choices.mask.sum()`.
    """
    logs = choice_log_probabilities(agent, choices)
    best = agent.actions[jnp.argmax(logs, axis=1)]
    return ((best == choices.actions).all(-1) & choices.mask).sum()
