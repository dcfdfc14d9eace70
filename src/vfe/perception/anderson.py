"""Accelerated fixed-point iteration on the prediction errors: one pass down and one up at each step."""

import dataclasses
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from vfe.perception.loop import AbstractErrorSolver, Progress, descends, move
from vfe.perception.objective import AbstractObjective


class Anderson(AbstractErrorSolver):
    """e ← −∂L/∂e with Anderson acceleration, in standardised errors e: z_i = g_i(z_{i+1}) + s_i ∘ e_i.

    With E = ½ |e|² + L(e), L the energy of what is observed, the errors at the mode are those that the
    feedback explains, e = −∂L/∂e. Each step mixes the last iterates so that the gradients e + ∂L/∂e,
    taken as linear in e, cancel as far as they can; where the mixture would not go down, or E rises,
    the plain step is taken and halved until it does, so E never rises. A step costs one evaluation of
    the gradient, however deep the hierarchy. Gaussian hidden nodes, any observed ones; a Point or
    Laplace belief.

    **Arguments:** `memory`: how many iterates are mixed; `tries`: how many steps in a row may be
    refused, each halving the length.

    **Example:** `vfe.perceive(model, {"x": x}, solver=vfe.Anderson())`.

    **Source:** Anderson 1965; Walker and Ni 2011 (type II, equivalent to GMRES where L is quadratic).
    """

    memory: int = eqx.field(static=True, default=5)
    tries: int = eqx.field(static=True, default=20)

    def __check_init__(self) -> None:
        if self.memory < 1 or self.tries < 1:
            raise ValueError(f"Anderson: memory={self.memory} and tries={self.tries} must be at least 1.")

    @property
    def monotone(self) -> bool:
        return True

    def limited(self, max_steps: int) -> "Anderson":
        # The first step has nothing to mix and the last leaves nothing behind.
        return dataclasses.replace(self, memory=min(self.memory, max(1, max_steps - 1)))

    def init(self, objective: AbstractObjective, vector: Float[Array, " n"]) -> Any:
        past = jnp.zeros((self.memory, *vector.shape), vector.dtype)
        gram = jnp.zeros((self.memory, self.memory), vector.dtype)
        return past, past, gram, jnp.ones((), vector.dtype), jnp.zeros((), int)

    def step(self, objective: AbstractObjective, progress: Progress) -> Progress:
        # `changes`: how the gradient changed along the last moves; `gains`: those moves less these changes.
        changes, gains, gram, length, failures = progress.memory
        e, g = progress.vector, progress.gradient
        # A little of the identity: directions that rounding makes parallel share their weight.
        ridge = 10 * jnp.finfo(e.dtype).eps * jnp.trace(gram) + jnp.finfo(e.dtype).tiny
        weights = solve_small(gram + ridge * jnp.eye(self.memory), changes @ g)
        mixed = -g - weights @ gains
        downhill = jnp.sum(mixed * g) < 0
        move_by = length * jnp.where(downhill, mixed, -g)
        trial = move(objective, progress, e + move_by, progress.memory)
        accepted = descends(progress, trial)
        change = trial.gradient - g
        kept_e, kept_g, value = (
            jnp.where(accepted, a, b)
            for a, b in ((trial.vector, e), (trial.gradient, g), (trial.value, progress.value))
        )
        # A refused step teaches how the gradient changes as well as one that is taken.
        slot = progress.number % self.memory
        changes = changes.at[slot].set(change)
        gains = gains.at[slot].set(move_by - change)
        row = changes @ change
        gram = gram.at[slot].set(row).at[:, slot].set(row)
        failures = jnp.where(accepted, 0, failures + 1)
        length = jnp.where(accepted, jnp.minimum(2.0 * length, 1.0), 0.5 * length)
        stalled = (failures >= self.tries) | jnp.all(trial.vector == e)
        memory = (changes, gains, gram, length, failures)
        return Progress(kept_e, value, kept_g, stalled, memory)


def solve_small(matrix: Float[Array, "k k"], vector: Float[Array, " k"]) -> Float[Array, " k"]:
    """A⁻¹ b of a small positive definite A by Cholesky, written out element by element.

    Under vmap every element is then one array over the observations; a batched LAPACK call takes
    longer than the whole step of perception for matrices of five by five.
    """
    k = vector.shape[0]
    factor: list[list[Array]] = [[jnp.zeros(())] * k for _ in range(k)]
    for i in range(k):
        for j in range(i + 1):
            rest = matrix[i, j] - sum((factor[i][m] * factor[j][m] for m in range(j)), jnp.zeros(()))
            if i == j:
                # What rounding leaves of a pivot is at least the smallest number.
                factor[i][i] = jnp.sqrt(jnp.maximum(rest, jnp.finfo(matrix.dtype).tiny))
            else:
                factor[i][j] = rest / factor[j][j]
    half: list[Array] = []
    for i in range(k):
        known = sum((factor[i][m] * half[m] for m in range(i)), jnp.zeros(()))
        half.append((vector[i] - known) / factor[i][i])
    found: list[Array] = [jnp.zeros(())] * k
    for i in reversed(range(k)):
        known = sum((factor[m][i] * found[m] for m in range(i + 1, k)), jnp.zeros(()))
        found[i] = (half[i] - known) / factor[i][i]
    return jnp.stack(found)
