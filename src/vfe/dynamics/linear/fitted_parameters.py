"""Parameters of a state-space model by the evidence: the most probable ones, and how sure."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vfe.double_precision import released
from vfe.dynamics.linear.minimum import laplace_free_energy, minimum
from vfe.dynamics.linear.state_space import StateSpace, double
from vfe.free_energy import FreeEnergy
from vfe.perception.status import DivergenceError
from vfe.series.verbs import filter as filter_verb
from vfe.series.verbs import fit


class FittedParameters(eqx.Module):
    """Positive parameters learned from a series.

    `value`: the most probable ones; `log_sd`: the standard deviation of the logarithm of each, from the
    curvature there; `log_covariance`: in the order of `names`; `model`: the `vfe.StateSpace` they make;
    `energy`: −ln p(y | θ) + Σ ½ (ln θ_i − ln m_i)² / s_i² there, nats; `gradient`: its largest element
    left; `free_energy`: F, a `vfe.FreeEnergy` of all samples whose total is about −ln p(y), parameters
    integrated out by Laplace's method (`vfe.compare` ranks several).
    """

    value: dict[str, Array]
    log_sd: dict[str, Array]
    log_covariance: Float[Array, "p p"]
    model: StateSpace
    energy: Float[Array, ""]
    gradient: Float[Array, ""]
    free_energy: FreeEnergy
    names: tuple[str, ...] = eqx.field(static=True)

    def interval(self, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Central intervals of every parameter, Gaussian in its logarithm.

        **Raises:** `ValueError` for a level outside (0, 1).
        """
        from statistics import NormalDist

        if not 0 < level < 1:
            raise ValueError(f"interval: got level={level}; wanted a probability between 0 and 1.")
        reach = NormalDist().inv_cdf(0.5 + 0.5 * level)
        ends = {n: (float(self.value[n]), np.exp(reach * float(self.log_sd[n]))) for n in self.names}
        return {n: (value / by, value * by) for n, (value, by) in ends.items()}


@fit.register(Callable)
def fit_parameters(
    build: Callable[[dict[str, Array]], StateSpace],
    y: Any,
    *,
    prior: Mapping[str, tuple[float, float]],
    inputs: Any = None,
    start: Mapping[str, float] | None = None,
    max_steps: int = 200,
    tolerance: float = 1e-3,
) -> FittedParameters:
    """The most probable positive parameters of a state-space model, by L-BFGS in their logarithms.

    Minimises −ln p(y | θ) + Σ ½ (ln θ_i − ln m_i)² / s_i², with the exact filter and its derivatives.

    **Arguments:** `build`: from a dictionary of parameters to the model, in JAX; `prior`: for every
    parameter (m, s), a typical value and the standard deviation of its logarithm; `y`, `inputs`: as in
    `vfe.filter`; `start`: where to start, by default at the typical values; `max_steps`; `tolerance`: the
    largest element of the gradient, in nats per unit of the logarithm, that counts as a minimum.

    **Raises:** `ValueError` for values that are not positive; `vfe.DivergenceError` where no minimum was
    reached, with what is left of the gradient.

    **Example:**
    ```python
    def build(p):
        return vfe.dynamics.smooth_noise_state_space(
            [[-0.5]], [[1.0]], dt=0.1, smoothness=p["s"], state_sd=1.0, observation_sd=p["v"], white_sd=0.03
        )
    fitted = vfe.fit(build, y, prior={"s": (0.1, 1.0), "v": (0.5, 1.0)})
    vfe.smooth(fitted.model, y).mean, fitted.interval()
    ```

    **Source:** Särkkä 2013, chapter 12; Nocedal and Wright 2006, algorithm 7.5.
    """
    names = tuple(prior)
    values = np.array([[*prior[n], (start or {}).get(n, prior[n][0])] for n in names], dtype=float)
    if not names or not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError(
            f"fit: got prior={dict(prior)} and start={start}; wanted a typical value and the "
            "standard deviation of the logarithm for every parameter, and starts, all positive."
        )
    unknown = sorted(set(start or {}) - set(names))
    if unknown:
        raise ValueError(f"fit: start has {unknown}; the parameters are {list(names)}.")
    typical, spread, first = np.log(values[:, 0]), values[:, 1], np.log(values[:, 2])
    with jax.enable_x64(True):
        y = double("fit: y", y)

        def energy(logs: Array, y: Array) -> Array:
            model = _built(build, dict(zip(names, jnp.exp(logs), strict=True)))
            prior_energy = 0.5 * (((logs - typical) / spread) ** 2).sum()
            return prior_energy - filter_verb(model, y, inputs=inputs).log_evidence.sum()

        found = minimum(energy, first, y, max_steps=max_steps, gtol=0.1 * tolerance)
        if not np.isfinite(found.value) or found.gradient > tolerance:
            raise DivergenceError(
                f"fit: no minimum after {found.steps} steps: the gradient left is "
                f"{found.gradient:.3g}, wanted {tolerance:g} (nats per unit of the logarithm). Start "
                "elsewhere (start=), allow more (max_steps=, tolerance=), or give narrower priors."
            )
        if found.least <= 0:
            raise DivergenceError(
                "fit: the point found is a saddle and no minimum; start elsewhere (start=)."
            )
        covariance = np.linalg.inv(found.curvature)
        value = dict(zip(names, jnp.exp(jnp.asarray(found.place)), strict=True))
        model = _built(build, value)
        surprise = np.asarray(filter_verb(model, y, inputs=inputs).surprise)
        surprise = surprise.reshape(-1, surprise.shape[-1]).sum(0)
        result = FittedParameters(
            value=value,
            log_sd=dict(zip(names, jnp.sqrt(jnp.diagonal(jnp.asarray(covariance))), strict=True)),
            log_covariance=jnp.asarray(covariance),
            model=model,
            energy=jnp.asarray(found.value),
            gradient=jnp.asarray(found.gradient),
            free_energy=laplace_free_energy(surprise, found.place, typical, spread, found.curvature),
            names=names,
        )
    model = result.model
    return eqx.tree_at(lambda r: r.model, released(result), model)


def _built(build: Callable[[dict[str, Array]], StateSpace], value: dict[str, Array]) -> StateSpace:
    model = build(value)
    if not isinstance(model, StateSpace):
        raise TypeError(f"fit: the function returns a {type(model).__name__}; wanted a vfe.StateSpace.")
    return model
