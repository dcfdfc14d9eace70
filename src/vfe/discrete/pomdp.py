"""POMDP: hidden states in factors, outcomes in modalities, moved by actions."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import numpy as np
from jax.core import Tracer

from vfe.arrays import real_numbers
from vfe.discrete.labels import Labels, Named, labels
from vfe.discrete.tables import probabilities

Dependencies = tuple[tuple[int, ...], ...]


class POMDP(eqx.Module):
    """A chain of categorical states and outcomes, and what is preferred among the outcomes:

    p(o, s | u) = Π_f D_f[s_f,1] Π_t Π_m A_m[o_m,t | s_t] Π_f B_f[s_f,t+1 | s_t, u_f,t].

    **Arguments:**

    - `A`: for every modality a table (outcomes, states of the factors it depends on …).
    - `B`: for every factor a table (next states, states of the factors it depends on …, controls); one
      control: uncontrolled.
    - `C`: for every modality log-preferences (outcomes,), in nats, not necessarily normalised; or (steps,
      outcomes), of outcomes one, two, … steps ahead, the last row for all beyond; zero if not given.
    - `D`: for every factor the probabilities of its first state; uniform if not given.
    - `E`: habits, the prior probability of every policy; uniform if not given.
    - `A_dependencies`: the factors that each modality depends on, by number or name, in the order of its
      axes; all if not given. `B_dependencies`: those that each factor's next state depends on; itself if
      not given.
    - `factors`, `modalities`: their names, or a dictionary from names to names of states and outcomes;
      `actions`: a dictionary from names of factors to names of controls.

    Under `jax.grad`, `jax.jit` and `jax.vmap` tables may be traced; their values are then not checked.

    **Raises:** `ValueError` that names the table, for shapes that do not fit and columns that do not sum to
    one.

    **Example:**
    ```python
    model = vfe.discrete.POMDP(
        A=[[[0.9, 0.2], [0.1, 0.8]]], B=[np.stack([np.eye(2), np.eye(2)[::-1]], -1)], D=[[0.5, 0.5]]
    )
    vfe.filter(model, [0, 1, 1], actions=[0, 1]).factors[0]
    ```

    **Source:** Friston, FitzGerald, Rigoli, Schwartenbeck and Pezzulo 2017, "Active inference: a process
    theory".
    """

    A: tuple[Any, ...]
    B: tuple[Any, ...]
    C: tuple[Any, ...]
    D: tuple[Any, ...]
    E: Any
    A_dependencies: Dependencies = eqx.field(static=True)
    B_dependencies: Dependencies = eqx.field(static=True)
    labels: Labels

    def __init__(
        self,
        A: Sequence[Any],
        B: Sequence[Any],
        C: Sequence[Any] | None = None,
        D: Sequence[Any] | None = None,
        E: Any = None,
        *,
        A_dependencies: Sequence[Sequence[int | str]] | None = None,
        B_dependencies: Sequence[Sequence[int | str]] | None = None,
        factors: Named | None = None,
        modalities: Named | None = None,
        actions: Mapping[str, Sequence[str]] | None = None,
    ):
        if not len(A) or not len(B):
            raise ValueError(
                f"POMDP: got {len(A)} tables A and {len(B)} tables B; wanted at least one each."
            )
        self.A = tuple(probabilities(f"A[{m}]", table) for m, table in enumerate(A))
        self.B = tuple(probabilities(f"B[{f}]", table) for f, table in enumerate(B))
        self.labels = labels(factors, modalities, actions, (self.states, self.outcomes, self.controls))
        names = self.labels.factors
        everyone, sizes = tuple(range(len(B))), self.states
        self.A_dependencies = _dependencies("A", A_dependencies, [everyone] * len(A), names)
        self.B_dependencies = _dependencies("B", B_dependencies, [(f,) for f in everyone], names)
        for m, (table, depends) in enumerate(zip(self.A, self.A_dependencies, strict=True)):
            _fits(f"A[{m}]", table.shape[1:], tuple(sizes[f] for f in depends), depends)
        for f, (table, depends) in enumerate(zip(self.B, self.B_dependencies, strict=True)):
            wanted = tuple(sizes[g] for g in depends)
            if table.ndim == len(wanted) + 1:
                raise ValueError(
                    f"B[{f}]: got shape {table.shape} without an axis of controls; for an uncontrolled "
                    "factor write table[..., None]."
                )
            _fits(f"B[{f}]", table.shape[1:-1], wanted, depends)
        given = [np.full(size, 1 / size) for size in sizes] if D is None else D
        if len(given) != len(B):
            raise ValueError(f"POMDP: got {len(given)} tables D for {len(B)} factors; wanted one each.")
        self.D = tuple(probabilities(f"D[{f}]", table) for f, table in enumerate(given))
        for f, table in enumerate(self.D):
            _fits(f"D[{f}]", table.shape, (sizes[f],), (f,))
        self.C = _preferences(C, self.outcomes)
        self.E = None if E is None else probabilities("E", E)
        if self.E is not None and self.E.ndim != 1:
            raise ValueError(f"E: got shape {self.E.shape}; wanted (policies,).")

    @property
    def states(self) -> tuple[int, ...]:
        """How many states each factor has."""
        return tuple(table.shape[0] for table in self.B)

    @property
    def outcomes(self) -> tuple[int, ...]:
        """How many outcomes each modality has."""
        return tuple(table.shape[0] for table in self.A)

    @property
    def controls(self) -> tuple[int, ...]:
        """How many controls each factor has; 1: uncontrolled."""
        return tuple(table.shape[-1] for table in self.B)

    @property
    def joint_size(self) -> int:
        """How many joint states there are."""
        return math.prod(self.states)


def HiddenMarkov(A: Any, D: Any, B: Any) -> POMDP:
    """A hidden Markov model, which is a `POMDP` of one factor without control:

    p(o, s) = D[s_1] Π_t A[o_t | s_t] Π_t B[s_t+1 | s_t].

    **Arguments:** `A`: (outcomes, states), or a list of such tables, one for every modality; `D`:
    (states,);
    `B`: (next states, states).

    **Raises:** as `POMDP`.

    **Example:** `vfe.smooth(vfe.discrete.HiddenMarkov(A, D, B), [0, 1, 1]).factors[0]`.

    **Source:** Rabiner 1989, "A tutorial on hidden Markov models".
    """
    several = isinstance(A, list | tuple) and np.ndim(A[0]) == 2
    return POMDP(A if several else [A], [probabilities("B", B)[..., None]], D=[D])


def _dependencies(
    word: str,
    given: Sequence[Sequence[int | str]] | None,
    default: list[tuple[int, ...]],
    names: tuple[str, ...],
) -> Dependencies:
    if given is None:
        return tuple(default)
    if any(isinstance(each, str) or not isinstance(each, Sequence | np.ndarray) for each in given):
        raise ValueError(
            f"POMDP: got {word}_dependencies {given!r}; wanted a list of factors for every table, such as "
            "[[0], [0, 1]]."
        )
    fractions = [f for each in given for f in each if not isinstance(f, str) and int(f) != f]
    if fractions:
        raise ValueError(
            f"POMDP: got {word}_dependencies on {fractions}; wanted numbers or names of factors."
        )
    unknown = [f for each in given for f in each if isinstance(f, str) and f not in names]
    if unknown:
        raise ValueError(
            f"POMDP: got {word}_dependencies on {unknown}; the factors are called {list(names)}."
        )
    found = tuple(tuple(names.index(f) if isinstance(f, str) else int(f) for f in each) for each in given)
    bad = [f for each in found for f in each if not 0 <= f < len(names)]
    if len(found) != len(default) or bad or any(len(set(each)) != len(each) for each in found):
        raise ValueError(
            f"POMDP: got {word}_dependencies {found}; wanted {len(default)} lists of different factors "
            f"from 0 to {len(names) - 1}."
        )
    return found


def _preferences(given: Sequence[Any] | None, outcomes: tuple[int, ...]) -> tuple[Any, ...]:
    if given is None:
        return tuple(np.zeros(size) for size in outcomes)
    if len(given) != len(outcomes):
        raise ValueError(
            f"POMDP: got {len(given)} preferences C for {len(outcomes)} modalities; wanted one each."
        )
    found = []
    for m, (value, size) in enumerate(zip(given, outcomes, strict=True)):
        table = value if isinstance(value, Tracer) else real_numbers(f"C[{m}]", value)
        if table.ndim not in (1, 2) or table.shape[-1] != size or not table.shape[0]:
            raise ValueError(
                f"C[{m}]: got shape {table.shape}; wanted ({size},), a log-preference for every outcome, "
                f"or (steps, {size})."
            )
        if not isinstance(table, Tracer) and not np.isfinite(table).all():
            raise ValueError(
                f"C[{m}]: got {table[~np.isfinite(table)][0]}; wanted finite log-preferences, in nats."
            )
        found.append(table)
    return tuple(found)


def _fits(name: str, got: tuple[int, ...], wanted: tuple[int, ...], depends: tuple[int, ...]) -> None:
    if got != wanted:
        raise ValueError(
            f"{name}: got axes {got} for the states it depends on; wanted {wanted}, the sizes of the "
            f"factors {depends}."
        )
