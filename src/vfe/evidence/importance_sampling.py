"""ln p(x) by importance sampling: draws around a fitted belief, weighed."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from vfe.beliefs import LOG_2PI, AbstractDiscrete, AbstractDrawn, EnumeratedBelief
from vfe.conditioning import Conditioned
from vfe.evidence.method import (
    PARTICLES_AT_ONCE,
    AbstractEvidenceMethod,
    Pair,
    gaussian_part,
    log_mean,
    over_states,
    summed,
)
from vfe.model import Model
from vfe.perception import perceive


class ImportanceSampling(AbstractEvidenceMethod):
    """ln p(x) ≈ ln (1/S) Σ_s p(x, z_s) / r(z_s), z_s ~ r: draws around a fitted belief.

    The proposal r has the belief's location and shape and the tails of a Student t, so that the weights
    stay bounded where the posterior's tails are Gaussian. Discrete nodes are summed out, each state
    of an `vfe.Enumerated` belief with draws of its own; a `vfe.Mixture`, a `vfe.Flow` or a `vfe.Conjugate`
    belief is drawn from as it is, the former two in antithetic pairs (S rounded down to whole pairs of
    every component). What the belief has missed (another mode) is missing from the estimate too, and its
    standard error does not tell: use `vfe.AnnealedImportanceSampling` where that may be.

    **Arguments:** `samples`: S; `degrees_of_freedom` of the t, or None for a Gaussian; `inflate`:
    what the belief's standard deviations are multiplied by.

    **Raises:** `ValueError` for settings out of range; for `inflate`, and for fewer than two pairs, with
    beliefs that are drawn from as they are.

    **Example:** `vfe.log_evidence(model, {"x": x}, method=vfe.ImportanceSampling(samples=5000))`.

    **Source:** Geweke 1989 (importance sampling with split-t proposals); Owen 2013, chapter 9.
    """

    samples: int = eqx.field(static=True, default=1000)
    degrees_of_freedom: float | None = eqx.field(static=True, default=5.0)
    inflate: float = eqx.field(static=True, default=1.0)

    def __check_init__(self) -> None:
        if type(self.samples) is not int or self.samples < 2:
            raise ValueError(f"ImportanceSampling: got samples={self.samples!r}; wanted 2, 3, …")
        if self.degrees_of_freedom is not None and not self.degrees_of_freedom > 0:
            raise ValueError(
                f"ImportanceSampling: got degrees_of_freedom={self.degrees_of_freedom}; wanted a "
                "positive number, or None for a Gaussian proposal."
            )
        if not self.inflate > 0:
            raise ValueError(f"ImportanceSampling: got inflate={self.inflate}; wanted a positive number.")

    @property
    def particles(self) -> int:
        return self.samples

    def fit(self, model: Model, observed: Mapping[str, Any]) -> Any:
        return perceive(model, observed).belief

    def estimate(self, conditioned: Conditioned, belief: Any, key: PRNGKeyArray) -> Pair:
        if isinstance(belief, EnumeratedBelief):
            return over_states(conditioned, belief.node, belief, self.estimate, key)
        if isinstance(belief, AbstractDiscrete):
            return self._discrete(conditioned, belief, key)
        if isinstance(belief, AbstractDrawn):
            return self._drawn(conditioned, belief.aligned(conditioned.layout), key)
        belief = gaussian_part(belief, "ImportanceSampling").aligned(conditioned.layout)
        size, degrees = belief.layout.size, self.degrees_of_freedom
        factor = self.inflate * belief.factor()
        log_scale = belief.log_diagonal().sum() + size * jnp.log(self.inflate)
        energy = summed(conditioned)
        noise_key, tail_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, (self.samples, size), factor.dtype)
        if degrees is not None:
            chi_square = 2.0 * jax.random.gamma(tail_key, 0.5 * degrees, (self.samples, 1), factor.dtype)
            noise = noise * jnp.sqrt(degrees / chi_square)

        def log_weight(e: Array) -> Array:
            square = jnp.sum(e**2)
            if degrees is None:
                log_proposal = -0.5 * square - 0.5 * size * LOG_2PI
            else:
                half = 0.5 * (degrees + size)
                log_proposal = (
                    jax.scipy.special.gammaln(half)
                    - jax.scipy.special.gammaln(0.5 * degrees)
                    - 0.5 * size * jnp.log(degrees * jnp.pi)
                    - half * jnp.log1p(square / degrees)
                )
            return -energy(belief.location + factor @ e) - log_proposal + log_scale

        return log_mean(jax.lax.map(log_weight, noise, batch_size=min(self.samples, PARTICLES_AT_ONCE)))

    def _drawn(self, conditioned: Conditioned, belief: AbstractDrawn, key: PRNGKeyArray) -> Pair:
        """From the belief itself, each component of a mixture with its own draws and weight."""
        if self.inflate != 1.0:
            raise ValueError(
                f"ImportanceSampling: got inflate={self.inflate} and a {type(belief).__name__}, which is "
                "drawn from as it is; leave inflate= out, or give a Gaussian belief."
            )
        draws = belief.proposals(key, self.samples)
        if draws.coordinates.shape[1] > 1 and draws.coordinates.shape[2] < 2:
            raise ValueError(
                f"ImportanceSampling: got samples={self.samples}; a {type(belief).__name__} of "
                f"{len(draws.weights)} components wants {4 * len(draws.weights)} or more: two pairs "
                "of each."
            )
        energy, shape = summed(conditioned), draws.coordinates.shape[:-1]
        flat = draws.coordinates.reshape(-1, draws.coordinates.shape[-1])
        energies = jax.lax.map(energy, flat, batch_size=min(len(flat), PARTICLES_AT_ONCE)).reshape(shape)
        logs = -energies - draws.log_density
        logs = jnp.where(jnp.isnan(logs), -jnp.inf, logs)
        top = jnp.max(logs)
        top = jnp.where(jnp.isfinite(top), top, 0.0)
        # The two of a pair are alike where p / q is even: its error is that of the means of pairs.
        mean, error = draws.mean(jnp.exp(logs - top)), draws.standard_error(jnp.exp(logs - top))
        some = mean > 0
        mean = jnp.where(some, mean, 1.0)
        return jnp.where(some, jnp.log(mean) + top, -jnp.inf), jnp.where(some, error / mean, 0.0)

    def _discrete(self, conditioned: Conditioned, belief: AbstractDiscrete, key: PRNGKeyArray) -> Pair:
        if conditioned.repeats is not None:
            raise ValueError(
                "log_evidence: latents are shared by all observations and the hidden nodes are discrete; "
                "no estimate is implemented for that."
            )
        states = belief.sample(key, (self.samples,))

        def log_weight(drawn: dict[str, Array]) -> Array:
            held = conditioned
            for name in conditioned.discrete:
                held = held.clamp(name, drawn[name])
            return -held.energy(jnp.zeros(0)) - belief.log_density(drawn)

        return log_mean(jax.lax.map(log_weight, states, batch_size=min(self.samples, PARTICLES_AT_ONCE)))
