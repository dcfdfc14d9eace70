"""Structured beliefs about a whole sequence: every factor a Markov chain of its own."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vfe.discrete.pomdp import POMDP
from vfe.discrete.states.factorised import NEXT, Factors, Potentials, average, from_outcomes, selected


class Chains(eqx.Module):
    """By factor, q(s_t) (time, states) and q(s_t+1, s_t) (steps, next states, states)."""

    factors: Factors
    pairs: tuple[Float[Array, "steps next states"], ...]


def independent(factors: Factors) -> Chains:
    """Chains in which the times know nothing of each other. **Example:** `independent(factors)`."""
    return Chains(factors, tuple(q[1:, :, None] * q[:-1, None, :] for q in factors))


def structured_sweep(model: POMDP, held: Potentials, chains: Chains) -> Chains:
    """Every factor in turn: forward and backward through its chain, the others averaged out.

    ln q(s_f,1 … s_f,T) = Σ_t Σ_m ⟨ln A_m⟩ + ⟨ln B_f[s_f,t+1 | s_t]⟩ + Σ_g≠f ⟨ln B_g[s_g,t+1 | s_t]⟩ +
    constant: a chain again.

    **Example:** `structured_sweep(model, held, independent(factors))`.
    """
    for f in range(len(model.states)):
        chains = _update(model, held, chains, f)
    return chains


def _update(model: POMDP, held: Potentials, chains: Chains, f: int) -> Chains:
    factors, pairs = chains.factors, chains.pairs
    before = {g: q[:-1] for g, q in enumerate(factors)}
    own = from_outcomes(model, held.seen, factors, f).at[0].add(held.first[f])
    size = model.states[f]
    moves = jnp.zeros((len(held.present) - 1, size, size))
    for g, depends in enumerate(model.B_dependencies):
        if f not in depends and g != f:
            continue
        table, axes = selected(held, g), (NEXT, *depends)
        if g == f and f in depends:
            moves = moves + average(table, axes, before, (NEXT, f))
        elif g == f:
            own = own.at[1:].add(average(table, axes, before, (NEXT,)))
        elif g in depends:
            mean = average(table, axes, before, (NEXT, g, f))
            own = own.at[:-1].add(jnp.einsum("tnsf,tns->tf", mean, pairs[g]))
        else:
            own = own.at[:-1].add(average(table, axes, before | {NEXT: factors[g][1:]}, (f,)))
    single, pair = chain_marginals(own, moves)
    return Chains(
        (*factors[:f], single, *factors[f + 1 :]),
        (*pairs[:f], pair, *pairs[f + 1 :]),
    )


def chain_marginals(
    own: Float[Array, "time states"], moves: Float[Array, "steps next states"]
) -> tuple[Array, Array]:
    """Marginals of q ∝ exp(Σ_t own_t[s_t] + Σ_t moves_t[s_t+1, s_t]): of each time, and of each two.

    **Example:** `chain_marginals(jnp.zeros((3, 2)), jnp.zeros((2, 2, 2)))`.
    """
    local = jnp.exp(own - own.max(1, keepdims=True))
    links = jnp.exp(moves - moves.max((1, 2), keepdims=True))

    def ahead(belief: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        link, here = now
        belief = here * (link @ belief)
        belief = belief / belief.sum()
        return belief, belief

    def back(message: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        link, there = now
        message = (there * message) @ link
        message = message / message.max()
        return message, message

    first = local[0] / local[0].sum()
    _, later = jax.lax.scan(ahead, first, (links, local[1:]))
    forward = jnp.concatenate([first[None], later])
    last = jnp.ones_like(first)
    _, earlier = jax.lax.scan(back, last, (links, local[1:]), reverse=True)
    backward = jnp.concatenate([earlier, last[None]])
    single = forward * backward
    single = single / single.sum(1, keepdims=True)
    pair = (local[1:] * backward[1:])[:, :, None] * links * forward[:-1, None, :]
    return single, pair / pair.sum((1, 2), keepdims=True)
