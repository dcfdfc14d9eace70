"""A car too weak for the hill, and agents that expect to stand on its top."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vfe.action.active_system import ActiveSystem
from vfe.action.process import Process
from vfe.dynamics.levels.dynamic_model import DynamicModel
from vfe.dynamics.levels.level import Level

TOP = math.pi / 6
STRENGTH, GRAVITY = 0.15, 0.25


def mountain_car(
    expected_force: Callable[[Float[Array, " 2"]], Float[Array, ""]] | None = None,
    *,
    reflex_precision: float = math.exp(8),
    dt: float = 0.2,
) -> ActiveSystem:
    """A car in a valley whose engine cannot climb the hill: it must swing up.

    d²x/dt² = −¼ cos 3x + wall(x) + 0.15 tanh a, from rest in the valley at x = −π/6 to the top at π/6.
    The slope pulls with up to 0.25, and at −1.2 there is a soft wall. The agent feels x and dx/dt. It has
    no value or reward, only an expectation of how it moves: the same with `expected_force`(x, dx/dt)
    in place of the engine's. Action makes it true as far as the engine can.

    **Arguments:** `expected_force`: of the state (2,), by default `vfe.action.climbing`;
    `vfe.action.rushing` is what does not work; `reflex_precision`; `dt`: in units of ten of the usual
    steps of this task.

    **Example:** `vfe.act(vfe.action.mountain_car(), length=200).world.states[-1]`.

    **Source:** Moore 1990, "Efficient memory-based learning for robot control", for the valley; Friston,
    Daunizeau and Kiebel 2009, "Reinforcement learning or active inference?", for the idea.
    """
    force = climbing if expected_force is None else expected_force
    start = [-TOP, 0.0]

    def moved(x, push):
        wall = jax.nn.softplus(-20 * (x[0] + 1.2)) / 5
        return jnp.stack([x[1], -GRAVITY * jnp.cos(3 * x[0]) + wall + push])

    process = Process(
        lambda x, v, a: x,
        lambda x, v, a: moved(x, STRENGTH * jnp.tanh(a[0])),
        states=start,
        actions=1,
        observation_precision=math.exp(10),
    )
    level = Level(
        lambda x, v, p: x,
        lambda x, v, p: moved(x, force(x)),
        states=start,
        observation_precision=math.exp(6),
        state_precision=math.exp(6),
    )
    model = DynamicModel(level, order=4, dt=dt)
    return ActiveSystem(process, model, reflex_precision=reflex_precision, action_precision=math.exp(-4))


def rushing(x: Float[Array, " 2"]) -> Float[Array, ""]:
    """Straight to the top, as if the engine could: a damped pull towards it.

    **Example:** `vfe.action.mountain_car(vfe.action.rushing)`.
    """
    return GRAVITY * jnp.cos(3 * x[0]) - 0.4 * (x[0] - TOP) - 0.6 * x[1]


def climbing(x: Float[Array, " 2"]) -> Float[Array, ""]:
    """Along with the motion while there is less energy than at rest on the top, and a pull once near it.

    The energy is ½ (dx/dt)² + (0.25/3) sin 3x.

    **Example:** `vfe.action.mountain_car(vfe.action.climbing)`.
    """
    lacking = GRAVITY / 3 * (1 - jnp.sin(3 * x[0])) - x[1] ** 2 / 2
    # A little to the right where nothing moves yet.
    swing = 0.9 * STRENGTH * jnp.tanh(60 * lacking) * jnp.tanh(20 * (x[1] + 0.01))
    near = jax.nn.sigmoid(30 * (x[0] - TOP + 0.15))
    return (1 - near) * swing + near * rushing(x)
