"""Who is fitter has lower F: a population in a changing world, its fitness counted without F.

Food is in one of several places and moves now and then. All agents see the same noisy cues of where it is;
each has its own model of them, p(o, s) = Π p(o_t | s_t) p(s_t | s_t−1), with its own hazard (how often
food is believed to move: its flexibility) and its own trust (how often a cue is believed to be right).
Perception is exact, so that F at a step is −ln p(o_t | o_1 … o_t−1) under that agent's model.

Fitness is what an agent eats less what its mistakes cost: it goes to the place that it holds most probable
if that is worth the risk, p > loss / (1 + loss), and else stays at home. Whether food is there is a fact of
the world which F never sees, and going changes no cue: all values of F are of one and the same stream.

Expected: the rank correlation of mean F and fitness is below zero, and its bootstrap interval too; F
rises when food has moved, and falls again sooner in who is fitter; and if the fitter half has the children,
F on a stream that nobody lived in falls over generations, though selection never sees F.

It would have been refuted by an interval that includes zero, such as it is with shuffled fitness; by an F
that falls as much where parents are drawn at random; by an excess of F after a change that lasts as long in
the fittest as in the least fit.

Low F alone is no fitness. Where an error costs nothing (loss=0) only the most probable place counts, not
how probable it is believed to be, and F, which counts that, says less about fitness. And who closes its
eyes has the lowest F of all and starves: F of streams that agents choose for themselves (the dark room)
ranks them the wrong way round.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

import vfe
from vfe.discrete import POMDP, HiddenMarkov
from vfe.gallery.intervals import Interval, mean_of
from vfe.gallery.job import JobResult, Progress, Workspace
from vfe.gallery.settings import about

HAZARDS = (5e-4, 0.6)
# Quiet steps about a change: before it, after it; when F is at its peak, and when it should be back.
BEFORE, AFTER = 8, 16
PEAK, LATE = (0, 2), (4, 12)
LOSSES = (0.0, 1.0, 2.0, 4.0, 8.0)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The world, the population and its generations."""

    agents: int = about("how many live side by side", 60)
    streams: int = about("series of cues, the same for all agents", 16)
    steps: int = about("of each stream", 400)
    places: int = about("where food may be", 4)
    validity: float = about("how probable it is that a cue is right", 0.75)
    stays: float = about("mean number of steps that food stays", 50.0)
    loss: float = about("what a visit in vain costs, in units of what food brings", 4.0)
    generations: int = about("of selection, and of drift", 10)
    lineages: int = about("how often evolution is run", 10)
    members: int = about("agents in a generation", 40)
    mutation: float = about("sd of a child's ln hazard and logit trust about its parent's", 0.3)
    draws: int = about("of the bootstrap and of the null", 2000)

    def __post_init__(self) -> None:
        for name, least in (
            ("agents", 10),
            ("streams", 2),
            ("steps", BEFORE + AFTER + 20),
            ("places", 2),
            ("generations", 2),
            ("lineages", 2),
            ("members", 4),
            ("draws", 100),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"selection: got {name}={getattr(self, name)}; wanted {least} or more.")
        if not 1 / self.places < self.validity < 1:
            raise ValueError(
                f"selection: got validity={self.validity}; wanted more than {1 / self.places:.3g}, with "
                "which cues say nothing, and less than 1."
            )
        for name, low in (("stays", 1.0), ("loss", -1e-300), ("mutation", -1e-300)):
            if not getattr(self, name) > low:
                raise ValueError(
                    f"selection: got {name}={getattr(self, name)}; wanted more than {max(low, 0.0):g}"
                    + ("." if low > 0 else ", or zero.")
                )


class Streams(NamedTuple):
    """Where food is (streams, steps), and the cues (streams, steps)."""

    food: np.ndarray
    cues: np.ndarray


class Traits(NamedTuple):
    """What agents believe of the world before they see it: hazard (agents,) and trust (agents,)."""

    hazard: np.ndarray
    trust: np.ndarray


