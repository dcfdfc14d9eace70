"""The dark room: who expects to be fed leaves it, who only wants no surprises stays there and starves.

There is a dark room, where nothing is ever seen and energy is used up, and a kitchen, where every look
shows something else and energy comes back. At no energy life ends. Agents see, feel their energy, know the
laws of their world exactly, and look a few steps ahead. They differ only in what they expect to sense:

- one expects to be fed, a prior over what it feels inside: it minimises −⟨ln p(o)⟩ under that prior;
- one expects nothing in particular and minimises the surprise that it predicts, ⟨H(o | s)⟩;
- one expects to see darkness.

Expected: the first leaves the dark room and lives; the others stay and starve, with F = −ln p(o_1 … o_T)
of their own lives far below that of the living. So low F of what one senses is no sign of a good life by
itself: the same life also costs less F if it is lived with closed eyes. On one and the same stream of
sensations who expects darkness has the higher F, unless it is dark. And F of densities depends on units:
n readings in units 1/c as large have n ln c more F for the same fit, by which a poor model in large units
seems better than a good one in small units. So F compares on one stream in one unit. What tells them
apart is one prior for all, over what a body should feel: measured by it, who stays has the more surprising
life.

It would have been refuted by an agent with the prior that stays or starves, by one without it that leaves,
by a life in the dark with more F than the other, or by another change of F with units than n ln c.
"""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import vfe
from vfe.action.history import History
from vfe.discrete import POMDP, Agent, Terms
from vfe.gallery.intervals import Interval, mean_of
from vfe.gallery.job import JobResult, Progress, Workspace
from vfe.gallery.settings import about

