"""Marginal message passing about a whole sequence, with steps that never raise F."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vfe.discrete.pomdp import POMDP
from vfe.discrete.states.factorised import (
    NEXT,
    Descent,
    Factors,
    Potentials,
    average,
    free_energy,
    from_outcomes,
    total,
)
from vfe.discrete.tables import SMALLEST

HALVINGS = 10
ROUNDING = 1e-13


def marginal_messages(model: POMDP, held: Potentials, factors: Factors) -> tuple[Array, ...]:
    """What ln q(s_f,t) is at the fixed point, but for a constant.

    Σ_m ⟨ln A_m⟩ + ½ ln Σ B_f q(s_t−1) + ½ Σ_g ln Σ B†_g q(s_g,t+1), with B† = B divided by its sum over the
    states before; the prediction has weight 1 at the last time, and D stands for it at the first.

    **Example:** `marginal_messages(model, held, factors)`.
    """
    length = len(held.present)
    go = jnp.concatenate([held.present[1:], jnp.zeros(1, bool)])
    weight = jnp.where(go, 0.5, 1.0)[:, None]
    before = {g: q[:-1] for g, q in enumerate(factors)}
    messages = []
    for f in range(len(factors)):
        predicted = average(_tables(model, held, f), (NEXT, *model.B_dependencies[f]), before, (NEXT,))
        ahead = jnp.where(held.present[1:, None], _log(predicted), 0.0)
        ahead = weight * jnp.concatenate([held.first[f][None], ahead])
        back = jnp.zeros((length - 1, model.states[f]))
        for g, depends in enumerate(model.B_dependencies):
            if f in depends:
                table = average(_tables(model, held, g), (NEXT, *depends), before, (NEXT, f))
                table = table / jnp.maximum(table.sum(-1, keepdims=True), SMALLEST)
                back = back + 0.5 * _log(jnp.einsum("tn,tns->ts", factors[g][1:], table))
        back = jnp.where(go[:-1, None], back, 0.0)
        back = jnp.concatenate([back, jnp.zeros((1, model.states[f]))])
        messages.append(from_outcomes(model, held.seen, factors, f) + ahead + back)
    return tuple(messages)


def marginal_descent(
    model: POMDP, held: Potentials, factors: Factors, damping: float, max_sweeps: int, tolerance: float
) -> Descent:
    """Damped steps of all factors and times at once, each halved until F does not rise.

    **Example:** `marginal_descent(model, held, factors, 0.5, 100, 1e-8).state`.
    """

    def value(factors: Factors) -> Array:
        return total(free_energy(model, held, factors))

    def moved(factors: Factors, messages: tuple[Array, ...], step: Array) -> Factors:
        return tuple(
            jax.nn.softmax((1 - step) * _log(q) + step * m) for q, m in zip(factors, messages, strict=True)
        )

    def distance(factors: Factors, others: Factors) -> Array:
        return jnp.stack([jnp.abs(a - b).max() for a, b in zip(factors, others, strict=True)]).max()

    first = value(factors)
    rounding = ROUNDING if first.dtype == jnp.float64 else 1e-6
    trace = jnp.full(max_sweeps, jnp.nan, first.dtype)

    def more(carry: tuple) -> Array:
        _, _, _, sweeps, settled, stuck = carry
        return ~settled & ~stuck & (sweeps < max_sweeps)

    def once(carry: tuple) -> tuple:
        factors, last, trace, sweeps, _, _ = carry
        messages = marginal_messages(model, held, factors)
        allowed = last + rounding * (1 + jnp.abs(last))

        def rises(inner: tuple) -> Array:
            _, _, now, halvings = inner
            return (now > allowed) & (halvings < HALVINGS)

        def halve(inner: tuple) -> tuple:
            step, _, _, halvings = inner
            other = moved(factors, messages, step / 2)
            return step / 2, other, value(other), halvings + 1

        step = jnp.asarray(1.0 - damping, first.dtype)
        trial = moved(factors, messages, step)
        _, trial, now, _ = jax.lax.while_loop(rises, halve, (step, trial, value(trial), 0))
        stuck = now > allowed
        settled = distance(factors, moved(factors, messages, jnp.ones_like(step))) <= tolerance
        kept = jax.tree.map(lambda new, old: jnp.where(stuck | settled, old, new), trial, factors)
        now = jnp.where(stuck | settled, last, now)
        return kept, now, trace.at[sweeps].set(now), sweeps + 1, settled, stuck & ~settled

    no = jnp.zeros((), bool)
    carry = (factors, first, trace, jnp.zeros((), int), no, no)
    factors, _, trace, sweeps, settled, _ = jax.lax.while_loop(more, once, carry)
    return Descent(factors, trace, sweeps, settled)


def _tables(model: POMDP, held: Potentials, f: int) -> Array:
    return jnp.moveaxis(jnp.asarray(model.B[f]), -1, 0)[held.controls[:, f]]


def _log(table: Array) -> Array:
    return jnp.log(jnp.maximum(table, SMALLEST))
