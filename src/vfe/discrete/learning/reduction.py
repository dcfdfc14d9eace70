"""Structure of tables by Bayesian model reduction: what simpler counts beforehand would have been worth."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vfe.discrete.learning.counts import DirichletTables, log_beta
from vfe.double_precision import released


class ReducedTables(NamedTuple):
    """Counts under another prior, and by table the change in ln p(o), in nats; positive: better."""

    counts: DirichletTables
    log_evidence_change: dict[str, Array]


def reduce_tables(
    prior: DirichletTables, posterior: DirichletTables, reduced: DirichletTables
) -> ReducedTables:
    """Posterior counts and evidence under a reduced prior, without learning again.

    ã = a + ã₀ − a₀, ln p̃(o) − ln p(o) = Σ over columns of ln B(ã) − ln B(a) + ln B(a₀) − ln B(ã₀), with
    B the multivariate beta function. Exact where the states were seen, or where `posterior` is the exact
    belief about a table; else as good as the belief. An entry without count in `reduced` but seen beyond
    its prior is a contradiction: −∞.

    **Raises:** `ValueError` for counts of different tables, or a posterior below its prior.

    **Example:**
    ```python
    found = vfe.discrete.reduce_tables(prior, learned.counts, reduced)
    found.log_evidence_change["A[o0]"], found.counts.A[0]
    ```

    **Source:** Friston, Parr and Zeidman 2018, "Bayesian model reduction", table 1.
    """
    names = list(posterior.named())
    if list(prior.named()) != names or list(reduced.named()) != names:
        raise ValueError(
            f"reduce_tables: got counts of {list(prior.named())}, {names} and {list(reduced.named())}; "
            "wanted the same tables in all three."
        )
    with jax.enable_x64(True):
        three = [
            {n: jnp.asarray(t, float) for n, t in c.named().items()} for c in (prior, posterior, reduced)
        ]
        changes = {}
        for name in names:
            _check(name, three[0][name], three[1][name])
            changes[name] = _change(*(tables[name] for tables in three)).sum()

        def one(before: Any, after: Any, other: Any) -> Array:
            return jnp.where(jnp.asarray(other) > 0, jnp.asarray(other) + after - before, 0.0)

        counts = jax.tree.map(one, prior, posterior, reduced)
    return ReducedTables(*released((counts, changes)))


def prune_entries(
    prior: DirichletTables, posterior: DirichletTables, *, remainder: float = 0.01
) -> dict[str, Array]:
    """The change in ln p(o) if one entry of a table was all but impossible beforehand, for every entry.

    The entry's prior count becomes `remainder`; the others keep theirs. Positive: the entry is better
    removed. Entries already without count, or with less than the remainder, give zero.

    **Arguments:** `remainder`: a positive count; with none, anything seen contradicts it.

    **Returns:** by table, such as "A[o0]", an array of its shape, nats.

    **Raises:** as `reduce_tables`; `ValueError` for a remainder that is not positive.

    **Example:** `vfe.discrete.prune_entries(prior, learned.counts)["A[o0]"] > 0`.

    **Source:** Friston, Lin, Frith, Pezzulo, Hobson and Ondobaka 2017, "Active inference, curiosity and
    insight".
    """
    if not remainder > 0:
        raise ValueError(f"prune_entries: got remainder={remainder}; wanted a positive count.")
    found = {}
    with jax.enable_x64(True):
        for name, before, after in _tables("prune_entries", prior, posterior):
            size = len(before)
            alone = jnp.eye(size, dtype=bool).reshape(size, size, *[1] * (before.ndim - 1))
            other = jnp.where(alone & (before > remainder), remainder, before)
            found[name] = jax.vmap(lambda o, b=before, a=after: _change(b, a, o))(other)
    return released(found)


def merge_states(
    prior: DirichletTables, posterior: DirichletTables, factor: int | str = 0
) -> Float[Array, "states states"]:
    """The change in ln p(o) if two states of a factor shared their columns of every A, for every two.

    The columns of two states k, l, seen n_k and n_l times, become one with the mean of their priors:
    ln B(a₀ + n_k + n_l) − ln B(a₀) in place of Σ_k ln B(a₀_k + n_k) − ln B(a₀_k). Positive: one state
    does for both, as far as outcomes go. The diagonal is zero.

    **Returns:** (states, states), nats, symmetric, summed over the modalities that depend on the factor and
    are learned.

    **Raises:** as `reduce_tables`; `ValueError` where no learned modality depends on the factor, or it is
    unknown.

    **Example:** `vfe.discrete.merge_states(prior, learned.counts, "place")`.

    **Source:** Smith, Schwartenbeck, Parr and Friston 2020, "An active inference approach to modeling
    structure learning"; Heckerman, Geiger and Chickering 1995, "Learning Bayesian networks".
    """
    names = posterior.labels.factors
    known = names.index(factor) if factor in names else factor
    if not (isinstance(known, int) and 0 <= known < len(names)):
        raise ValueError(f"merge_states: got factor {factor!r}; the factors are {list(names)}.")
    _tables("merge_states", prior, posterior)
    pieces = []
    with jax.enable_x64(True):
        for before, after, depends in zip(prior.A, posterior.A, prior.A_dependencies, strict=True):
            if before is None or known not in depends:
                continue
            axis = 1 + depends.index(known)
            first, last = (jnp.moveaxis(jnp.asarray(t, float), axis, 1) for t in (before, after))
            pieces.append(_merged(first, last))
        if not pieces:
            raise ValueError(f"merge_states: no modality that is learned depends on factor {factor!r}.")
        total = sum(pieces)
    return released(total)


def _merged(prior: Float[Array, "n states *rest"], posterior: Float[Array, "n states *rest"]) -> Array:
    seen = posterior - prior
    gain = log_beta(posterior) - log_beta(prior)
    both = 0.5 * (prior[:, :, None] + prior[:, None])
    together = log_beta(both + seen[:, :, None] + seen[:, None]) - log_beta(both)
    change = together - gain[:, None] - gain[None]
    size = change.shape[0]
    return jnp.where(jnp.eye(size, dtype=bool), 0.0, change.reshape(size, size, -1).sum(-1))


@eqx.filter_jit
def _change(prior: Array, posterior: Array, reduced: Array) -> Array:
    """By column; −∞ where something was seen that the reduced prior holds impossible."""
    gone = (reduced <= 0) & (prior > 0)
    after = jnp.where(gone, 0.0, reduced + posterior - prior)
    found = log_beta(after) - log_beta(posterior) + log_beta(prior) - log_beta(reduced)
    return jnp.where((gone & (posterior > prior)).any(0), -jnp.inf, found)


def _tables(
    verb: str, prior: DirichletTables, posterior: DirichletTables
) -> list[tuple[str, Array, Array]]:
    first, last = prior.named(), posterior.named()
    if list(first) != list(last):
        raise ValueError(f"{verb}: got counts of {list(first)} and {list(last)}; wanted the same tables.")
    pairs = [(name, jnp.asarray(first[name]), jnp.asarray(last[name])) for name in first]
    for name, before, after in pairs:
        _check(name, before, after)
    return pairs


def _check(name: str, prior: Any, posterior: Any) -> None:
    before, after = np.asarray(prior), np.asarray(posterior)
    if before.shape != after.shape or (after < before - 1e-6 * (1 + before)).any():
        raise ValueError(
            f"{name}: the posterior counts are fewer than those of the prior; wanted what was learned from "
            "this prior."
        )
