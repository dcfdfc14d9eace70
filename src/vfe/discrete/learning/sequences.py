"""How often the entries of tables are used in whole sequences, in expectation."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vfe.discrete.course import Course
from vfe.discrete.pomdp import POMDP
from vfe.discrete.states.forward_backward import run_forward

Tables = tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]


def expected_counts(model: POMDP, course: Course) -> tuple[Float[Array, ""], Tables]:
    """ln of the mass of all sequences, and how often each entry of A, B and D was used, in expectation.

    Z = Σ over paths of Π D Π A Π B, p(o) where the columns of the tables sum to one, which they need not;
    ⟨n⟩ = θ ∂ ln Z / ∂θ.

    **Arguments:** `course`: of many sequences (batch, time, …).

    **Example:** `expected_counts(model, course)[1][0][0]`, for A[0].

    **Source:** Baum, Petrie, Soules and Weiss 1970, by the derivative of ln Z (Eisner 2016, "Inside-outside
    and forward-backward algorithms are just backprop").
    """

    def total(tables: Tables) -> Array:
        with_tables = eqx.tree_at(lambda m: (m.A, m.B, m.D), model, tables)

        def one(course: Course) -> Array:
            surprise = run_forward(with_tables, course).surprise
            return -jnp.where(course.present, surprise, 0.0).sum()

        return jax.vmap(one)(course).sum()

    tables: Tables = jax.tree.map(jnp.asarray, (model.A, model.B, model.D))
    mass, slopes = jax.value_and_grad(total)(tables)
    return mass, jax.tree.map(jnp.multiply, tables, slopes)
