"""What is believed of the states to come under each of several policies."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from vfe.discrete.pomdp import POMDP
from vfe.discrete.states.elimination import chosen, forward, move_factors


def predict(model: POMDP, belief: Any, policies: Int[Array, "policies steps f"]) -> Any:
    """Beliefs about the states to come, under every policy: pure JAX, for an agent's loop.

    q(s_t+1 | π) = Σ_s p(s_t+1 | s, π_t) q(s_t | π).

    **Arguments:** `belief`: about the joint states now (*states), or a tuple with one for every factor,
    (states,), which is then predicted as a product; `policies`: the control of every factor at every step.

    **Returns:** after one, two, … steps: (policies, steps, *states), or a tuple by factor (policies, steps,
    states).

    For beliefs about past and future states given outcomes, each with its F(π), give the policies as
    `actions` of `vfe.smooth`, with NaN for the outcomes to come.

    **Raises:** `ValueError` for a belief or policies of another shape.

    **Example:** `vfe.discrete.predict(model, model.D, jnp.array([[[0], [1]], [[1], [1]]]))[0]`.

    **Source:** Friston, FitzGerald, Rigoli, Schwartenbeck and Pezzulo 2017, "Active inference: a process
    theory".
    """
    policies = jnp.asarray(policies)
    if policies.ndim != 3 or policies.shape[-1] != len(model.B):
        raise ValueError(
            f"predict: got policies of shape {policies.shape}; wanted (policies, steps, {len(model.B)})."
        )
    whole = not isinstance(belief, tuple | list)
    start = jnp.asarray(belief) if whole else tuple(jnp.asarray(q) for q in belief)
    shape = start.shape if isinstance(start, jax.Array) else tuple(len(q) for q in start)
    if shape != model.states:
        raise ValueError(f"predict: got a belief about {shape} states; wanted {model.states}.")

    def step(now: Any, controls: Array) -> Any:
        if whole:
            now = forward(model, chosen(model, controls), now)[-1]
        else:
            now = move_factors(model, now, controls)
        return now, now

    return jax.vmap(lambda policy: jax.lax.scan(step, start, policy)[1])(policies)
