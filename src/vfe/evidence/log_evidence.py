"""log_evidence: ln p(x) in closed form where there is one, else estimated with its standard error."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import PRNGKeyArray

from vfe.beliefs import AbstractBelief, Amortised
from vfe.conditioning import Conditioned, condition
from vfe.evidence.importance_sampling import ImportanceSampling
from vfe.evidence.method import MOST_STATES, PARTICLES_AT_ONCE, AbstractEvidenceMethod, Pair
from vfe.exact import log_evidence as exact_log_evidence
from vfe.exact import why_not_exact
from vfe.free_energy import Estimate, align, leading_axes
from vfe.model import Model
from vfe.perception import Percept, perceive

UNRELIABLE = 0.4


def log_evidence(
    model: Model,
    observed: Mapping[str, Any],
    *,
    method: AbstractEvidenceMethod | None = None,
    belief: Any = None,
    key: PRNGKeyArray | None = None,
) -> Estimate:
    """ln p(x) in nats: in closed form where there is one, else estimated, with its standard error.

    The average weight is unbiased for p(x), so its logarithm is *low in expectation* (by about half
    the squared standard error): a divergence F + ln p(x) computed from it is a lower estimate. The
    effective number of samples is 1 / (standard_error² + 1/S).

    **Arguments:**

    - `observed`: as in `vfe.perceive`; NaN is missing.
    - `method`: `vfe.ImportanceSampling(...)` or `vfe.AnnealedImportanceSampling(...)`; by default the
      closed form (standard error 0), else importance sampling.
    - `belief`: where to draw from, or to start annealing: a belief, a `vfe.Percept`, a family such as
      `vfe.JointGaussian` (then perceived first). By default importance sampling perceives, and
      annealing starts from the prior.
    - `key`: a fixed one by default.

    **Returns:** an `Estimate` with the leading axes of the data (one number where latents are shared).

    **Raises:** `ValueError` for data or beliefs that do not fit, or too many discrete states; a
    `UserWarning` where the weights rest on so few samples that the estimate is probably low.

    **Example:**
    ```python
    estimate = vfe.log_evidence(model, {"x": x}, method=vfe.AnnealedImportanceSampling())
    estimate.value, estimate.standard_error
    percept.free_energy.divergence(estimate)
    ```

    **Source:** Neal 2001.
    """
    conditioned, batch = condition(model, observed)
    if method is not None and not isinstance(method, AbstractEvidenceMethod):
        raise TypeError(
            f"log_evidence: got {type(method).__name__} for a method; wanted vfe.ImportanceSampling() or "
            "vfe.AnnealedImportanceSampling(), or None for the closed form where there is one."
        )
    if not conditioned.hidden or (method is None and why_not_exact(conditioned) is None):
        value = exact_log_evidence(model, observed)
        return Estimate(value, jnp.zeros_like(value))
    method = ImportanceSampling() if method is None else method
    key = jax.random.key(0) if key is None else key
    if isinstance(belief, Percept):
        belief = belief.belief
    elif belief is None:
        belief = method.fit(model, observed)
    elif not isinstance(belief, AbstractBelief | Amortised):
        belief = perceive(model, observed, belief=belief).belief
    count = int(np.prod(batch, dtype=int))
    if isinstance(belief, Amortised):
        start = belief.start
        belief = conditioned.over(lambda c: start(c, key))
    elif belief is not None:
        belief = _spread(belief, conditioned, batch, count)
    value, error = _estimate_all(method, conditioned, belief, key, count)
    if conditioned.repeats is None:
        value, error = value.reshape(batch), error.reshape(batch)
    if not isinstance(error, Tracer):
        poor = int(np.sum(np.asarray(error) > UNRELIABLE))
        if poor:
            warnings.warn(
                f"log_evidence: {poor} of {np.size(error)} estimates have a standard error above "
                f"{UNRELIABLE} nats: a few weights outweigh the rest, and the values are probably low. "
                "Use more samples (chains, temperatures), a better belief, or "
                "method=vfe.AnnealedImportanceSampling().",
                stacklevel=2,
            )
    return Estimate(value, error)


def _spread(belief: Any, conditioned: Conditioned, batch: tuple[int, ...], count: int) -> Any:
    """The belief checked, with one entry per observation."""
    belief = align(belief, conditioned)
    lead = leading_axes(belief)
    if conditioned.repeats is not None:
        return belief
    if lead not in ((), batch):
        raise ValueError(f"log_evidence: the belief has leading axes {lead} and the data {batch}.")
    if not lead:
        return jax.tree.map(lambda a: jnp.broadcast_to(a, (count, *a.shape)), belief)
    return jax.tree.map(lambda a: a.reshape(count, *a.shape[len(lead) :]), belief)


@eqx.filter_jit
def _estimate_all(
    method: AbstractEvidenceMethod, conditioned: Conditioned, belief: Any, key: PRNGKeyArray, count: int
) -> Pair:
    """Every observation in turn, as many together as memory allows."""
    if conditioned.repeats is not None:
        return method.estimate(conditioned, belief, key)

    def one(inputs: Any) -> Pair:
        observed, masks, belief, key = inputs
        held = dataclasses.replace(conditioned, observed=observed, masks=masks)
        return method.estimate(held, belief, key)

    states = int(np.prod(list(conditioned.discrete.values()), dtype=object))
    together = max(1, PARTICLES_AT_ONCE // (method.particles * min(states, MOST_STATES)))
    inputs = (conditioned.observed, conditioned.masks, belief, jax.random.split(key, count))
    return jax.lax.map(one, inputs, batch_size=min(together, count))
