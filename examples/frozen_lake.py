"""FrozenLake learned from scratch, by an agent that knows neither how ice moves it nor where rewards are.

The lake is slippery: a step goes where it is meant to with probability 1/3, else to either side. The agent
knows that it sees its place, and that it likes the reward of the goal and dislikes that of a hole. What
actions do (B) and where rewards are (A) it learns, by Dirichlet counts; it plans by a tree search in which
what it would learn about B counts beside what it likes.

    python examples/frozen_lake.py
"""

import gymnasium
import jax
import numpy as np

import vfe

HOLE, ICE, GOAL = -1.0, 0.0, 1.0
BLOCKS = ((0, 300), (300, 600), (600, 1000), (1000, 2000), (2000, 3000))


def lake() -> vfe.action.GymnasiumWorld:
    """The environment; after a hole or the goal it goes on at the start."""
    env = gymnasium.make("FrozenLake-v1", is_slippery=True, reward_schedule=(GOAL, HOLE, ICE))
    return vfe.action.GymnasiumWorld(env, rewards=(HOLE, ICE, GOAL), endless=True)


def beginner(horizon: int = 6, budget: int = 16) -> vfe.discrete.Agent:
    """An agent without experience: every place may follow every place, every reward be anywhere."""
    model = vfe.discrete.POMDP(
        A=[np.eye(16), np.full((3, 16), 1 / 3)],
        B=[np.full((16, 16, 4), 1 / 16)],
        C=[np.zeros(16), [-3.0, 0.0, 10.0]],
        D=[np.eye(16)[0]],
        factors={"place": [f"{k // 4},{k % 4}" for k in range(16)]},
        modalities={"seen": None, "reward": ("hole", "ice", "goal")},
        actions={"place": ("left", "down", "right", "up")},
    )
    counts = vfe.discrete.DirichletTables(
        model, A=[None, np.full((3, 16), 0.3)], B=[np.full((16, 16, 4), 0.02)]
    )
    return vfe.discrete.Agent(
        model,
        plan=vfe.discrete.Search(horizon, budget=budget, later="best"),
        terms=vfe.discrete.Terms(state_information=None, B_information=0.3),
        learning=vfe.discrete.OnlineLearning(counts),
    )


def successes(rewards: np.ndarray) -> list[tuple[int, int]]:
    """(goals, ends) by block of steps of rewards (runs, time)."""
    parts = [rewards[:, first:last] for first, last in BLOCKS]
    return [(int((part == GOAL).sum()), int((part != ICE).sum())) for part in parts if part.size]


def by_chance(steps: int, seeds: int) -> np.ndarray:
    """Rewards (seeds, time) of random actions."""
    env = lake().env
    rewards = np.zeros((seeds, steps))
    for seed in range(seeds):
        env.reset(seed=seed)
        env.action_space.seed(seed)
        for t in range(steps):
            _, rewards[seed, t], terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                env.reset()
    return rewards


def main(steps: int = 3000, seeds: int = 8, horizon: int = 6) -> None:
    """Prints how many episodes ended at the goal, by block of steps, of all seeds together."""
    agent, world = beginner(horizon), lake()
    history = vfe.live(agent, world, steps, jax.random.key(0), repeats=seeds, keep=())
    learned, chance = successes(np.asarray(history.rewards)), successes(by_chance(steps, seeds))
    for (first, last), (goals, ends), (lucky, all_ends) in zip(BLOCKS, learned, chance, strict=False):
        print(
            f"steps {first:4d} to {last:4d}: goal in {goals} of {ends} episodes "
            f"({goals / max(ends, 1):.0%}); at random {lucky} of {all_ends} "
            f"({lucky / max(all_ends, 1):.1%})"
        )


if __name__ == "__main__":
    main()
