"""Perception along the geodesic: steps in the natural parameters of a belief."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from vfe.beliefs import (
    Categorical,
    ConjugateBelief,
    DiagonalGaussian,
    JointGaussian,
    Laplace,
    MeanField,
    NodeGaussian,
)
from vfe.beliefs.gaussian import precision_of
from vfe.conditioning import Conditioned, Energies
from vfe.expectation import MonteCarlo
from vfe.perception.loop import AbstractBeliefSolver, Progress, attempt
from vfe.perception.objective import AbstractObjective


class Hessian(eqx.Module):
    """⟨∂²E/∂z²⟩ itself: may be indefinite away from the optimum, where steps are halved."""

    def average(self, objective: AbstractObjective, belief: Any) -> Float[Array, "n n"]:
        """The mean curvature of E under the belief."""

        def energy(location: Array) -> Array:
            return objective.mean_energy(_moved(belief, location))

        part = belief.continuous if isinstance(belief, MeanField) else belief
        return jax.hessian(energy)(part.location)


class GaussNewton(eqx.Module):
    """⟨Jᵀ J⟩ of all whitened prediction errors: never indefinite, and cheaper.

    For Gaussian hidden nodes, and Gaussian, Bernoulli or categorical observed ones. The optimum is
    the same: only the way there, and the covariance's last approximation, differ.

    **Arguments:** `samples`: how many draws the average takes where it is Monte Carlo (an even
    number; by default as many as F takes): the curvature varies less than E, and costs more.
    """

    samples: int | None = eqx.field(static=True, default=None)

    def average(self, objective: AbstractObjective, belief: Any) -> Float[Array, "n n"]:
        """The mean Gauss–Newton curvature of E under the belief."""
        c = objective.conditioned

        def errors(u: Array) -> Array:
            above = c.errors(u)
            parts = [above[s.name].reshape(-1) for s in c.layout.slots]
            return jnp.concatenate([*parts, jnp.zeros(0)]) * jnp.sqrt(c.multiplicity())

        def curvature(u: Array) -> Array:
            parts = [jax.jacfwd(errors)(u), *c.sensitivity(lambda u: u, u).values()]
            return sum(part.T @ part for part in parts)  # pyright: ignore[reportReturnType]

        found, _ = objective.expectation.average(curvature, belief, objective.key)
        return found


class NaturalGradient(AbstractBeliefSolver):
    """η ← η − ρ ∇_m F, η natural and m mean parameters of a belief: Gaussian, categorical, or both.

    Gaussian: precision ← (1 − ρ) precision + ρ ⟨∂²E/∂z²⟩, mean ← mean − ρ precision⁻¹ ⟨∂E/∂z⟩ (with
    the new precision). Categorical: logits_k ← (1 − ρ) logits_k − ρ ⟨E | k⟩. One step with ρ = 1 takes
    a full joint Gaussian to the posterior of a linear-Gaussian model, and a categorical node to that of
    a model in which it is the only hidden one. Several factors move at once, each as if the others
    stayed; a step that would raise F, or leave a precision indefinite, is halved.

    For `vfe.JointGaussian`, `vfe.NodeGaussian`, `vfe.DiagonalGaussian`, `vfe.Categorical`, and
    `vfe.MeanField` of them.

    **Arguments:** `step_size`: ρ, in (0, 1]; `curvature`: `vfe.Hessian()` (default) or
    `vfe.GaussNewton()`, which takes ⟨Jᵀ J⟩ for ⟨∂²E/∂z²⟩; `tries`: how many steps in a row may be
    refused, each halving ρ.

    **Example:** `vfe.perceive(model, data, belief=vfe.JointGaussian, solver=vfe.NaturalGradient())`.

    **Source:** Amari 1998; Khan and Rue 2021 (Bayesian learning rule), equation 11.
    """

    step_size: float = eqx.field(static=True, default=1.0)
    curvature: Any = Hessian()
    tries: int = eqx.field(static=True, default=8)

    @property
    def monotone(self) -> bool:
        return True

    def check(self, conditioned: Conditioned, belief: Any) -> None:
        gaussian = JointGaussian | NodeGaussian | DiagonalGaussian
        continuous = belief.continuous if isinstance(belief, MeanField) else belief
        if not isinstance(continuous, gaussian | Categorical | ConjugateBelief):
            raise ValueError(
                f"NaturalGradient moves Gaussian and categorical beliefs, and vfe.Conjugate: got a "
                f"{type(belief).__name__}; use vfe.JointGaussian, vfe.NodeGaussian, vfe.DiagonalGaussian, "
                "vfe.Categorical, vfe.MeanField or vfe.Conjugate()."
            )
        if isinstance(belief, MeanField) and not isinstance(self.curvature, Hessian):
            raise ValueError(
                "NaturalGradient: averages over discrete nodes want the whole curvature; got "
                f"{type(self.curvature).__name__}; use curvature=vfe.Hessian()."
            )
        if not 0 < self.step_size <= 1:
            raise ValueError(f"NaturalGradient: step_size must be in (0, 1]; got {self.step_size}.")

    def init(self, objective: AbstractObjective, vector: Float[Array, " m"]) -> Any:
        return jnp.asarray(self.step_size, vector.dtype), jnp.zeros((), int)

    def step(self, objective: AbstractObjective, progress: Progress) -> Progress:
        belief = objective.belief(progress.vector)
        rho, failures = progress.memory
        if isinstance(belief, Categorical):
            moved: Any = _categorical(objective, belief, rho)
        elif isinstance(belief, ConjugateBelief):
            moved = _conjugate(objective, belief, rho)
        elif isinstance(belief, MeanField):
            slope = objective.belief(progress.gradient).continuous.location
            moved = MeanField(
                self._gaussian(objective, belief, belief.continuous, slope, rho),
                _categorical(objective, belief, rho),
            )
        else:
            # The entropy does not depend on the location, so this part of ∂F/∂λ is ⟨∂E/∂z⟩.
            slope = objective.belief(progress.gradient).location
            moved = self._gaussian(objective, belief, belief, slope, rho)
        vector, _ = ravel_pytree(moved)
        kept, accepted = attempt(objective, progress, vector)
        rho = jnp.where(accepted, jnp.minimum(2 * rho, self.step_size), 0.5 * rho)
        failures = jnp.where(accepted, 0, failures + 1)
        stalled = (failures >= self.tries) | jnp.all(vector == progress.vector)
        return Progress(kept.vector, kept.value, kept.gradient, stalled, (rho, failures))

    def _gaussian(
        self, objective: AbstractObjective, whole: Any, part: Any, slope: Array, rho: Array
    ) -> Any:
        """The Gaussian part of a belief after a step."""
        layout = part.layout
        curvature = self.curvature.average(objective, whole)
        block = np.zeros(layout.size, int)
        for number, s in enumerate(layout.slots):
            block[s.where] = number
        if isinstance(part, DiagonalGaussian):
            block = np.arange(layout.size)
        if isinstance(part, JointGaussian):
            block = np.zeros(layout.size, int)
        same = block[:, None] == block[None, :]
        curvature = jnp.where(same, 0.5 * (curvature + curvature.T), 0.0)
        precision = (1 - rho) * precision_of(part) + rho * curvature
        new = Laplace.from_precision(layout, part.location, precision)
        factor = new.factor()
        change = factor @ (factor.T @ slope)
        return type(part).from_factor(layout, part.location - rho * change, factor)


def _categorical(objective: AbstractObjective, belief: Any, rho: Array) -> Categorical:
    """The discrete part of a belief after a step: ⟨E⟩ is multilinear in the probabilities, its mean
    parameters, and its derivative in those of one node is ⟨E⟩ with the node held at each state."""
    c = objective.conditioned
    discrete = belief.discrete if isinstance(belief, MeanField) else belief

    def energy(probabilities: dict[str, Array]) -> Array:
        def at(u: Array) -> Energies:
            return c.energies(u, probabilities=probabilities)

        if not isinstance(belief, MeanField):
            return at(jnp.zeros(0)).total(c.weight, c.shared, c.nudge)
        gaussian: Any = belief.continuous
        energies, _ = objective.expectation.average(at, gaussian, objective.key)
        return energies.total(c.weight, c.shared, c.nudge)

    costs = jax.grad(energy)(discrete.probabilities())
    logits = {}
    for name, old in discrete.logits.items():
        # Energy and entropy of a node of one observation count `weight` times.
        cost = costs[name] / (1.0 if name in c.shared else c.weight)
        logits[name] = jax.nn.log_softmax((1 - rho) * jax.nn.log_softmax(old, -1) - rho * cost, -1)
    return Categorical(logits, discrete.order)


def _conjugate(objective: AbstractObjective, belief: ConjugateBelief, rho: Array) -> ConjugateBelief:
    """The belief after a step: E regressed on the statistics, over the draws that F is averaged over."""
    c, expectation = objective.conditioned, objective.expectation
    if not isinstance(expectation, MonteCarlo):
        raise ValueError(
            "NaturalGradient: averages under vfe.Conjugate() are taken over draws: got expectation="
            f"{type(expectation).__name__}(); wanted vfe.MonteCarlo(...)."
        )
    u = belief.draws(objective.key, expectation.samples).coordinates[:, 0, 0]

    # Energy and entropy of a node of one observation count `weight` times.
    times = belief.by_statistic({n: 1.0 if n in c.shared else c.weight for n in belief.names})
    cost = belief.slopes(u, jax.vmap(c.energy)(u)) / times + belief.jacobian
    return belief.with_natural((1 - rho) * belief.natural() - rho * cost)


def _moved(belief: Any, location: Array) -> Any:
    if isinstance(belief, MeanField):
        return eqx.tree_at(lambda b: b.continuous.location, belief, location)
    return eqx.tree_at(lambda b: b.location, belief, location)
