"""Recognition dynamics: perception as an ordinary differential equation."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vfe.conditioning import Conditioned
from vfe.perception.loop import AbstractBeliefSolver, Progress, descends, move
from vfe.perception.objective import AbstractObjective


class GradientFlow(AbstractBeliefSolver):
    """λ̇ = −∂F/∂λ, integrated by diffrax; each step covers an interval twice as long as the last.

    For Gaussian levels and a Point or Laplace belief this is predictive coding:
    ż_i = −Π_i ε_i + (∂g_{i−1}/∂z_i)ᵀ Π_{i−1} ε_{i−1}.

    **Arguments:** `solver`: a diffrax solver (default `diffrax.Kvaerno3()`, implicit, because levels
    of different precision make the flow stiff); `interval`: the length of the first interval;
    `rtol`, `atol`: of the integrator.

    **Example:** `vfe.perceive(model, {"x": x}, solver=vfe.GradientFlow())`.

    **Source:** Friston 2005, equation 3.9 (recognition dynamics).
    """

    solver: Any = None
    interval: float = eqx.field(static=True, default=0.1)
    rtol: float = eqx.field(static=True, default=1e-4)
    atol: float = eqx.field(static=True, default=1e-6)

    @property
    def monotone(self) -> bool:
        return True

    def check(self, conditioned: Conditioned, belief: Any) -> None:
        if self.interval <= 0:
            raise ValueError(f"GradientFlow: interval must be positive; got {self.interval}.")

    def init(self, objective: AbstractObjective, vector: Float[Array, " m"]) -> Any:
        return jnp.asarray(self.interval, vector.dtype)

    def step(self, objective: AbstractObjective, progress: Progress) -> Progress:
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
        assert solution.ys is not None  # diffrax saves the end unless told otherwise
        new = move(objective, progress, solution.ys[-1], 2 * length)
        # Integration errors near rest may raise F by rounding: such a step is not taken, and the
        # next interval is shorter.
        better = descends(progress, new)
        old = Progress(progress.vector, progress.value, progress.gradient, progress.stalled, 0.25 * length)
        new = jax.tree.map(lambda a, b: jnp.where(better, a, b), new, old)
        tiny = length < 1e-3 * self.interval
        return Progress(new.vector, new.value, new.gradient, ~better & tiny, new.memory)
