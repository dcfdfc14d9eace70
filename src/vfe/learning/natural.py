"""Learning along the geodesic: the gradient in the metric of the model's Fisher information."""

import math
from collections.abc import Callable
from typing import Any

import jax
import optax
from jaxtyping import Array, PRNGKeyArray

from vfe.averages import expected_energies
from vfe.beliefs import GaussNewtonLaplace
from vfe.conditioning import Conditioned
from vfe.conditioning.divergences import divergences
from vfe.declared import is_quadratic
from vfe.expectation import MonteCarlo, Taylor
from vfe.free_energy import default_expectation
from vfe.learning.perceiving import renewed
from vfe.learning.plan import Plan
from vfe.model import Model


def natural_descent(
    rate: float = 1.0, *, damping: float = 0.0, steps: int = 100, tolerance: float = 1e-6
) -> optax.GradientTransformationExtraArgs:
    """θ ← θ − rate · d, (G + damping · I) d = ∂F/∂θ: steps along the natural gradient, for `vfe.learn`.

    G = Σ_i ⟨Fisher information of p(node_i | parents)⟩_q, per observation: how fast the model's
    conditionals part as θ moves, their parents as they are believed to be. Solved by conjugate gradients,
    each step of which costs about two derivatives of F; no matrix of the parameters' number squared is
    made. The flow (rate → 0) goes the same way in all parametrisations, finite steps do not. One step with
    rate 1 solves for weight and bias of a Gaussian node with `vfe.Affine` mean at fixed precision and
    fixed beliefs. In gamma or Dirichlet priors, scales and logits it is Fisher scoring.

    **Arguments:** `rate`; `damping`: added to G (in units of the parametrisation chosen), for parameters
    some direction of which changes no conditional; `steps`, `tolerance`: conjugate gradients stop after so
    many steps (then short of the natural gradient, but on a way on which F falls), or where what is left is
    this share of ∂F/∂θ. An optax transformation: `optax.chain` it
    with others.

    **Raises:** `ValueError` for settings out of range; when learning, for nodes whose Fisher information
    is not known (Gaussian, Bernoulli, categorical, gamma and Dirichlet are), and for beliefs or gradients
    it is not defined for: amortised ones, `vfe.GaussNewtonLaplace`, `vfe.CentredNudging`, a
    `vfe.Contrast`.

    **Example:** `vfe.learn(model, {"x": x}, optimiser=vfe.natural_descent(), epochs=3)`.

    **Source:** Amari 1998; Martens 2020 (Fisher and Gauss–Newton, conjugate gradients).
    """
    finite = all(math.isfinite(number) for number in (rate, damping, tolerance))
    whole = type(steps) is int and steps >= 1
    if not (finite and whole and rate > 0 and damping >= 0 and tolerance >= 0):
        raise ValueError(
            f"natural_descent: got rate={rate}, damping={damping}, steps={steps}, tolerance={tolerance}; "
            "wanted a positive rate, a whole number of steps, and no negative number."
        )

    def init(params: Any) -> optax.EmptyState:
        return optax.EmptyState()

    def update(updates: Any, state: Any, params: Any = None, *, fisher: Any = None, **more: Any) -> Any:
        if fisher is None:
            raise ValueError("natural_descent: an optimiser of vfe.learn, which tells it the metric.")
        metric: Callable[[Any], Any] = fisher()

        def product(direction: Any) -> Any:
            return jax.tree.map(lambda g, d: g + damping * d, metric(direction), direction)

        direction, _ = jax.scipy.sparse.linalg.cg(product, updates, tol=tolerance, maxiter=steps)
        return jax.tree.map(lambda d: -rate * d, direction), state

    return optax.GradientTransformationExtraArgs(init, update)


def expected_divergence(
    plan: Plan, c: Conditioned, other: Model, names: tuple[str, ...], belief: Any, key: PRNGKeyArray
) -> Array:
    """Σ_i ⟨KL(p(node_i | parents) ‖ p_other(node_i | parents))⟩_q of one observation, in nats."""
    expectation = plan.settings.expectation or default_expectation(c, belief)
    if isinstance(expectation, Taylor) and not is_quadratic(c):
        # An expansion of the second order may give a metric that is not positive.
        expectation = MonteCarlo()

    def of(here: Conditioned, u: Array, weigh: Any = None, probabilities: Any = None) -> Any:
        return divergences(here, other, names, u, weigh, probabilities)

    found = expected_energies(c, belief, expectation, key, of)
    return found.total(c.weight, c.shared)


def metric(
    plan: Plan,
    data: Conditioned,
    held: Any,
    keys: tuple[PRNGKeyArray, PRNGKeyArray],
    learned: Any,
    model_of: Callable[[Any], Model],
    mean: Callable[[Array], Array],
) -> Callable[[Any], Any]:
    """G at `learned` as a linear function: the second derivative of the mean divergence.

    `held`: the beliefs; `model_of`: the model of parameters; `mean`: over observations, as of F.

    **Raises:** `ValueError` where beliefs are kept as modes whose curvature follows.
    """
    if plan.family is GaussNewtonLaplace:
        raise ValueError(
            "natural_descent: not for vfe.GaussNewtonLaplace, of whose beliefs learning keeps the modes; "
            "use belief=vfe.Laplace, or another optimiser."
        )
    nodes = learned[0].nodes
    names = tuple(n for n in nodes if jax.tree.leaves(nodes[n]))

    def apart(parameters: Any) -> Array:
        other = model_of(parameters)

        def one(c: Conditioned, k: PRNGKeyArray, r: PRNGKeyArray, belief: Any) -> Array:
            return expected_divergence(plan, renewed(plan, c, r), other, names, belief, k)

        return mean(data.over(one, *keys, held))

    _, along = jax.linearize(jax.grad(apart), learned)
    return along
