"""How well the data determine what was learned: the posterior of the parameters, by Laplace."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.beliefs import (
    DiagonalGaussian,
    EnumeratedBelief,
    JointCategorical,
    JointGaussian,
    Laplace,
    NodeGaussian,
    Point,
)
from vfe.conditioning import Conditioned, condition
from vfe.exact import solve, why_not_exact
from vfe.expectation import AbstractExpectation
from vfe.free_energy import default_expectation, free_energy_of
from vfe.learning.learned import Learned
from vfe.learning.trainable import is_amortised, trainable
from vfe.model import Model
from vfe.perception.exact_solver import Exact
from vfe.perception.objective import pose
from vfe.perception.perceive import perceive

LARGEST = 4096
NEWTON_STEPS = 2
COLUMNS = 16


class ParameterUncertainty(eqx.Module):
    """The Gaussian approximation N(θ̂, covariance) to the posterior of the parameters.

    `mean` (n,): θ̂, the values learned; `covariance` (n, n); `names`: of the n numbers, in order, such
    as `x.mean.weight[0, 1]`; `sd`: the standard deviations, a model with None where nothing was
    picked; `gradient` (n,): ∂F/∂θ at θ̂; `remaining`: ½ gᵀ H⁻¹ g, how many nats F would still fall to
    the optimum of its quadratic approximation: well below one where learning has converged. Every
    parameter in its own units: precisions as log-precisions, positive factors as logarithms.
    """

    mean: Float[Array, " n"]
    covariance: Float[Array, "n n"]
    sd: Any
    gradient: Float[Array, " n"]
    remaining: Float[Array, ""]
    names: tuple[str, ...] = eqx.field(static=True)

    def __repr__(self) -> str:
        spread = np.sqrt(np.diag(np.asarray(self.covariance)))
        rows = [f"  {n}: {m:.4g} ± {s:.2g}" for n, m, s in zip(self.names, self.mean, spread, strict=True)]
        more = [f"  … and {len(rows) - 20} more"] if len(rows) > 20 else []
        return "\n".join(["ParameterUncertainty (standard deviations):", *rows[:20], *more])


def parameter_uncertainty(
    learned: Learned | Model,
    observed: Mapping[str, Any],
    *,
    where: Callable[[Model], Any] | None = None,
    belief: Any = None,
    solver: Any = None,
    expectation: AbstractExpectation | None = None,
    prior_precision: Any = None,
    max_steps: int = 500,
    key: PRNGKeyArray | None = None,
) -> ParameterUncertainty:
    """The posterior of the parameters about their learned values, in Laplace's approximation.

    covariance = (Π + H)⁻¹, H = d²/dθ² Σ_n F_n(q*(θ), θ): the curvature of the total F over the data,
    with beliefs that follow the parameters (q* is perceived anew, implicitly). Where q* is the exact
    posterior, H is the observed information.

    **Arguments:**

    - `learned`: what `vfe.learn` returned, or a model; `observed`: the data it was learned from.
    - `where`: the leaves, as in `vfe.learn` (by default, everything that learning would change).
    - `belief`, `solver`, `expectation`, `max_steps`, `key`: as in `vfe.perceive`; by default the
      exact posterior where there is one.
    - `prior_precision`: Π of a Gaussian prior about the learned values: a scalar, (n,) or (n, n).

    **Returns:** a `ParameterUncertainty`.

    **Raises:** `ValueError` where the curvature is not positive definite (the values are no minimum,
    or the data leave a direction free), for beliefs without an F, and for too many parameters;
    `DivergenceError` as `vfe.perceive`. Warns where F could still fall by half a nat or more.

    **Example:**
    ```python
    x = jnp.asarray([[1.0], [2.0], [3.0], [6.0]])
    model = vfe.Model(x=vfe.gaussian(vfe.learnable([3.0]), scale=2.0))
    vfe.parameter_uncertainty(model, {"x": x}).covariance  # σ²/N = [[1.]]
    ```

    **Source:** MacKay 1992; Friston et al. 2007 (the Laplace approximation).
    """
    model = learned.model if isinstance(learned, Learned) else learned
    if not isinstance(model, Model):
        raise TypeError(
            f"parameter_uncertainty: got {type(model).__name__}; wanted a vfe.Model, or what vfe.learn "
            "returned."
        )
    key = jax.random.key(0) if key is None else key
    chosen, fixed = eqx.partition(model, trainable(model, where))
    mean, unravel = ravel_pytree(chosen)
    if mean.size > LARGEST:
        raise ValueError(
            f"parameter_uncertainty: {mean.size:,} parameters want a matrix of {mean.size**2:,} numbers "
            f"(the limit is {LARGEST:,} parameters); pick fewer with where=."
        )
    conditioned, _ = condition(model, observed)
    found, whole = _beliefs(learned, conditioned, observed, belief, solver, expectation, max_steps, key)
    gradient, curvature = _curvature(conditioned, chosen, fixed, found, expectation, key, whole)
    names = _names(chosen)
    if prior_precision is not None:
        prior = jnp.asarray(prior_precision, mean.dtype)
        curvature = curvature + (prior if prior.ndim == 2 else prior * jnp.eye(mean.size))
    covariance = _inverse(np.asarray(curvature), names)
    remaining = 0.5 * gradient @ covariance @ gradient
    if float(remaining) > 0.5:
        warnings.warn(
            f"parameter_uncertainty: F would still fall by about {float(remaining):.3g} nats from these "
            "values, so they are not its minimum; learn for longer first.",
            stacklevel=2,
        )
    sd = unravel(jnp.sqrt(jnp.diag(covariance)))
    return ParameterUncertainty(mean, covariance, sd, gradient, remaining, names)


def _beliefs(
    learned: Learned | Model,
    conditioned: Conditioned,
    observed: Mapping[str, Any],
    belief: Any,
    solver: Any,
    expectation: AbstractExpectation | None,
    max_steps: int,
    key: PRNGKeyArray,
) -> tuple[Any, bool]:
    """The beliefs at the learned values (one leading axis), and whether there is a closed form."""
    family = belief
    if belief is None and isinstance(learned, Learned) and not is_amortised(learned.family):
        family = learned.family
    closed = why_not_exact(conditioned) is None
    if closed and ((belief is None and solver is None) or isinstance(solver, Exact)):
        return None, True
    if family is Point or is_amortised(family):
        raise ValueError(
            "parameter_uncertainty: wanted a belief that minimises F by itself and has an entropy; use "
            "belief=vfe.Laplace or a Gaussian belief."
        )
    model = learned.model if isinstance(learned, Learned) else learned
    percept = perceive(
        model,
        observed,
        belief=family,
        solver=solver,
        expectation=expectation,
        max_steps=max_steps,
        key=key,
    )
    found = percept.belief
    if isinstance(found, JointCategorical):
        return None, True
    if conditioned.repeats is None:
        axes, count = len(percept.batch), int(np.prod(percept.batch, dtype=int))
        found = jax.tree.map(lambda a: a.reshape(count, *a.shape[axes:]), found)
    return found, False


@eqx.filter_jit
def _curvature(
    conditioned: Conditioned,
    chosen: Any,
    fixed: Any,
    beliefs: Any,
    expectation: AbstractExpectation | None,
    key: PRNGKeyArray,
    closed: bool,
) -> tuple[Array, Array]:
    """Gradient and Hessian of the total F, beliefs following."""
    mean, unravel = ravel_pytree(chosen)

    def one(c: Conditioned, belief: Any) -> Array:
        if not c.hidden:
            return c.energy(jnp.zeros(0))
        return -solve(c)[1] if closed else _followed(c, belief, expectation, key)

    def total(vector: Array) -> Array:
        live = eqx.tree_at(lambda c: c.model, conditioned, eqx.combine(unravel(vector), fixed))
        return jnp.sum(live.over(one, beliefs))

    slope = jax.grad(total)

    def column(direction: Array) -> Array:
        return jax.jvp(slope, (mean,), (direction,))[1]

    rows = jax.lax.map(column, jnp.eye(mean.size), batch_size=min(COLUMNS, mean.size))
    return slope(mean), 0.5 * (rows + rows.T)


def _followed(
    c: Conditioned, belief: Any, expectation: AbstractExpectation | None, key: PRNGKeyArray
) -> Array:
    """F of the belief that minimises it, as a function of the parameters.

    Newton steps from the minimiser leave it where it is; as functions of the parameters, k of them
    have its derivatives up to order 2ᵏ − 1.
    """
    if isinstance(belief, EnumeratedBelief):
        states = jnp.arange(c.discrete[belief.node])

        def held(state: Array, inner: Any) -> Array:
            return _followed(c.clamp(belief.node, state), inner, expectation, key)

        return -jax.nn.logsumexp(-eqx.filter_vmap(held)(states, belief.conditional))
    if not isinstance(belief, Laplace | JointGaussian | NodeGaussian | DiagonalGaussian):
        raise ValueError(
            f"parameter_uncertainty: the curvature through a {type(belief).__name__} is not known; use "
            "belief=vfe.Laplace or a Gaussian belief."
        )
    how = expectation or default_expectation(c, belief)
    target = Point(belief.layout, belief.location) if isinstance(belief, Laplace) else belief
    objective, vector = pose(c, jax.lax.stop_gradient(target), how, key)
    for _ in range(NEWTON_STEPS):
        change = jnp.linalg.solve(jax.hessian(objective.value)(vector), objective.gradient(vector))
        vector = vector - change
    if isinstance(belief, Laplace):
        curvature = jax.hessian(c.energy)(vector)
        final: Any = Laplace.from_precision(belief.layout, vector, 0.5 * (curvature + curvature.T))
    else:
        final = objective.belief(vector)
    return free_energy_of(c, final, how, key).total


def _names(chosen: Any) -> tuple[str, ...]:
    names = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(chosen):
        text = jax.tree_util.keystr(path, simple=True, separator=".").removeprefix("nodes.")
        for index in np.ndindex(jnp.shape(leaf)):
            names.append(text + (str(list(index)) if index else ""))
    return tuple(names)


def _inverse(curvature: np.ndarray, names: tuple[str, ...]) -> Array:
    """The inverse of a curvature, or an error that says which way F is not curved upward."""
    if not np.isfinite(curvature).all():
        raise ValueError("parameter_uncertainty: the curvature of F is not finite at these values.")
    scale = np.sqrt(np.maximum(np.abs(np.diag(curvature)), np.finfo(curvature.dtype).tiny))
    values, directions = np.linalg.eigh(curvature / np.outer(scale, scale))
    least = values[0]
    if least <= 10 * len(names) * np.finfo(curvature.dtype).eps * max(values[-1], 1.0):
        order = np.argsort(-np.abs(directions[:, 0]))[:3]
        word = "falls" if least < 0 else "is flat"
        raise ValueError(
            "parameter_uncertainty: the curvature of F is not positive definite (least eigenvalue "
            f"{least:.3g} after scaling): F {word} along {', '.join(names[i] for i in order)}. Learn for "
            "longer where F has not settled; where the model has a symmetry (latents that can be "
            "rotated or scaled), pick fewer leaves with where=, or give prior_precision=."
        )
    inverse = (directions / values) @ directions.T / np.outer(scale, scale)
    return jnp.asarray(inverse)
