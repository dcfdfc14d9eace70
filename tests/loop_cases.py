"""Agents, worlds and environments, small and plain, to test the loop with."""

from typing import Any

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

import vfe
from vfe.action import AbstractAgent, AbstractWorld
from vfe.discrete.states.elimination import move
from vfe.discrete.states.joint import joint_likelihood, marginal


class Percept(eqx.Module):
    factors: Any
    free_energy: Any
    possible: Any


class Decision(eqx.Module):
    action: Any
    policy_probabilities: Any
    expected_free_energy: Any


class Wanderer(AbstractAgent):
    """Believes exactly, acts at random: the control u of every factor with p ∝ exp(−tilt u)."""

    model: vfe.discrete.POMDP
    tilt: Any = 0.0
    impossible: str = eqx.field(static=True, default="error")

    def init(self):
        prior = jnp.ones(())
        for table in self.model.D:
            prior = jnp.multiply.outer(prior, jnp.asarray(table))
        return prior

    def observe(self, state, outcome):
        both = joint_likelihood(self.model, outcome).reshape(self.model.states) * state
        mass = both.sum()
        names = self.model.labels.modalities
        observed = {name: -jnp.log(mass) / len(names) for name in names}
        energy = vfe.FreeEnergy(observed, {}, {}, None, jnp.ones(()), vfe.Kind.exact, (), names)
        belief = jnp.where(mass > 0, both / jnp.where(mass > 0, mass, 1.0), state)
        factors = tuple(marginal(belief, (f,)) for f in range(belief.ndim))
        return belief, Percept(factors, energy, mass > 0)

    def decide(self, state, key):
        counts = self.model.controls
        scores = [self.tilt * jnp.arange(n) for n in counts]
        keys = jax.random.split(key, len(counts))
        drawn = [jax.random.categorical(k, -s) for k, s in zip(keys, scores, strict=True)]
        action = jnp.stack(drawn).astype(int)
        worth = scores[int(np.argmax(counts))]
        return move(self.model, state, action), Decision(action, jax.nn.softmax(-worth), worth)

    def restart(self, state):
        return self.init()


class Counter(AbstractAgent):
    """Does 0, 1, … in turn: `steps` in this episode, `all` in its life; notes when it is traced."""

    controls: int = 3
    traced: Any = eqx.field(static=True, default=None)

    def init(self):
        return {"steps": jnp.zeros((), int), "all": jnp.zeros((), int)}

    def observe(self, state, outcome):
        if self.traced is not None:
            self.traced.add(len(self.traced))
        return state, {"outcome": jnp.asarray(outcome), **state}

    def decide(self, state, key):
        action = (state["all"] % self.controls)[None]
        return {name: n + 1 for name, n in state.items()}, Action(action)

    def restart(self, state):
        return {**state, "steps": jnp.zeros((), int)}


class Coin(AbstractAgent):
    """Does 1 with the probability 1 / (1 + exp(−tilt)), else 0."""

    tilt: Any = 0.0

    def init(self):
        return jnp.zeros((), int)

    def observe(self, state, outcome):
        return state + 1, {"outcome": outcome}

    def decide(self, state, key):
        return state, Toss(
            jax.random.bernoulli(key, jax.nn.sigmoid(self.tilt))[None].astype(int), self.tilt
        )

    def restart(self, state):
        return self.init()


class Toss(eqx.Module):
    action: Any
    tilt: Any


class Action(eqx.Module):
    action: Any


class Echo(AbstractWorld):
    """Answers every action with itself, and begins with 7."""

    def reset(self, key):
        return jnp.zeros((), int), jnp.array([7])

    def step(self, state, action, key):
        return state + 1, action

    def ended(self, state):
        return False


class Corridor(gymnasium.Env):
    """Places 5, 6, 7, 8: right (−1) or left (0); at 8 it ends with a reward of one; steps cost nothing."""

    def __init__(self):
        self.observation_space = gymnasium.spaces.Discrete(4, start=5)
        self.action_space = gymnasium.spaces.Discrete(2, start=-1)
        self.place = 5

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 5
        return self.place, {}

    def step(self, action):
        self.place = min(max(self.place + (1 if action == -1 else -1), 5), 8)
        return self.place, float(self.place == 8), self.place == 8, False, {}


class Rooms(gymnasium.Env):
    """Spaces of several parts: two numbers are seen, two are done, and what is done is seen."""

    def __init__(self):
        self.observation_space = gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(3)] * 2)
        self.action_space = gymnasium.spaces.MultiDiscrete([2, 3])

    def reset(self, *, seed=None, options=None):
        return (0, 2), {}

    def step(self, action):
        assert self.action_space.contains(action)
        return (int(action[0]), int(action[1])), 0.0, False, False, {}
