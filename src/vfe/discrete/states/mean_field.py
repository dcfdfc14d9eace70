"""Mean-field beliefs about a whole sequence: every state of every factor by itself."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vfe.discrete.pomdp import POMDP
from vfe.discrete.states.factorised import NEXT, Factors, Potentials, average, from_outcomes


def mean_field_sweep(model: POMDP, held: Potentials, factors: Factors) -> Factors:
    """Every factor at every time in turn, from the first time to the last and back.

    ln q(s_f,t) = Σ_m ⟨ln A_m⟩ + ⟨ln B_f[s_f,t | s_t−1]⟩ + Σ_g ⟨ln B_g[s_g,t+1 | s_t]⟩ + constant.

    **Example:** `mean_field_sweep(model, held, factors)`.
    """
    length = len(held.present)
    there_and_back = jnp.concatenate([jnp.arange(length), jnp.arange(length)[::-1]])

    def step(factors: Factors, t: Array) -> tuple[Factors, None]:
        own = _update(model, held, factors, t)
        return tuple(q.at[t].set(one) for q, one in zip(factors, own, strict=True)), None

    return jax.lax.scan(step, factors, there_and_back)[0]


def _update(model: POMDP, held: Potentials, factors: Factors, t: Array) -> tuple[Array, ...]:
    last = len(held.present) - 1
    past, future = jnp.maximum(t - 1, 0), jnp.minimum(t + 1, last)
    own = tuple(q[t] for q in factors)
    before = {g: q[past] for g, q in enumerate(factors)}
    seen = tuple(table[t] for table in held.seen)
    come = (t > 0) & held.present[t]
    go = (t < last) & held.present[future]
    into, out = (_tables(held, jnp.minimum(step, last - 1)) for step in (past, t))
    for f, depends in enumerate(model.B_dependencies):
        logs = jnp.where(t == 0, held.first[f], 0.0) + from_outcomes(model, seen, own, f)
        if last > 0:
            logs = logs + come * average(into[f], (NEXT, *depends), before, (NEXT,))
        for g, others in enumerate(model.B_dependencies):
            if f in others and last > 0:
                beliefs = {**dict(enumerate(own)), NEXT: factors[g][future]}
                logs = logs + go * average(out[g], (NEXT, *others), beliefs, (f,))
        own = (*own[:f], jax.nn.softmax(logs), *own[f + 1 :])
    return own


def _tables(held: Potentials, step: Array) -> tuple[Array, ...]:
    """ln B of the controls of a step; of factors without control there is one."""
    if not len(held.controls):
        return ()
    return tuple(
        table[..., 0] if table.shape[-1] == 1 else jnp.take(table, held.controls[step, f], axis=-1)
        for f, table in enumerate(held.moves)
    )