class Population(NamedTuple):
    """What came of living: F (agents, streams, steps) in nats; `sure` and `right`, the same shape: the
    probability of the place held most probable, and whether food was there."""

    traits: Traits
    free_energy: np.ndarray
    sure: np.ndarray
    right: np.ndarray

    def fitness(self, loss: float) -> np.ndarray:
        """(agents,): food less mistakes, per step. **Example:** `population.fitness(4.0)`."""
        goes = self.sure > loss / (1 + loss)
        return np.where(goes, np.where(self.right, 1.0, -loss), 0.0).mean((1, 2))

    @property
    def mean_free_energy(self) -> np.ndarray:
        """(agents,): nats per step."""
        return self.free_energy.mean((1, 2))


def streams(settings: Settings, rng: np.random.Generator) -> Streams:
    """Food that moves, and cues of it.

    **Example:** `streams(Settings(), np.random.default_rng(0)).food`.
    """
    shape, n = (settings.streams, settings.steps), settings.places
    moves = np.where(rng.random(shape) < 1 / settings.stays, rng.integers(1, n, shape), 0)
    food = (rng.integers(n, size=(shape[0], 1)) + moves.cumsum(1)) % n
    wrong = np.where(rng.random(shape) < settings.validity, 0, rng.integers(1, n, shape))
    return Streams(food, (food + wrong) % n)


def traits(settings: Settings, rng: np.random.Generator, count: int) -> Traits:
    """Of a first generation: hazards log-uniform from one in 2000 to 0.6, trust uniform.

    **Example:** `traits(Settings(), np.random.default_rng(0), 60).hazard`.
    """
    low, high = np.log(HAZARDS)
    hazard = np.exp(rng.uniform(low, high, count))
    return Traits(hazard, rng.uniform(1 / settings.places + 0.05, 0.97, count))


def model(settings: Settings, hazard: Any, trust: Any) -> POMDP:
    """What an agent believes of food and cues. **Example:** `model(Settings(), 0.02, 0.75).A`."""
    n = settings.places

    def table(other: Any) -> Any:
        return other / (n - 1) + (1 - other * n / (n - 1)) * np.eye(n)

    return HiddenMarkov(table(1 - trust), np.full(n, 1 / n), table(hazard))


def live(settings: Settings, population: Traits, world: Streams, looks: Any = None) -> Population:
    """Every agent perceives every stream; with `looks` (agents, streams, steps) only some of its cues.

    A cue not looked at is missing: it drops out of the likelihood and adds nothing to F.

    **Example:** `live(settings, traits(settings, rng, 60), streams(settings, rng)).mean_free_energy`.
    """

    def one(hazard: Any, trust: Any, cues: np.ndarray) -> tuple[Any, Any, Any]:
        found = vfe.filter(model(settings, hazard, trust), cues[..., None])
        return found.surprise, found.joint.max(-1), found.joint.argmax(-1) == world.food

    if looks is None:
        with jax.enable_x64(True):
            lived = jax.vmap(lambda hazard, trust: one(hazard, trust, world.cues))(*population)
        return Population(population, *(np.asarray(part) for part in lived))
    each = zip(*population, looks, strict=True)
    lives = [one(hazard, trust, np.where(open_, world.cues, np.nan)) for hazard, trust, open_ in each]
    return Population(population, *(np.stack(part) for part in zip(*lives, strict=True)))


def rank_correlation(one: np.ndarray, other: np.ndarray, draws: int, rng: np.random.Generator) -> Interval:
    """Spearman's ρ over agents, with its 95 % interval by drawing agents again (percentiles).

    **Example:** `rank_correlation(np.arange(9.0), np.arange(9.0) ** 2, 500, np.random.default_rng(0))`.

    **Source:** Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
    """
    drawn = rng.integers(len(one), size=(draws, len(one)))
    found = [_spearman(one[d], other[d]) for d in drawn]
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return Interval(_spearman(one, other), low, high)


