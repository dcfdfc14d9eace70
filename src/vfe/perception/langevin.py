"""Sampling the posterior by Langevin dynamics, with a test that removes the step size's error."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.beliefs import Particles
from vfe.conditioning import Conditioned
from vfe.perception.descent import Descent
from vfe.perception.loop import run
from vfe.perception.objective import AbstractObjective


class Langevin(eqx.Module):
    """u ← u − ½ ε² C ∂E/∂u + ε C^½ ξ, accepted or refused by the Metropolis rule.

    C is the inverse curvature at the mode (absolute eigenvalues); chains start around the mode, and ε
    adapts during the warm-up until 57 % of the steps are accepted. The draws give no density and no
    entropy: F of `vfe.Particles` is an energy.

    **Arguments:** `chains`, `draws` kept per chain, `warm_up` steps thrown away.

    **Example:** `vfe.perceive(model, data, solver=vfe.Langevin()).belief.r_hat`.

    **Source:** Roberts and Tweedie 1996 (the Metropolis-adjusted Langevin algorithm); Welling and
    Teh 2011 for its use in learning.
    """

    chains: int = eqx.field(static=True, default=4)
    draws: int = eqx.field(static=True, default=1000)
    warm_up: int = eqx.field(static=True, default=500)

    def __check_init__(self) -> None:
        if self.chains < 2 or self.draws < 4 or self.warm_up < 0:
            raise ValueError(
                f"Langevin: got chains={self.chains}, draws={self.draws}, warm_up={self.warm_up}; "
                "R-hat wants at least 2 chains of 4 draws."
            )


def sample_posterior(
    conditioned: Conditioned,
    solver: Langevin,
    objective: AbstractObjective,
    start: Array,
    key: PRNGKeyArray,
) -> tuple[Particles, Float[Array, ""]]:
    """Draws for one observation, and the share of steps accepted."""
    mode, _ = run(objective, Descent(), start, 100, 1e-4, 1e-6)
    values, vectors = jnp.linalg.eigh(jax.hessian(conditioned.energy)(mode))
    largest = jnp.max(jnp.abs(values))
    root = vectors / jnp.sqrt(jnp.maximum(jnp.abs(values), 1e-6 * largest))
    size = mode.shape[0]
    evaluate = jax.value_and_grad(conditioned.energy)

    def move(carry: Any, inputs: Any) -> Any:
        u, energy, gradient, log_step = carry
        key, rate = inputs
        step = jnp.exp(log_step)
        noise_key, accept_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, (size,), u.dtype)
        slope = root.T @ gradient
        # In whitened coordinates v (u = root v) the drift is −½ ε² ∂E/∂v.
        jump = -0.5 * step**2 * slope + step * noise
        proposal = u + root @ jump
        new_energy, new_gradient = evaluate(proposal)
        back = -jump + 0.5 * step**2 * (root.T @ new_gradient)
        forth = jump + 0.5 * step**2 * slope
        log_ratio = energy - new_energy + (jnp.sum(forth**2) - jnp.sum(back**2)) / (2 * step**2)
        log_ratio = jnp.where(jnp.isfinite(log_ratio), log_ratio, -jnp.inf)
        accepted = jnp.log(jax.random.uniform(accept_key)) < log_ratio
        share = jnp.exp(jnp.minimum(log_ratio, 0.0))
        u = jnp.where(accepted, proposal, u)
        energy = jnp.where(accepted, new_energy, energy)
        gradient = jnp.where(accepted, new_gradient, gradient)
        return (u, energy, gradient, log_step + rate * (share - 0.574)), (u, share)

    def chain(key: PRNGKeyArray) -> tuple[Array, Array]:
        start_key, key = jax.random.split(key)
        u = mode + root @ jax.random.normal(start_key, (size,), mode.dtype)
        steps = solver.warm_up + solver.draws
        rates = jnp.where(jnp.arange(steps) < solver.warm_up, 2.0 / (jnp.arange(steps) + 10.0) ** 0.6, 0.0)
        first = (u, *evaluate(u), jnp.asarray(jnp.log(size ** (-1 / 6) + 0.0), u.dtype))
        _, (draws, shares) = jax.lax.scan(move, first, (jax.random.split(key, steps), rates))
        return draws[solver.warm_up :], shares[solver.warm_up :].mean()

    draws, shares = jax.vmap(chain)(jax.random.split(key, solver.chains))
    # A callback runs in a thread of its own, where `with jax.enable_x64(True)` does not hold and arrays
    # arrive and leave in single precision. Neither diagnostic depends on units, so nothing is lost.
    standard = (draws - draws.mean((0, 1))) / draws.std((0, 1))
    shape = jax.ShapeDtypeStruct((size,), jnp.float32)
    found = jax.pure_callback(
        _diagnose, (shape, shape), standard.astype(jnp.float32), vmap_method="sequential"
    )
    r_hat, effective = (d.astype(draws.dtype) for d in found)
    return Particles(conditioned.layout, draws, r_hat, effective), shares.mean()


def _diagnose(draws: Any) -> tuple[np.ndarray, np.ndarray]:
    from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

    draws = np.asarray(draws)
    return (
        np.asarray(split_gelman_rubin(draws), np.float32),
        np.asarray(effective_sample_size(draws), np.float32),
    )
