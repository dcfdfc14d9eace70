"""A T-maze: who reads the cue first, who reads it again and again, and what each has of it.

One of two arms rewards and the other costs; a cue the other way tells which, with probability v. Policies
fixed in advance are taken by q(π) ∝ exp(−γ G(π)), with

G(π) = −Σ_t (⟨ln p(o_t | C)⟩ + I(s_t; o_t | π)),

under beliefs q(s_t | π) that no foreseen outcome updates: gains of information are added step by step. In a
tree every outcome updates the belief from which the next step is planned. In truth n readings tell

I(s; o_1 … o_n) = ln 2 − ⟨H(s | o_1 … o_n)⟩ ≤ ln 2, and n I(s; o_1) > I(s; o_1 … o_n) from n = 2 on.

Expected: with the term I agents read the cue before any arm, enter the arm at step 4 and are right with
probability v; with utility alone they never read it. Who looks two steps ahead sees no arm from the cue and
reads it again and again, five times or more; where little is at stake policies read oftener than a tree of
the same horizon; two readings, added, count for more than they tell.

What would have refuted it: agents that pass the cue although knowing counts, or read it although it does
not; who looks two steps ahead and leaves the cue at once; a tree that re-reads as policies do. So it is
where the term is taken from those who seek, or given to those who should not.
"""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import vfe
from vfe.action.history import History
from vfe.discrete import POMDP, Agent, Policies, Search, Terms, expected_free_energy, search
from vfe.discrete.worlds import corridor_tmaze, tmaze
from vfe.gallery.job import JobResult, Progress, Workspace
from vfe.gallery.settings import about

LEFT, RIGHT, CUE, JUNCTION = 1, 2, 3, 4
NEVER = np.iinfo(int).max
READINGS = 5
BUDGET = 64


@dataclasses.dataclass(frozen=True)
class Settings:
    """The maze, and how many live in it for how long; preferences in nats."""

    agents: int = about("how many live, for each way to plan", 400)
    steps: int = about("outcomes in a life, the first of them at the centre", 12)
    cue_validity: float = about("how probable it is that the cue is right", 0.95)
    reward: float = about("log-preference for the reward", 2.0)
    loss: float = about("log-preference for the loss", -3.0)
    small_reward: float = about("log-preference for the reward where little is at stake", 0.3)

    def __post_init__(self) -> None:
        if self.agents < 2 or self.steps < 8:
            raise ValueError(
                f"tmaze: got agents={self.agents} and steps={self.steps}; wanted two agents or more, and 8 "
                "steps or more (a wrong arm is left for the other by then)."
            )
        if not 0.5 < self.cue_validity < 1:
            raise ValueError(f"tmaze: got cue_validity={self.cue_validity}; wanted more than 0.5, below 1.")
        if not 0 < self.small_reward < self.reward or not self.loss < 0:
            raise ValueError(
                f"tmaze: got small_reward={self.small_reward}, reward={self.reward} and loss={self.loss}; "
                "wanted 0 < small_reward < reward, and a loss below zero."
            )


class Life(NamedTuple):
    """Agents of one kind in one maze, (agents, steps): places, whether the better arm is the right one,
    the outcomes of `reward` (0 none, 1 reward, 2 loss); `utility` (agents,): what they collected, nats."""

    history: History
    place: np.ndarray
    better: np.ndarray
    outcome: np.ndarray
    utility: np.ndarray

    @property
    def first_arm(self) -> np.ndarray:
        """(agents,): the step of the first arm, `NEVER` for who enters none."""
        return _first((self.place == LEFT) | (self.place == RIGHT))

    @property
    def cue_first(self) -> np.ndarray:
        """(agents,): whether the cue was read before an arm was entered."""
        return _first(self.place == CUE) < self.first_arm

    @property
    def readings(self) -> np.ndarray:
        """(agents,): how often the cue was read before an arm was entered."""
        before = np.arange(self.place.shape[1]) < self.first_arm[:, None]
        return ((self.place == CUE) & before).sum(1)

    @property
    def rewarded(self) -> np.ndarray:
        """Of those who entered an arm: whether the first one rewarded."""
        entered = self.first_arm < NEVER
        return self.outcome[entered, self.first_arm[entered]] == 1


