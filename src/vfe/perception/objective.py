"""What perception minimises: E at a point, or F of a belief, as a function of one vector."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.averages import expected_energies, expected_terms
from vfe.beliefs import Point
from vfe.conditioning import Conditioned
from vfe.expectation import AbstractExpectation


class AbstractObjective(eqx.Module):
    """What perception minimises for one observation, as a function of one vector.

    A Laplace belief is sought as a Point: recognition dynamics descend E, and F is evaluated at the
    end.
    """

    conditioned: eqx.AbstractVar[Conditioned]
    expectation: eqx.AbstractVar[AbstractExpectation]
    key: eqx.AbstractVar[PRNGKeyArray]

    @abc.abstractmethod
    def belief(self, vector: Float[Array, " m"]) -> Any:
        """The belief with these parameters."""

    @abc.abstractmethod
    def value(self, vector: Float[Array, " m"]) -> Float[Array, ""]:
        """What is minimised, in nats."""

    def mean_energy(self, belief: Any) -> Float[Array, ""]:
        """⟨E⟩ under a belief."""
        c = self.conditioned
        energies = expected_energies(c, belief, self.expectation, self.key)
        return energies.total(c.weight, c.shared, c.nudge)

    def gradient(self, vector: Float[Array, " m"]) -> Float[Array, " m"]:
        """The derivative of what is minimised."""
        return jax.grad(self.value)(vector)

    def constant(self) -> Float[Array, ""]:
        """What `value` leaves out of E or F, in nats."""
        return jnp.zeros(())

    def evaluate(self, vector: Float[Array, " m"]) -> tuple[Float[Array, ""], Float[Array, " m"]]:
        """Its value and its derivative where a step ends."""
        return jax.value_and_grad(self.value)(vector)


class Objective(AbstractObjective):
    """F (or, for a Point, E) as a function of the belief's parameters λ."""

    conditioned: Conditioned
    expectation: AbstractExpectation
    key: PRNGKeyArray
    unravel: Callable[[Array], Any]

    def belief(self, vector: Float[Array, " m"]) -> Any:
        return self.unravel(vector)

    def value(self, vector: Float[Array, " m"]) -> Float[Array, ""]:
        c = self.conditioned
        terms = expected_terms(c, self.belief(vector), self.expectation, self.key)
        energy = terms.energies.total(c.weight, c.shared, c.nudge)
        if terms.entropies is None:
            return energy
        entropies = terms.entropies.items()
        return energy - sum(s.sum() * (1.0 if n in c.shared else c.weight) for n, s in entropies)


class ErrorObjective(AbstractObjective):
    """E, but for its constant, as a function of the standardised errors e, z = g(parents) + s ∘ e."""

    conditioned: Conditioned
    expectation: AbstractExpectation
    key: PRNGKeyArray

    def belief(self, vector: Float[Array, " n"]) -> Point:
        c = self.conditioned
        return Point(c.layout, c.push(c.layout.unpack(vector)))

    def value(self, vector: Float[Array, " n"]) -> Float[Array, ""]:
        return self.conditioned.error_energy_that_moves(vector)

    def constant(self) -> Float[Array, ""]:
        return self.conditioned.error_constant()


class LastObjective(AbstractObjective):
    """What is minimised, where no step will follow: of the place where the last one ends, only the value.

    The derivative there costs as much again, and nothing would go down along it. It reads zero, so that
    where two values agree up to rounding, the slope before the step decides.
    """

    inner: AbstractObjective
    conditioned: Conditioned
    expectation: AbstractExpectation
    key: PRNGKeyArray

    def __init__(self, inner: AbstractObjective) -> None:
        self.inner = inner
        self.conditioned, self.expectation, self.key = inner.conditioned, inner.expectation, inner.key

    def belief(self, vector: Float[Array, " m"]) -> Any:
        return self.inner.belief(vector)

    def value(self, vector: Float[Array, " m"]) -> Float[Array, ""]:
        return self.inner.value(vector)

    def constant(self) -> Float[Array, ""]:
        return self.inner.constant()

    def evaluate(self, vector: Float[Array, " m"]) -> tuple[Float[Array, ""], Float[Array, " m"]]:
        return self.value(vector), jnp.zeros_like(vector)


def pose_in_errors(
    conditioned: Conditioned, belief: Point, expectation: AbstractExpectation, key: PRNGKeyArray
) -> tuple[ErrorObjective, Float[Array, " n"]]:
    """E as a function of the errors, and those of the belief."""
    found = conditioned.errors(belief.location)
    parts = [found[n].reshape(-1) for n in conditioned.layout.names]
    vector = jnp.concatenate([*parts, jnp.zeros(0, belief.location.dtype)])
    return ErrorObjective(conditioned, expectation, key), vector


def pose(
    conditioned: Conditioned, belief: Any, expectation: AbstractExpectation, key: PRNGKeyArray
) -> tuple[Objective, Float[Array, " m"]]:
    """The objective for beliefs like this one, and its parameters as a vector."""
    vector, unravel = ravel_pytree(belief)
    return Objective(conditioned, expectation, key, unravel), vector
