"""Subjects of a group: the prior that their choices tell of, by empirical Bayes."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vfe.discrete.behaviour.fit import AgentLikelihood, AgentOf, read_choices
from vfe.discrete.behaviour.parameters import Coordinates, ParameterPrior
from vfe.discrete.behaviour.subjects import FittedSubjects, LogLikelihood, laplace
from vfe.double_precision import released
from vfe.free_energy import FreeEnergy
from vfe.perception.status import DivergenceError

# Where subjects do not differ, their standard deviation would go to zero without end.
LEAST_SD = 0.01


class FittedGroup(eqx.Module):
    """A group's prior and the parameters of its subjects under it.

    `mean`, `sd`: by name, of the unconstrained coordinates of the subjects' parameters; `centre`: the mean
    as a value of the parameter; `subjects`: a `FittedSubjects` under that prior; `trace` (steps,): F of the
    group at every step, nats; `converged`.
    """

    mean: dict[str, Array]
    sd: dict[str, Array]
    centre: dict[str, Array]
    subjects: FittedSubjects
    trace: Float[Array, " steps"]
    converged: Bool[Array, ""]

    @property
    def free_energy(self) -> FreeEnergy:
        """F by subject under the group's prior; the prior's own numbers are taken as known."""
        return self.subjects.free_energy


def fit_group(
    log_likelihood: LogLikelihood,
    data: Any,
    *,
    prior: Mapping[str, ParameterPrior],
    max_steps: int = 100,
    tolerance: float = 1e-3,
    newton_steps: int = 200,
    newton_tolerance: float = 1e-6,
    devices: Sequence[Any] | None = None,
) -> FittedGroup:
    """The mean and spread of a group's parameters, and its subjects under them: empirical Bayes.

    Each step takes every subject's q(θ_n) = N(m_n, C_n) by Laplace's method under the group's prior, then
    mean μ = ⟨m_n⟩ and sd² = ⟨(m_n − μ)² + diag C_n⟩ over subjects, which lowers Σ_n F_n for these q. As
    Laplace's F is no bound, a step may raise it where q is far from Gaussian; it then ends before that
    step.

    **Arguments:** as `fit_subjects`; `prior`: where the group's starts; `tolerance`: the fall of F, nats,
    at which to stop; standard deviations stay above 0.01.

    **Raises:** `ValueError` as `fit_subjects`, and for fewer than two subjects; `vfe.DivergenceError` where
    a subject has no minimum.

    **Example:**
    ```python
    group = vfe.discrete.behaviour.fit_group(ln_p, data, prior={"bias": real()})
    group.mean["bias"], group.sd["bias"], group.subjects.value["bias"]
    ```

    **Source:** Huys et al. 2011, "Disentangling the roles of approach, activation and valence".
    """
    kept = Coordinates.of(prior)
    mean = np.array([p.coordinate for p in prior.values()])
    sd = np.array([p.sd for p in prior.values()])
    trace: list[float] = []
    best: tuple[Any, Any, FittedSubjects] | None = None
    converged = False
    with jax.enable_x64(True):
        begin = np.zeros((1, len(mean)))
        while len(trace) < max_steps and not converged:
            found = laplace(
                log_likelihood, data, kept, mean, sd, begin, newton_steps, newton_tolerance, devices=devices
            )
            bad = np.flatnonzero(~np.asarray(found.converged))
            if len(bad):
                raise DivergenceError(
                    f"fit_group: no minimum for subjects {bad.tolist()[:20]} at step {len(trace)}; fit "
                    "them with fit_subjects(..., throw=False), and leave those out that have none."
                )
            if len(found.coordinates) < 2:
                raise ValueError("fit_group: got one subject; wanted two or more (or fit_subjects).")
            value = float(np.sum(np.asarray(found.free_energy.total)))
            fell = trace[-1] - value if trace else np.inf
            converged = fell <= tolerance
            if fell < 0:
                break
            trace.append(value)
            best = (mean, sd, found)
            place, covariance = np.asarray(found.coordinates), np.asarray(found.covariance)
            mean = place.mean(0)
            width = np.diagonal(covariance, axis1=1, axis2=2)
            sd = np.maximum(np.sqrt(((place - mean) ** 2 + width).mean(0)), LEAST_SD)
            begin = ((place - mean) / sd)[None]
        assert best is not None
        mean, sd, found = best
        centre = jax.tree.map(np.asarray, kept.decode(jnp.asarray(mean)))
        parts: dict[str, Any] = {
            "mean": dict(zip(kept.names, mean, strict=True)),
            "sd": dict(zip(kept.names, sd, strict=True)),
            "centre": centre,
            "trace": np.asarray(trace),
            "converged": np.asarray(converged),
        }
        return released(FittedGroup(subjects=found, **parts))


def fit_group_choices(
    agent_of: AgentOf,
    outcomes: Any,
    actions: Any = None,
    *,
    prior: Mapping[str, ParameterPrior],
    mask: Any = None,
    first: Any = None,
    **options: Any,
) -> FittedGroup:
    """`fit_group` of an agent to recorded choices.

    **Arguments:** the choices as in `fit_choices`, the rest as in `fit_group`.

    **Raises:** as both.

    **Example:** `fit_group_choices(agent_of, outcomes, actions, prior={"precision": positive()}).mean`.
    """
    with jax.enable_x64(True):
        agent = agent_of({name: jnp.asarray(p.centre) for name, p in prior.items()})
        choices = read_choices(agent, outcomes, actions, mask=mask, first=first)
        return fit_group(AgentLikelihood(agent_of), choices, prior=prior, **options)