def _first(there: np.ndarray) -> np.ndarray:
    return np.where(there.any(1), there.argmax(1), NEVER)


class Found(NamedTuple):
    """Everything that the page tells. `added`, `joint` (readings,): what so many readings of the cue are
    worth, by the additive information of policies and in truth; `turn`: the loss at which a tree of five
    steps turns to the cue (None: not between the reward's size and forty times that)."""

    lives: dict[str, Life]
    added: np.ndarray
    joint: np.ndarray
    turn: float | None


POLICIES = "policies of 3 steps"
BLIND = "policies of 3 steps; utility alone"
SHORT = "policies of 2 steps"
SHORT_DOUBLE = "policies of 2 steps; float64"
SHORT_TREE = "tree of 2 steps"
TREE = "tree of 3 steps"
KEPT = "tree of 3 steps; who enters an arm stays"
PLAIN = "tree of 3 steps; one step between all places"
LITTLE = "policies of 3 steps; little at stake"
LITTLE_TREE = "tree of 3 steps; little at stake"


def corridors(settings: Settings, reward: float | None = None, *, kept: bool = False) -> POMDP:
    """The maze with corridors; with `kept`, whoever has entered an arm stays in it.

    **Example:** `corridors(Settings(), kept=True).labels.states`.
    """
    maze = corridor_tmaze(
        settings.cue_validity, settings.reward if reward is None else reward, settings.loss
    )
    if not kept:
        return maze
    moves = np.array(maze.B[0])
    for arm in (LEFT, RIGHT):
        moves[:, arm] = np.eye(5)[arm][:, None]
    return eqx.tree_at(lambda m: m.B[0], maze, moves)


def kinds(settings: Settings) -> dict[str, tuple[POMDP, Agent]]:
    """Every maze with an agent that believes in it.

    **Example:** `kinds(Settings())["tree of 3 steps"]`.
    """
    maze, kept = corridors(settings), corridors(settings, kept=True)
    little = corridors(settings, settings.small_reward)
    plain = tmaze(settings.cue_validity, settings.reward, settings.loss, reward_probability=1.0)
    tree = Search(3, budget=BUDGET)

    def informed(weight: float) -> Terms:
        # As an array, so that both weights share one program.
        return Terms(state_information=jnp.asarray(weight))

    return {
        POLICIES: (maze, Agent(maze, 3, terms=informed(1.0))),
        BLIND: (maze, Agent(maze, 3, terms=informed(0.0))),
        TREE: (maze, Agent(maze, plan=tree)),
        KEPT: (kept, Agent(kept, plan=tree)),
        PLAIN: (plain, Agent(plain, plan=tree)),
        SHORT: (maze, Agent(maze, 2, precision=1.0)),
        SHORT_TREE: (maze, Agent(maze, plan=Search(2, budget=BUDGET), precision=1.0)),
        LITTLE: (little, Agent(little, 3, terms=informed(1.0))),
        LITTLE_TREE: (little, Agent(little, plan=tree)),
    }


def live(settings: Settings, seed: int, maze: POMDP, agent: Agent) -> Life:
    """So many agents, each alone in a maze; the same seed puts the reward into the same arms.

    **Example:** `live(Settings(agents=10), 0, *kinds(Settings())["policies of 3 steps"]).cue_first`.
    """
    history = vfe.live(
        agent,
        maze,
        settings.steps,
        jax.random.key(seed),
        repeats=settings.agents,
        keep=("percepts", "world_states"),
    )
    # As NumPy arrays, which stay float64 outside the context in which they were made.
    history = jax.tree.map(np.asarray, history)
    outcomes, states = np.asarray(history.outcomes), np.asarray(history.world_states.states)
    utility = np.asarray(maze.C[1])[outcomes[..., 1]].sum(1)
    return Life(history, outcomes[..., 0], states[..., 1], outcomes[..., 1], utility)


