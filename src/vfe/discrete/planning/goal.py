"""Goals: states to be in, and how many steps away every state is."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vfe.discrete.pomdp import POMDP


class Goal(eqx.Module):
    """States to be in, by factor, and the steps from which they can still be reached.

    `ways[f]` (depth, states): whether a goal can be reached in so many steps, each a transition more
    probable than `threshold` under some control, the other factors where that is easiest.

    **Arguments:** `wanted`: for a factor, by number or name, its wanted states, by number or name;
    `depth`: how many steps back it is looked, the goal itself being the first.

    **Raises:** `ValueError` for factors and states that the model does not have, for a depth below one,
    a threshold or `epsilon` outside (0, 1).

    **Example:** `vfe.discrete.Goal(model, {0: [3]}, depth=6)`.

    **Source:** Friston and others 2023, "Active inference and intentional behaviour".
    """

    ways: tuple[np.ndarray | None, ...]
    epsilon: float = eqx.field(static=True)

    def __init__(
        self,
        model: POMDP,
        wanted: Mapping[int | str, Sequence[int | str]],
        *,
        depth: int = 8,
        threshold: float = 0.1,
        epsilon: float = 1e-3,
    ):
        for name, value in (("threshold", threshold), ("epsilon", epsilon)):
            if not 0 < value < 1:
                raise ValueError(f"Goal: got {name} {value!r}; wanted a number between 0 and 1.")
        if isinstance(depth, bool) or not isinstance(depth, int | np.integer) or depth < 1:
            raise ValueError(f"Goal: got depth {depth!r}; wanted a whole number of steps, one or more.")
        if not wanted or not all(len(states) for states in wanted.values()):
            raise ValueError(
                f"Goal: got {dict(wanted)}; wanted {{factor: [states]}}, with some states each."
            )
        found: list[np.ndarray | None] = [None] * len(model.states)
        for factor, states in wanted.items():
            f = _index("factor", factor, model.labels.factors)
            start = np.zeros(model.states[f])
            for state in states:
                start[_index(f"state of {model.labels.factors[f]!r}", state, model.labels.states[f])] = 1.0
            found[f] = _ways(model, f, start, int(depth), threshold)
        self.ways = tuple(found)
        self.epsilon = float(epsilon)


def inductive_value(goal: Goal, now: tuple[Array, ...], later: tuple[Array, ...]) -> Array:
    """ln ε Σ_f q(states of factor f from which its goal is not one step nearer than now).

    Zero for a factor from whose most probable state the goal cannot be reached, or has none.

    **Example:** `inductive_value(goal, by_factor(belief), by_factor(predicted))`.
    """
    value = jnp.zeros(())
    for ways, here, there in zip(goal.ways, now, later, strict=True):
        if ways is None:
            continue
        table = jnp.asarray(ways, dtype=there.dtype)
        reach = table[:, jnp.argmax(here)]
        nearer = table[jnp.maximum(jnp.argmax(reach) - 1, 0)]
        value = value + jnp.where(reach.any(), jnp.log(goal.epsilon) * ((1 - nearer) * there).sum(), 0.0)
    return value


def _ways(model: POMDP, f: int, start: np.ndarray, depth: int, threshold: float) -> np.ndarray:
    depends = model.B_dependencies[f]
    table = np.asarray(model.B[f]) > threshold
    own = 1 + depends.index(f) if f in depends else None
    others = tuple(axis for axis in range(1, table.ndim) if axis != own)
    possible = table.any(others)  # (next states, states), or (next states,) where it moves by others alone
    rows = [start]
    for _ in range(depth - 1):
        reached = possible.T @ rows[-1] if own is not None else np.full(len(start), possible @ rows[-1])
        rows.append((reached > 0).astype(float))
    return np.stack(rows)


def _index(word: str, given: Any, names: tuple[str, ...]) -> int:
    if isinstance(given, str) and given in names:
        return names.index(given)
    if not isinstance(given, str | bool) and 0 <= given < len(names) and int(given) == given:
        return int(given)
    raise ValueError(f"Goal: got {word} {given!r}; wanted one of {list(names)}, or its number.")
