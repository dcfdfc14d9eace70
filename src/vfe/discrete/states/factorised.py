"""F of beliefs that are a product over factors: its terms, and what a factor minimises it with."""

import string
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vfe.discrete.course import Course
from vfe.discrete.pomdp import POMDP
from vfe.discrete.states.likelihoods import log_likelihoods
from vfe.discrete.tables import SMALLEST, entropy
from vfe.free_energy import FreeEnergy, Kind

Factors = tuple[Float[Array, "time states"], ...]
NEXT = -1


class Potentials(eqx.Module):
    """Logarithms of all tables, ln 0 being ln `SMALLEST`.

    `seen`: by modality (time, *states); `first`: ln D; `moves`: ln B (next states, *states, controls);
    `controls` (steps, factors); `present` (time,).
    """

    seen: tuple[Array, ...]
    first: tuple[Array, ...]
    moves: tuple[Array, ...]
    controls: Int[Array, "steps f"]
    present: Bool[Array, " time"]


def potentials(model: POMDP, course: Course) -> Potentials:
    """Of one sequence. **Example:** `potentials(model, course).seen[0]`."""
    seen = log_likelihoods(model, course.weights, floor=True)
    first, moves = (tuple(floored(table) for table in tables) for tables in (model.D, model.B))
    return Potentials(seen, first, moves, jnp.asarray(course.controls), jnp.asarray(course.present))


def floored(table: Any) -> Array:
    """ln of a table, ln `SMALLEST` where it is zero. **Example:** `floored(jnp.eye(2))`."""
    return jnp.log(jnp.maximum(jnp.asarray(table), SMALLEST))


def average(table: Array, axes: tuple[int, ...], beliefs: dict[int, Array], keep: tuple[int, ...]) -> Array:
    """⟨table⟩ over its axes, but for some; tables and beliefs may have one leading axis of time.

    **Arguments:** `axes`: the factor that each axis is of, `NEXT` for the next state; `beliefs`: by the
    same numbers.

    **Example:** `average(jnp.ones((2, 3)), (0, 1), {0: jnp.ones(2) / 2, 1: jnp.ones(3) / 3}, (1,))`.
    """
    letters = {axis: string.ascii_letters[k] for k, axis in enumerate(axes)}
    timed = "t" if table.ndim > len(axes) else ""
    operands, terms = [table], [timed.upper() + "".join(letters[axis] for axis in axes)]
    for axis in axes:
        if axis not in keep:
            belief = beliefs[axis]
            operands.append(belief)
            terms.append(("T" if belief.ndim > 1 else "") + letters[axis])
    some = "T" if any("T" in term for term in terms) else ""
    return jnp.einsum(f"{','.join(terms)}->{some}{''.join(letters[axis] for axis in keep)}", *operands)


def from_outcomes(model: POMDP, seen: tuple[Array, ...], factors: Any, f: int) -> Array:
    """Σ_m ⟨ln p(o_m | s)⟩ over all factors but f. **Example:** `from_outcomes(model, seen, factors, 0)`."""
    beliefs, total = dict(enumerate(factors)), jnp.zeros(jnp.shape(factors[f]))
    for table, depends in zip(seen, model.A_dependencies, strict=True):
        if f in depends:
            total = total + average(table, depends, beliefs, (f,))
    return total


def selected(held: Potentials, f: int) -> Float[Array, "steps next *states"]:
    """ln B_f of the controls at every step; zero where the sequence is over.

    **Example:** `selected(potentials(model, course), 0)`.
    """
    table = jnp.moveaxis(held.moves[f], -1, 0)[held.controls[:, f]]
    return jnp.where(held.present[1:].reshape(-1, *[1] * (table.ndim - 1)), table, 0.0)


