"""What one step adds to the counts of tables; pure JAX, for use inside an agent's loop."""

import string
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from vfe.discrete.learning.counts import DirichletTables
from vfe.discrete.pomdp import POMDP, Dependencies
from vfe.discrete.states.elimination import move
from vfe.discrete.states.joint import over

# A joint belief (*states), or the marginals of the factors.
Belief = Float[Array, " *states"] | Sequence[Float[Array, " states"]]


def learn_likelihood(
    counts: DirichletTables, belief: Belief, outcomes: Int[Array, " m"], **options: Any
) -> DirichletTables:
    """Counts of A after outcomes: a ← a₀ + (1 − φ) (a − a₀) + η [o] ⊗ q(s).

    **Arguments:** `belief`: about the states that the outcomes came from, joint (*states) or marginals by
    factor (their product is then taken); `outcomes`: whole numbers (modalities,), −1 where missing (adds
    nothing). Options of all that learn: `rate` η, 1 by default; `forgetting` φ, the share of what was
    learned beyond `prior` (a₀, a `DirichletTables`, needed with it) that one step loses; `present`: false
    for a step that is padding, which changes nothing.

    **Raises:** `ValueError` for forgetting without a prior.

    **Example:**
    `vfe.discrete.learn_likelihood(counts, (jnp.array([0.9, 0.1]),), jnp.array([0]), rate=0.5)`.

    **Source:** Friston, FitzGerald, Rigoli, Schwartenbeck and Pezzulo 2016, "Active inference and
    learning".
    """
    found = []
    for m, (table, depends) in enumerate(zip(counts.A, counts.A_dependencies, strict=True)):
        if table is None:
            found.append(None)
            continue
        seen = jax.nn.one_hot(outcomes[m], table.shape[0], dtype=jnp.result_type(float))
        found.append(jnp.multiply.outer(seen, over(belief, depends)))
    return grown(counts, "A", tuple(found), **options)


def learn_transitions(
    counts: DirichletTables,
    pairs: Sequence[Float[Array, "..."]],
    controls: Int[Array, " f"],
    **options: Any,
) -> DirichletTables:
    """Counts of B after a move: b ← b₀ + (1 − φ) (b − b₀) + η q(s'_f, s) ⊗ [u].

    **Arguments:** `pairs`: for every factor the belief about its next state and the states it depends on,
    from `filtered_pairs` (exact, given the outcomes so far) or `independent_pairs` (product of successive
    beliefs); `controls`: (factors,), those taken in between. Options: as `learn_likelihood`.

    **Raises:** as `learn_likelihood`.

    **Example:**
    ```python
    pairs = vfe.discrete.filtered_pairs(model, before, after, controls)
    counts = vfe.discrete.learn_transitions(counts, pairs, controls)
    ```

    **Source:** Friston et al. 2016, "Active inference and learning".
    """
    found = []
    for f, table in enumerate(counts.B):
        if table is None:
            found.append(None)
            continue
        taken = jax.nn.one_hot(controls[f], table.shape[-1], dtype=jnp.result_type(float))
        found.append(jnp.multiply.outer(pairs[f], taken))
    return grown(counts, "B", tuple(found), **options)


def learn_start(counts: DirichletTables, belief: Belief, **options: Any) -> DirichletTables:
    """Counts of D from the belief about the first state, best the one in hindsight at an episode's end.

    **Arguments:** as `learn_likelihood`.

    **Example:** `vfe.discrete.learn_start(counts, (jnp.array([0.9, 0.1]),))`.

    **Source:** Friston et al. 2016, "Active inference and learning".
    """
    found = tuple(None if table is None else over(belief, (f,)) for f, table in enumerate(counts.D))
    return grown(counts, "D", found, **options)


def learn_preferences(
    counts: DirichletTables, outcomes: Int[Array, " m"], **options: Any
) -> DirichletTables:
    """Counts of C from outcomes: what was met often comes to be preferred, C = ⟨ln θ⟩.

    **Arguments:** as `learn_likelihood`.

    **Example:** `vfe.discrete.learn_preferences(counts, jnp.array([1]))`.

    **Source:** Sajid, Tigas and Friston 2022, "Active inference, preference learning and adaptive
    behaviour".
    """
    found = tuple(
        None if table is None else jax.nn.one_hot(outcomes[m], table.shape[0], dtype=jnp.result_type(float))
        for m, table in enumerate(counts.C)
    )
    return grown(counts, "C", found, **options)


