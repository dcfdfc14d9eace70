"""A hierarchy in time: the states of a slow agent set the context of a faster one below."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vfe.action.loop_parts import AbstractAgent
from vfe.discrete.agents.agent import Agent
from vfe.discrete.agents.observing import weigh_joint
from vfe.discrete.agents.records import AgentState, Decision
from vfe.discrete.planning.predicted import by_factor, expected, next_states
from vfe.discrete.pomdp import POMDP
from vfe.discrete.states.joint import over, spread
from vfe.free_energy import FreeEnergy


class HierarchicalState(eqx.Module):
    """What a `HierarchicalAgent` carries: the states of both agents, and the `clock` of the period.

    `context`: for every linked factor what was expected of it when the period began.
    """

    slow: AgentState
    fast: AgentState
    clock: Int[Array, ""]
    context: tuple[Float[Array, " states"], ...]


class HierarchicalPercept(eqx.Module):
    """What both believe: `factors` and `free_energy` of the fast agent, `slow_factors`, and
    `slow_free_energy` of the period that ends here (zero elsewhere: F of the outcomes is the fast agent's,
    whose prior came from above)."""

    factors: tuple[Array, ...]
    free_energy: FreeEnergy
    possible: Array
    slow_factors: tuple[Array, ...]
    slow_free_energy: FreeEnergy


class HierarchicalDecision(eqx.Module):
    """What the fast agent does (`action`), the whole `fast` decision, and the `slow` one, which is taken
    when a period ends."""

    action: Int[Array, " factors"]
    policy_probabilities: Float[Array, " options"]
    expected_free_energy: Float[Array, " options"]
    fast: Decision
    slow: Decision


class HierarchicalAgent(AbstractAgent):
    """Two agents, one above the other: an outcome of the slow one is a state of the fast one.

    At the start of a period p(s_f) = Σ_S A[s_f | S] q(S), from above; at its end the slow agent sees the
    likelihood of that state under all outcomes of the period, λ(s_f) ∝ q(s_f) / p(s_f), as a soft outcome.
    Beliefs about the other factors of the fast agent go on from period to period.

    **Arguments:**

    - `slow`, `fast`: `vfe.discrete.Agent`s. A step of the slow one lasts a period.
    - `links`: for modalities of the slow agent, by name or number, the factors of the fast one that they
      are. Modalities without a link are never seen.
    - `duration`: steps of the fast agent in a period.

    The belief is exact where what is linked and what goes on are independent given what was seen, as with
    places that are seen.

    **Raises:** `ValueError` for links to what there is not, of different sizes, or to factors that are
    controlled or change within a period; for a duration below one.

    **Example:**
    ```python
    agent = vfe.discrete.HierarchicalAgent(slow, fast, {"season": "better arm"}, duration=4)
    history = vfe.live(agent, world, 40, jax.random.key(0))
    ```

    **Source:** Friston, Rosch, Parr, Price and Bowman 2017, "Deep temporal models and active inference".
    """

    slow: Agent
    fast: Agent
    links: tuple[tuple[int, int], ...] = eqx.field(static=True)
    duration: int = eqx.field(static=True)

    def __init__(self, slow: Agent, fast: Agent, links: Mapping[int | str, int | str], duration: int):
        for name, value in (("slow", slow), ("fast", fast)):
            if not isinstance(value, Agent):
                raise TypeError(
                    f"HierarchicalAgent: got a {type(value).__name__} for {name}; wanted a "
                    "vfe.discrete.Agent."
                )
            used = {
                "belief": value.belief is not None,
                "learning": value.learning is not None,
                "infer_precision": value.infer_precision,
            }
            if any(used.values()):
                raise ValueError(
                    f"HierarchicalAgent: the {name} agent has {[k for k, on in used.items() if on]}; in a "
                    "hierarchy beliefs are exact, and nothing is learned from step to step."
                )
        if isinstance(duration, bool) or not isinstance(duration, int | np.integer) or duration < 1:
            raise ValueError(
                f"HierarchicalAgent: got duration {duration!r}; wanted a whole number of steps, 1 or more."
            )
        if not links:
            raise ValueError("HierarchicalAgent: got no links; wanted {modality above: factor below}.")
        modalities, factors = slow.model.labels.modalities, fast.model.labels.factors
        found = []
        for above, below in links.items():
            m = _index("a modality of the slow agent", above, modalities)
            f = _index("a factor of the fast agent", below, factors)
            if slow.model.outcomes[m] != fast.model.states[f]:
                raise ValueError(
                    f"HierarchicalAgent: {modalities[m]!r} above has {slow.model.outcomes[m]} outcomes, "
                    f"{factors[f]!r} below {fast.model.states[f]} states; they must agree."
                )
            still = fast.model.B_dependencies[f] == (f,) and fast.model.controls[f] == 1
            if not still or not np.allclose(fast.model.B[f][..., 0], np.eye(fast.model.states[f])):
                raise ValueError(
                    f"HierarchicalAgent: the factor {factors[f]!r} below changes within a period; what is "
                    "linked is the context of a whole period, with the identity for B."
                )
            found.append((m, f))
        if len({m for m, _ in found}) < len(found) or len({f for _, f in found}) < len(found):
            raise ValueError(f"HierarchicalAgent: got links {dict(links)}; wanted each end once.")
        self.slow, self.fast = slow, fast
        self.links, self.duration = tuple(found), int(duration)

    @property
    def model(self) -> POMDP:
        """What the fast agent believes of the world that both sense and act in."""
        return self.fast.model

    @property
    def options(self) -> Int[Array, "options factors"]:
        """The first action of every option of the fast agent."""
        return self.fast.options

    @property
    def impossible(self) -> str:
        """What the fast agent does with impossible outcomes."""
        return self.fast.impossible

    def init(self) -> HierarchicalState:
        """The state before anything was sensed."""
        return _start(self, self.slow.init(), self.fast.init())

    def restart(self, state: HierarchicalState) -> HierarchicalState:
        """The state at the start of a new episode: beliefs as at first, what was learned kept."""
        return _start(self, self.slow.restart(state.slow), self.fast.restart(state.fast))

    def observe(
        self, state: HierarchicalState, outcome: Any
    ) -> tuple[HierarchicalState, HierarchicalPercept]:
        """The state after outcomes of the fast agent, and the percept of both.

        **Raises:** as `vfe.discrete.Agent.observe`.
        """
        state = _begin(self, state)
        fast, percept = self.fast.observe(state.fast, outcome)
        return _end(self, eqx.tree_at(lambda s: s.fast, state, fast), percept)

    def decide(
        self, state: HierarchicalState, key: PRNGKeyArray
    ) -> tuple[HierarchicalState, HierarchicalDecision]:
        """The state after the decisions; that of the slow agent counts where a period ends."""
        return _decide(self, state, key)


@eqx.filter_jit
def _start(agent: HierarchicalAgent, slow: AgentState, fast: AgentState) -> HierarchicalState:
    context = tuple(jnp.asarray(fast.belief.sum(_others(fast.belief, f))) for _, f in agent.links)
    return HierarchicalState(slow, fast, jnp.zeros((), int), context)


@eqx.filter_jit
def _begin(agent: HierarchicalAgent, state: HierarchicalState) -> HierarchicalState:
    """Where a period begins, what the slow agent expects becomes the prior of what is linked."""
    slow, fast = state.slow, state.fast
    first = fast.time == 0
    onward = next_states(agent.slow.model, slow.belief, slow.action)
    predicted = jnp.where(slow.time > 0, onward, slow.belief)
    expectations = tuple(
        expected(agent.slow.model.A[m], predicted, agent.slow.model.A_dependencies[m])
        for m, _ in agent.links
    )
    moved = jnp.where(first, fast.belief, next_states(agent.fast.model, fast.belief, fast.action))
    linked = [f for _, f in agent.links]
    count = moved.ndim
    kept = tuple(f for f in range(count) if f not in linked)
    whole = spread(over(moved, kept), kept, count)
    for f, expectation in zip(linked, expectations, strict=True):
        whole = whole * spread(expectation, (f,), count)
    begins = state.clock == 0
    belief = jnp.where(begins, whole, fast.belief)
    # A time of zero: the belief is the prior of this step already.
    fast = eqx.tree_at(lambda s: (s.belief, s.time), fast, (belief, jnp.where(begins, 0, fast.time)))
    slow = eqx.tree_at(lambda s: s.belief, slow, jnp.where(begins, predicted, slow.belief))
    context = jax.tree.map(lambda new, old: jnp.where(begins, new, old), expectations, state.context)
    return HierarchicalState(slow, fast, state.clock, context)


@eqx.filter_jit
def _end(
    agent: HierarchicalAgent, state: HierarchicalState, percept: Any
) -> tuple[HierarchicalState, HierarchicalPercept]:
    """Where a period ends, the slow agent sees what the period said of what is linked."""
    ends = state.clock == agent.duration - 1
    model = agent.slow.model
    seen: list[Array | None] = [None] * len(model.A)
    for (m, f), prior in zip(agent.links, state.context, strict=True):
        ratio = percept.factors[f] / jnp.where(prior > 0, prior, 1.0)
        said = jnp.where(ends, jnp.where(prior > 0, ratio, 0.0), 1.0)
        seen[m] = jnp.tensordot(said, jnp.asarray(model.A[m]), 1)
    belief, free, _ = weigh_joint(model, state.slow.belief, seen)
    slow = eqx.tree_at(
        lambda s: (s.belief, s.time, s.changed),
        state.slow,
        (belief, state.slow.time + ends, jnp.where(ends, free.complexity, state.slow.changed)),
    )
    found = HierarchicalPercept(
        percept.factors, percept.free_energy, percept.possible, by_factor(belief), free
    )
    return eqx.tree_at(lambda s: s.slow, state, slow), found


@eqx.filter_jit
def _decide(
    agent: HierarchicalAgent, state: HierarchicalState, key: PRNGKeyArray
) -> tuple[HierarchicalState, HierarchicalDecision]:
    above, below = jax.random.split(key)
    fast, decision = agent.fast.decide(state.fast, below)
    decided, slow_decision = agent.slow.decide(state.slow, above)
    ends = state.clock == agent.duration - 1
    slow = jax.tree.map(lambda new, old: jnp.where(ends, new, old), decided, state.slow)
    clock = (state.clock + 1) % agent.duration
    probabilities, G = decision.policy_probabilities, decision.expected_free_energy
    found = HierarchicalDecision(decision.action, probabilities, G, decision, slow_decision)
    return HierarchicalState(slow, fast, clock, state.context), found


def _others(belief: Array, f: int) -> tuple[int, ...]:
    return tuple(g for g in range(belief.ndim) if g != f)


def _index(word: str, given: Any, names: tuple[str, ...]) -> int:
    if isinstance(given, str) and given in names:
        return names.index(given)
    if isinstance(given, int | np.integer) and not isinstance(given, bool) and 0 <= given < len(names):
        return int(given)
    raise ValueError(f"HierarchicalAgent: got {given!r}; wanted {word}, one of {list(names)}.")
