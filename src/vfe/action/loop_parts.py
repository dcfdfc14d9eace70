"""What takes part in the loop of agent and world."""

import abc
from typing import Any

import equinox as eqx
from jaxtyping import Array, Bool, PRNGKeyArray


class AbstractAgent(eqx.Module):
    """Something that perceives and acts: its state is passed in and returned.

    What `observe` and `decide` return beside the state is what a history keeps, any pytrees of arrays. By
    convention a percept has `factors` (beliefs about the states of each factor) and `free_energy`
    (`vfe.FreeEnergy`), and a decision has `action` (one control of each factor), which the world is given,
    and `policy_probabilities` and `expected_free_energy` of its options if it planned. An agent with a
    field `model` (a `vfe.discrete.POMDP`) lends its names to histories and figures, and one with `options`
    (options, factors), the first action of each, lets figures show what first actions were worth. Where a
    percept has `possible` and it is false, `vfe.live` raises, unless the agent has `impossible="skip"`.

    **Example:** `vfe.discrete.Agent`.
    """

    @abc.abstractmethod
    def init(self) -> Any:
        """The state before anything was sensed."""

    @abc.abstractmethod
    def observe(self, state: Any, outcome: Any) -> tuple[Any, Any]:
        """The state after a sensation, and the percept: what is believed, and F."""

    @abc.abstractmethod
    def decide(self, state: Any, key: PRNGKeyArray) -> tuple[Any, Any]:
        """The state after a decision, and the decision: `decision.action`, and what it was taken from."""

    @abc.abstractmethod
    def restart(self, state: Any) -> Any:
        """The state at the start of a new episode: beliefs as at first, what was learned kept."""


class AbstractWorld(eqx.Module):
    """Something that answers an action with a sensation, in JAX: its state is passed in and returned.

    **Example:** `vfe.discrete.worlds.POMDPWorld(vfe.discrete.worlds.tmaze())`.
    """

    @abc.abstractmethod
    def reset(self, key: PRNGKeyArray) -> tuple[Any, Any]:
        """A first state, and the first sensation."""

    @abc.abstractmethod
    def step(self, state: Any, action: Any, key: PRNGKeyArray) -> tuple[Any, Any]:
        """The state after an action, and the sensation there."""

    @abc.abstractmethod
    def ended(self, state: Any) -> bool | Bool[Array, ""]:
        """Whether an episode ends in this state; `False` (no array) where the world never ends."""