def shuffled(one: np.ndarray, other: np.ndarray, draws: int, rng: np.random.Generator) -> Interval:
    """The same with fitness dealt out at random: its mean, and where 95 % of such correlations lie.

    **Example:** `shuffled(np.arange(9.0), np.arange(9.0) ** 2, 500, np.random.default_rng(0))`.
    """
    found = [_spearman(one, rng.permutation(other)) for _ in range(draws)]
    return Interval(float(np.mean(found)), *np.percentile(found, [2.5, 97.5]))


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    from scipy.stats import rankdata

    ranks = [rankdata(each) for each in (one, other)]
    if min(np.ptp(each) for each in ranks) == 0:
        return np.nan
    return float(np.corrcoef(*ranks)[0, 1])


class Changes(NamedTuple):
    """F about the times when food moved. `lags` (lags,); `excess` (changes, groups, lags): F above its mean
    over the steps before, for the fittest third, the middle and the least fit third."""

    lags: np.ndarray
    excess: np.ndarray

    @property
    def rise(self) -> Interval:
        """(groups,): the excess in the first two steps, nats, with 95 % intervals over changes."""
        return mean_of(self._over(PEAK))

    def left(self, draws: int, rng: np.random.Generator) -> Interval:
        """(groups,): the share of that rise which is left 4 to 12 steps after the change, with 95 %
        intervals by drawing changes again; last, how much more is left in the least fit than in the
        fittest.

        **Example:** `found.changes.left(2000, np.random.default_rng(0)).low`.
        """
        peak, late = self._over(PEAK), self._over(LATE)
        drawn = rng.integers(len(peak), size=(draws, len(peak)))
        found = [late[d].mean(0) / peak[d].mean(0) for d in (slice(None), *drawn)]
        shares = np.stack([np.append(share, share[2] - share[0]) for share in found])
        return Interval(shares[0], *np.percentile(shares[1:], [2.5, 97.5], 0))

    def _over(self, steps: tuple[int, int]) -> np.ndarray:
        here = (self.lags >= steps[0]) & (self.lags < steps[1])
        return self.excess[..., here].mean(-1)


def changes(world: Streams, population: Population, fitness: np.ndarray) -> Changes:
    """F about every change that has quiet times before and after.

    **Raises:** `ValueError` where there is none.

    **Example:** `changes(world, population, population.fitness(4.0)).excess.mean(0)`.
    """
    lags = np.arange(-BEFORE, AFTER)
    fittest = np.argsort(-fitness)
    groups = np.array_split(fittest, 3)
    found = []
    for w, food in enumerate(world.food):
        moved = np.flatnonzero(np.diff(food)) + 1
        for t in moved[(moved >= BEFORE) & (moved <= len(food) - AFTER)]:
            about = food[t + lags]
            if (about[:BEFORE] == about[0]).all() and (about[BEFORE:] == about[-1]).all():
                free = population.free_energy[:, w, t + lags]
                free = np.stack([free[group].mean(0) for group in groups])
                found.append(free - free[:, :BEFORE].mean(1, keepdims=True))
    if not found:
        raise ValueError(
            f"selection: no change of the {world.food.size} steps has {BEFORE} quiet steps before and "
            f"{AFTER} after it; more streams or steps, or a larger stays."
        )
    return Changes(lags, np.stack(found))


class Lineage(NamedTuple):
    """Generations one after the other, all arrays (lineages, generations, members): mean F on a stream that
    nobody lived in, fitness in their own world, and what they believe."""

    free_energy: np.ndarray
    fitness: np.ndarray
    hazard: np.ndarray
    trust: np.ndarray


def evolve(
    settings: Settings,
    select: Callable[[np.ndarray], np.ndarray],
    seed: int,
    step: Callable[[], None] = lambda: None,
) -> Lineage:
    """Generations, each in a new world; `select` turns fitness (members,) into the numbers of the parents.

    Each parent has children that are like it but for mutations, as many as keep the population's size.

    **Example:** `evolve(Settings(), fitter_half, 0).free_energy.mean(2)`.
    """
    lines = []
    for number in range(settings.lineages):
        lines.append(_line(settings, select, np.random.default_rng([seed, number])))
        step()
    return Lineage(*(np.stack(part) for part in zip(*lines, strict=True)))


