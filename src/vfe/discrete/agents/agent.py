"""An agent in a discrete world: it perceives, learns, plans and acts."""

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vfe.action.loop_parts import AbstractAgent
from vfe.arrays import real_numbers
from vfe.discrete.agents.choosing import Choosing, check_positive
from vfe.discrete.agents.observing import observe_factors, observe_joint
from vfe.discrete.agents.online_learning import OnlineLearning, learn_step
from vfe.discrete.agents.records import AgentState, Decision, Percept
from vfe.discrete.course import LARGEST
from vfe.discrete.learning.counts import DirichletTables
from vfe.discrete.learning.online import (
    learn_habits,
)
from vfe.discrete.planning.goal import Goal
from vfe.discrete.planning.joint_nodes import possible_outcomes
from vfe.discrete.planning.plan import Plan, first_actions, make_plan
from vfe.discrete.planning.policies import Policies, every_policy, joint_actions
from vfe.discrete.planning.policy_posterior import infer_precision
from vfe.discrete.planning.predicted import by_factor, joint, next_states
from vfe.discrete.planning.search import Search
from vfe.discrete.planning.terms import Terms
from vfe.discrete.pomdp import POMDP
from vfe.discrete.states.joint import joint_likelihood
from vfe.discrete.states.settings import MeanField
from vfe.discrete.tables import entropy, log_table


