"""The balloon model: from neural activity to blood flow, volume, deoxyhaemoglobin and the BOLD signal."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpy.typing import ArrayLike

from vfe.dynamics.levels.dynamic_model import DynamicModel
from vfe.dynamics.levels.level import Level
from vfe.dynamics.levels.noise_precision import Precision

# Resting values: rates per second, transit time in seconds, the rest fractions.
RESTING = {
    "autoregulation": 0.41,
    "decay": 0.65,
    "efficacy": 0.54,
    "extraction": 0.34,
    "stiffness": 0.32,
    "transit": 0.98,
}
VOLUME = 0.02  # of blood at rest, a fraction of the tissue


def haemodynamic(
    regions: int = 1,
    *,
    parameter_sd: float | dict[str, float] = 0.0,
    observation_precision: Precision | np.ndarray | float = 100.0,
    state_precision: Precision | np.ndarray | float = 1e4,
    cause_precision: Precision | np.ndarray | float = 1.0,
    initial_covariance: ArrayLike = 1e-4,
    dt: float = 1.0,
    **options: Any,
) -> DynamicModel:
    """The balloon model of the BOLD signal, its inputs the causes; time in seconds.

    With neural activity v ≥ 0 (arbitrary units), a vasodilatory signal s, and blood inflow f, venous volume
    ν and deoxyhaemoglobin q as fractions of their values at rest, so that all is at rest at (0, 1, 1, 1):

    ds/dt = ε v − κ s − γ (f − 1),  df/dt = s,  τ dν/dt = f − ν^{1/α},
    τ dq/dt = f (1 − (1 − E)^{1/f}) / E − ν^{1/α} q / ν,
    y = 100 V (7 E (1 − q) + 2 (1 − q/ν) + (2 E − 0.2) (1 − ν)) + z,  in percent of the signal at rest.

    The hidden states are (s, ln f, ln ν, ln q), noise w on each: f, ν and q stay positive.

    **Arguments:** `regions`: how many, each with a cause, four states (all s first, then all ln f, …)
    and a channel, with parameters in common; `parameter_sd`: prior standard deviation of the logs of
    the parameters, one for all or by name: "efficacy" ε 0.54, "decay" κ 0.65/s, "autoregulation" γ
    0.41/s, "transit" τ 0.98 s, "stiffness" α 0.32, "extraction" E 0.34 (V = 0.02); zero: known;
    precisions of z (1 / %²), of w and of the causes; `initial_covariance`: of the states about rest;
    `dt`: time between scans, s; `options` of `vfe.DynamicModel`.

    **Raises:** `ValueError` for parameters of another name, a negative standard deviation, and as
    `vfe.DynamicModel`.

    **Example:**
    ```python
    model = vfe.dynamics.haemodynamic(dt=0.5)
    burst = lambda t: np.exp(-((t - 4) ** 2) / 2)
    vfe.dynamics.simulate(model, jax.random.key(0), 60, causes=burst, noise=False).data
    ```

    **Source:** Buxton, Wong and Frank 1998; Friston, Mechelli, Turner and Price 2000; Friston, Harrison and
    Penny 2003 (values at rest); states in logs: Stephan et al. 2008.
    """
    if not isinstance(regions, int) or regions < 1:
        raise ValueError(f"haemodynamic: got regions={regions!r}; wanted a whole number of at least 1.")
    spread = parameter_sd if isinstance(parameter_sd, dict) else dict.fromkeys(RESTING, parameter_sd)
    unknown = sorted(set(spread) - set(RESTING))
    if unknown or not all(np.isfinite(sd) and sd >= 0 for sd in spread.values()):
        raise ValueError(
            f"haemodynamic: got parameter_sd={parameter_sd}; wanted numbers of zero or more, for "
            f"{', '.join(RESTING)}."
        )
    level = Level(
        _bold,
        _flow,
        states=4 * regions,
        causes=regions,
        parameters={name: np.log(value) for name, value in RESTING.items()},
        parameter_covariance=np.array([spread.get(name, 0.0) ** 2 for name in RESTING]),
        observation_precision=observation_precision,
        state_precision=state_precision,
        cause_precision=cause_precision,
        initial_covariance=np.asarray(initial_covariance, float),
    )
    return DynamicModel([level], dt=dt, **options)


def _flow(x: Array, v: Array, p: dict[str, Array]) -> Array:
    s, flow, volume, content = x[: len(v)], *jnp.exp(x[len(v) :]).reshape(3, -1)
    own = {name: jnp.exp(value) for name, value in p.items()}
    outflow = volume ** (1 / own["stiffness"])
    extracted = -jnp.expm1(jnp.log1p(-own["extraction"]) / flow) / own["extraction"]
    signal = own["efficacy"] * v - own["decay"] * s - own["autoregulation"] * (flow - 1)
    filling = (flow - outflow) / (own["transit"] * volume)
    supply = (flow * extracted - outflow * content / volume) / (own["transit"] * content)
    return jnp.concatenate([signal, s / flow, filling, supply])


def _bold(x: Array, v: Array, p: dict[str, Array]) -> Array:
    _, volume, content = jnp.exp(x[len(v) :]).reshape(3, -1)
    E = jnp.exp(p["extraction"])
    signal = 7 * E * (1 - content) + 2 * (1 - content / volume) + (2 * E - 0.2) * (1 - volume)
    return 100 * VOLUME * signal
