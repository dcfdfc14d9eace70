"""One step of a chain of joint states, factor after factor: no table of pairs of joint states is made.

With Π_f B_f[s'_f | s] the factors move one after the other, in their order. After the first f of them the
table is over s'_0 … s'_f−1 (upper-case letters) and those s that later factors still depend on (lower).
"""

import string
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vfe.discrete.pomdp import POMDP
from vfe.discrete.tables import entropy, log_table


class Step(NamedTuple):
    """By factor, what is believed of it and the states that it came from; ⟨−ln B⟩, and its entropy.

    `pairs[f]` (next state, *states it depends on); the entropy is that of a factor given those before it
    and all states of the time before.
    """

    pairs: tuple[Array, ...]
    energies: tuple[Array, ...]
    entropies: tuple[Array, ...]


def chosen(model: POMDP, controls: Int[Array, " f"]) -> tuple[Array, ...]:
    """B of the controls, by factor: (next states, *states it depends on).

    **Example:** `chosen(model, jnp.array([0]))`.
    """
    tables = [jnp.asarray(table) for table in model.B]
    # A factor that nobody controls has one table, which a loop over time need not look up.
    return tuple(
        table[..., 0] if table.shape[-1] == 1 else jnp.take(table, controls[f], axis=-1)
        for f, table in enumerate(tables)
    )


def forward(model: POMDP, moves: tuple[Array, ...], joint: Float[Array, " *states"]) -> tuple[Array, ...]:
    """Beliefs after none, one, … all factors have moved; the last is Σ_s Π_f B_f[s'_f | s] q(s).

    **Example:** `forward(model, chosen(model, controls), joint)[-1]`.
    """
    terms, own = _terms(model), _own(model)
    before = string.ascii_lowercase[: len(moves)]
    tables = [jnp.einsum(f"{before}->{terms[0]}", joint)]
    for f, move in enumerate(moves):
        tables.append(jnp.einsum(f"{terms[f]},{own[f]}->{terms[f + 1]}", tables[-1], move))
    return tuple(tables)


def move(model: POMDP, joint: Float[Array, " *states"], controls: Int[Array, " f"]) -> Array:
    """Σ_s Π_f B_f[s'_f | s, u_f] q(s): the belief over joint states one step on.

    **Example:** `move(model, jnp.ones(model.states) / model.joint_size, jnp.array([0]))`.
    """
    return forward(model, chosen(model, controls), joint)[-1]


def move_factors(model: POMDP, factors: Any, controls: Int[Array, " f"]) -> tuple[Array, ...]:
    """Σ B_f[s'_f | s, u_f] Π_g q(s_g), by factor: the prediction of a product, as a product.

    **Example:** `vfe.discrete.move_factors(model, model.D, jnp.array([0]))`.
    """
    found = []
    for table, depends in zip(chosen(model, controls), model.B_dependencies, strict=True):
        for g in reversed(depends):
            table = table @ factors[g]
        found.append(table)
    return tuple(found)


def backward(model: POMDP, moves: tuple[Array, ...], later: Float[Array, " *states"]) -> tuple[Array, ...]:
    """Σ over the factors that have not moved yet of Π B_f × later(s'); the first is over s alone.

    **Example:** `backward(model, chosen(model, controls), jnp.ones(model.states))[0]`.
    """
    terms, own = _terms(model), _own(model)
    tables = [later]
    for f in reversed(range(len(moves))):
        tables.append(jnp.einsum(f"{terms[f + 1]},{own[f]}->{terms[f]}", tables[-1], moves[f]))
    return tuple(reversed(tables))


def over_all(model: POMDP, table: Array) -> Float[Array, " *states"]:
    """The first of `backward`, with an axis of length one for every factor that nobody depends on.

    **Example:** `over_all(model, backward(model, moves, later)[0])`.
    """
    return table.reshape([n if _letter(f) in _terms(model)[0] else 1 for f, n in enumerate(model.states)])


def step(
    model: POMDP, moves: tuple[Array, ...], joint: Float[Array, " *states"], later: Float[Array, " *states"]
) -> Step:
    """Moments of p(s', s) = later(s') Π_f B_f[s'_f | s] joint(s), which sums to one.

    **Example:** `step(model, moves, filtered, smoothed / predicted).pairs[0]`.
    """
    terms, own = _terms(model), _own(model)
    ahead, behind = forward(model, moves, joint), backward(model, moves, later)
    pairs, energies, entropies = [], [], []
    logs = [_mean_log(a * b, b) for a, b in zip(ahead, behind, strict=True)]
    for f, move in enumerate(moves):
        rule = f"{terms[f]},{terms[f + 1]}->{own[f]}"
        pair = jnp.einsum(rule, ahead[f], behind[f + 1]) * move
        energy = -_mean_log(pair, move)
        pairs.append(pair)
        energies.append(energy)
        # p(s'_f | those before, s) is B_f × (what is behind after f) / (what is behind before f).
        entropies.append(energy - logs[f + 1] + logs[f])
    return Step(tuple(pairs), tuple(energies), tuple(entropies))


def start(model: POMDP, joint: Float[Array, " *states"]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """⟨−ln D⟩ by factor at the first time, and the entropy of every factor given those before it.

    **Example:** `start(model, smoothed[0])`.
    """
    count, energies, entropies, before = len(model.states), [], [], jnp.zeros(())
    for f, table in enumerate(model.D):
        own = joint.sum(tuple(g for g in range(count) if g != f))
        energies.append(-_mean_log(own, jnp.asarray(table)))
        among = joint.sum(tuple(range(f + 1, count)))
        together = entropy(among, tuple(range(among.ndim)))
        entropies.append(together - before)
        before = together
    return tuple(energies), tuple(entropies)


def _mean_log(belief: Array, table: Array) -> Array:
    return jnp.where(belief > 0, belief * log_table(table), 0.0).sum()


def _letter(f: int) -> str:
    return string.ascii_lowercase[f]


def _own(model: POMDP) -> list[str]:
    return [
        _letter(f).upper() + "".join(_letter(g) for g in depends)
        for f, depends in enumerate(model.B_dependencies)
    ]


def _terms(model: POMDP) -> list[str]:
    """The axes of the table after none, one, … all factors have moved."""
    count, found = len(model.states), []
    for f in range(count + 1):
        wanted = {g for depends in model.B_dependencies[f:] for g in depends}
        found.append(
            "".join(_letter(g).upper() for g in range(f)) + "".join(_letter(g) for g in sorted(wanted))
        )
    return found
