"""Gradient steps of predictive coding, on activities or on errors, no longer than the curvature allows."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vfe.beliefs import Point
from vfe.conditioning import Conditioned
from vfe.perception.loop import AbstractBeliefSolver, AbstractErrorSolver, Progress, descends, move
from vfe.perception.objective import AbstractObjective

TRIES = 20


class ActivityDescent(AbstractBeliefSolver):
    """z ← z − α ∂E/∂z: gradient steps on the activities, every observation with a step length of its own.

    At Gaussian levels ∂E/∂z_i = Π_i ε_i − (∂g_{i−1}/∂z_i)ᵀ Π_{i−1} ε_{i−1}: the classical scheme of
    predictive coding. Without a `step_size`, α is bounded by the curvature met on the way,

        α₀ = |g| / |H g|,   α_{k+1} = min(√(1 + α_k / α_{k−1}) α_k, ½ |Δz| / |Δg|),

    g = ∂E/∂z, H its derivative, Δ the change over the last step. A step that would raise E is refused and
    α made shorter, so E never rises; a refused step counts as one. A Point or Laplace belief, in
    unconstrained coordinates.

    **Arguments:** `step_size`: a fixed α, in units of z² per nat (other programs often take 0.1 at unit
    precision); it is halved where E would rise, and doubled back afterwards.

    **Example:** `vfe.perceive(model, {"x": x}, solver=vfe.ActivityDescent())`.

    **Source:** Rao and Ballard 1999; Whittington and Bogacz 2017; the step lengths: Malitsky and
    Mishchenko 2020, Adaptive gradient descent without descent.
    """

    step_size: float | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        check_step_size("ActivityDescent", self.step_size)

    @property
    def monotone(self) -> bool:
        return True

    def check(self, conditioned: Conditioned, belief: Any) -> None:
        if not isinstance(belief, Point):
            raise ValueError(
                f"ActivityDescent finds modes: got a {type(belief).__name__}; use belief=vfe.Laplace or "
                "vfe.Point, or solver=vfe.Descent()."
            )

    def init(self, objective: AbstractObjective, vector: Float[Array, " m"]) -> Any:
        return first_pace(objective, vector, self.step_size)

    def step(self, objective: AbstractObjective, progress: Progress) -> Progress:
        return gradient_step(objective, progress, self.step_size)


class ErrorDescent(AbstractErrorSolver):
    """e ← e − α ∂E/∂e: gradient steps on standardised errors e, z_i = g_i(z_{i+1}) + s_i ∘ e_i.

    With E = ½ |e|² + L(e), L the energy of what is observed, ∂E/∂e = e + ∂L/∂e, one pass down and one up:
    a change at the output reaches every level in one step, which gradient steps on activities
    (`vfe.ActivityDescent`, the step lengths are the same) take as many steps for as there are levels.
    E never rises. Gaussian hidden nodes, any observed ones; a Point or Laplace belief.

    **Arguments:** `step_size`: a fixed α (1 is the plain fixed-point iteration e ← −∂L/∂e); it is
    halved where E would rise, and doubled back afterwards.

    **Example:** `vfe.perceive(model, {"x": x}, solver=vfe.ErrorDescent())`.

    **Source:** Papaspiliopoulos et al. 2007 (the non-centred form); Malitsky and Mishchenko 2020 (the
    step lengths).
    """

    step_size: float | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        check_step_size("ErrorDescent", self.step_size)

    @property
    def monotone(self) -> bool:
        return True

    def init(self, objective: AbstractObjective, vector: Float[Array, " m"]) -> Any:
        return first_pace(objective, vector, self.step_size)

    def step(self, objective: AbstractObjective, progress: Progress) -> Progress:
        return gradient_step(objective, progress, self.step_size)


class Pace(eqx.Module):
    """How long the next step is, how much longer than the last, and how many in a row were refused."""

    length: Float[Array, ""]
    growth: Float[Array, ""]
    failures: Array


def check_step_size(name: str, step_size: float | None) -> None:
    """Refuse a step length that is not a positive number."""
    if step_size is not None and not (isinstance(step_size, int | float) and 0 < step_size < float("inf")):
        raise ValueError(
            f"{name}: got step_size={step_size!r}; wanted a positive number, or None for steps bounded by "
            "the curvature."
        )


def first_pace(objective: AbstractObjective, vector: Float[Array, " m"], step_size: float | None) -> Pace:
    """The fixed length, or |g| / |H g| with H g one derivative of the gradient along itself."""
    one = jnp.ones((), vector.dtype)
    if step_size is not None:
        length = step_size * one
    else:
        gradient = objective.gradient(vector)
        _, along = jax.jvp(objective.gradient, (vector,), (gradient,))
        found = jnp.linalg.norm(gradient) / jnp.linalg.norm(along)
        # No curvature along the gradient, or no gradient, says nothing about lengths.
        length = jnp.where(jnp.isfinite(found), found, one)
    return Pace(length, one, jnp.zeros((), int))


def gradient_step(objective: AbstractObjective, progress: Progress, step_size: float | None) -> Progress:
    """One step down the gradient, refused where the objective would rise; and the next step's length."""
    pace = progress.memory
    trial = move(objective, progress, progress.vector - pace.length * progress.gradient, pace)
    accepted = descends(progress, trial)
    # What is met by a refused step tells of the curvature as well, if it is finite.
    moved = jnp.linalg.norm(trial.vector - progress.vector)
    flat = 0.5 * moved / jnp.linalg.norm(trial.gradient - progress.gradient)
    shorter = jnp.fmin(jnp.fmax(flat, 0.1 * pace.length), 0.5 * pace.length)
    if step_size is None:
        longer = jnp.fmin(flat, jnp.sqrt(1.0 + pace.growth) * pace.length)
    else:
        shorter, longer = 0.5 * pace.length, jnp.minimum(2.0 * pace.length, step_size)
    length = jnp.where(accepted, longer, shorter)
    failures = jnp.where(accepted, 0, pace.failures + 1)
    stalled = (failures >= TRIES) | jnp.all(trial.vector == progress.vector)
    vector, value, gradient = (
        jnp.where(accepted, new, old)
        for new, old in (
            (trial.vector, progress.vector),
            (trial.value, progress.value),
            (trial.gradient, progress.gradient),
        )
    )
    return Progress(vector, value, gradient, stalled, Pace(length, length / pace.length, failures))