class Agent(AbstractAgent):
    """An agent that believes a `POMDP`, and acts so that its expected free energy is low.

    Perception: q(s_t) ∝ p(o_t | s_t) Σ_s p(s_t | s, u) q(s). Planning: q(π) ∝ exp(ln E(π) − γ G(π)).

    **Arguments:**

    - `model`: what it believes of its world, with its preferences C and habits E (over the options below).
    - `horizon`: every policy of so many steps is an option. Or `plan`: a `Policies` (its policies are the
      options) or a `Search` (single actions are, each worth what would follow it).
    - `terms`: of the expected free energy; see `Terms`.
    - `precision`: γ, greater than zero. With `infer_precision` it starts there and rises where policies
      that were expected to be good explain the outcomes.
    - `action_precision`: None: the most probable action is taken; a number α: actions are drawn with
      probabilities ∝ q(u)^α.
    - `choose`: "policy": among policies, whose first action is taken; "action": among joint actions, each
      as probable as all policies that begin with it; "factor": the same for every factor on its own (a key
      for each). Where many policies come to the same thing, the latter two favour actions that begin many.
    - `goal`: a `Goal`, for the inductive term.
    - `belief`: None: exact, over joint states; a `vfe.discrete.MeanField` (such as
      `MeanField(starts=4)`): a product over factors, for more joint states than can be kept; plans then
      start from products too.
    - `learning`: an `OnlineLearning`, for tables that are learned.
    - `plan_above`: plan anew only where the entropy of the belief exceeds so many nats, the last outcomes
      changed it by more (complexity), or the last policy has come to its end; follow that policy elsewhere.
      None: plan at every step.
    - `impossible`: "error": outcomes that the model holds impossible raise (in a loop, at its end);
      "skip": they are taken as missing and F = ∞ is kept in the history.

    **Raises:** `ValueError` for settings that fit neither each other nor the model.

    **Example:**
    ```python
    agent = vfe.discrete.Agent(model, horizon=2)
    state = agent.init()
    state, percept = agent.observe(state, [0])
    state, decision = agent.decide(state, jax.random.key(0))
    decision.action, decision.terms["utility"]
    ```

    **Source:** Parr, Pezzulo and Friston 2022, "Active Inference", chapter 4.
    """

    model: POMDP
    plan: Policies | Search
    terms: Terms
    precision: Any
    choosing: Choosing
    goal: Goal | None
    learning: OnlineLearning | None
    plan_above: Any
    possible: Int[Array, " outcomes"] | None
    infer_precision: bool = eqx.field(static=True)
    impossible: str = eqx.field(static=True)
    belief: MeanField | None = eqx.field(static=True)

    def __init__(
        self,
        model: POMDP,
        horizon: int | None = None,
        *,
        plan: Policies | Search | None = None,
        terms: Terms | None = None,
        precision: Any = 16.0,
        action_precision: Any = None,
        choose: Literal["policy", "action", "factor"] = "policy",
        belief: MeanField | None = None,
        goal: Goal | None = None,
        learning: OnlineLearning | None = None,
        plan_above: float | None = None,
        infer_precision: bool = False,
        impossible: Literal["error", "skip"] = "error",
    ):
        for name, value, kind in (
            ("model", model, POMDP),
            ("plan", plan, Policies | Search),
            ("terms", terms, Terms),
            ("belief", belief, MeanField),
            ("goal", goal, Goal),
            ("learning", learning, OnlineLearning),
        ):
            if not isinstance(value, kind) and not (value is None and name != "model"):
                wanted = getattr(kind, "__name__", "Policies or vfe.discrete.Search")
                raise TypeError(
                    f"Agent: got a {type(value).__name__} for {name}; wanted a vfe.discrete.{wanted}."
                )
        if horizon is not None and plan is not None:
            raise ValueError("Agent: got a horizon and a plan; wanted one of them (a plan has its own).")
        check_positive("precision", precision)
        check_positive("action_precision", action_precision)
        if impossible not in ("error", "skip"):
            raise ValueError(f'Agent: got impossible={impossible!r}; wanted "error" or "skip".')
        if plan is None:
            plan = every_policy(model, 1 if horizon is None else horizon)
        if isinstance(plan, Search) and (infer_precision or plan_above is not None):
            raise ValueError(
                "Agent: a search has no policies to follow or to hold against outcomes; leave out "
                "infer_precision and plan_above, or plan with a horizon."
            )
        if isinstance(plan, Policies):
            most = np.asarray(plan.sequences).max((0, 1)) if len(plan) else np.zeros(0)
            if len(most) != len(model.B) or (most >= model.controls).any():
                raise ValueError(
                    f"Agent: got policies of another model, with controls up to {most.tolist()} by factor; "
                    f"this one has {model.controls}."
                )
        if goal is not None:
            sizes = [None if way is None else way.shape[1] for way in goal.ways]
            if len(sizes) != len(model.B) or any(
                n not in (None, m) for n, m in zip(sizes, model.states, strict=True)
            ):
                raise ValueError(f"Agent: got a goal of another model; this one has {model.states} states.")
        options = math.prod(model.controls) if isinstance(plan, Search) else len(plan)
        if model.E is not None and model.E.shape != (options,):
            raise ValueError(
                f"Agent: got habits E over {model.E.shape[0]} policies; the plan has {options} options."
            )
        if infer_precision and plan_above is not None:
            raise ValueError(
                "Agent: infer_precision holds new plans against outcomes, plan_above follows old ones; "
                "leave one of them out."
            )
        limit: Any = 0.0 if plan_above is None or isinstance(plan_above, Tracer) else plan_above
        if isinstance(limit, str | bool) or np.ndim(limit) or not limit >= 0:
            raise ValueError(f"Agent: got plan_above {plan_above!r}; wanted nats, zero or more.")
        if belief is not None and (isinstance(plan, Search) or infer_precision):
            raise ValueError(
                "Agent: a search and infer_precision need exact beliefs; leave out belief=, or plan with a "
                "horizon."
            )
        if belief is None and model.joint_size > LARGEST:
            raise ValueError(
                f"Agent: got {model.joint_size} joint states; exact beliefs are kept for {LARGEST}. Write "
                "Agent(..., belief=vfe.discrete.MeanField(starts=4)) for a product over factors."
            )
        weights = {} if terms is None else terms.weights
        if "inductive" in weights and goal is None:
            raise ValueError("Agent: the inductive term needs a goal; give goal=vfe.discrete.Goal(...).")
        if goal is not None and "inductive" not in weights:
            raise ValueError(
                "Agent: got a goal that no term is about; write terms=vfe.discrete.Terms(inductive=1.0)."
            )
        counts = None if learning is None else learning.counts
        if counts is not None:
            _check_counts(model, counts)
        for letter in "AB":
            learned = counts is not None and any(t is not None for t in getattr(counts, letter))
            if f"{letter}_information" in weights and not learned:
                raise ValueError(
                    f"Agent: the term {letter}_information needs counts of {letter}; give learning="
                    "vfe.discrete.OnlineLearning(counts)."
                )
        if counts is not None and counts.E is not None and counts.E.shape != (options,):
            raise ValueError(
                f"Agent: got counts of E for {counts.E.shape[0]} policies; the plan has {options} options."
            )
        self.model = jax.tree.map(jnp.asarray, model)
        self.plan = jax.tree.map(jnp.asarray, plan)
        # Arrays, so that agents with other numbers share their programs.
        self.terms = jax.tree.map(jnp.asarray, Terms() if terms is None else terms)
        self.precision = jnp.asarray(precision, jnp.result_type(float))
        actions = jnp.asarray(joint_actions(model))
        options = first_actions(self.plan, actions)
        self.choosing = Choosing(options, actions, _array(action_precision), model.controls, choose)
        self.goal = goal
        self.learning = None if learning is None else jax.tree.map(jnp.asarray, learning)
        self.plan_above = _array(plan_above)
        # Zeros among the counts stay zero, so that what cannot occur at first never will.
        found = None
        if belief is None:
            found = possible_outcomes(model if counts is None else counts.expected(model))
        self.possible = None if found is None else jnp.asarray(found)
        self.infer_precision = infer_precision
        self.impossible = impossible
        self.belief = belief

    @property
    def labels(self) -> Any:
        """Names of what the agent believes there is."""
        return self.model.labels

    @property
    def actions(self) -> Int[Array, "actions factors"]:
        """Every joint action, in the order of `log_probabilities`."""
        return self.choosing.actions

    @property
    def options(self) -> Int[Array, "options factors"]:
        """The first action of every option."""
        return self.choosing.options

    def init(self) -> AgentState:
        """The state before anything was sensed."""
        return _init(self)

    def restart(self, state: AgentState) -> AgentState:
        """The state at the start of a new episode: beliefs as at first, what was learned kept."""
        return _restart(self, state)

    def observe(self, state: AgentState, outcome: Any) -> tuple[AgentState, Percept]:
        """The state after outcomes (modalities,), −1 where missing, and the percept with its F.

        **Raises:** `ValueError`, outside a transformation, for outcomes out of range, and for impossible
        ones unless the agent skips them.
        """
        outcome = _outcomes(self.model, outcome)
        state, percept = _observe(self, state, outcome)
        if self.impossible == "error" and not isinstance(percept.possible, Tracer) and not percept.possible:
            raise ValueError(
                f"Agent: the outcomes {np.asarray(outcome).tolist()} are impossible under the model and "
                "what is believed (their surprise is infinite); give every outcome some probability in A, "
                'or write Agent(..., impossible="skip") to take them as missing.'
            )
        return state, percept

    def decide(self, state: AgentState, key: PRNGKeyArray) -> tuple[AgentState, Decision]:
        """The state after a decision, and the decision with what it was taken from."""
        return _decide(self, state, key)

    def log_probabilities(self, state: AgentState) -> Float[Array, " actions"]:
        """ln p(u) of every joint action (`actions`) now, as `decide` would draw it.

        **Raises:** `ValueError` for an agent without `action_precision`, or one that follows plans.
        """
        return _log_probabilities(self, state)

    def take(self, state: AgentState, action: Any) -> AgentState:
        """The state after an action that someone else chose, such as a recorded one.

        Precision and habits go on from it as after `decide`: of the policies that begin with the action,
        the one taken as chosen is the most probable; habits (of choose="policy") count them all, as
        probable as they are given the action.

        **Raises:** `ValueError`, outside a transformation, for what is no action of the model.
        """
        if not isinstance(action, Tracer):
            given = real_numbers("Agent: action", action).ravel()
            controls = self.model.controls
            if (
                given.shape != (len(controls),)
                or (given % 1 != 0).any()
                or not ((given >= 0) & (given < controls)).all()
            ):
                raise ValueError(
                    f"Agent: got action {given.tolist()}; wanted one control of each factor, below "
                    f"{controls}."
                )
            action = given
        return _take(self, state, jnp.asarray(action, state.action.dtype))


