"""An eye that follows a target which passes behind an occluder."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vfe.action.active_system import ActiveSystem
from vfe.action.process import Process
from vfe.dynamics.levels.dynamic_model import DynamicModel
from vfe.dynamics.levels.level import Level

RETINA = np.linspace(-2, 2, 9)
WIDTH = 0.6
AMPLITUDE, PERIOD = 1.5, 4.0
RATE = 2 * math.pi / PERIOD


def contrast(place: Float[Array, ""]) -> Float[Array, ""]:
    """How well a target at that place is seen: hardly at all between −0.9 and 0.9.

    **Example:** `vfe.action.contrast(jnp.array(0.0))` is about 0.
    """
    return 1 - jax.nn.sigmoid(8 * (place + 0.9)) * jax.nn.sigmoid(8 * (0.9 - place))


def swinging(place: Float[Array, ""], speed: Float[Array, ""]) -> Float[Array, ""]:
    """The target swings once in four seconds. **Example:** `vfe.action.pursuit(vfe.action.swinging)`."""
    return -(RATE**2) * place


def stopping(place: Float[Array, ""], speed: Float[Array, ""]) -> Float[Array, ""]:
    """The target stops when nothing moves it. **Example:** `vfe.action.pursuit(vfe.action.stopping)`."""
    return -5 * speed


def pursuit(
    acceleration: Callable[[Array, Array], Array] = swinging,
    *,
    certainty: float = math.exp(5),
    reflex_precision: float = math.exp(8),
    dt: float = 0.05,
) -> ActiveSystem:
    """An eye that follows a target, whose place in time is the world's cause, given to `vfe.act`.

    The world: d²o/dt² = a − do/dt for the angle o of the eye; nine receptive fields see
    contrast(q) exp(−(q − o − cᵢ)² / 2w²) of a target at q, which is dark behind the occluder. The eye's
    angle and speed are felt, and drive action. The agent believes in the target's place whether it sees
    it or not: d²q/dt² = `acceleration`(q, dq/dt), and that its eye goes along with it. It knows the
    occluder. Target and eye start at −1.5.

    **Arguments:** `acceleration`: what is believed of the target, `vfe.action.swinging` or
    `vfe.action.stopping`, or a function of place and speed; `certainty`: the precision of that belief;
    `reflex_precision`; `dt`: seconds.

    **Example:** `vfe.act(vfe.action.pursuit(), causes=-1.5 * np.cos(2 * np.pi / 4 * times))`.

    **Source:** Adams, Perrinet and Friston 2012, "Smooth pursuit and visual occlusion: active inference
    and oculomotor control in schizophrenia".
    """

    def seen(place, eye):
        return contrast(place) * jnp.exp(-((place - eye - RETINA) ** 2) / (2 * WIDTH**2))

    def expected(x, v, p):
        target = acceleration(x[0], x[1])
        eye = target + 6 * (x[0] - x[2]) + 4 * (x[1] - x[3])
        return jnp.stack([x[1], target, x[3], eye])

    process = Process(
        lambda x, v, a: jnp.concatenate([x, seen(v[0], x[0])]),
        lambda x, v, a: jnp.stack([x[1], a[0] - x[1]]),
        states=[-AMPLITUDE, 0.0],
        causes=1,
        actions=1,
        observation_precision=np.exp([10.0] * 2 + [8.0] * len(RETINA)),
    )
    level = Level(
        lambda x, v, p: jnp.concatenate([x[2:], seen(x[0], x[2])]),
        expected,
        states=[-AMPLITUDE, 0.0, -AMPLITUDE, 0.0],
        observation_precision=np.exp([5.0] * 2 + [4.0] * len(RETINA)),
        state_precision=np.array([math.exp(5), certainty, math.exp(5), math.exp(5)]),
    )
    felt = np.zeros((2 + len(RETINA), 1))
    felt[:2] = 1
    return ActiveSystem(
        process,
        DynamicModel(level, order=4, dt=dt),
        reflex_precision=reflex_precision,
        action_precision=math.exp(-6),
        reflexes=felt,
    )
