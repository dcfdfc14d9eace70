"""Any optax optimiser on the parameters of a belief, all nodes at once."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from vfe.conditioning import Conditioned
from vfe.perception.loop import AbstractBeliefSolver, Progress, descends, move
from vfe.perception.objective import AbstractObjective


class Descent(AbstractBeliefSolver):
    """λ ← λ + update(−∂F/∂λ) with an optax transformation; L-BFGS with a line search by default.

    With the default no step raises F; a plain `optax.adam` may.

    **Arguments:** `optimiser`: an optax gradient transformation.

    **Example:** `vfe.perceive(model, data, solver=vfe.Descent(optax.adam(0.05)), max_steps=2000)`.
    """

    optimiser: Any = eqx.field(static=True, default=None)

    def _optimiser(self) -> Any:
        if self.optimiser is not None:
            return self.optimiser
        return optax.lbfgs(
            memory_size=20, linesearch=optax.scale_by_zoom_linesearch(max_linesearch_steps=30)
        )

    @property
    def monotone(self) -> bool:
        return self.optimiser is None

    def check(self, conditioned: Conditioned, belief: Any) -> None:
        return None

    def init(self, objective: AbstractObjective, vector: Float[Array, " m"]) -> Any:
        return self._optimiser().init(vector), jnp.zeros((), bool)

    def step(self, objective: AbstractObjective, progress: Progress) -> Progress:
        optimiser = optax.with_extra_args_support(self._optimiser())
        inner, forgotten = progress.memory
        update, inner = optimiser.update(
            progress.gradient,
            inner,
            progress.vector,
            value=progress.value,
            grad=progress.gradient,
            value_fn=objective.value,
        )
        vector = jnp.asarray(optax.apply_updates(progress.vector, update))
        if self.optimiser is not None:
            return move(objective, progress, vector, (inner, forgotten))
        new = move(objective, progress, vector, (inner, jnp.zeros((), bool)))
        # The line search gives up by rounding when the values it compares agree to the last digits;
        # what it then returns may be higher, and is not taken. The memory of past gradients may be
        # what is wrong: it is forgotten once, and the plain gradient tried, before the search ends.
        worse = ~descends(progress, new) | jnp.all(vector == progress.vector)
        old = Progress(
            progress.vector,
            progress.value,
            progress.gradient,
            progress.stalled,
            (optimiser.init(progress.vector), jnp.ones((), bool)),
        )
        new = jax.tree.map(lambda a, b: jnp.where(worse, b, a), new, old)
        return Progress(new.vector, new.value, new.gradient, worse & forgotten, new.memory)