@eqx.filter_jit
def _init(agent: Agent) -> AgentState:
    counts = None if agent.learning is None else agent.learning.counts
    return _start(agent, counts, agent.precision)


@eqx.filter_jit
def _restart(agent: Agent, state: AgentState) -> AgentState:
    return _start(agent, state.counts, state.precision)


def _start(agent: Agent, counts: DirichletTables | None, precision: Array) -> AgentState:
    model = _believed(agent, counts)
    first = tuple(jnp.asarray(d) for d in model.D)
    belief = joint(model, first) if agent.belief is None else first
    zero = jnp.zeros((), int)
    plan = None
    if _remembers(agent):
        # Only its shape is of use before the first decision.
        shapes = jax.eval_shape(lambda: _plan(agent, belief, precision, counts))
        plan = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    end = zero + _length(agent)  # a policy that has come to its end: the first decision makes a plan
    action = jnp.zeros(len(agent.model.B), agent.choosing.actions.dtype)
    return AgentState(belief, action, zero, plan, zero, end, precision, counts, jnp.zeros_like(precision))


def _remembers(agent: Agent) -> bool:
    """Whether the last plan is needed again."""
    return agent.infer_precision or agent.plan_above is not None


def _believed(agent: Agent, counts: DirichletTables | None) -> POMDP:
    """The model with what was learned so far."""
    return agent.model if counts is None else counts.expected(agent.model)


