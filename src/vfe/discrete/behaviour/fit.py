"""Agents fitted to recorded choices."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from vfe.action.history import History
from vfe.arrays import real_numbers
from vfe.discrete.behaviour.likelihood import Choices, log_likelihood
from vfe.discrete.behaviour.parameters import ParameterPrior
from vfe.discrete.behaviour.subjects import FittedSubjects, fit_subjects

AgentOf = Callable[[dict[str, Array]], Any]


class AgentLikelihood(eqx.Module):
    """ln p(choices | parameters) of one subject, under the agent that a function makes of them.

    **Example:** `AgentLikelihood(agent_of)({"b": 1.0}, choices)`.
    """

    agent_of: AgentOf = eqx.field(static=True)

    def __call__(self, parameters: dict[str, Array], choices: Choices) -> Array:
        return log_likelihood(self.agent_of(parameters), choices)


def read_choices(
    agent: Any, outcomes: Any, actions: Any = None, *, mask: Any = None, first: Any = None
) -> Choices:
    """What subjects saw and did, checked against what an agent can see and do.

    **Arguments:** a history of `vfe.live` alone; or `outcomes` (subjects, time, modalities), NaN or −1
    where missing, and `actions` (subjects, time, factors), each after the outcomes of its time, NaN or −1
    where nothing was chosen (then nothing was done anew: the last action goes on, unless an episode
    begins); without the last axis for one modality, one factor; `mask` (subjects, time): false for padding;
    `first` (subjects, time): true where an episode begins after the first.

    **Raises:** `ValueError` for shapes that do not fit, sequences of several lengths, and numbers out of
    range.

    **Example:** `read_choices(agent, outcomes, actions)`.
    """
    model = agent.model
    if isinstance(outcomes, History):
        if not (actions is None and mask is None and first is None):
            raise ValueError("choices: a history has its own actions and episodes; leave out the rest.")
        ended = np.asarray(outcomes.ended).reshape(-1, np.shape(outcomes.ended)[-1])
        first = np.pad(ended[:, :-1], ((0, 0), (1, 0)))
        outcomes, actions = (
            np.asarray(a).reshape(-1, *np.shape(a)[-2:]) for a in (outcomes.outcomes, outcomes.actions)
        )
    if actions is None:
        raise ValueError("choices: got outcomes without actions; wanted both, or a vfe.action.History.")
    seen = _column("outcomes", outcomes, len(model.outcomes))
    done = _column("actions", actions, len(model.controls))
    if seen.shape[:2] != done.shape[:2]:
        raise ValueError(
            f"choices: got outcomes of shape {seen.shape} and actions of shape {done.shape}; wanted as "
            "many of both: an action after the outcomes of each time (leave out outcomes after the last)."
        )
    there = np.ones(seen.shape[:2], bool) if mask is None else np.asarray(mask, bool)
    begins = np.zeros(seen.shape[:2], bool) if first is None else np.asarray(first, bool)
    for word, one in (("mask", there), ("first", begins)):
        if one.shape != seen.shape[:2]:
            raise ValueError(f"choices: got {word} of shape {one.shape}; wanted {seen.shape[:2]}.")
    seen, done = (np.where(np.isnan(a) | ~there[..., None], -1, a) for a in (seen, done))
    done = np.where((done == -1).any(-1, keepdims=True), -1, done)
    for word, values, limits in (("outcome", seen, model.outcomes), ("action", done, model.controls)):
        bad = np.argwhere((values % 1 != 0) | (values < -1) | (values >= np.array(limits)))
        if len(bad):
            n, t, k = (int(i) for i in bad[0])
            raise ValueError(
                f"choices: got {word} {values[n, t, k]:g} of subject {n} at time {t}, column {k}; wanted "
                f"whole numbers from 0 to {limits[k] - 1} (NaN or −1 for none)."
            )
    return Choices(*(jnp.asarray(a) for a in (seen.astype(int), done.astype(int), there, begins)))


def fit_choices(
    agent_of: AgentOf,
    outcomes: Any,
    actions: Any = None,
    *,
    prior: Mapping[str, ParameterPrior],
    mask: Any = None,
    first: Any = None,
    starts: int = 1,
    key: PRNGKeyArray | None = None,
    max_steps: int = 200,
    tolerance: float = 1e-6,
    devices: Sequence[Any] | None = None,
    throw: bool = True,
) -> FittedSubjects:
    """The parameters with which an agent would have chosen as each subject did, how sure, and F.

    **Arguments:**

    - `agent_of`: from a dictionary of parameters to a `vfe.discrete.Agent` with an `action_precision`
      (or anything with `model`, `actions`, `init`, `restart`, `observe`, `log_probabilities`, `take`), in
      JAX. It is compiled once: what it reads from outside must not change (make another function).
    - `outcomes`, `actions`, `mask`, `first`: see `vfe.discrete.behaviour.read_choices`.
    - the rest: see `vfe.discrete.behaviour.fit_subjects`.

    **Raises:** as `read_choices` and `fit_subjects`.

    **Example:**
    ```python
    fitted = fit_choices(agent_of, outcomes, actions, prior={"precision": positive(4.0)})
    fitted.value["precision"], fitted.interval()["precision"], fitted.free_energy.total
    ```

    **Source:** Daunizeau et al. 2010; Schwartenbeck and Friston 2016, "Computational phenotyping in
    psychiatry".
    """
    with jax.enable_x64(True):
        agent = agent_of({name: jnp.asarray(p.centre) for name, p in prior.items()})
        choices = read_choices(agent, outcomes, actions, mask=mask, first=first)
        return fit_subjects(
            AgentLikelihood(agent_of),
            choices,
            prior=prior,
            starts=starts,
            key=key,
            max_steps=max_steps,
            tolerance=tolerance,
            devices=devices,
            throw=throw,
        )


def _column(word: str, given: Any, columns: int) -> np.ndarray:
    if isinstance(given, list | tuple) and len({len(one) for one in given if hasattr(one, "__len__")}) > 1:
        raise ValueError(
            f"choices: got {word} of {sorted({len(one) for one in given})} times; pad them with NaN to the "
            "longest, and give mask= (subjects, time), false for the padding."
        )
    found = real_numbers(f"choices: {word}", given)
    found = found[..., None] if found.ndim == 2 and columns == 1 else found
    if found.ndim != 3 or found.shape[2] != columns or not found.size:
        raise ValueError(f"choices: got {word} of shape {found.shape}; wanted (subjects, time, {columns}).")
    return found
