"""Recognition dynamics: perception as an ordinary differential equation."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from vfe.perception.loop import AbstractSolver, Progress, rounding
from vfe.perception.objective import Objective


class GradientFlow(AbstractSolver):
    """λ̇ = −∂F/∂λ, integrated by diffrax; each step covers an interval twice as long as the last.

    For Gaussian levels and a Point or Laplace belief this is predictive coding:
    ż_i = −Π_i ε_i + (∂g_{i−1}/∂z_i)ᵀ Π_{i−1} ε_{i−1}.

    **Arguments:** `solver`: a diffrax solver (default `diffrax.Kvaerno3()`, implicit, because levels
    of different precision make the flow stiff); `interval`: the length of the first interval;
    `rtol`, `atol`: of the integrator.

    **Example:** `vfe.perceive(model, {"x": x}, solver=vfe.GradientFlow())`.

    **Source:** Friston 2005, equation 3.9 (recognition dynamics); THEORY, section 4.
    """

    solver: Any = None
    interval: float = eqx.field(static=True, default=0.1)
    rtol: float = eqx.field(static=True, default=1e-4)
    atol: float = eqx.field(static=True, default=1e-6)

    @property
    def monotone(self) -> bool:
        return True

    def check(self, objective: Objective, belief: Any) -> None:
        if self.interval <= 0:
            raise ValueError(f"GradientFlow: interval must be positive; got {self.interval}.")

    def init(self, objective: Objective, vector: Float[Array, " m"]) -> Any:
        return jnp.asarray(self.interval, vector.dtype)

    def step(self, objective: Objective, progress: Progress) -> tuple[Array, Any, Array]:
        import diffrax

        solver = diffrax.Kvaerno3() if self.solver is None else self.solver
        length = progress.memory
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -objective.gradient(y)),
            solver,
            0.0,
            length,
            length * 1e-3,
            progress.vector,
            stepsize_controller=diffrax.PIDController(rtol=self.rtol, atol=self.atol),
            max_steps=2048,
            throw=False,
        )
        vector = solution.ys[-1]
        fine = jnp.all(jnp.isfinite(vector))
        value = objective.value(vector)
        # Integration errors near rest may raise F by rounding: such a step is not taken, and the
        # next interval is shorter.
        better = fine & (value <= progress.value + rounding(progress.value))
        vector = jnp.where(better, vector, progress.vector)
        tiny = length < 1e-3 * self.interval
        return vector, jnp.where(better, 2 * length, 0.25 * length), ~better & tiny