def _plan(agent: Agent, belief: Any, precision: Array, counts: DirichletTables | None) -> Plan:
    weights = agent.terms.weights
    return make_plan(
        _believed(agent, counts),
        belief,
        agent.plan,
        agent.terms,
        precision,
        A_counts=counts.A if counts is not None and "A_information" in weights else None,
        B_counts=counts.B if counts is not None and "B_information" in weights else None,
        goal=agent.goal,
        possible=agent.possible,
    )


@eqx.filter_jit
def _observe(agent: Agent, state: AgentState, outcome: Array) -> tuple[AgentState, Percept]:
    model = _believed(agent, state.counts)
    moved = next_states(model, state.belief, state.action)
    predicted = jax.tree.map(functools.partial(jnp.where, state.time > 0), moved, state.belief)
    if agent.belief is None:
        belief, free, possible = observe_joint(model, predicted, outcome)
    else:
        belief, free, possible = observe_factors(model, predicted, outcome, agent.belief)
    precision = state.precision
    if agent.infer_precision:
        precision = jnp.where(state.time > 0, _precision(agent, model, state, outcome), precision)
    counts = state.counts
    if agent.learning is not None and counts is not None:
        counts = learn_step(agent.learning, counts, model, state, belief, outcome, possible)
    state = eqx.tree_at(
        lambda s: (s.belief, s.time, s.precision, s.counts, s.changed),
        state,
        (belief, state.time + 1, precision, counts, free.complexity),
        is_leaf=lambda leaf: leaf is None,
    )
    return state, Percept(by_factor(belief), free, possible)


def _precision(agent: Agent, model: POMDP, state: AgentState, outcome: Array) -> Array:
    """γ after an outcome, given how well the first action of every policy would have explained it."""
    seen = joint_likelihood(model, outcome).reshape(model.states)

    # Bounded inside the logarithm: outside, a policy that made the outcome impossible has no derivative.
    least = jnp.finfo(state.precision.dtype).eps

    def surprise(action: Array) -> Array:
        return -jnp.log(jnp.maximum((next_states(model, state.belief, action) * seen).sum(), least))

    F = jax.vmap(surprise)(agent.options)
    habit = 0.0 if model.E is None else log_table(model.E)
    plan: Any = state.plan  # kept, since it is needed here
    G = plan.expected_free_energy
    return infer_precision(G, F, habit, rate=1 / agent.precision).precision


@eqx.filter_jit
def _decide(agent: Agent, state: AgentState, key: PRNGKeyArray) -> tuple[AgentState, Decision]:
    def anew() -> tuple[Plan, Array, Array, Array]:
        plan = _plan(agent, state.belief, state.precision, state.counts)
        action, option, found = agent.choosing.choose(plan.log_probabilities, key)
        # A combination of controls that begins no policy cannot be followed further.
        return plan, action, option, jnp.where(found, 1, _length(agent)).astype(state.place.dtype)

    def onward() -> tuple[Any, Array, Array, Array]:
        policies: Any = agent.plan  # a search is not followed
        action = policies.sequences[state.option, state.place]
        return state.plan, action, state.option, state.place + 1

    if agent.plan_above is None:
        planned = jnp.ones((), bool)
        plan, action, option, place = anew()
    else:
        open_question = jnp.maximum(_disorder(state.belief), state.changed) > agent.plan_above
        planned = (state.place >= _length(agent)) | open_question
        plan, action, option, place = jax.lax.cond(planned, anew, onward)
    state = eqx.tree_at(
        lambda s: (s.action, s.plan, s.option, s.place),
        state,
        (action, plan if _remembers(agent) else None, option, place),
        is_leaf=lambda leaf: leaf is None,
    )
    state = _habits(agent, state, jax.nn.one_hot(option, len(plan.probabilities)))
    probabilities, G = plan.probabilities, plan.expected_free_energy
    return state, Decision(action, probabilities, G, plan.terms, state.precision, planned, plan.lost)


