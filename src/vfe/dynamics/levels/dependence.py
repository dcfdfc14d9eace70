"""Which arguments the value of a function depends on, read off its trace: sound, not complete."""

from collections.abc import Callable
from typing import Any

import jax


def depends_on(function: Callable, *arguments: Any) -> tuple[bool, ...]:
    """For each array argument, whether the value may depend on it. False is certain, True is not.

    **Example:** `depends_on(lambda x, y: 0 * x + y, 1.0, 2.0)` is (True, True);
    `depends_on(jax.grad(lambda x, y: 2 * x + y), 1.0, 2.0)` is (False, False).
    """
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    found: set[int] = set()
    for sources in _sources(jaxpr, [{i} for i in range(len(jaxpr.invars))]):
        found |= sources
    return tuple(i in found for i in range(len(arguments)))


def _sources(jaxpr: Any, inputs: list[set[int]]) -> list[set[int]]:
    """For every output, the numbers of the arguments it may depend on."""
    known = dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> set[int]:
        return set() if hasattr(atom, "val") else known.get(atom, set())

    for equation in jaxpr.eqns:
        given = [read(atom) for atom in equation.invars]
        inner = equation.params.get("jaxpr")
        # A jitted part of the function keeps its arguments apart; other nested programs are taken whole.
        if equation.primitive.name in ("jit", "pjit") and inner is not None:
            made = _sources(inner.jaxpr, given)
        else:
            made = [set().union(*given) for _ in equation.outvars]
        known.update(zip(equation.outvars, made, strict=True))
    return [read(atom) for atom in jaxpr.outvars]
