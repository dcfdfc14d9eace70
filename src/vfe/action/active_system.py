"""ActiveSystem: a world and an agent's model of it, bound by sensations and action."""

import math
from typing import Any

import equinox as eqx
import numpy as np
from numpy.typing import ArrayLike

from vfe.action.process import Process
from vfe.arrays import real_numbers
from vfe.dynamics.levels.dynamic_model import DynamicModel
from vfe.dynamics.levels.noise_precision import matrix

# What prediction errors weigh for action, and what action costs, if nothing is said.
REFLEX, EFFORT = math.exp(2), math.exp(-2)


class ActiveSystem(eqx.Module):
    """A process and an agent: beliefs follow sensations, action makes sensations follow beliefs.

    ȧ = −(∂ỹ/∂a)ᵀ Γ̃ ε̃_y − P_a a, with ε̃_y the prediction errors of the sensations. Action sees nothing but
    these: it descends F through the sensations alone.

    **Arguments:**

    - `process`: the world; `model`: the agent's, of the same sensations.
    - `reflex_precision`: Γ, with which prediction errors drive action, a scalar, one per sensation, or a
      matrix; zero where an error does not reach action. Time is counted in samples: with another `dt`, and
      a ∂ỹ/∂a that shrinks with it, a reflex of the same strength needs another Γ.
    - `action_precision`: P_a, of action about zero; what an effort costs, per sample.
    - `reflexes`: (sensations, actions), which prediction errors drive which action; all if not given.
    - `sensory_delay`, `motor_delay`: times, by which sensations reach the agent late and errors reach
      action late; `known_sensory_delay`, `known_motor_delay`: what the agent makes up for. Delays act on
      the derivatives, ỹ(t − τ) = exp(−τD) ỹ(t), and must be a few sampling intervals at most.

    **Raises:** `TypeError` for what is no process or model; `ValueError` where they do not have the same
    sensations, for a static model, negative precisions or delays, delays beyond what the orders can tell.

    **Example:** `vfe.act(vfe.ActiveSystem(process, model), length=64)`.

    **Source:** Friston et al. 2010, "Action and behavior: a free-energy formulation"; Perrinet, Adams and
    Friston 2014, "Active inference, eye movements and oculomotor delays", for delays.
    """

    process: Process
    model: DynamicModel
    reflex_precision: np.ndarray
    action_precision: np.ndarray
    reflexes: np.ndarray
    sensory_delay: float = eqx.field(static=True)
    motor_delay: float = eqx.field(static=True)
    known_sensory_delay: float = eqx.field(static=True)
    known_motor_delay: float = eqx.field(static=True)

    def __init__(
        self,
        process: Process,
        model: DynamicModel,
        *,
        reflex_precision: ArrayLike = REFLEX,
        action_precision: ArrayLike = EFFORT,
        reflexes: Any = None,
        sensory_delay: float = 0.0,
        motor_delay: float = 0.0,
        known_sensory_delay: float = 0.0,
        known_motor_delay: float = 0.0,
    ):
        if not isinstance(process, Process) or not isinstance(model, DynamicModel):
            raise TypeError(
                f"ActiveSystem: got {type(process).__name__} and {type(model).__name__}; wanted a "
                "vfe.Process, the world, and a vfe.DynamicModel, the agent's."
            )
        if model.static:
            raise ValueError(
                "ActiveSystem: got a model without hidden states; action needs motion to predict: give a "
                "level flow= and states=."
            )
        if process.data_size != model.data_size:
            raise ValueError(
                f"ActiveSystem: the process makes {process.data_size} sensations and the model predicts "
                f"{model.data_size}; wanted the same: change an observe= function."
            )
        self.process, self.model = process, model
        k, actions = process.data_size, process.actions.size
        self.reflex_precision = _precision(reflex_precision, k, "reflex_precision")
        self.action_precision = _precision(action_precision, actions, "action_precision")
        self.reflexes = (
            np.ones((k, actions)) if reflexes is None else real_numbers("ActiveSystem: reflexes", reflexes)
        )
        if self.reflexes.shape != (k, actions) or not np.isfinite(self.reflexes).all():
            raise ValueError(
                f"ActiveSystem: got reflexes {self.reflexes.tolist()}; wanted finite numbers of shape "
                f"({k}, {actions}), one row per sensation, one column per action."
            )
        self.sensory_delay = _time(sensory_delay, "sensory_delay")
        self.motor_delay = _time(motor_delay, "motor_delay")
        self.known_sensory_delay = _time(known_sensory_delay, "known_sensory_delay")
        self.known_motor_delay = _time(known_motor_delay, "known_motor_delay")
        most = model.order * model.dt / 2
        for name in ("sensory_delay", "motor_delay", "known_sensory_delay", "known_motor_delay"):
            if getattr(self, name) > most:
                raise ValueError(
                    f"ActiveSystem: got a {name} of {getattr(self, name):g}; the derivatives of a model of "
                    f"order {model.order} sampled every {model.dt:g} tell of {most:g} at most. Sample less "
                    "densely, or raise the order."
                )


def _precision(value: ArrayLike, size: int, name: str) -> np.ndarray:
    found = matrix(real_numbers(f"ActiveSystem: {name}", value), size, f"ActiveSystem: {name}")
    if np.linalg.eigvalsh(found).min() < -1e-12 * max(np.abs(found).max(), 1e-300):
        raise ValueError(f"ActiveSystem: got {name}={value}; wanted no negative precision.")
    return found


def _time(value: float, name: str) -> float:
    value = float(real_numbers(f"ActiveSystem: {name}", value))
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"ActiveSystem: got {name}={value}; wanted a time, zero or positive.")
    return value
