"""How the world moves: its states and sensations in generalised coordinates, per sample."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from vfe.action.process import Process, Slopes


def settle(
    process: Process,
    slopes: Slopes,
    dt: float,
    seen: Float[Array, "n yv"],
    x: Float[Array, "n x"],
    a: Float[Array, "n a"],
    z: Float[Array, "n yv"],
    w: Float[Array, "n x"],
) -> tuple[Float[Array, "n yv"], Float[Array, "n x"]]:
    """Every order of sensations and motion, from the state, the action and the noise at this moment:

    y = g(x, v, a) + z, x′ = f(x, v, a) + w, and with the Jacobians at order 0 for the orders above.

    `seen` stacks sensations and causes, `z` their noise and the causes as given. Sensations of the orders
    above 0 come from causes before they are renewed.
    """
    k, n = process.data_size, len(x)
    v0 = z[0, k:]
    seen = seen.at[0].set(jnp.concatenate([process.observe(x[0], v0, a[0]) + z[0, :k], v0]))
    x = x.at[1].set(dt * process.flow(x[0], v0, a[0]) + w[0])
    for i in range(1, n):
        sensed = slopes.g_x @ x[i] + slopes.g_v @ seen[i, k:] + slopes.g_a @ a[i] + z[i, :k]
        seen = seen.at[i].set(jnp.concatenate([sensed, z[i, k:]]))
        if i < n - 1:
            x = x.at[i + 1].set(slopes.f_x @ x[i] + slopes.f_v @ seen[i, k:] + slopes.f_a @ a[i] + w[i])
    return seen, x


def by_action(slopes: Slopes, n: int) -> Float[Array, "n y a"]:
    """∂ỹ/∂a at every order: g_a, then g_x f_xᵏ⁻¹ f_a."""
    orders, moved = [slopes.g_a], slopes.f_a
    for _ in range(1, n):
        orders.append(slopes.g_x @ moved)
        moved = slopes.f_x @ moved
    return jnp.stack(orders)


def motion_jacobian(
    process: Process, slopes: Slopes, n: int
) -> tuple[Float[Array, "s s"], Float[Array, "s a"]]:
    """How the motion of (sensations and causes, states), all orders, bends with themselves and with action.

    Of action only the motion of states at order 0 is bent, as in the reference scheme.
    """
    k, c, m = process.data_size, process.causes, process.states.size
    shift, one = jnp.eye(n, k=1), jnp.eye(n)
    seen = jnp.zeros((k + c, k + c)).at[:k, k:].set(slopes.g_v)
    felt = jnp.zeros((k + c, m)).at[:k].set(slopes.g_x)
    pushed = jnp.zeros((m, k + c)).at[:, k:].set(slopes.f_v)
    whole = jnp.block(
        [[jnp.kron(shift, seen), jnp.kron(shift, felt)], [jnp.kron(one, pushed), jnp.kron(one, slopes.f_x)]]
    )
    acted = jnp.zeros((n * (k + c + m), slopes.f_a.shape[1]))
    acted = acted.at[n * (k + c) : n * (k + c) + m].set(slopes.f_a)
    return whole, acted
