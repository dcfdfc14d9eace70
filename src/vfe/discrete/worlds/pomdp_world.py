"""A world that is a POMDP: states and outcomes drawn from its tables."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from vfe.action.living import as_world
from vfe.action.loop_parts import AbstractWorld
from vfe.discrete.pomdp import POMDP
from vfe.discrete.tables import log_table
from vfe.discrete.worlds.checks import check_whole


class POMDPState(eqx.Module):
    """Where a `POMDPWorld` is: the state of every factor, and the time since its episode began."""

    states: Int[Array, " factors"]
    time: Int[Array, ""]


class POMDPWorld(AbstractWorld):
    """The world that a POMDP describes, which may be another one than its agent believes in:

    s_1 ~ D,   s_t+1 ~ B(s_t, u_t),   o_t ~ A(s_t).

    **Arguments:** `model`: its tables A, B and D are used; `episode`: how many outcomes an episode has,
    after which a new one begins with s ~ D; it never ends if not given.

    **Raises:** `TypeError` for what is no POMDP, `ValueError` for an episode of no length.

    **Example:**
    ```python
    world = vfe.discrete.worlds.POMDPWorld(vfe.discrete.worlds.tmaze(), episode=4)
    state, outcome = world.reset(jax.random.key(0))
    ```
    """

    model: POMDP
    episode: int | None = eqx.field(static=True)

    def __init__(self, model: POMDP, episode: int | None = None):
        if not isinstance(model, POMDP):
            raise TypeError(f"POMDPWorld: got a {type(model).__name__}; wanted a vfe.discrete.POMDP.")
        if episode is not None:
            check_whole("POMDPWorld", 1, episode=episode)
        self.model = model
        self.episode = episode

    @property
    def outcomes(self) -> tuple[int, ...]:
        """How many outcomes each modality has."""
        return self.model.outcomes

    @property
    def controls(self) -> tuple[int, ...]:
        """How many controls each factor has."""
        return self.model.controls

    def reset(self, key: PRNGKeyArray) -> tuple[POMDPState, Int[Array, " m"]]:
        """States drawn from D, and outcomes there."""
        *keys, last = jax.random.split(key, len(self.model.D) + 1)
        states = jnp.stack([_draw(k, table) for k, table in zip(keys, self.model.D, strict=True)])
        return POMDPState(states, jnp.zeros((), int)), self._outcomes(states, last)

    def step(
        self, state: POMDPState, action: Any, key: PRNGKeyArray
    ) -> tuple[POMDPState, Int[Array, " m"]]:
        """States drawn from B under the action (one control of each factor), and outcomes there."""
        model, controls = self.model, jnp.ravel(jnp.asarray(action))
        if controls.shape != (len(model.B),):
            raise ValueError(
                f"POMDPWorld: got an action of shape {np.shape(action)}; wanted ({len(model.B)},), one "
                "control of each factor (zero where there is one)."
            )
        *keys, last = jax.random.split(key, len(model.B) + 1)
        states = []
        for f, (table, depends) in enumerate(zip(model.B, model.B_dependencies, strict=True)):
            here = tuple(state.states[g] for g in depends)
            states.append(_draw(keys[f], jnp.asarray(table)[(slice(None), *here, controls[f])]))
        moved = jnp.stack(states)
        return POMDPState(moved, state.time + 1), self._outcomes(moved, last)

    def ended(self, state: POMDPState) -> bool | Bool[Array, ""]:
        """Whether this is the last outcome of an episode."""
        return False if self.episode is None else state.time >= self.episode - 1

    def _outcomes(self, states: Int[Array, " f"], key: PRNGKeyArray) -> Int[Array, " m"]:
        model = self.model
        keys = jax.random.split(key, len(model.A))
        drawn = []
        for m, (table, depends) in enumerate(zip(model.A, model.A_dependencies, strict=True)):
            drawn.append(_draw(keys[m], jnp.asarray(table)[(slice(None), *(states[g] for g in depends))]))
        return jnp.stack(drawn)


def _draw(key: PRNGKeyArray, probabilities: Any) -> Int[Array, ""]:
    return jax.random.categorical(key, log_table(probabilities)).astype(int)


@as_world.register
def _(world: POMDP) -> POMDPWorld:
    return POMDPWorld(world)
