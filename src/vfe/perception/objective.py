"""What perception minimises: E at a point, or F of a belief, as a function of one vector."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.beliefs import Point
from vfe.conditioning import Conditioned
from vfe.expectation import AbstractExpectation
from vfe.free_energy import expected_energies


class Objective(eqx.Module):
    """F (or, for a Point, E) of one observation, as a function of the belief's parameters λ.

    A Laplace belief is sought as a Point: recognition dynamics descend E, and F is evaluated at the
    end (THEORY, section 4).
    """

    conditioned: Conditioned
    expectation: AbstractExpectation
    key: PRNGKeyArray
    unravel: Callable[[Array], Any]

    def belief(self, vector: Float[Array, " m"]) -> Any:
        """The belief with these parameters."""
        return self.unravel(vector)

    def value(self, vector: Float[Array, " m"]) -> Float[Array, ""]:
        """What is minimised, in nats."""
        return self.of_belief(self.belief(vector))

    def of_belief(self, belief: Any) -> Float[Array, ""]:
        """What is minimised, for a belief."""
        energy = self.mean_energy(belief)
        if isinstance(belief, Point):
            return energy
        c = self.conditioned
        entropies = belief.entropies()
        entropy = sum(s.sum() * (1.0 if n in c.shared else c.weight) for n, s in entropies.items())
        return energy - entropy

    def mean_energy(self, belief: Any) -> Float[Array, ""]:
        """⟨E⟩ under a belief."""
        c = self.conditioned
        energies, _ = expected_energies(c, belief, self.expectation, self.key)
        return energies.total(c.weight, c.shared)

    def gradient(self, vector: Float[Array, " m"]) -> Float[Array, " m"]:
        """∂F/∂λ."""
        return jax.grad(self.value)(vector)


def pose(
    conditioned: Conditioned, belief: Any, expectation: AbstractExpectation, key: PRNGKeyArray
) -> tuple[Objective, Float[Array, " m"]]:
    """The objective for beliefs like this one, and its parameters as a vector."""
    vector, unravel = ravel_pytree(belief)
    return Objective(conditioned, expectation, key, unravel), vector
