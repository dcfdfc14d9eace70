"""Closed forms, chosen by declared type: posteriors, evidence, marginals, optimal mean-field beliefs."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vfe.beliefs import (
    LOG_2PI,
    AbstractBelief,
    AbstractGaussian,
    DiagonalGaussian,
    EnumeratedBelief,
    JointGaussian,
    Laplace,
    NodeGaussian,
)
from vfe.conditioning import Conditioned, Layout, condition
from vfe.declared import (
    has_tables_only,
    is_quadratic,
    why_not_discrete,
    why_not_linear_gaussian,
    why_not_quadratic,
)
from vfe.elimination import eliminate
from vfe.model import Model

LARGEST_ENUMERATION = 4096


def quadratic_form(conditioned: Conditioned) -> tuple[Array, Array]:
    """The minimiser and the (constant) curvature of an energy declared quadratic."""
    curvature = jax.hessian(conditioned.energy)(jnp.zeros(conditioned.layout.size))
    curvature = 0.5 * (curvature + curvature.T)
    factor = jax.scipy.linalg.cho_factor(curvature)
    mode = jnp.zeros(conditioned.layout.size)
    for _ in range(2):  # the second step removes the rounding of the first
        mode = mode - jax.scipy.linalg.cho_solve(factor, jax.grad(conditioned.energy)(mode))
    return mode, curvature


def solve(conditioned: Conditioned) -> tuple[AbstractBelief, Float[Array, ""]]:
    """The exact posterior of one observation, and ln p(x)."""
    if not conditioned.layout.size:
        return eliminate(conditioned)
    if conditioned.discrete:
        node, states = next(iter(conditioned.discrete.items()))
        inner, logs = eqx.filter_vmap(lambda k: solve(conditioned.clamp(node, k)))(jnp.arange(states))
        evidence = jax.nn.logsumexp(logs)
        return EnumeratedBelief(node, logs - evidence, inner), evidence
    mode, curvature = quadratic_form(conditioned)
    belief = Laplace.from_precision(conditioned.layout, mode, curvature)
    log_evidence = -conditioned.energy(mode) + belief.log_diagonal().sum() + 0.5 * mode.size * LOG_2PI
    return JointGaussian.from_factor(conditioned.layout, mode, belief.factor()), log_evidence


def why_not_exact(conditioned: Conditioned) -> str | None:
    """Why there is no closed form; None where there is one."""
    if not conditioned.hidden:
        return None
    if not conditioned.layout.size:
        return why_not_discrete(conditioned)
    joint = int(np.prod(list(conditioned.discrete.values()), dtype=object))
    if joint > LARGEST_ENUMERATION:
        return (
            f"the discrete nodes above the continuous ones have {joint:,} joint states "
            f"(the limit is {LARGEST_ENUMERATION:,})"
        )
    if conditioned.discrete and conditioned.repeats is not None:
        return "latents are shared by all observations, and some nodes are discrete"
    return why_not_quadratic(conditioned)


def require_exact(conditioned: Conditioned) -> None:
    """Raise where there is no closed form, with the reason."""
    reason = why_not_exact(conditioned)
    if reason is not None:
        raise ValueError(
            f"exact: no closed form, because {reason}. Use vfe.perceive, or vfe.log_evidence for an "
            "estimate of ln p(x)."
        )
    if not conditioned.hidden:
        raise ValueError("exact: every node is observed, so nothing is left to infer.")


@eqx.filter_jit
def _solve_all(conditioned: Conditioned) -> tuple[AbstractBelief, Array]:
    return conditioned.over(solve)


def posterior(model: Model, observed: Mapping[str, Any]) -> AbstractBelief:
    """p(z | x) in closed form, with the leading axes of the data.

    A `JointGaussian` for linear-Gaussian graphs, a `JointCategorical` for discrete ones (by variable
    elimination), an `EnumeratedBelief` where discrete nodes select among linear-Gaussian graphs.

    **Raises:** `ValueError` that names the node in the way, or the size that is too large.

    **Example:** `vfe.exact.posterior(model, {"x": x})["z"].mean`.
    """
    conditioned, batch = condition(model, observed)
    require_exact(conditioned)
    belief, _ = _solve_all(conditioned)
    if conditioned.repeats is not None:
        return belief
    return jax.tree.map(lambda a: a.reshape(*batch, *a.shape[1:]), belief)


def log_evidence(model: Model, observed: Mapping[str, Any]) -> Float[Array, "*batch"]:
    """ln p(x) in nats, in closed form (of the whole data set where latents are shared).

    **Raises:** as `posterior`.

    **Example:** `-vfe.exact.log_evidence(model, {"x": x})` is the surprise.
    """
    conditioned, batch = condition(model, observed)
    if not conditioned.hidden:
        values = conditioned.over(lambda c: -c.energy(jnp.zeros(0)))
        return values.reshape(batch)
    require_exact(conditioned)
    _, logs = _solve_all(conditioned)
    return logs if conditioned.repeats is not None else logs.reshape(batch)


def mean_field(
    model: Model,
    observed: Mapping[str, Any],
    family: type[NodeGaussian] | type[DiagonalGaussian] = NodeGaussian,
) -> AbstractGaussian:
    """The best factorised belief of a linear-Gaussian posterior.

    Means are the posterior's; covariances are the inverses of the diagonal (blocks) of its precision.

    **Example:** `vfe.exact.mean_field(model, {"x": x}, vfe.DiagonalGaussian)`.

    **Source:** Bishop 2006, section 10.1.2.
    """
    conditioned, batch = condition(model, observed)
    require_exact(conditioned)
    if conditioned.discrete or not is_quadratic(conditioned):
        raise ValueError("mean_field: a closed form exists for linear-Gaussian graphs only.")
    found = _mean_field_all(conditioned, family)
    if conditioned.repeats is not None:
        return found
    return jax.tree.map(lambda a: a.reshape(*batch, *a.shape[1:]), found)


@eqx.filter_jit
def _mean_field_all(
    conditioned: Conditioned, family: type[NodeGaussian] | type[DiagonalGaussian]
) -> AbstractGaussian:
    def one(c: Conditioned) -> AbstractGaussian:
        mode, curvature = quadratic_form(c)
        block = np.zeros(c.layout.size, int)
        for number, s in enumerate(c.layout.slots):
            block[s.where] = number if family is NodeGaussian else np.arange(s.stop - s.start) + s.start
        kept = jnp.where(block[:, None] == block[None, :], curvature, 0.0)
        factor = Laplace.from_precision(c.layout, mode, kept).factor()
        return family.from_factor(c.layout, mode, factor)

    return conditioned.over(one)


def marginal(
    model: Model, node: str, *, given: Mapping[str, Any] | None = None
) -> AbstractGaussian | Float[Array, " states"]:
    """p(node), running down from the top: p(z_i) = Σ p(z_i | z_{i+1}) p(z_{i+1}).

    **Arguments:** `given`: values of the inputs the node depends on, for one observation.

    **Returns:** a `JointGaussian` over the node in a linear-Gaussian graph; the probabilities of its
    states in a graph of tables.

    **Raises:** `ValueError` for other models.

    **Source:** equation (8) of the essay, in the generative direction.
    """
    info = model.describe(node)
    if info.discrete and info.states is not None:
        reason = has_tables_only(model)
        if reason is not None:
            raise ValueError(f"marginal: no closed form, because {reason}.")
        above = model.ancestors((node,))
        small = Model(**{n: model.nodes[n] for n in model.order if n in above})
        inputs = {n: jnp.asarray(v) for n, v in (given or {}).items() if n in above}
        joint = Conditioned(
            small,
            inputs,
            {},
            {},
            jnp.asarray(1.0),
            tuple(n for n in small.order if n not in inputs),
            (),
            (),
            (),
            None,
        )
        belief, _ = eliminate(joint)
        return belief[node].probabilities
    reason = why_not_linear_gaussian(model)
    if reason is not None:
        raise ValueError(f"marginal: no closed form, because {reason}.")
    above = model.ancestors((node,))
    inputs = {n: jnp.asarray(v, float) for n, v in (given or {}).items()}
    prior = Conditioned(
        model,
        inputs,
        {},
        {},
        jnp.asarray(1.0),
        tuple(i.name for i in model.info if i.name in above and not i.given),
        (),
        (),
        tuple(i.name for i in model.info if i.name not in above and not i.given),
        None,
    )
    shapes = {s.name: s.shape for s in prior.layout.slots}
    flat = Layout.of([(n, shape, model.describe(n).support, False) for n, shape in shapes.items()])

    def values(errors: Array) -> Array:
        return prior.push(flat.unpack(errors))[prior.layout.slot(node).where]

    zero = jnp.zeros(flat.size)
    mixing = jax.jacobian(values)(zero)
    layout = Layout.of([(node, info.shape, info.support, False)])
    factor = jnp.linalg.cholesky(mixing @ mixing.T)
    return JointGaussian.from_factor(layout, values(zero), factor)


def recognition_marginal(model: Model, observed: Mapping[str, Any], node: str) -> Any:
    """p(node | x), running up from the senses: what equation (8) gives for one x.

    Over the population of inputs it averages to `marginal`.
    """
    return posterior(model, observed)[node]


__all__ = [
    "log_evidence",
    "marginal",
    "mean_field",
    "posterior",
    "recognition_marginal",
]