DARK, KITCHEN = 0, 1
FED, CALM, DARKNESS = "expects to be fed", "expects nothing, avoids surprise", "expects darkness"
KINDS = (FED, CALM, DARKNESS)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The world, and how many live in it for how long."""

    agents: int = about("of each kind", 100)
    steps: int = about("of a life", 60)
    levels: int = about("of energy above none", 5)
    scenes: int = about("that the kitchen shows, each as probable", 4)
    tires: float = about("probability that a level of energy is used up in the dark", 0.4)
    feeds: float = about("probability that a level comes back in the kitchen", 0.7)
    preference: float = about("for a level of energy more, nats; less than zero: for less", 1.0)
    horizon: int = about("steps that agents look ahead", 3)

    def __post_init__(self) -> None:
        for name, least in (("agents", 10), ("steps", 10), ("levels", 2), ("scenes", 2), ("horizon", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"homeostasis: got {name}={getattr(self, name)}; wanted {least} or more.")
        for name in ("tires", "feeds"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(
                    f"homeostasis: got {name}={getattr(self, name)}; wanted a probability between 0 and 1."
                )


def world(settings: Settings, sight: Any = None, inside: Any = None) -> POMDP:
    """Two rooms and energy; `sight` and `inside`: log-preferences for what is seen and felt.

    **Example:** `world(Settings()).labels.factors`.
    """
    n = settings.levels + 1
    # To the dark room, or to the kitchen, from wherever one is.
    moves = np.zeros((2, 2, 2))
    moves[DARK, :, 0] = moves[KITCHEN, :, 1] = 1.0
    energy = np.zeros((n, n, 2))
    energy[0, 0] = 1.0
    for level in range(1, n):
        energy[level - 1, level, DARK], energy[level, level, DARK] = settings.tires, 1 - settings.tires
        energy[min(level + 1, n - 1), level, KITCHEN] += settings.feeds
        energy[level, level, KITCHEN] += 1 - settings.feeds
    seen = np.zeros((settings.scenes + 1, 2))
    seen[0, DARK], seen[1:, KITCHEN] = 1.0, 1 / settings.scenes
    scenes = tuple(f"scene {k + 1}" for k in range(settings.scenes))
    start = np.eye(n)[-1]
    return POMDP(
        [seen, np.eye(n)],
        [moves, energy[..., None]],
        [np.zeros(len(seen)) if sight is None else sight, np.zeros(n) if inside is None else inside],
        [np.eye(2)[DARK], start],
        A_dependencies=[["place"], ["energy"]],
        B_dependencies=[["place"], ["energy", "place"]],
        factors={"place": ("dark room", "kitchen"), "energy": tuple(str(k) for k in range(n))},
        modalities={"sight": ("dark", *scenes), "inside": tuple(f"feels {k}" for k in range(n))},
        actions={"place": ("to the dark", "to the kitchen")},
    )


def fed(settings: Settings) -> np.ndarray:
    """ln p of what a body should feel: each level more is e^preference times as probable.

    **Example:** `np.exp(fed(Settings())).sum()`.
    """
    weights = settings.preference * np.arange(settings.levels + 1.0)
    return weights - np.log(np.exp(weights).sum())


def darkness(settings: Settings) -> np.ndarray:
    """p of what is seen, as who expects darkness expects it. **Example:** `darkness(Settings())[0]`."""
    return np.array([0.98] + [0.02 / settings.scenes] * settings.scenes)


def live(settings: Settings, seed: int) -> History:
    """Agents of every kind, each alone: leading axes (kind, agent).

    **Example:** `live(Settings(agents=10), 0).outcomes`.
    """
    dark = np.log(darkness(settings))
    nothing, inside = np.zeros(settings.scenes + 1), fed(settings)
    each = (
        jnp.array([nothing, nothing, dark]),
        jnp.array([inside, 0 * inside, 0 * inside]),
        jnp.array([1.0, 0.0, 1.0]),
    )

    def agent(element: Any) -> Agent:
        sight, inside, weight = element
        terms = Terms(utility=weight, ambiguity=1 - weight, state_information=None)
        return Agent(world(settings, sight, inside), settings.horizon, terms=terms)

    return vfe.live(
        agent,
        world(settings),
        settings.steps,
        jax.random.key(seed),
        each=each,
        repeats=settings.agents,
        keep=("percepts",),
    )


class Lives(NamedTuple):
    """By kind and agent, (kinds, agents, steps): place, energy, F of what was sensed, F of the same life
    with closed eyes, and under a model in which all rooms are dark, and surprise of what was felt under
    the prior of a fed body; nats."""

    place: np.ndarray
    energy: np.ndarray
    free_energy: np.ndarray
    eyes_closed: np.ndarray
    all_dark: np.ndarray
    against_prior: np.ndarray

    @property
    def survives(self) -> np.ndarray:
        """(kinds, agents): whether there is energy at the end."""
        return self.energy[..., -1] > 0

    def apart(self, name: str, one: str, other: str) -> Interval:
        """Mean of a measure per step, one kind less another, with its 95 % interval over pairs of agents.

        **Example:** `lives.apart("free_energy", "expects to be fed", "expects darkness").low`.
        """
        means = getattr(self, name).mean(2)
        return mean_of(means[KINDS.index(one)] - means[KINDS.index(other)])


def measure(settings: Settings, seed: int) -> Lives:
    """What came of living. **Example:** `measure(Settings(), 0).survives.mean(1)`."""
    history = live(settings, seed)
    outcomes, actions = np.asarray(history.outcomes), np.asarray(history.actions)
    shape = outcomes.shape[:3]
    blind = outcomes.astype(float)
    blind[..., 0] = np.nan
    moves = actions[:, :, :-1].reshape(-1, shape[2] - 1, 2)

    def surprise(model: POMDP, outcomes: np.ndarray) -> np.ndarray:
        found = vfe.filter(model, outcomes.reshape(-1, *outcomes.shape[2:]), actions=moves)
        return found.surprise.reshape(shape)

    known = world(settings)
    dark = eqx.tree_at(lambda m: m.A[0], known, np.stack([darkness(settings)] * 2, 1))
    return Lives(
        (outcomes[..., 0] > 0).astype(int),
        outcomes[..., 1],
        np.asarray(history.percepts.free_energy.total),
        surprise(known, blind),
        surprise(dark, outcomes.astype(float)),
        -fed(settings)[outcomes[..., 1]],
    )


class Units(NamedTuple):
    """F over all `readings` of energy, nats (2,), under their mean and under half of it, in the first
    units, `before`, and in units 1/c as large, `after`; `scale`: c."""

    before: np.ndarray
    after: np.ndarray
    scale: float
    readings: int


def in_other_units(lives: Lives, scale: float = 1000.0, convert: bool = True) -> Units:
    """F of what the first of the fed feels, as a meter of noise 0.3 would show it, in two units.

    `convert`: whether models are told of the other one.

    **Example:** `in_other_units(measure(Settings(agents=10), 0)).after`.
    """
    felt = lives.energy[0, 0] + 0.3 * np.random.default_rng(0).normal(size=lives.energy.shape[2])
    expected = felt.mean() * np.array([1.0, 0.5])

    def free(unit: float, shown: float) -> np.ndarray:
        def one(mean: float) -> float:
            model = vfe.Model(
                energy=vfe.gaussian(jnp.array([unit * mean]), scale=unit),
                meter=vfe.gaussian(vfe.Affine(jnp.eye(1)), scale=0.3 * unit, parents="energy"),
            )
            percept = vfe.perceive(model, {"meter": shown * felt[:, None]}, solver=vfe.Exact())
            return float(percept.free_energy.total.sum())

        return np.array([one(mean) for mean in expected])

    with jax.enable_x64(True):
        return Units(free(1.0, 1.0), free(scale if convert else 1.0, scale), scale, len(felt))


def run(
    settings: Settings,
    *,
    seed: int,
    data: dict[str, np.ndarray] | None,
    folder: Workspace,
    progress: Progress,
    resume: bool,
) -> JobResult:
    """Three kinds of agents in two rooms: figure homeostasis.png; result.nc holds their lives and F.

    **Example:** `vfe run homeostasis`.
    """
    from vfe.gallery.discrete.homeostasis_page import write_up

    progress.start("lives", 1)
    lives = measure(settings, seed)
    progress.step(F=float(lives.free_energy[0].mean()))
    progress.done()
    return write_up(settings, lives)
