"""A limb that is pushed, and an agent that expects it where it predicts it."""

import math

import jax.numpy as jnp

from vfe.action.active_system import ActiveSystem
from vfe.action.process import Process
from vfe.dynamics.levels.dynamic_model import DynamicModel
from vfe.dynamics.levels.level import Level


def limb(
    *,
    stiffness: float = 1.0,
    damping: float = 1.0,
    reflex_precision: float = math.exp(8),
    dt: float = 0.1,
) -> ActiveSystem:
    """A limb that swings to and fro, pushed by the world, moved by the agent's expectation.

    Both know d²θ/dt² = c − k θ − b dθ/dt and feel θ and dθ/dt. To the world's c the agent adds its action,
    c = push + a; the agent takes c for its own intention, precisely what `prior_causes` says, zero at
    rest. What pushes the limb is a prediction error, which the reflex takes away.

    **Arguments:** `stiffness`: k, per second²; `damping`: b, per second; `reflex_precision`; `dt`: seconds.

    **Example:** `vfe.act(vfe.action.limb(), causes=push).action` is about −push.

    **Source:** Friston et al. 2010, "Action and behavior: a free-energy formulation", on the reflex arc.
    """

    def flow(x, c):
        return jnp.stack([x[1], c - stiffness * x[0] - damping * x[1]])

    process = Process(
        lambda x, v, a: x,
        lambda x, v, a: flow(x, v[0] + a[0]),
        states=[0.0, 0.0],
        causes=1,
        actions=1,
        observation_precision=math.exp(10),
    )
    level = Level(
        lambda x, v, p: x,
        lambda x, v, p: flow(x, v[0]),
        states=2,
        causes=1,
        observation_precision=math.exp(4),
        state_precision=math.exp(4),
        cause_precision=math.exp(12),
    )
    model = DynamicModel(level, order=4, dt=dt)
    return ActiveSystem(process, model, reflex_precision=reflex_precision, action_precision=math.exp(-4))