def _habits(agent: Agent, state: AgentState, taken: Array) -> AgentState:
    """The state after policies were taken with these probabilities, for an agent that learns habits."""
    learning = agent.learning
    if learning is None or state.counts is None or state.counts.E is None:
        return state
    options = {"rate": learning.rate, "forgetting": learning.forgetting, "prior": learning.counts}
    return eqx.tree_at(lambda s: s.counts, state, learn_habits(state.counts, taken, **options))


@eqx.filter_jit
def _take(agent: Agent, state: AgentState, action: Array) -> AgentState:
    learns = state.counts is not None and state.counts.E is not None
    if agent.infer_precision or learns:
        plan = _plan(agent, state.belief, state.precision, state.counts)
        option, taken = agent.choosing.given(plan.log_probabilities, action)
        if agent.infer_precision:
            state = eqx.tree_at(lambda s: s.plan, state, plan)
        state = eqx.tree_at(lambda s: s.option, state, option)
        state = _habits(agent, state, taken)
    # A plan that someone else departed from is not followed further.
    ended = jnp.full_like(state.place, _length(agent))
    return eqx.tree_at(lambda s: (s.action, s.place), state, (action, ended))


@eqx.filter_jit
def _log_probabilities(agent: Agent, state: AgentState) -> Array:
    if agent.plan_above is not None:
        raise ValueError(
            "log_probabilities: this agent follows earlier plans; write Agent(..., plan_above=None)."
        )
    plan = _plan(agent, state.belief, state.precision, state.counts)
    return agent.choosing.log_probabilities(plan.log_probabilities)


def _array(value: Any) -> Any:
    return None if value is None else jnp.asarray(value, jnp.result_type(float))


def _alike(some: Sequence[Any], all_of_them: Sequence[Any]) -> bool:
    """Whether two lists are as long and the same, but for what is None in the first."""
    return len(some) == len(all_of_them) and all(
        one in (None, other) for one, other in zip(some, all_of_them, strict=True)
    )


def _check_counts(model: POMDP, counts: DirichletTables) -> None:
    for letter in "ABCD":
        tables, learned = getattr(model, letter), getattr(counts, letter)
        shapes = [None if c is None else c.shape for c in learned]
        wanted = [table.shape for table in tables]
        if len(shapes) != len(wanted) or any(
            s not in (None, w) for s, w in zip(shapes, wanted, strict=True)
        ):
            raise ValueError(
                f"Agent: got counts of {letter} of shapes {shapes}; the model's tables have {wanted}."
            )


def _disorder(belief: Any) -> Array:
    if isinstance(belief, tuple):
        return sum((entropy(q) for q in belief), jnp.zeros(()))
    return entropy(belief, None)


def _length(agent: Agent) -> int:
    return 1 if isinstance(agent.plan, Search) else agent.plan.horizon


def _outcomes(model: POMDP, outcome: Any) -> Array:
    """Outcomes of one time as whole numbers, checked unless they are traced."""
    if isinstance(outcome, Tracer):
        return jnp.atleast_1d(outcome)
    count = len(model.A)
    given = real_numbers("Agent: outcomes", outcome)
    given = given.reshape(1) if given.ndim == 0 and count == 1 else given
    if given.shape != (count,):
        raise ValueError(
            f"Agent: got outcomes of shape {given.shape}; wanted ({count},), one of each modality."
        )
    given = np.where(np.isnan(given), -1.0, given)
    for m, (value, size) in enumerate(zip(given, model.outcomes, strict=True)):
        if value % 1 or not -1 <= value < size:
            raise ValueError(
                f"Agent: got outcome {value:g} of {model.labels.modalities[m]!r} (modality {m}), which has "
                f"0 to {size - 1} (−1 or NaN for missing)."
            )
    return jnp.asarray(given, int)
