"""A grid whose laws are unknown: agents that want to know them learn them sooner than those who wander.

Agents see where they are, s, and count what their actions u do, b(s', s, u); they believe in the mean of
Dirichlet(b). Nothing else moves them than what one more count would teach: policies are drawn by

q(π) ∝ exp(−γ G(π)),    G(π) = −w Σ_t ⟨KL(Dirichlet(b + one count) ‖ Dirichlet(b))⟩,

with w = 1 for who seeks, 0 for who wanders, −1 for who avoids it. How far they are from the truth, which no
agent knows, is KL from the true p(s' | s, u) to the one believed, mean over columns (s, u).

Expected: KL of who seeks is halved in fewer steps than KL of who wanders, is lower in the last block of
steps, and its interval is apart from the wanderers' from the third block on at the latest; who avoids
learning stays farther from the truth than who wanders.

What would have refuted it: wanderers that learn as fast, or agents with the sign of G reversed that do: it
would not be the information that makes the difference. So it is where who avoids learning is put in the
place of who seeks.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vfe
from vfe.action.history import History
from vfe.discrete import POMDP, Agent, DirichletTables, OnlineLearning, Terms
from vfe.discrete.worlds import grid
from vfe.gallery.job import JobResult, Progress, Workspace
from vfe.gallery.settings import about

KINDS = {"seeks": 1.0, "wanders": 0.0, "avoids": -1.0}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The grid, what is believed of it at first, and how long agents live in it."""

    agents: int = about("how many of each kind", 20)
    blocks: int = about("how many blocks of steps they live", 8)
    block: int = about("steps in a block", 25)
    rows: int = about("of the grid, and columns", 3)
    slip: float = about("how probable it is that a step fails", 0.1)
    concentration: float = about("count of every transition at first", 0.5)
    horizon: int = about("steps that agents look ahead", 2)
    precision: float = about("γ of their policies", 16.0)

    def __post_init__(self) -> None:
        if self.agents < 2 or self.blocks < 2 or self.block < 1 or self.rows < 2:
            raise ValueError(
                f"grid-learning: got agents={self.agents}, blocks={self.blocks}, block={self.block} and "
                f"rows={self.rows}; wanted two agents, two blocks, one step and two rows, or more."
            )
        for name in ("concentration", "precision"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"grid-learning: got {name}={getattr(self, name)}; wanted more than zero (a count of "
                    "zero never grows)."
                )


class Life(NamedTuple):
    """Agents of one kind. `divergence` (agents, steps): KL from the true B to the mean of the counts, nats
    per column, after every step; `tried` (agents, steps): the share of the pairs of place and action."""

    history: History
    divergence: np.ndarray
    tried: np.ndarray

    def by_block(self, block: int) -> np.ndarray:
        """(agents, blocks): the mean divergence in each."""
        return self.divergence.reshape(len(self.divergence), -1, block).mean(2)

    @property
    def halved(self) -> np.ndarray:
        """(agents,): steps until the divergence was half of what it was at first; the whole life for who
        does not come so far."""
        below = self.divergence < 0.5 * self.divergence[:, :1]
        return np.where(below.any(1), below.argmax(1), below.shape[1])


def beginner(settings: Settings, world: POMDP, weight: Any) -> Agent:
    """An agent that knows where it is, not what actions do; `weight`: of what it would learn about B.

    **Example:** `beginner(Settings(), world(Settings()), 1.0)`.
    """
    return Agent(
        world,
        settings.horizon,
        terms=Terms(utility=None, state_information=None, B_information=weight),
        precision=settings.precision,
        action_precision=1.0,
        learning=OnlineLearning(DirichletTables(world, B=[first_counts(settings, world)])),
    )


def world(settings: Settings) -> POMDP:
    """The grid; places are seen exactly. **Example:** `world(Settings()).states`."""
    return grid(settings.rows, settings.rows, slip=settings.slip, sees=1.0)


def first_counts(settings: Settings, grid_world: POMDP) -> np.ndarray:
    """Every transition as probable as any other. **Example:** `first_counts(settings, world(settings))`."""
    return np.full(np.shape(grid_world.B[0]), settings.concentration)


def counts_in_time(settings: Settings, places: np.ndarray, actions: np.ndarray) -> Any:
    """Counts (agents, next, place, action) after each step, by counting what was seen: a generator.

    **Example:** `list(counts_in_time(settings, places, actions))[-1]`.
    """
    agents = np.arange(len(places))
    counts = np.repeat(first_counts(settings, world(settings))[None], len(places), 0)
    for t in range(1, places.shape[1]):
        counts[agents, places[:, t], places[:, t - 1], actions[:, t - 1]] += 1
        yield counts


def divergence(truth: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """KL(B ‖ counts / Σ counts), mean over columns, nats; counts (…, next place, place, action).

    **Example:** `divergence(np.eye(2)[..., None], np.ones((2, 2, 1)))`.
    """
    from scipy.special import rel_entr

    return rel_entr(truth, counts / counts.sum(-3, keepdims=True)).sum(-3).mean((-2, -1))


def live(settings: Settings, seed: int) -> dict[str, Life]:
    """Agents of all kinds, side by side in one program, each alone in its grid.

    **Example:** `live(Settings(agents=3), 0)["seeks"].divergence`.
    """
    grid_world = world(settings)
    truth = np.asarray(grid_world.B[0])
    history = vfe.live(
        lambda weight: beginner(settings, grid_world, weight),
        grid_world,
        settings.blocks * settings.block + 1,
        jax.random.key(seed),
        each=jnp.array(list(KINDS.values())),
        repeats=settings.agents,
        keep=("percepts",),
    )
    lives = {}
    for k, name in enumerate(KINDS):
        places, actions = (np.asarray(part)[k, ..., 0] for part in (history.outcomes, history.actions))
        apart, tried = [], []
        for counts in counts_in_time(settings, places, actions):
            apart.append(divergence(truth, counts))
            more = counts.sum(1) > settings.concentration * len(truth) + 0.5
            tried.append(more.mean((1, 2)))
        lives[name] = Life(history[k], np.stack(apart, 1), np.stack(tried, 1))
    return lives


def run(
    settings: Settings,
    *,
    seed: int,
    data: dict[str, np.ndarray] | None,
    folder: Workspace,
    progress: Progress,
    resume: bool,
) -> JobResult:
    """Agents that seek what they would learn, that do not care, and that avoid it: figure learning.png;
    result.nc holds places, actions, F by level, and by step how far the laws believed are from the truth.

    **Example:** `vfe run grid-learning`.
    """
    from vfe.gallery.discrete.grid_learning_page import write_up

    progress.start("lives", 1)
    lives = live(settings, seed)
    progress.step(KL=float(lives["seeks"].divergence[:, -1].mean()))
    progress.done()
    return write_up(settings, lives)
