"""Gymnasium environments with discrete spaces: as worlds for an agent, and an agent as their policy."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np

from vfe.action.history import kept_of
from vfe.action.loop_parts import AbstractAgent


class GymnasiumWorld:
    """A Gymnasium environment for `vfe.live`: its observations are outcomes, its actions controls.

    A `Discrete` space is one modality (or factor), `MultiDiscrete`, `MultiBinary` and a `Tuple` of
    `Discrete` are several. Outcomes and controls are counted from zero, wherever the space begins.

    **Arguments:** `env`: what `gymnasium.make` returns; `rewards`: the rewards that it gives, in rising
    order; if given, the last modality says which of them came (nothing at the start of an episode), so
    that preferences C can be about it; `factors`: the entries of the agent's action that are given to the
    environment; those of its model with more than one control if not given; `endless`: an episode that
    ends by itself goes on at the start of the next one, a transition like any other, from which an agent
    that learns B learns what comes after the end (one that is cut short restarts the agent as ever).

    `outcomes`, `controls`: their numbers by modality and by entry of the environment's action.

    **Raises:** `TypeError` for what is no environment; `ValueError` for a space that is not discrete, and
    for rewards that are not rising.

    **Example:** `vfe.action.GymnasiumWorld(gymnasium.make("FrozenLake-v1"), rewards=(0.0, 1.0)).outcomes`.

    **Source:** Towers et al. 2024, "Gymnasium: a standard interface for reinforcement learning
    environments".
    """

    def __init__(
        self,
        env: Any,
        *,
        rewards: Sequence[float] | None = None,
        factors: Sequence[int] | None = None,
        endless: bool = False,
    ):
        if not is_environment(env):
            raise TypeError(
                f"GymnasiumWorld: got a {type(env).__name__}; wanted an environment of gymnasium.make."
            )
        self.env = env
        self.observations = _Space(env.observation_space, "observation")
        self.actions = _Space(env.action_space, "action")
        self.rewards = None if rewards is None else np.asarray(rewards, float)
        if self.rewards is not None and (
            self.rewards.ndim != 1 or len(self.rewards) < 2 or (np.diff(self.rewards) <= 0).any()
        ):
            raise ValueError(
                f"GymnasiumWorld: got rewards={rewards!r}; wanted two or more, in rising order."
            )
        self.factors = None if factors is None else tuple(int(f) for f in factors)
        if self.factors is not None and len(self.factors) != len(self.actions.sizes):
            raise ValueError(
                f"GymnasiumWorld: got factors={self.factors}; wanted {len(self.actions.sizes)}, one for "
                f"each part of the action space {env.action_space}."
            )
        self.endless = bool(endless)
        more = () if self.rewards is None else (len(self.rewards),)
        self.outcomes: tuple[int, ...] = (*self.observations.sizes, *more)
        self.controls: tuple[int, ...] = self.actions.sizes

    def outcome(self, observation: Any, reward: float | None = None) -> np.ndarray:
        """Outcomes (modalities,) of an observation and the reward that came with it.

        **Raises:** `ValueError` for what is not in the space, and a reward that was not announced.
        """
        found = self.observations.read(observation)
        if self.rewards is None:
            return found
        if reward is None:
            return np.append(found, -1)
        at = int(np.abs(self.rewards - reward).argmin())
        if not np.isclose(self.rewards[at], reward, rtol=1e-6, atol=1e-9):
            raise ValueError(
                f"GymnasiumWorld: got the reward {reward}; it was said to be one of "
                f"{self.rewards.tolist()}: write all there are into rewards=."
            )
        return np.append(found, at)

    def action(self, agent: AbstractAgent, action: Any) -> Any:
        """The environment's action for the agent's (factors,).

        **Raises:** `ValueError` for another number of controls than the space has, or one out of range.
        """
        given = np.ravel(np.asarray(action))
        factors = self.factors
        if factors is None:
            counts = getattr(getattr(agent, "model", None), "controls", None)
            movable = [f for f, n in enumerate(counts or ()) if n > 1]
            factors = movable if movable else range(len(given))
        if len(factors) != len(self.controls) or max(factors) >= len(given):
            raise ValueError(
                f"GymnasiumWorld: got an action of {len(given)} controls for {self.env.action_space}; say "
                "which of them it takes: GymnasiumWorld(env, factors=(0, ...))."
            )
        return self.actions.write(given[list(factors)])


class Policy:
    """An agent as a policy for Gymnasium loops; see `vfe.action.policy`.

    `state`, `percept`, `decision`: the agent's, after the last call.
    """

    def __init__(self, agent: AbstractAgent, world: GymnasiumWorld, key: Any):
        self.agent, self.world = agent, world
        self._key, self._calls = key, 0
        self.state: Any = None
        self.percept: Any = None
        self.decision: Any = None

    def reset(self) -> None:
        """A new episode: beliefs as at first, what was learned kept."""
        if self.state is not None:
            self.state = _restart(self.agent, self.state)

    def __call__(self, observation: Any, reward: float | None = None) -> Any:
        """The action for an observation, and the reward that came with it, where rewards are a modality."""
        if self.state is None:
            self.state = _init(self.agent)
        outcome = self.world.outcome(observation, reward)
        _, self.state, self.percept, self.decision = _turn(
            self.agent, self.state, outcome, self._key, np.int32(self._calls)
        )
        self._calls += 1
        return self.world.action(self.agent, self.decision.action)


def policy(agent: AbstractAgent, world: Any, key: Any) -> Policy:
    """The agent as a Gymnasium-style policy, which remembers what it sensed and did.

    **Arguments:** `world`: the environment it is for, or a `vfe.action.GymnasiumWorld`: they say how
    observations and actions are counted; `key`: of its decisions.

    **Returns:** `policy(observation) -> action`, or `policy(observation, reward)` where rewards are a
    modality; `policy.reset()` between episodes. An episode's last observation may be given too, so that
    the agent learns from it; the action is then not used.

    **Raises:** as `vfe.action.GymnasiumWorld`; `TypeError` for what is no agent.

    **Example:**
    ```python
    policy = vfe.action.policy(agent, env, jax.random.key(0))
    observation, _ = env.reset(seed=0)
    env.step(policy(observation))
    ```
    """
    if not isinstance(agent, AbstractAgent):
        raise TypeError(f"policy: got a {type(agent).__name__}; wanted a vfe.action.AbstractAgent.")
    return Policy(agent, world if isinstance(world, GymnasiumWorld) else GymnasiumWorld(world), key)


def is_environment(world: Any) -> bool:
    """Whether this has what a Gymnasium environment has."""
    return all(hasattr(world, name) for name in ("observation_space", "action_space", "reset", "step"))


def live_in_gymnasium(
    agents: Sequence[AbstractAgent],
    world: GymnasiumWorld,
    steps: int,
    keys: Any,
    lead: tuple[int, ...],
    keep: tuple[str, ...],
) -> tuple[Any, ...]:
    """The courses of agents in an environment, one after the other: the fields of a `History` in order, and
    whether outcomes were possible."""
    flat = keys.reshape(-1, *keys.shape[len(lead) :])
    runs = len(flat) // len(agents)
    found = [_course(agents[k // runs], world, steps, flat[k], keep) for k in range(len(flat))]
    whole = _stack(found)
    return jax.tree.map(lambda leaf: leaf.reshape((*lead, *leaf.shape[1:])), whole)


def _course(
    agent: AbstractAgent, world: GymnasiumWorld, steps: int, key: Any, keep: tuple[str, ...]
) -> tuple[Any, ...]:
    env = world.env
    seed, going = jax.random.split(key)
    mind, times = _init(agent), []
    observation, _ = env.reset(seed=int(jax.random.bits(seed, (), "uint32")))
    reward, terminated, truncated = None, False, False
    for t in range(steps):
        outcome = world.outcome(observation, reward)
        seen, mind, percept, decision = _turn(agent, mind, outcome, going, np.int32(t))
        action = np.ravel(np.asarray(decision.action))
        ended = truncated or (terminated and not world.endless)
        given = 0.0 if reward is None else float(reward)
        done = np.full_like(action, -1) if ended else action
        kept = kept_of(keep, percept, decision, None)
        possible = np.asarray(getattr(percept, "possible", True))
        times.append((outcome, done, kept, bool(terminated), bool(truncated), given, possible))
        if ended or terminated:
            # The last decision of an episode is not done, so nothing is learned from it.
            mind = _restart(agent, seen) if ended else mind
            observation, _ = env.reset()
            reward, terminated, truncated = None, False, False
        elif t + 1 < steps:
            moved = env.step(world.action(agent, action))
            observation, reward, terminated, truncated, _ = moved
    outcomes, actions, (percepts, decisions, _), ends, cuts, rewards, possible = _stack(times)
    mind = jax.tree.map(np.asarray, mind)
    return outcomes, actions, percepts, decisions, mind, None, None, ends, cuts, rewards, possible


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *trees)


@eqx.filter_jit
def _init(agent: AbstractAgent) -> Any:
    return jax.tree.map(jax.numpy.asarray, agent.init())


@eqx.filter_jit
def _turn(agent: AbstractAgent, state: Any, outcome: Any, key: Any, time: Any) -> tuple[Any, Any, Any, Any]:
    seen, percept = agent.observe(state, outcome)
    acting, decision = agent.decide(seen, jax.random.fold_in(key, time))
    return seen, acting, percept, decision


@eqx.filter_jit
def _restart(agent: AbstractAgent, state: Any) -> Any:
    return agent.restart(state)


class _Space:
    """A discrete space as numbers from zero: `sizes`, and both ways between."""

    def __init__(self, space: Any, word: str):
        self.space = space
        sizes, starts, self._write = _parts(space, word)
        self.sizes = tuple(int(n) for n in sizes)
        self._starts = np.asarray(starts, int)

    def read(self, value: Any) -> np.ndarray:
        try:
            found = np.concatenate([np.ravel(np.asarray(part)) for part in _listed(value)])
            if len(found) != len(self.sizes):
                raise ValueError
            whole = found.astype(int) - self._starts
            inside = (found == found.astype(int)).all() and ((whole >= 0) & (whole < self.sizes)).all()
        except (TypeError, ValueError):
            inside = False
            whole = np.zeros(0, int)
        if not inside:
            raise ValueError(f"GymnasiumWorld: got {value!r}, which is not in {self.space}.")
        return whole

    def write(self, controls: np.ndarray) -> Any:
        if ((controls < 0) | (controls >= np.asarray(self.sizes))).any():
            raise ValueError(
                f"GymnasiumWorld: got the controls {controls.tolist()}; {self.space} has {self.sizes}."
            )
        return self._write(controls + self._starts)


def _parts(space: Any, word: str) -> tuple[Sequence[int], Sequence[int], Callable[[np.ndarray], Any]]:
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return [space.n], [space.start], lambda value: int(value[0])
    if isinstance(space, spaces.MultiDiscrete):
        shape = space.nvec.shape
        sizes, starts = (np.broadcast_to(a, shape).ravel().tolist() for a in (space.nvec, space.start))
        return sizes, starts, lambda value: value.reshape(shape).astype(space.dtype)
    if isinstance(space, spaces.MultiBinary):
        count = int(np.prod(space.shape))
        return [2] * count, [0] * count, lambda value: value.reshape(space.shape).astype(space.dtype)
    if isinstance(space, spaces.Tuple) and all(isinstance(part, spaces.Discrete) for part in space.spaces):
        parts: Any = space.spaces
        return (
            [part.n for part in parts],
            [part.start for part in parts],
            lambda value: tuple(int(k) for k in value),
        )
    verb = {"observation": "TransformObservation", "action": "TransformAction"}[word]
    raise ValueError(
        f"GymnasiumWorld: got the {word} space {space}, which is not discrete; wanted Discrete, "
        "MultiDiscrete, MultiBinary or a Tuple of Discrete: map it with "
        f"gymnasium.wrappers.{verb}(env, function, gymnasium.spaces.Discrete(n))."
    )


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, tuple | list) else [value]
