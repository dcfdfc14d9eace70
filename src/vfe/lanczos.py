"""The ends of a spectrum from products with vectors alone."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def extreme_eigenvalues(
    product: Callable[[Float[Array, " n"]], Float[Array, " n"]], start: Float[Array, " n"], steps: int
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The smallest and the largest eigenvalue of a symmetric operator, by Lanczos iteration.

    Every direction is made orthogonal to all before it, twice, so that with as many steps as dimensions
    both are exact; with fewer the largest found is never above the largest there is, nor the smallest
    below.

    **Arguments:** `product`: v ↦ A v; `start`: a random vector; `steps`: how many products are taken, n at
    most.

    **Source:** Lanczos 1950; Parlett 1998, chapter 13.
    """
    size = start.shape[0]
    steps = min(steps, size)

    def step(carry: tuple[Array, Array], number: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        basis, direction = carry
        basis = basis.at[number].set(direction)
        image = product(direction)
        diagonal = direction @ image
        # What is left of a direction seen before is rounding, and must not go on as a new one.
        least = 100 * jnp.finfo(image.dtype).eps * jnp.linalg.norm(image)
        for _ in range(2):
            image = image - basis.T @ (basis @ image)
        length = jnp.linalg.norm(image)
        length = jnp.where(length > least, length, 0.0)
        return (basis, jnp.where(length > 0, image / length, 0.0)), (diagonal, length)

    first = start / jnp.linalg.norm(start)
    empty = jnp.zeros((steps, size), start.dtype)
    _, (diagonal, lengths) = jax.lax.scan(step, (empty, first), jnp.arange(steps))
    # Where the start has no part in more directions, the rest is filled with a value from within.
    ended = jnp.concatenate([jnp.zeros(1, bool), jnp.cumsum(lengths[:-1] == 0) > 0])
    diagonal = jnp.where(ended, diagonal[0], diagonal)
    side = lengths[:-1]
    values = jnp.linalg.eigvalsh(jnp.diag(diagonal) + jnp.diag(side, 1) + jnp.diag(side, -1))
    return values[0], values[-1]
