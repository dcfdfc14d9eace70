"""What an agent carries from step to step, and what its history keeps."""

from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, Int

from vfe.discrete.learning.counts import DirichletTables
from vfe.discrete.planning.plan import Plan
from vfe.free_energy import FreeEnergy


class AgentState(eqx.Module):
    """What an agent carries from step to step.

    `belief` (*states): about the states now; `action` (factors,): the last one; `time`: outcomes so far in
    this episode; `plan`, `option`, `place`: the last plan (where it is needed again), the option chosen
    from it, and how many of its steps were taken; `precision`: γ.
    """

    belief: Any
    action: Int[Array, " factors"]
    time: Int[Array, ""]
    plan: Plan | None
    option: Int[Array, ""]
    place: Int[Array, ""]
    precision: Float[Array, ""]
    counts: DirichletTables | None
    changed: Float[Array, ""]


class Percept(eqx.Module):
    """What is believed after outcomes: `factors`, each (states,); F of that step; whether the outcomes were
    possible under the model."""

    factors: tuple[Array, ...]
    free_energy: FreeEnergy
    possible: Array


class Decision(eqx.Module):
    """What is done, and why: `action` (factors,); `policy_probabilities` and `expected_free_energy`
    (options,); `terms` by name (options, steps); `precision` γ; `planned`: whether a plan was made, or an
    earlier one followed; `lost`: see `vfe.discrete.Search`."""

    action: Int[Array, " factors"]
    policy_probabilities: Float[Array, " options"]
    expected_free_energy: Float[Array, " options"]
    terms: dict[str, Array]
    precision: Float[Array, ""]
    planned: Array
    lost: Array