def learn_habits(
    counts: DirichletTables, policies: Float[Array, " policies"], **options: Any
) -> DirichletTables:
    """Counts of E from beliefs about policies (policies,), or from the one taken (one-hot).

    **Arguments:** as `learn_likelihood`.

    **Example:** `vfe.discrete.learn_habits(counts, jnp.array([0.0, 1.0]))`.

    **Source:** Friston et al. 2016, "Active inference and learning".
    """
    return grown(counts, "E", None if counts.E is None else policies, **options)


def filtered_pairs(
    model: POMDP, earlier: Belief, later: Belief, controls: Int[Array, " f"]
) -> tuple[Array, ...]:
    """q(s'_f, states it depends on) of two successive times for every factor, as `learn_transitions` needs.

    q(s', s) = Π_f B_f[s'_f | s, u_f] q(s) · q(s') / Σ_s Π_f B_f[s'_f | s, u_f] q(s): exact,
    p(s_t+1, s_t | o_1 … o_t+1), where both beliefs are the joint ones that `vfe.filter` gives. No table of
    pairs of joint states is made.

    **Arguments:** `model`: with the transitions believed in; `earlier`, `later`: joint (*states), or
    marginals by factor.

    **Example:** `filtered_pairs(model, before, after, jnp.array([0]))`.

    **Source:** Rabiner 1989, equation 37, at the last two times.
    """
    count = len(model.states)
    everyone = tuple(range(count))
    before, after = over(earlier, everyone), over(later, everyone)
    expected = move(model, before, controls)
    ratio = jnp.where(expected > 0, after / jnp.where(expected > 0, expected, 1.0), 0.0)
    now, then = string.ascii_lowercase[:count], string.ascii_uppercase[:count]
    operands, terms = [before, ratio], [now, then]
    for f, (table, depends) in enumerate(zip(model.B, model.B_dependencies, strict=True)):
        operands.append(jnp.take(jnp.asarray(table), controls[f], axis=-1))
        terms.append(then[f] + "".join(now[g] for g in depends))
    return tuple(
        jnp.einsum(f"{','.join(terms)}->{terms[2 + f]}", *operands, optimize="greedy") for f in everyone
    )


def independent_pairs(earlier: Belief, later: Belief, dependencies: Dependencies) -> tuple[Array, ...]:
    """q(s'_f) q(states it depends on): the product of two successive beliefs, as SPM and pymdp take it.

    **Arguments:** `dependencies`: `model.B_dependencies`; the rest as `filtered_pairs`.

    **Example:** `independent_pairs(before, after, model.B_dependencies)`.

    **Source:** Friston et al. 2016, "Active inference and learning".
    """
    return tuple(
        jnp.multiply.outer(over(later, (f,)), over(earlier, depends))
        for f, depends in enumerate(dependencies)
    )


def grown(
    counts: DirichletTables,
    letter: str,
    new: Any,
    *,
    rate: Any = 1.0,
    forgetting: Any = 0.0,
    prior: DirichletTables | None = None,
    present: Any = True,
) -> DirichletTables:
    """Counts of one kind of table with new ones added; see `learn_likelihood` for the options.

    **Example:** `grown(counts, "D", (jnp.array([0.9, 0.1]),))`.
    """
    if prior is None and not (isinstance(forgetting, int | float) and forgetting == 0):
        raise ValueError("learn: got forgetting without prior=, the counts that forgetting leads back to.")

    if not isinstance(rate, Tracer) and not (np.ndim(rate) == 0 and rate > 0):
        raise ValueError(f"learn: got rate {rate!r}; wanted a number greater than zero.")

    def one(table: Any, added: Any, before: Any) -> Array:
        table = jnp.asarray(table)
        kept = table if before is None else before + (1 - forgetting) * (table - before)
        grown = kept + rate * jnp.where(table > 0, added, 0.0)
        return jnp.where(present, grown, table)

    old, first = getattr(counts, letter), None if prior is None else getattr(prior, letter)
    # None marks a table that is not learned, in all three alike.
    if first is None:
        found = jax.tree.map(lambda table, added: one(table, added, None), old, new)
    else:
        found = jax.tree.map(one, old, new, first)
    return eqx.tree_at(lambda c: getattr(c, letter), counts, found, is_leaf=lambda leaf: leaf is None)
