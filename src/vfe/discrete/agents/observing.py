"""One step of perception: outcomes change a belief about states, and F is left."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vfe.discrete.planning.predicted import expected
from vfe.discrete.pomdp import POMDP
from vfe.discrete.states.filtered import SUMMED
from vfe.discrete.states.joint import marginal, spread
from vfe.discrete.states.one_step import mean_field_step
from vfe.discrete.states.settings import MeanField
from vfe.discrete.tables import SMALLEST, entropy, log_table
from vfe.free_energy import FreeEnergy, Kind


def observe_joint(
    model: POMDP, predicted: Float[Array, " *states"], outcomes: Int[Array, " modalities"]
) -> tuple[Array, FreeEnergy, Array]:
    """The belief after outcomes, F = −ln p(o) under the belief before, and whether they were possible.

    q(s) = p(s) Π_m A_m[o_m | s] / p(o). What is impossible leaves the belief as it was, and F = ∞.

    **Arguments:** `predicted` (*states): before; `outcomes`: −1 where missing.

    **Returns:** the belief; F by modality, and by factor (each given those before it); whether p(o) > 0.

    **Example:** `observe_joint(model, joint(model, tuple(model.D)), jnp.array([0]))`.
    """
    rows = [jnp.asarray(table)[jnp.maximum(outcomes[m], 0)] for m, table in enumerate(model.A)]
    return weigh_joint(
        model, predicted, [jnp.where(outcomes[m] >= 0, row, 1.0) for m, row in enumerate(rows)]
    )


def weigh_joint(
    model: POMDP, predicted: Float[Array, " *states"], likelihoods: Sequence[Array | None]
) -> tuple[Array, FreeEnergy, Array]:
    """As `observe_joint`, given for every modality the likelihood of what was seen under the states that it
    depends on; None where nothing was.

    **Example:** `weigh_joint(model, predicted, [jnp.array([0.9, 0.2])])`.
    """
    logs = jnp.zeros(predicted.shape)
    for seen, depends in zip(likelihoods, model.A_dependencies, strict=True):
        if seen is not None:
            logs = logs + spread(log_table(seen), depends, predicted.ndim)
    # In logarithms, so that many modalities do not underflow.
    top = jnp.where(predicted > 0, logs, -jnp.inf).max()
    top = jax.lax.stop_gradient(jnp.where(top > -jnp.inf, top, 0.0))
    there = (predicted > 0) & (logs > -jnp.inf)
    both = jnp.where(there, predicted * jnp.exp(jnp.where(there, logs, 0.0) - top), 0.0)
    mass = both.sum()
    possible = mass > 0
    belief = jnp.where(possible, both / jnp.where(possible, mass, 1.0), predicted)
    # What is possible stays so, however improbable; rounding would make it impossible for ever.
    belief = jnp.where(possible & there, jnp.maximum(belief, jnp.finfo(belief.dtype).tiny), belief)
    observed: dict[str, Any] = {}
    for m, (seen, depends) in enumerate(zip(likelihoods, model.A_dependencies, strict=True)):
        cost = jnp.zeros(()) if seen is None else _weighed(belief, depends, seen)
        observed[model.labels.modalities[m]] = cost
    hidden, entropies = {}, {}
    energy_before = entropy_before = jnp.zeros(())
    for f, name in enumerate(model.labels.factors):
        upto = tuple(range(f + 1))
        now = marginal(belief, upto)
        energy = -(now * jnp.log(jnp.where(now > 0, marginal(predicted, upto), 1.0))).sum()
        disorder = entropy(now, None)
        hidden[name], entropies[name] = energy - energy_before, disorder - entropy_before
        energy_before, entropy_before = energy, disorder
    free = FreeEnergy(observed, hidden, entropies, None, jnp.ones(()), Kind.exact, (), (*hidden, *observed))
    return belief, free, possible


def _weighed(belief: Array, depends: tuple[int, ...], seen: Array) -> Array:
    weights = marginal(belief, depends)
    return -(weights * jnp.log(jnp.where(weights > 0, seen, 1.0))).sum()


def observe_factors(
    model: POMDP,
    predicted: tuple[Float[Array, " states"], ...],
    outcomes: Int[Array, " modalities"],
    settings: MeanField,
) -> tuple[tuple[Array, ...], FreeEnergy, Array]:
    """As `observe_joint`, for a product of beliefs: the one of least F that is a product.

    Whether the outcomes were possible is asked of each modality on its own where joint states are many.

    **Example:** `observe_factors(model, tuple(model.D), jnp.array([0]), MeanField(starts=4))`.
    """
    rows = [jnp.asarray(table)[jnp.maximum(outcomes[m], 0)] for m, table in enumerate(model.A)]
    seen = [jnp.where(outcomes[m] >= 0, row, 1.0) for m, row in enumerate(rows)]
    # Zero is never quite zero in these beliefs.
    support = tuple(jnp.where(q > SMALLEST, q, 0.0) for q in predicted)
    chances = [
        expected(row, support, depends) for row, depends in zip(seen, model.A_dependencies, strict=True)
    ]
    possible = (jnp.stack(chances) > 0).all()
    if model.joint_size <= SUMMED:
        whole = jnp.ones(())
        for q in support:
            whole = jnp.multiply.outer(whole, q > 0)
        for row, depends in zip(seen, model.A_dependencies, strict=True):
            whole = whole * spread(row > 0, depends, len(support))
        possible = whole.any()
    belief, free, _ = mean_field_step(
        model,
        predicted,
        tuple(jnp.where(possible, log_table(row), 0.0) for row in seen),
        starts=settings.starts,
        key=jax.random.key(settings.seed),
        max_sweeps=settings.max_sweeps,
        tolerance=settings.tolerance,
    )
    lost = jnp.where(possible, 0.0, jnp.inf)
    first = next(iter(free.observed))
    free = eqx.tree_at(lambda f: f.observed[first], free, free.observed[first] + lost)
    return belief, free, possible
