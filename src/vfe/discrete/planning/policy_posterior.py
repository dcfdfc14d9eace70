"""The posterior over policies, and the precision with which they are chosen."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

HALVINGS = 60
LEAST_RATE = 1e-6


def policy_posterior(
    G: Float[Array, " policies"], precision: Any, log_habit: Any = 0.0, F: Any = 0.0
) -> Float[Array, " policies"]:
    """q(π) ∝ exp(ln E(π) − γ G(π) − F(π)).

    **Arguments:** `G`: expected free energies, nats; `precision`: γ; `log_habit`: ln E; `F`: what each
    policy left of surprise so far, nats.

    **Example:** `policy_posterior(jnp.array([1.0, 2.0]), 4.0)`.

    **Source:** Friston, FitzGerald, Rigoli, Schwartenbeck and Pezzulo 2017.
    """
    return jax.nn.softmax(log_habit - precision * G - F)


class PolicyPrecision(eqx.Module):
    """A belief about the policy precision γ and the posteriors over policies at it.

    `precision`: γ; `before`, `after` (policies,): without and with the evidence F(π).

    **Example:** `infer_precision(G, F).precision`.
    """

    precision: Array
    before: Float[Array, " policies"]
    after: Float[Array, " policies"]


def infer_precision(G: Any, F: Any = 0.0, log_habit: Any = 0.0, *, rate: Any = 1.0) -> PolicyPrecision:
    """The policy precision at which its own update rests, for γ ~ Gamma(1, rate).

    γ = 1/β, β = rate + (π − π_0)·G, π_0 = softmax(ln E − γ G), π = softmax(ln E − γ G − F): precision
    rises where the evidence favours policies that were expected to be good.

    The root is bracketed and halved, so that it does not cycle as the plain iteration may; its derivative
    is that of the root. β is kept above 1e−6.

    **Arguments:** `G`, `F`: (policies,), nats; `log_habit`: ln E; `rate`: β before.

    **Raises:** `ValueError` for shapes that do not fit, and a rate that is not greater than zero.

    **Example:** `infer_precision(jnp.array([1.0, 2.0]), jnp.array([0.5, 3.0])).precision`.

    **Source:** Friston, FitzGerald, Rigoli, Schwartenbeck and Pezzulo 2017, appendix.
    """
    G, F, log_habit = (jnp.asarray(real) for real in (G, F, log_habit))
    shapes = [G.shape, F.shape, log_habit.shape]
    if G.ndim != 1 or any(shape not in ((), G.shape) for shape in shapes):
        raise ValueError(
            f"infer_precision: got G, F and log_habit of shapes {shapes}; wanted (policies,) each, or "
            "single numbers for the last two."
        )
    if not isinstance(rate, Tracer) and not (np.ndim(rate) == 0 and np.isfinite(rate) and rate > 0):
        raise ValueError(f"infer_precision: got rate {rate!r}; wanted a number greater than zero.")
    return _infer_precision(G, F, log_habit, jnp.asarray(rate))


@eqx.filter_jit
def _infer_precision(G: Array, F: Array, log_habit: Array, rate: Array) -> PolicyPrecision:
    F = jnp.broadcast_to(F, G.shape)

    def both(beta: Array) -> tuple[Array, Array]:
        return policy_posterior(G, 1 / beta, log_habit), policy_posterior(G, 1 / beta, log_habit, F)

    def rest(beta: Array) -> Array:
        before, after = both(beta)
        return rate + ((after - before) * G).sum() - beta

    reach = G.max() - G.min()
    low = jnp.maximum(jnp.asarray(rate - reach, G.dtype), LEAST_RATE)
    high = jnp.maximum(jnp.asarray(rate + reach, G.dtype), LEAST_RATE)

    def halve(ends: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        low, high = ends
        middle = (low + high) / 2
        above = rest(middle) > 0
        return (jnp.where(above, middle, low), jnp.where(above, high, middle)), None

    (low, high), _ = jax.lax.scan(halve, jax.lax.stop_gradient((low, high)), None, length=HALVINGS)
    beta = jax.lax.stop_gradient((low + high) / 2)
    floor = beta <= 2 * LEAST_RATE
    # Newton steps move nothing at the root, but carry its derivatives: one the first, two the second.
    for _ in range(2):
        value, slope = jax.jvp(rest, (beta,), (jnp.ones_like(beta),))
        beta = jnp.where(floor, beta, beta - value / jnp.where(floor, 1.0, slope))
    return PolicyPrecision(1 / beta, *both(beta))