def added_information(settings: Settings) -> np.ndarray:
    """(readings,): what 1, 2, … readings are worth to a policy, which adds the gains of its steps.

    **Example:** `added_information(Settings())[:2]`.
    """
    plain = tmaze(settings.cue_validity)
    again = Policies(plain, [[[CUE, 0]] * READINGS])
    with jax.enable_x64(True):
        gains = expected_free_energy(plain, tuple(jnp.asarray(d) for d in plain.D), again).terms
        return np.cumsum(np.asarray(gains["state_information"])[0])


def joint_information(settings: Settings) -> np.ndarray:
    """(readings,): I(better arm; o_1 … o_n) = ln 2 − ⟨H(better arm | o_1 … o_n)⟩, readings counted.

    **Example:** `joint_information(Settings())[:2]`.
    """
    from scipy.special import comb, xlogy

    v, worth = settings.cue_validity, []
    for n in range(1, READINGS + 1):
        k = np.arange(n + 1)
        # p(better arm, k of n readings say "left"), for both arms, each as probable.
        both = 0.5 * comb(n, k) * np.stack([v**k * (1 - v) ** (n - k), (1 - v) ** k * v ** (n - k)])
        told = both.sum(0)
        worth.append(xlogy(both, both).sum() - xlogy(told, told).sum() + np.log(2))
    return np.array(worth)


def utilities(settings: Settings) -> dict[str, float]:
    """What a life in the corridors is worth on average, nats: the cue first, or straight to an arm.

    Straight: an arm from step 2 on, if it is the wrong one the other from step 4 on. Cue first: the same
    from steps 4 and 6 on, and wrong with the probability 1 − v.

    **Example:** `utilities(Settings())["straight"]`.
    """
    T, v, r, loss = settings.steps, settings.cue_validity, settings.reward, settings.loss
    return {
        "cue first": v * r * (T - 4) + (1 - v) * (loss + r * (T - 6)),
        "straight": 0.5 * r * (T - 2) + 0.5 * (loss + r * (T - 4)),
    }


def break_even(settings: Settings) -> float:
    """The loss at which both of `utilities` are equal: −r (1 + 2 (1 − v)) / (v − ½).

    **Example:** `break_even(Settings())`.
    """
    v = settings.cue_validity
    return -settings.reward * (1 + 2 * (1 - v)) / (v - 0.5)


def turning_point(settings: Settings) -> float | None:
    """The loss at which a tree of five steps turns from the nearest arm to the cue, by bisection."""
    belief = jnp.zeros((5, 2)).at[0].set(0.5)
    tree = Search(5, budget=BUDGET, later="best")

    def straight(loss: float) -> bool:
        maze = corridors(dataclasses.replace(settings, loss=loss))
        total = np.asarray(search(maze, belief, tree).total)
        return bool(total[JUNCTION] < total[CUE])

    low, high = -40 * settings.reward, -1e-3 * settings.reward
    if straight(low) or not straight(high):
        return None
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (low, middle) if straight(middle) else (middle, high)
    return (low + high) / 2


def find(settings: Settings, seed: int, progress: Progress) -> Found:
    """All lives, and what readings are worth.

    **Example:** `find(Settings(agents=10), 0, Silent()).lives["tree of 3 steps"].utility`.
    """
    lives = {}
    planners = kinds(settings)
    progress.start("lives", len(planners) + 2)
    for name, (maze, agent) in planners.items():
        lives[name] = live(settings, seed, maze, agent)
        progress.step(F=float(np.asarray(lives[name].history.percepts.free_energy.total).sum(1).mean()))
    with jax.enable_x64(True):
        lives[SHORT_DOUBLE] = live(settings, seed, *kinds(settings)[SHORT])
    progress.step()
    turn = turning_point(settings)
    progress.step()
    progress.done()
    return Found(lives, added_information(settings), joint_information(settings), turn)


def run(
    settings: Settings,
    *,
    seed: int,
    data: dict[str, np.ndarray] | None,
    folder: Workspace,
    progress: Progress,
    resume: bool,
) -> JobResult:
    """Agents that plan in different ways, in mazes of different ways: figures courses.png and worth.png;
    result.nc holds places, outcomes, F by level and utilities of all lives.

    **Example:** `vfe run tmaze`.
    """
    from vfe.gallery.discrete.tmaze_page import write_up

    return write_up(settings, find(settings, seed, progress))