def free_energy(
    model: POMDP, held: Potentials, factors: Factors, pairs: tuple[Array, ...] | None = None
) -> FreeEnergy:
    """F of q = Π_t Π_f q(s_f,t), or of q = Π_f q(s_f,1 … s_f,T) with `pairs` (steps, next states, states).

    **Example:** `free_energy(model, held, factors).total`.
    """
    names, here, beliefs = model.labels, held.present, dict(enumerate(factors))
    before = {g: q[:-1] for g, q in beliefs.items()}
    observed, hidden, entropies = {}, {}, {}
    for name, table, depends in zip(names.modalities, held.seen, model.A_dependencies, strict=True):
        observed[name] = jnp.where(here, -average(table, depends, beliefs, ()), 0.0)
    for f, depends in enumerate(model.B_dependencies):
        name, q = names.factors[f], factors[f]
        table, axes = selected(held, f), (NEXT, *depends)
        start = -(q[0] * held.first[f]).sum()
        if pairs is not None and f in depends:
            mean = average(table, axes, before, (NEXT, f))
            moved = -(mean * pairs[f]).sum((1, 2))
        else:
            moved = -average(table, axes, before | {NEXT: q[1:]}, ())
        hidden[name] = jnp.concatenate([start[None], moved])
        own = entropy(q, 1)
        if pairs is not None:
            own = jnp.concatenate([own[:1], entropy(pairs[f], (1, 2)) - own[:-1]])
        entropies[name] = jnp.where(here, own, 0.0)
    order = (*hidden, *observed)
    return FreeEnergy(observed, hidden, entropies, None, jnp.ones(()), Kind.exact, (), order)


def total(free: FreeEnergy) -> Array:
    """F of a whole sequence. **Example:** `total(free_energy(model, held, factors))`."""
    return jnp.sum(free.total)


class Descent(eqx.Module):
    """What coordinate updates came to: F by sweep (NaN after the last), and whether it settled."""

    state: Any
    trace: Float[Array, " sweeps"]
    sweeps: Int[Array, ""]
    converged: Bool[Array, ""]


def descend(state: Any, sweep: Any, value: Any, max_sweeps: int, tolerance: float) -> Descent:
    """Sweeps until F falls by less than `tolerance` × (1 + |F|), which single precision bounds below.

    **Example:** `descend(factors, sweep, value, 100, 1e-10).state`.
    """
    first = jnp.full((), jnp.inf, jnp.result_type(float))
    smallest = jnp.maximum(tolerance, 8 * jnp.finfo(first.dtype).eps)
    trace = jnp.full(max_sweeps, jnp.nan, first.dtype)

    def more(carry: Any) -> Array:
        _, _, _, sweeps, done = carry
        return ~done & (sweeps < max_sweeps)

    def once(carry: Any) -> Any:
        state, last, trace, sweeps, _ = carry
        state = sweep(state)
        now = value(state)
        done = last - now <= smallest * (1 + jnp.abs(now))
        return state, now, trace.at[sweeps].set(now), sweeps + 1, done

    carry = (state, first, trace, jnp.zeros((), int), jnp.zeros((), bool))
    state, _, trace, sweeps, done = jax.lax.while_loop(more, once, carry)
    return Descent(state, trace, sweeps, done)


def best(descents: Descent) -> Descent:
    """The one of several (leading axis: starts) that ended lowest. **Example:** `best(descents).state`."""
    ends = jax.vmap(lambda trace, n: trace[n - 1])(descents.trace, descents.sweeps)
    lowest = jnp.argmin(jnp.where(jnp.isfinite(ends), ends, jnp.inf))
    return jax.tree.map(lambda leaf: leaf[lowest], descents)


def random_factors(key: Array, like: Factors) -> Factors:
    """Random beliefs, most of them rather certain, of the shapes of others.

    **Example:** `random_factors(jax.random.key(0), factors)`.
    """
    drawn = []
    for f, q in enumerate(like):
        # Certain ones end in more of the different minima than draws from a flat Dirichlet.
        one = jax.random.exponential(jax.random.fold_in(key, f), q.shape, q.dtype) ** 3
        drawn.append(one / one.sum(-1, keepdims=True))
    return tuple(drawn)
