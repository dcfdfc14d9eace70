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
from vfe.discrete.behaviour.subjects import FittedSubjects, LogLikelihood, laplace, subjects_of
from vfe.free_energy import FreeEnergy
from vfe.perception.status import DivergenceError

# Where subjects do not differ, their standard deviation would go to zero without end.
LEAST_SD = 0.01
# Of a step, what is tried while F rises.
SHARES = (1.0, 0.25, 0.0625)


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

    Every step takes every subject's q(θ_n) = N(m_n, C_n) by Laplace's method under the group's prior, then
    mean μ = ⟨m_n⟩ and sd² = ⟨(m_n − μ)² + diag C_n⟩ over subjects, which lowers Σ_n F_n for these q. As
    Laplace's F is no bound, a step may raise it where q is far from Gaussian: it is then shortened, and
    where no part of it lowers F, that is the end. After each step a longer one in its direction is tried.

    **Arguments:** as `fit_subjects`; `prior`: where the group's starts; `tolerance`: the fall of F, nats,
    at which to stop; standard deviations stay above 0.01.

    **Raises:** `ValueError` as `fit_subjects`, and for fewer than two subjects; `vfe.DivergenceError` where
    a subject has no minimum.

    **Example:**
    ```python
    group = vfe.discrete.behaviour.fit_group(ln_p, data, prior={"bias": real()})
    group.mean["bias"], group.sd["bias"], group.subjects.value["bias"]
    ```

    **Source:** Huys et al. 2011, "Disentangling the roles of approach, activation and valence"; Varadhan
    and Roland 2008 (longer steps, scheme S3).
    """
    kept = Coordinates.of(prior)
    k = len(kept.names)
    # The group's prior as one place (2 k,): means, and logarithms of standard deviations.
    place = np.array([p.coordinate for p in prior.values()] + [np.log(p.sd) for p in prior.values()])
    if subjects_of(data) < 2:
        raise ValueError("fit_group: got one subject; wanted two or more (or fit_subjects).")
    with jax.enable_x64(True):

        def look(place: np.ndarray, near: FittedSubjects | None) -> tuple[float, FittedSubjects]:
            mean, sd = place[:k], np.exp(place[k:])
            begin = np.zeros((1, k)) if near is None else ((np.asarray(near.coordinates) - mean) / sd)[None]
            options = (newton_steps, newton_tolerance)
            found = laplace(log_likelihood, data, kept, mean, sd, begin, *options, devices=devices)
            # Not a number where a subject has no minimum.
            return float(np.sum(np.asarray(found.free_energy.total))), found

        value, found = look(place, None)
        bad = np.flatnonzero(~np.asarray(found.converged))
        if len(bad):
            raise DivergenceError(
                f"fit_group: no minimum for subjects {bad.tolist()[:20]} of {len(found.converged)}; fit "
                "them with fit_subjects(..., throw=False), and leave those out that have none."
            )
        trace, converged = [value], False
        while len(trace) < max_steps and not converged:
            value_1 = value
            # EM's own step first: shortened, where Laplace's F rises along the whole of it.
            for share in SHARES:
                first = place + share * (_better(found) - place)
                value_1, found_1 = look(first, found)
                if value_1 <= value:
                    break
            else:
                converged = np.isfinite(value_1)
                break
            trace.append(value_1)
            far = _further(place, first, _better(found_1), k)
            value_2, found_2 = look(far, found_1)
            before, value = value, value_1
            place, found = first, found_1
            if value_2 <= value_1:
                place, value, found = far, value_2, found_2
                trace.append(value_2)
            converged = before - value <= tolerance
        mean, sd = place[:k], np.exp(place[k:])
        centre = jax.tree.map(np.asarray, kept.decode(jnp.asarray(mean)))
        parts: dict[str, Any] = {
            "mean": dict(zip(kept.names, mean, strict=True)),
            "sd": dict(zip(kept.names, sd, strict=True)),
            "centre": centre,
            "trace": np.asarray(trace),
            "converged": np.asarray(converged),
        }
        return FittedGroup(subjects=found, **parts)


def _better(found: FittedSubjects) -> np.ndarray:
    """The likeliest prior (2 k,) for these beliefs about subjects."""
    place, covariance = np.asarray(found.coordinates), np.asarray(found.covariance)
    width = np.diagonal(covariance, axis1=1, axis2=2)
    sd = np.sqrt(((place - place.mean(0)) ** 2 + width).mean(0))
    return np.concatenate([place.mean(0), np.log(np.maximum(sd, LEAST_SD))])


def _further(start: np.ndarray, first: np.ndarray, second: np.ndarray, k: int) -> np.ndarray:
    """Where steps that shrink in proportion would lead, from a place and two steps on."""
    step = first - start
    bend = (second - first) - step
    size = np.linalg.norm(bend)
    reach = max(1.0, np.linalg.norm(step) / size) if size > 0 else 1.0
    far = start + 2 * reach * step + reach**2 * bend
    return np.concatenate([far[:k], np.maximum(far[k:], np.log(LEAST_SD))])


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
