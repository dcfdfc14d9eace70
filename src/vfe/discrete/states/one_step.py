"""Mean-field beliefs about the factors at one time, given what was seen and a prior of each."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from vfe.discrete.pomdp import POMDP
from vfe.discrete.states.factorised import average, best, descend, floored, from_outcomes, random_factors
from vfe.discrete.tables import SMALLEST, entropy
from vfe.free_energy import FreeEnergy, Kind

Beliefs = tuple[Float[Array, " states"], ...]


def mean_field_step(
    model: POMDP,
    prior: Beliefs,
    log_likelihoods: tuple[Array, ...],
    *,
    starts: int = 8,
    key: PRNGKeyArray | None = None,
    max_sweeps: int = 64,
    tolerance: float = 1e-10,
) -> tuple[Beliefs, FreeEnergy, Bool[Array, ""]]:
    """q(s) = Π_f q(s_f) at one time with least F, factor after factor: pure JAX, for an agent's loop.

    F = Σ_f KL(q(s_f) ‖ prior_f) − Σ_m ⟨ln p(o_m | s)⟩, in nats; q(s_f) ∝ prior_f exp Σ_m ⟨ln p(o_m | s)⟩
    over the other factors. Every update minimises F in its factor, so that F never rises. ln 0 counts as
    ln 2.2e-16.

    **Arguments:**

    - `prior`: for every factor (states,).
    - `log_likelihoods`: for every modality ln p(o | s), (*states of the factors it depends on), zero where
      nothing was seen; −∞ counts as ln 2.2e-16.
    - `starts`: how many of these: the prior, uniform beliefs, each state of each factor held for one
      sweep, then random beliefs drawn with `key` (the same at every call if not given); the lowest end is
      kept.
    - `max_sweeps`, `tolerance`: sweeps over all factors end when F falls by less than
      tolerance × (1 + |F|).

    **Returns:** beliefs by factor, F by modality and factor, and whether the best start settled.

    **Raises:** `ValueError` for less than one start or sweep, and numbers of priors or likelihoods that do
    not fit.

    **Example:**
    ```python
    seen = tuple(jnp.log(jnp.asarray(A))[o] for A, o in zip(model.A, (0,)))
    factors, free_energy, converged = vfe.discrete.mean_field_step(model, model.D, seen)
    ```

    **Source:** Beal 2003, "Variational algorithms for approximate Bayesian inference", section 2.2.
    """
    if starts < 1 or max_sweeps < 1:
        raise ValueError(
            f"mean_field_step: got {starts} starts and {max_sweeps} sweeps; wanted one or more."
        )
    if len(prior) != len(model.B) or len(log_likelihoods) != len(model.A):
        raise ValueError(
            f"mean_field_step: got {len(prior)} priors and {len(log_likelihoods)} log-likelihoods; wanted "
            f"{len(model.B)}, one for every factor, and {len(model.A)}, one for every modality."
        )
    first = tuple(floored(table) for table in prior)
    lowest = jnp.log(jnp.asarray(SMALLEST))
    # Relative to the largest, so that the scale of soft outcomes does not matter.
    seen = tuple(jnp.maximum(table, lowest + jnp.minimum(jnp.max(table), 0.0)) for table in log_likelihoods)

    def sweep(factors: Beliefs, held: Any = -1) -> Beliefs:
        now = list(factors)
        for f in range(len(now)):
            best = jax.nn.softmax(first[f] + from_outcomes(model, seen, now, f))
            now[f] = jnp.where(held == f, now[f], best)
        return tuple(now)

    def value(factors: Beliefs) -> Array:
        return _free_energy(model, first, seen, factors).total

    own = tuple(jnp.asarray(table) for table in prior)
    flat = tuple(jnp.full_like(q, 1 / len(q)) for q in own)
    many = jax.tree.map(lambda a, b: jnp.stack([a, b]), own, flat)
    states = [(f, k) for k in range(max(model.states)) for f, n in enumerate(model.states) if k < n]
    which = jnp.array(states[: max(starts - 2, 0)] or [(0, 0)])

    def fixed(state: Array) -> Beliefs:
        f, k = state
        certain = tuple(jnp.where(f == g, jnp.arange(len(q)) == k, q) for g, q in enumerate(own))
        return sweep(certain, f)

    many = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), many, jax.vmap(fixed)(which))
    missing = starts - 2 - len(states)
    if missing > 0:
        key = jax.random.key(0) if key is None else key
        drawn = jax.vmap(lambda one: random_factors(one, own))(jax.random.split(key, missing))
        many = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), many, drawn)
    # With one factor the first update is exact.
    many = jax.tree.map(lambda a: a[: starts if len(own) > 1 else 1], many)
    found = best(jax.vmap(lambda one: descend(one, sweep, value, max_sweeps, tolerance))(many))
    return found.state, _free_energy(model, first, seen, found.state), found.converged


def _free_energy(model: POMDP, first: Any, seen: Any, factors: Beliefs) -> FreeEnergy:
    names, beliefs = model.labels, dict(enumerate(factors))
    observed = {
        name: -average(table, depends, beliefs, ())
        for name, table, depends in zip(names.modalities, seen, model.A_dependencies, strict=True)
    }
    hidden = {
        name: -(q * table).sum() for name, q, table in zip(names.factors, factors, first, strict=True)
    }
    entropies = {name: entropy(q) for name, q in zip(names.factors, factors, strict=True)}
    order = (*hidden, *observed)
    return FreeEnergy(observed, hidden, entropies, None, jnp.ones(()), Kind.exact, (), order)
