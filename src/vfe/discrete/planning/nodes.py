"""Nodes of a plan: beliefs about states some steps ahead, and what they contribute to G."""

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import digamma
from jaxtyping import Array, Float, Int

from vfe.discrete.planning.goal import Goal
from vfe.discrete.planning.terms import Terms
from vfe.discrete.pomdp import POMDP

# Joint outcomes times joint states: what averages="joint" keeps in memory.
LARGEST_JOINT = 20_000_000

Counts = tuple[Array | None, ...] | None


class AbstractNodes(eqx.Module):
    """How beliefs are kept, moved and valued in a plan. Nodes are pytrees with a leading axis."""

    @abc.abstractmethod
    def start(self, belief: Any) -> Any:
        """The belief from which the plan begins, as one node."""

    @abc.abstractmethod
    def onward(
        self, nodes: Any, controls: Int[Array, "a factors"], parents: Int[Array, "a n"] | None
    ) -> tuple[Any, dict[str, Array]]:
        """The nodes after each action from its parents (None: from every node), (a, n, …), and the terms
        that depend on the step itself."""

    @abc.abstractmethod
    def values(self, nodes: Any, step: int) -> dict[str, Float[Array, " n"]]:
        """The terms that depend on where a step leads to."""


def check_belief(verb: str, model: POMDP, belief: Any) -> None:
    """**Raises:** `ValueError` for a belief of other shapes than the states of a model.

    **Example:** `check_belief("search", model, jnp.ones(model.states) / model.joint_size)`.
    """
    if isinstance(belief, tuple):
        shapes = tuple(jnp.shape(q) for q in belief)
        if shapes != tuple((n,) for n in model.states):
            raise ValueError(
                f"{verb}: got beliefs by factor of shapes {shapes}; wanted (states,) of {model.states}."
            )
    elif jnp.shape(belief) != model.states:
        raise ValueError(
            f"{verb}: got a belief of shape {jnp.shape(belief)}; wanted {model.states}, over joint "
            "states, or a tuple with one array for every factor."
        )


def check_terms(model: POMDP, terms: Terms, A_counts: Counts, B_counts: Counts, goal: Goal | None) -> None:
    """**Raises:** `ValueError` where a term lacks what it needs, or joint outcomes are too many.

    **Example:** `check_terms(model, Terms(), None, None, None)`.
    """
    weights = terms.weights
    for name, needed in (("A_information", A_counts), ("B_information", B_counts), ("inductive", goal)):
        if name in weights and needed is None:
            what = "a goal (vfe.discrete.Goal)" if name == "inductive" else f"Dirichlet counts of {name[0]}"
            raise ValueError(f"expected_free_energy: the term {name} needs {what}; got none.")
    size = math.prod(model.outcomes) * model.joint_size
    if needs_outcomes(terms) and terms.averages == "joint" and size > LARGEST_JOINT:
        raise ValueError(
            f"expected_free_energy: got {math.prod(model.outcomes)} joint outcomes of {model.joint_size} "
            f"joint states; averages over both are kept up to {LARGEST_JOINT}. Use "
            'vfe.discrete.Terms(averages="factorised"), or leave out state_information and risk.'
        )


def needs_outcomes(terms: Terms) -> bool:
    """Whether some term needs the entropy of the outcomes. **Example:** `needs_outcomes(Terms())`."""
    return bool({"state_information", "risk"} & {*terms.weights})


def preferences(model: POMDP, step: int, *, normalised: bool) -> list[Array]:
    """The log-preferences of every modality some steps ahead. **Example:** `preferences(model, 0,
    normalised=False)`."""
    rows = [jnp.atleast_2d(jnp.asarray(c)) for c in model.C]
    chosen = [table[min(step, len(table) - 1)] for table in rows]
    return [jax.nn.log_softmax(row) for row in chosen] if normalised else chosen


def count_divergence(counts: Array) -> Array:
    """KL[Dir(a + one more of o) ‖ Dir(a)] for every entry o of every column, nats; zero where a is zero.

    ln a_0 − ln a_o + ψ(a_o + 1) − ψ(a_0 + 1).

    **Example:** `count_divergence(jnp.ones((2, 3)))`.
    """
    present = counts > 0
    safe = jnp.where(present, counts, 1.0)
    total = jnp.where(present, counts, 0.0).sum(0)
    full = jnp.where(total > 0, total, 1.0)
    found = jnp.log(full) - jnp.log(safe) + digamma(safe + 1) - digamma(full + 1)
    return jnp.where(present, found, 0.0)


def gains_of(counts: Counts, tables: tuple[Any, ...], *, averaged: bool) -> tuple[Array | None, ...]:
    """What one more count would tell, by entry of every table, or averaged over what is expected.

    **Raises:** `ValueError` for counts that do not fit the tables.

    **Example:** `gains_of((jnp.ones((2, 3)),), (jnp.ones((2, 3)) / 2,), averaged=True)`.
    """
    if counts is None or len(counts) != len(tables):
        raise ValueError(
            f"expected_free_energy: got {0 if counts is None else len(counts)} arrays of counts for "
            f"{len(tables)} tables; wanted one each (None: not learned)."
        )
    found = []
    for k, (array, table) in enumerate(zip(counts, tables, strict=True)):
        if array is None:
            found.append(None)
            continue
        if jnp.shape(array) != jnp.shape(table):
            raise ValueError(
                f"expected_free_energy: got counts {k} of shape {jnp.shape(array)}; wanted "
                f"{jnp.shape(table)}, as the table."
            )
        counted = jnp.asarray(array)
        gains = count_divergence(counted)
        mean = counted / jnp.where(counted.sum(0) > 0, counted.sum(0), 1.0)
        found.append((mean * gains).sum(0) if averaged else gains)
    return tuple(found)
