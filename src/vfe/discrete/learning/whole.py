"""Tables learned from whole sequences: variational Bayes over states and tables."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vfe.discrete.course import Course, check_size, read
from vfe.discrete.learning.counts import DirichletTables, log_beta, log_mean
from vfe.discrete.learning.sequences import expected_counts
from vfe.discrete.pomdp import POMDP
from vfe.discrete.states.exact import exact_smooth
from vfe.double_precision import released
from vfe.free_energy import FreeEnergy, Kind
from vfe.series.verbs import fit


class LearnedTables(eqx.Module):
    """Beliefs about the tables of a discrete world after whole sequences.

    `counts`: Dirichlet; `prior`; `model`: the `POMDP` of mean tables; `joint` (*batch, time, *states):
    beliefs about states in hindsight, NaN where a sequence is over; `free_energy`: by modality and factor
    (*batch, time), and by table, which are shared; its total is at least −ln p(o) with tables integrated
    out; `trace` (steps,): the total at every step, never rising; `converged`: whether the last step changed
    it by no more than asked.
    """

    counts: DirichletTables
    prior: DirichletTables
    model: POMDP
    joint: Float[Array, "*batch_time_states"]
    free_energy: FreeEnergy
    trace: Float[Array, " steps"]
    converged: Bool[Array, ""]

    @property
    def factors(self) -> tuple[Any, ...]:
        """Marginals by factor, each (*batch, time, states)."""
        count = len(self.model.states)
        axes = np.arange(-count, 0)
        return tuple(self.joint.sum(tuple(axes[axes != f - count])) for f in range(count))


@fit.register
def fit_pomdp(
    model: POMDP,
    y: Any,
    *,
    prior: DirichletTables,
    actions: Any = None,
    mask: Any = None,
    start: DirichletTables | None = None,
    max_steps: int = 1000,
    tolerance: float = 1e-10,
) -> LearnedTables:
    """Tables from whole sequences: variational Bayes, q(states) q(tables), each in turn at its optimum.

    q(s) ∝ exp⟨ln p(o, s | θ)⟩ is the exact posterior of a chain with tables exp⟨ln θ⟩; the counts are then
    those of the prior plus how often each entry was used, in expectation. F = −ln Z + KL(q(θ) ‖ p(θ))
    never rises. The limit of very many counts is maximum likelihood (Baum-Welch).

    **Arguments:**

    - `y`: outcomes (time, modalities), (time,) for one, or many sequences (batch, time, modalities); NaN
      where missing; or a dictionary, also of soft and several outcomes, as in `vfe.filter`.
    - `prior`: counts of the tables that are learned; what it leaves out is known from `model`.
    - `actions`: (*batch, time − 1, factors), or (time − 1,) for one factor; zero if not given.
    - `mask`: (batch, time), true where a sequence goes on: of sequences that differ in length, padded to
      the longest, the padding at the end is false.
    - `start`: counts to start from, the prior if not given. A prior that treats states alike needs one.
    - `tolerance`: the fall of F, relative to 1 + |F|, at which to stop.

    **Returns:** a `vfe.discrete.LearnedTables`.

    **Raises:** `ValueError` as `vfe.filter` of a `POMDP`, for sequences of several lengths without a mask,
    a mask with holes, and a prior of preferences or habits, of which sequences of outcomes say nothing.

    **Example:**
    ```python
    prior = vfe.discrete.DirichletTables.from_model(model, 2.0)
    learned = vfe.fit(model, [0, 0, 1, 1], prior=prior)
    learned.model.A[0], learned.free_energy.total
    ```

    **Source:** MacKay 1997, "Ensemble learning for hidden Markov models"; Beal 2003, chapter 3.
    """
    if not isinstance(prior, DirichletTables):
        raise TypeError(
            f"fit: prior is a {type(prior).__name__}; wanted a vfe.discrete.DirichletTables of the model, "
            "such as vfe.discrete.DirichletTables.flat(model)."
        )
    if prior.E is not None or any(c is not None for c in prior.C):
        raise ValueError(
            "fit: got a prior over preferences C or habits E, of which sequences of outcomes say nothing; "
            "leave them out of the DirichletTables."
        )
    if max_steps < 1 or not tolerance >= 0:
        raise ValueError(
            f"fit: got max_steps={max_steps} and tolerance={tolerance}; wanted one step or more, and zero "
            "or more."
        )
    first = prior if start is None else start
    _check_alike(model, prior, "prior")
    _check_alike(model, first, "start")
    for (name, before), (other, table) in zip(prior.named().items(), first.named().items(), strict=True):
        if name != other or ((np.asarray(before) > 0) != (np.asarray(table) > 0)).any():
            raise ValueError(
                f"fit: start and prior differ in which entries of {name} have no count; wanted the same."
            )
    course = read(model, y, actions, mask, "fit")
    check_size(model, course, "fit")
    many = course if course.many else jax.tree.map(lambda a: a[None], course)
    with jax.enable_x64(True):
        found = _learn(model, prior, first, many, max_steps, tolerance)
        counts, trace, steps, converged = jax.tree.map(np.asarray, found)
        trace = trace[: int(steps)]
        if not np.isfinite(trace[-1]):
            raise ValueError(
                "fit: a sequence is impossible under the model (its surprise is infinite); give every "
                "outcome some probability or count in A, or every move in B."
            )
        states = exact_smooth(counts.expected_log(model), course)
        joint, states = jax.tree.map(np.asarray, (states.joint, states.free_energy))
        free = _free_energy(counts, prior, states)
        expected = counts.expected(model)
    return released(LearnedTables(counts, prior, expected, joint, free, trace, converged))


@eqx.filter_jit
def _learn(
    model: POMDP,
    prior: DirichletTables,
    start: DirichletTables,
    course: Course,
    max_steps: int,
    tolerance: float,
) -> tuple[DirichletTables, Array, Array, Array]:
    prior, start = jax.tree.map(lambda a: jnp.asarray(a, float), (prior, start))

    def improved(used: Any) -> DirichletTables:
        tables = (prior.A, prior.B, prior.D)
        # None marks a table that is known.
        new = jax.tree.map(
            lambda p, n: None if p is None else p + n, tables, used, is_leaf=lambda x: x is None
        )
        return eqx.tree_at(lambda c: (c.A, c.B, c.D), prior, new, is_leaf=lambda x: x is None)

    def look(counts: DirichletTables) -> tuple[Array, DirichletTables]:
        mass, used = expected_counts(counts.expected_log(model), course)
        return sum(counts.divergence(prior).values(), -mass), improved(used)

    def go_on(carry: Any) -> Array:
        return (carry[0] < max_steps) & ~carry[4]

    def step(carry: Any) -> Any:
        k, _, better, trace, _ = carry
        value, best = look(better)
        fell = trace[k - 1] - value
        stop = (k > 0) & (jnp.abs(fell) <= tolerance * (1 + jnp.abs(value)))
        return k + 1, better, best, trace.at[k].set(value), stop | ~jnp.isfinite(value)

    empty = jnp.full(max_steps, jnp.nan)
    carry = (jnp.zeros((), int), start, start, empty, jnp.zeros((), bool))
    steps, counts, _, trace, stopped = jax.lax.while_loop(go_on, step, carry)
    return counts, trace, steps, stopped


def _free_energy(counts: DirichletTables, prior: DirichletTables, states: FreeEnergy) -> FreeEnergy:
    # float64, which JAX may not be set to hold.
    hidden: dict[str, Any] = dict(states.hidden)
    entropies: dict[str, Any] = dict(states.entropies or {})
    weight: Any = np.ones(())
    for (name, table), before in zip(counts.named().items(), prior.named().values(), strict=True):
        logs = jnp.where(table > 0, log_mean(table), 0.0)
        hidden[name] = np.asarray(log_beta(before).sum() - ((before - 1) * logs).sum())
        entropies[name] = np.asarray(log_beta(table).sum() - ((table - 1) * logs).sum())
    tables = tuple(counts.named())
    order = (*tables, *states.order)
    return FreeEnergy(states.observed, hidden, entropies, None, weight, Kind.exact, tables, order)


def _check_alike(model: POMDP, counts: DirichletTables, word: str) -> None:
    if not isinstance(counts, DirichletTables):
        raise TypeError(
            f"fit: {word} is a {type(counts).__name__}; wanted a vfe.discrete.DirichletTables of the model."
        )
    shapes = [
        (np.asarray(count).shape, table.shape)
        for letter in "ABD"
        for table, count in zip(getattr(model, letter), getattr(counts, letter), strict=False)
        if count is not None
    ]
    if counts.labels != model.labels or any(got != wanted for got, wanted in shapes):
        raise ValueError(f"fit: the {word} belongs to another model; wanted DirichletTables(model, ...).")
