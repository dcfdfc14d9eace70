"""What prediction errors cost, noise by noise."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vfe.dynamics.generalised.local_linear import log_determinant
from vfe.dynamics.levels.problem import Problem


def energies(
    problem: Problem, errors: Float[Array, "time e"], log_precisions: Float[Array, " h"]
) -> dict[str, Array | np.ndarray]:
    """½ ẽᵀ Π ẽ − ½ ln|Π| of every noise, (time,), and of the data's the constant ½ n ln 2π.

    Errors of noise that counts as none are left out.
    """
    found: dict[str, Array | np.ndarray] = {}
    for block in problem.blocks:
        counted = jnp.asarray(problem.counted[block.rows], float)
        Pi = jnp.kron(block.orders, block.precision(log_precisions)) * counted[:, None] * counted
        own = problem.errors_of(block, errors).reshape(len(errors), -1)
        constant = problem.n * problem.ny / 2 * np.log(2 * np.pi) if block.name == "observation 1" else 0.0
        found[block.name] = jnp.sum(own @ Pi * own, 1) / 2 - log_determinant(Pi) / 2 + constant
    return found
