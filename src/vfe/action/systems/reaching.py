"""An arm of two joints, and an agent that expects its hand at what it sees."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vfe.action.active_system import ActiveSystem
from vfe.action.process import Process
from vfe.dynamics.levels.dynamic_model import DynamicModel
from vfe.dynamics.levels.level import Level

START = (0.9, 1.6, 0.0, 0.0)


def hand(angles: Float[Array, " 2"]) -> Float[Array, " 2"]:
    """Where the hand of an arm with two unit links is, from the angles of shoulder and elbow.

    **Example:** `vfe.action.hand(jnp.array([0.0, jnp.pi / 2]))` is (1, 1).
    """
    shoulder, elbow = angles[0], angles[0] + angles[1]
    return jnp.stack([jnp.cos(shoulder) + jnp.cos(elbow), jnp.sin(shoulder) + jnp.sin(elbow)])


def reaching(
    *, pull: float = 8.0, damping: float = 5.0, reflex_precision: float = math.exp(8), dt: float = 0.05
) -> ActiveSystem:
    """An arm that reaches for whatever place the world's causes (time, 2) say.

    The world: d²θ/dt² = a − dθ/dt for the two joints. Felt are angles and speeds; seen are the target and
    the hand. The agent takes the target for a cause that pulls its hand: d²θ/dt² = k (∂hand/∂θ)ᵀ (target −
    hand) − b dθ/dt; there is no such pull in the world. Only what is felt drives action.

    **Arguments:** `pull`: k, `damping`: b; `reflex_precision`; `dt`: seconds.

    **Example:** `vfe.act(vfe.action.reaching(), causes=np.tile([0.5, 1.2], (150, 1)))`.

    **Source:** Friston et al. 2010, "Action and behavior: a free-energy formulation", on reaching.
    """

    def sensed(x, v):
        return jnp.concatenate([x, v, hand(x[:2])])

    def pulled(x, v, p):
        torque = jax.jacfwd(hand)(x[:2]).T @ (v - hand(x[:2]))
        return jnp.concatenate([x[2:], pull * torque - damping * x[2:]])

    process = Process(
        lambda x, v, a: sensed(x, v),
        lambda x, v, a: jnp.concatenate([x[2:], a - x[2:]]),
        states=START,
        causes=2,
        actions=2,
        observation_precision=np.exp([10.0] * 4 + [8.0] * 4),
    )
    level = Level(
        lambda x, v, p: sensed(x, v),
        pulled,
        states=START,
        causes=np.asarray(hand(jnp.asarray(START[:2])), float),
        observation_precision=np.exp([6.0] * 4 + [5.0] * 4),
        state_precision=math.exp(4),
        cause_precision=math.exp(-2),
    )
    felt = np.repeat([[1.0], [0.0]], 4, 0) * np.ones(2)
    return ActiveSystem(
        process,
        DynamicModel(level, order=4, dt=dt),
        reflex_precision=reflex_precision,
        action_precision=math.exp(-6),
        reflexes=felt,
    )