def _line(settings: Settings, select: Any, rng: np.random.Generator) -> Lineage:
    few = dataclasses.replace(settings, streams=2)
    apart = streams(few, rng)
    now, records = traits(settings, rng, settings.members), []
    for _ in range(settings.generations):
        here = streams(few, rng)
        both = Streams(*(np.concatenate(parts) for parts in zip(here, apart, strict=True)))
        lived = live(few, now, both)
        own = Population(now, *(part[:, :2] for part in lived[1:]))
        fitness = own.fitness(settings.loss)
        records.append((lived.free_energy[:, 2:].mean((1, 2)), fitness, *now))
        parents = np.resize(select(fitness), settings.members)
        noise = settings.mutation * rng.normal(size=(2, settings.members))
        hazard = np.exp(np.log(now.hazard[parents]) + noise[0])
        odds = np.log(now.trust[parents] / (1 - now.trust[parents])) + noise[1]
        now = Traits(np.clip(hazard, *HAZARDS), 1 / (1 + np.exp(-odds)))
    return Lineage(*(np.stack(part) for part in zip(*records, strict=True)))


def fitter_half(fitness: np.ndarray) -> np.ndarray:
    """Numbers of the fitter half. **Example:** `fitter_half(np.array([0.1, 0.3]))`."""
    return np.argsort(-fitness)[: max(len(fitness) // 2, 1)]


class Found(NamedTuple):
    """Everything that was measured. `closed`: the same agents with eyes closed for part of the time, and
    their correlation; `by_loss`: the correlation for other costs of an error."""

    world: Streams
    population: Population
    fitness: np.ndarray
    correlation: Interval
    null: Interval
    by_loss: dict[float, Interval]
    changes: Changes
    left: Interval
    selected: Lineage
    drifting: Lineage
    closed: Population
    closed_correlation: Interval


def measure(
    settings: Settings,
    seed: int,
    progress: Progress | None = None,
    deal: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
) -> Found:
    """Lives, correlations, changes and generations.

    `deal` turns the fitness that was earned into the fitness that counts: a test deals it out at random.

    **Example:** `measure(Settings(), 0).correlation`.
    """
    rng = np.random.default_rng(seed)
    world, people = streams(settings, rng), traits(settings, rng, settings.agents)

    def step() -> None:
        if progress is not None:
            progress.step()

    def earned(fitness: np.ndarray) -> np.ndarray:
        return fitness if deal is None else deal(fitness, rng)

    population = live(settings, people, world)
    step()
    free, fitness = population.mean_free_energy, earned(population.fitness(settings.loss))
    by_loss = {
        loss: rank_correlation(free, population.fitness(loss), settings.draws, rng) for loss in LOSSES
    }
    about = changes(world, population, fitness)
    left = about.left(settings.draws, rng)
    # Eyes are open for a share of the time that differs between agents.
    opened = rng.uniform(0.1, 1.0, (settings.agents, 1, 1))
    looks = rng.random((settings.agents, *world.cues.shape)) < opened
    closed = live(settings, people, world, looks)
    step()
    selected = evolve(settings, lambda f: fitter_half(earned(f)), seed, step)
    chance = np.random.default_rng([seed, settings.lineages])
    drifting = evolve(settings, lambda f: fitter_half(chance.random(len(f))), seed, step)
    return Found(
        world,
        population,
        fitness,
        rank_correlation(free, fitness, settings.draws, rng),
        shuffled(free, fitness, settings.draws, rng),
        by_loss,
        about,
        left,
        selected,
        drifting,
        closed,
        rank_correlation(closed.mean_free_energy, closed.fitness(settings.loss), settings.draws, rng),
    )


def run(
    settings: Settings,
    *,
    seed: int,
    data: dict[str, np.ndarray] | None,
    folder: Workspace,
    progress: Progress,
    resume: bool,
) -> JobResult:
    """A population, its F and its fitness, and generations of selection: figures population.png,
    generations.png; result.nc holds F, fitness and traits by agent, F about changes, and the generations.

    **Example:** `vfe run selection`.
    """
    from vfe.gallery.discrete.selection_page import write_up

    progress.start("lives", 2 + 2 * settings.lineages)
    found = measure(settings, seed, progress)
    progress.done()
    return write_up(settings, found)
