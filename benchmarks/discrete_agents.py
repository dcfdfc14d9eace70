"""Agents side by side with pymdp (inferactively-pymdp), in one process, after compilation.

`python benchmarks/discrete_agents.py` prints a table; pymdp must be installed beside vfe. Times are medians
over interleaved blocks; ratios are taken within blocks. Memory is what XLA says a compiled program needs
beside its arguments.
"""

import functools
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from timing import interleaved, ratio

import vfe
from vfe.discrete import POMDP, Agent, Terms, every_policy, expected_free_energy
from vfe.discrete.worlds import corridor_tmaze, grid

BLOCKS = 200
KEY = jax.random.key(0)


def peer_of(model: POMDP, steps: int, count: int = 1) -> Any:
    """The same model as an agent of pymdp."""
    from pymdp.agent import Agent as Peer

    def arrays(tables: Any) -> list[Any]:
        return [jnp.asarray(t, jnp.float32) for t in tables]

    return Peer(
        A=arrays(model.A),
        B=arrays(model.B),
        C=arrays(model.C),
        D=arrays(model.D),
        A_dependencies=[list(d) for d in model.A_dependencies],
        B_dependencies=[list(d) for d in model.B_dependencies],
        policy_len=steps,
        batch_size=count,
    )


def peer_step(agent: Any, outcomes: Any, prior: Any) -> Any:
    """Perception, planning and choice of one step."""
    states = agent.infer_states(outcomes, prior)
    probabilities, _ = agent.infer_policies(states)
    action = agent.sample_action(probabilities)
    return action, agent.update_empirical_prior(action, states)


@eqx.filter_jit
def own_step(agent: Agent, state: Any, outcomes: Any, key: Any) -> Any:
    """Perception, planning and choice of one step."""
    state, _ = agent.observe(state, outcomes)
    state, decision = agent.decide(state, key)
    return decision.action, state


@eqx.filter_jit
def own_steps(agent: Agent, states: Any, outcomes: Any, key: Any) -> Any:
    """The same for many agents."""
    return jax.vmap(functools.partial(own_step, agent), (0, 0, None))(states, outcomes, key)


def beside(name: str, own: Any, peer: Any, blocks: int = BLOCKS) -> None:
    """One line of the table: times, and own time over the peer's."""
    found = interleaved({"own": own, "peer": peer}, blocks)
    low, middle, high = ratio(found["own"], found["peer"])
    print(
        f"{name:48s} {np.median(found['own']) * 1e3:10.3f} ms {np.median(found['peer']) * 1e3:10.3f} ms  "
        f"{middle:7.3f} ({low:.3f} to {high:.3f})"
    )


def needed(function: Any, *arguments: Any) -> float:
    """MiB that a compiled function needs beside its arguments."""
    dynamic, static = eqx.partition(arguments, eqx.is_array)
    program = jax.jit(lambda given: function(*eqx.combine(given, static))).lower(dynamic).compile()
    found = program.memory_analysis()
    return (found.temp_size_in_bytes + found.output_size_in_bytes) / 2**20


def mazes() -> None:
    """A whole step in the T-maze with corridors: one agent, 1,000 agents, and without a jit around it."""
    model, steps = corridor_tmaze(), 3
    for averages in ("joint", "factorised"):
        agent = Agent(model, steps, terms=Terms(averages=averages))
        state = agent.init()
        peer = peer_of(model, steps)
        jitted = eqx.filter_jit(peer_step)
        here, there = jnp.zeros(3, int), [jnp.zeros(1, int)] * 3
        beside(
            f"T-maze step, 125 policies, {averages}",
            lambda a=agent, s=state, o=here: own_step(a, s, o, KEY),
            lambda p=peer, j=jitted, o=there: j(p, o, p.D),
        )
        many = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (1000, *leaf.shape)), state)
        crowd = peer_of(model, steps, 1000)
        beside(
            f"the same, 1,000 agents, {averages}",
            lambda a=agent, m=many: own_steps(a, m, jnp.zeros((1000, 3), int), KEY),
            lambda p=crowd, j=jitted: j(p, [jnp.zeros(1000, int)] * 3, p.D),
            15,
        )
    calls = []
    for _ in range(50):
        start = time.perf_counter()
        state, percept = agent.observe(state, [0, 0, 0])
        jax.block_until_ready(percept)
        middle = time.perf_counter()
        _, decision = agent.decide(state, KEY)
        jax.block_until_ready(decision)
        calls.append((middle - start, time.perf_counter() - middle))
        state = agent.init()
    observed, decided = np.median(np.array(calls[5:]), 0) * 1e3
    print(f"without a jit around it: observe {observed:.3f} ms, decide {decided:.3f} ms")


def rollouts() -> None:
    """First and second call of 20 steps in the maze."""
    from pymdp.envs import PymdpEnv
    from pymdp.envs.rollout import rollout

    model, steps = corridor_tmaze(), 3
    peer = peer_of(model, steps)
    env = PymdpEnv(
        A=[jnp.asarray(a, jnp.float32) for a in model.A],
        B=[jnp.asarray(b, jnp.float32) for b in model.B],
        D=[jnp.asarray(d, jnp.float32) for d in model.D],
        A_dependencies=[list(d) for d in model.A_dependencies],
        B_dependencies=[list(d) for d in model.B_dependencies],
    )
    calls = {
        "vfe.live": lambda: vfe.live(Agent(model, steps), model, 20, KEY).actions,
        "rollout": lambda: rollout(peer, env, 20, jax.random.PRNGKey(0))[1]["action"],
    }
    for name, call in calls.items():
        times = []
        for _ in range(2):
            start = time.perf_counter()
            jax.block_until_ready(call())
            times.append(time.perf_counter() - start)
        print(f"{name}: 20 steps, first call {times[0]:.2f} s, second {times[1] * 1e3:.1f} ms")


def grids() -> None:
    """Expected free energies of all policies of 4 and 5 steps on a grid of 10 by 10."""
    model = grid(10, 10)
    for steps in (4, 5):
        policies = jax.tree.map(jnp.asarray, every_policy(model, steps))
        belief = jnp.asarray(model.D[0])
        table = jax.tree.map(jnp.asarray, model)
        peer = peer_of(model, steps)
        infer = eqx.filter_jit(lambda p, q: p.infer_policies(q)[1])
        states = [q[:, None] for q in peer.D]

        def own(model: Any, belief: Any, policies: Any) -> Any:
            return expected_free_energy(model, belief, policies).total

        quick = eqx.filter_jit(own)
        mine = np.asarray(quick(table, belief, policies))
        theirs = np.asarray(infer(peer, states))[0]
        print(f"length {steps}: largest difference of values {np.abs(mine + theirs).max():.1e}")
        beside(
            f"grid 10x10, {len(policies)} policies of {steps} steps",
            lambda q=quick, m=table, b=belief, p=policies: q(m, b, p),
            lambda i=infer, p=peer, s=states: i(p, s),
            5,
        )
        memory = (
            needed(own, table, belief, policies),
            needed(lambda p, q: p.infer_policies(q)[1], peer, states),
        )
        print(f"memory: {memory[0]:.1f} MiB, {memory[1]:.1f} MiB, ratio {memory[0] / memory[1]:.3f}")


if __name__ == "__main__":
    print(f"{'':48s} {'vfe':>13s} {'pymdp':>13s}  ratio (quartiles)")
    mazes()
    grids()
    rollouts()
