"""`vfe.act`: an agent in its world, both moving."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from vfe.action.acted import Acted, World
from vfe.action.active_system import ActiveSystem
from vfe.action.reflex_scheme import run_reflexes
from vfe.arrays import real_numbers
from vfe.dynamics.generalised.inversion import describe
from vfe.dynamics.generalised.outcome import Outcome
from vfe.dynamics.levels.smooth_series import smooth_series
from vfe.perception import DivergenceError


def act(
    system: ActiveSystem,
    *,
    length: int | None = None,
    causes: Any = None,
    prior_causes: Any = None,
    key: Any = None,
    noise: tuple[Any, Any] | None = None,
) -> Acted:
    """Perception and action together: beliefs and action both descend F, the world moves as it will.

    μ̃̇ = D μ̃ − ∂E/∂μ̃ and ȧ = −(∂ỹ/∂a)ᵀ Γ̃ ε̃_y − P_a a, advanced with the world from sample to sample by one
    local linear step of all of them. Sensations reach the agent with all their derivatives. The agent does
    not learn: parameters and precisions are taken at their prior means, as in `vfe.filter`;
    `vfe.fit(model, acted.sensed)` learns them from what was sensed.

    **Arguments:**

    - `length`: samples; needed where neither `causes` nor `prior_causes` tell.
    - `causes`: (time, v), what moves the world from outside; the agent does not know them. Zero if not
      given.
    - `prior_causes`: (time, c), the agent's prior mean of its top causes, zero if not given: what it
      expects, and therefore does.
    - `key`: of the world's noise; none is made without. `jax.vmap` over keys
      gives many courses (and NaN, not an error, for one that diverges).
    - `noise`: in place of `key`, that of the sensations (time, y) and of the motion (time, x), per unit of
      time.

    **Returns:** `vfe.action.Acted`: action, the world, the percept with F by time, noise and readings.

    **Raises:** `TypeError` for what is no `vfe.ActiveSystem`; `ValueError` for series that do not fit;
    `vfe.DivergenceError` with the time.

    **Example:** `vfe.act(system, prior_causes=expected).action`.

    **Source:** Friston, Daunizeau, Kilner and Kiebel 2010, "Action and behavior: a free-energy
    formulation".
    """
    if not isinstance(system, ActiveSystem):
        raise TypeError(f"act: got a {type(system).__name__}; wanted a vfe.ActiveSystem(process, model).")
    process, model = system.process, system.model
    nc = model.cause_sizes[-1]
    length = _length(length, causes, prior_causes, model.order)
    moved = _series("causes", causes, length, process.causes)
    expected = _series("prior_causes", prior_causes, length, nc)
    with jax.enable_x64(True):
        if noise is not None:
            if key is not None:
                raise ValueError("act: got both key= and noise=; wanted one of them.")
            if not isinstance(noise, tuple | list) or len(noise) != 2:
                raise ValueError(
                    f"act: got noise={noise!r}; wanted two series, that of the sensations and of the "
                    "motion."
                )
            z = _series("noise[0], of the sensations", noise[0], length, process.data_size)
            w = _series("noise[1], of the motion", noise[1], length, process.states.size)
        else:
            z, w = _drawn(system, length, key)
        acted = _act(system, jnp.asarray(z), jnp.asarray(w), jnp.asarray(moved), jnp.asarray(expected))
    if isinstance(acted.action, Tracer):
        return acted
    acted = jax.tree.map(np.asarray, acted)
    _check(acted)
    return acted


def _drawn(system: ActiveSystem, length: int, key: Any) -> tuple[Any, Any]:
    process, model = system.process, system.model
    k, m = process.data_size, process.states.size
    if key is None:
        return np.zeros((length, k)), np.zeros((length, m))
    try:
        one, two = jax.random.split(key)
    except (TypeError, ValueError) as error:
        raise ValueError(f"act: got key={key!r}; write key=jax.random.key(0).") from error
    smoothness = 0.5 if process.smoothness is None else process.smoothness / model.dt
    return (
        smooth_series(one, length, k, smoothness) @ process.observation_sd.T,
        smooth_series(two, length, m, smoothness) @ process.state_sd.T,
    )


@eqx.filter_jit
def _act(system: ActiveSystem, z: Any, w: Any, causes: Any, expected: Any) -> Acted:
    problem = system.model.problem
    kept = run_reflexes(system, jnp.concatenate([z, causes], 1), w * system.model.dt, expected)
    learned = problem.prior()
    _, entropies = jnp.linalg.slogdet(kept.covariance)
    outcome = Outcome(
        kept.course, kept.covariance, entropies, learned, learned, jnp.zeros(1), jnp.ones((), int)
    )
    percept = describe(problem, outcome, kept.felt)
    total = percept.free_energy.by_time.sum()
    percept = eqx.tree_at(
        lambda t: (t.free_energy.total, t.free_energy.history), percept, (total, total[None])
    )
    k = system.process.data_size
    world = World(kept.x, kept.seen[:, k:], kept.seen[:, :k])
    return Acted(percept.time, kept.action, world, kept.felt, percept)


def _length(length: int | None, causes: Any, expected: Any, order: int) -> int:
    given = [len(s) for s in (causes, expected) if s is not None and np.ndim(s)]
    if length is None and not given:
        raise ValueError("act: got no length; write act(system, length=128), or give causes= in time.")
    if length is not None and not isinstance(length, int | np.integer):
        raise ValueError(f"act: got length={length!r}; wanted a whole number of samples.")
    found = given[0] if length is None else int(length)
    if found < order + 1:
        raise ValueError(
            f"act: got {found} samples for a model of order {order}; wanted {order + 1} or more."
        )
    return found


def _series(name: str, given: Any, length: int, size: int) -> np.ndarray:
    if given is None:
        return np.zeros((length, size))
    series = real_numbers(f"act: {name}", given)
    if series.ndim == 1 and size == 1:
        series = series[:, None]
    if series.shape != (length, size):
        raise ValueError(f"act: got {name} of shape {series.shape}; wanted ({length}, {size}).")
    if not np.isfinite(series).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(series))[0])
        raise ValueError(f"act: got {series[where]} at index {where} of {name}; wanted finite numbers.")
    return series


def _check(acted: Acted) -> None:
    parts = (
        ("action", acted.action),
        ("states of the world", acted.world.states),
        ("states believed", acted.percept.states.mean),
        ("causes believed", acted.percept.causes.mean),
    )
    for name, series in parts:
        bad = ~np.isfinite(series).all(-1)
        if bad.any():
            raise DivergenceError(
                f"act: the {name} diverged at time index {int(bad.argmax())}. Sample more densely (a "
                "smaller dt), lower reflex_precision, raise action_precision, or bound what action does "
                "in the world (jnp.tanh(a))."
            )
