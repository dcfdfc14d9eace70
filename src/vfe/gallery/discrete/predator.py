"""A predator that is hidden is still there: a belief carried in time against one made anew from each frame.

A predator is absent or present, and seldom comes or goes. A frame shows it or is clear; behind an occluder
there is no frame at all. The carried belief predicts, then weighs what is seen,

q_t(s) ∝ p(x_t | s) Σ_s' p(s | s') q_t−1(s'),

and where x_t is absent its likelihood drops out: nothing but the dynamics moves the belief. The belief
made from the present frame alone, q(s | x_t) ∝ p(x_t | s) p(s), falls back on the prior as soon as nothing
is seen.

Expected: after a sighting the carried belief stays above the frame-wise one all through the occlusion,
decays by the dynamics only (towards the base rate, by the factor .97 of each frame), and is gone after a
few clear frames: absence of evidence is nothing, evidence of absence counts. Over many courses its F per
frame seen is lower, and it knows better whether a hidden predator is there. An agent that forages in a
ring of patches is caught less often with it.

It would have been refuted by a carried belief that is no higher, that does not fall again when frames are
clear, or that does not help. The usual error is shown beside it: to feed zeros where nothing is seen, so
that "I do not see" is taken for "it is not there". That belief forgets the predator within a few hidden
frames.
"""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

import vfe
from vfe.discrete import POMDP, Agent, HiddenMarkov
from vfe.discrete.worlds import hidden_predator
from vfe.gallery.intervals import Interval, mean_of
from vfe.gallery.job import JobResult, Progress, Workspace
from vfe.gallery.settings import about

CLEAR, SEEN = 0, 1
PRIOR = np.array([2 / 3, 1 / 3])
# p(next | now) by (next, now), and p(frame | state) by (clear or seen, absent or present).
STAYS = np.array([[0.99, 0.02], [0.01, 0.98]])
SIGHT = np.array([[0.98, 0.05], [0.02, 0.95]])
CARRIED, FRAMES, ZEROS = "carried", "frame by frame", "hidden taken for clear"
KINDS = (CARRIED, FRAMES, ZEROS)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How long it is hidden, how many courses are drawn, and how many agents forage."""

    hidden: int = about("frames behind the occluder", 10)
    courses: int = about("drawn from the world, to count F and errors", 200)
    frames: int = about("of each course", 80)
    agents: int = about("that forage in a ring of patches, of each kind", 200)
    steps: int = about("for which they forage", 40)

    def __post_init__(self) -> None:
        for name, least in (("hidden", 1), ("courses", 10), ("frames", 20), ("agents", 10), ("steps", 5)):
            if getattr(self, name) < least:
                raise ValueError(f"predator: got {name}={getattr(self, name)}; wanted {least} or more.")


def model(*, carries: bool = True) -> POMDP:
    """What is believed of the predator; without carrying, every frame begins at the prior.

    **Example:** `model().B`.
    """
    return HiddenMarkov(SIGHT, PRIOR, STAYS if carries else np.stack([PRIOR, PRIOR], 1))


def course(settings: Settings) -> np.ndarray:
    """Three clear frames, three with the predator, the occluder (NaN), three clear ones.

    **Example:** `course(Settings())`.
    """
    return np.array([CLEAR] * 3 + [SEEN] * 3 + [np.nan] * settings.hidden + [CLEAR] * 3, float)


class Beliefs(NamedTuple):
    """p(present) by kind, (…, frames), and F of each frame, nats (0 where none was seen)."""

    present: dict[str, np.ndarray]
    free_energy: dict[str, np.ndarray]


def believe(frames: np.ndarray) -> Beliefs:
    """What the three kinds believe of frames (…, frames), NaN where hidden.

    **Example:** `believe(course(Settings())).present["carried"]`.
    """
    found = {
        CARRIED: vfe.filter(model(), frames[..., None]),
        FRAMES: vfe.filter(model(carries=False), frames[..., None]),
        ZEROS: vfe.filter(model(), np.where(np.isnan(frames), CLEAR, frames)[..., None]),
    }
    return Beliefs(
        {name: each.joint[..., 1] for name, each in found.items()},
        {name: each.surprise for name, each in found.items()},
    )


def decay(settings: Settings, last: float) -> np.ndarray:
    """p(present) in the hidden frames by the dynamics alone: base rate + (last − base rate) λⁿ.

    λ = 1 − p(comes) − p(goes). **Example:** `decay(Settings(), 0.9987)[-1]`.
    """
    slower = 1 - STAYS[1, 0] - STAYS[0, 1]
    return PRIOR[1] + (last - PRIOR[1]) * slower ** np.arange(1, settings.hidden + 1)


class Many(NamedTuple):
    """Courses drawn from the world. `present` (courses, frames): the truth; `frames`, NaN where hidden;
    `beliefs` of the three kinds."""

    present: np.ndarray
    frames: np.ndarray
    beliefs: Beliefs

    @property
    def hidden(self) -> np.ndarray:
        """(courses, frames): where nothing was seen."""
        return np.isnan(self.frames)

    def free_energy(self, name: str) -> np.ndarray:
        """(courses,): nats per frame that was seen."""
        seen = ~self.hidden
        return (self.beliefs.free_energy[name] * seen).sum(1) / seen.sum(1)

    def cost(self, name: str) -> np.ndarray:
        """(courses,): −ln of the belief in the truth, mean over hidden frames: how wrong it is, outside
        F.
        """
        p = self.beliefs.present[name]
        wrong = -np.log(np.where(self.present == 1, p, 1 - p))
        return (wrong * self.hidden).sum(1) / self.hidden.sum(1)


def draw_courses(settings: Settings, rng: np.random.Generator) -> Many:
    """Courses in which an occluder comes for `hidden` frames, twice; otherwise all is seen.

    **Example:** `draw_courses(Settings(), np.random.default_rng(0)).present.mean()`.
    """
    shape = (settings.courses, settings.frames)
    present, chance = np.zeros(shape, int), rng.random(shape)
    present[:, 0] = chance[:, 0] < PRIOR[1]
    for t in range(1, settings.frames):
        present[:, t] = chance[:, t] < STAYS[1, present[:, t - 1]]
    frames = (rng.random(shape) < SIGHT[SEEN, present]).astype(float)
    third = settings.frames // 3
    length = min(settings.hidden, third)
    for start in (third // 2, third // 2 + third + third // 2):
        frames[:, start : start + length] = np.nan
    return Many(present, frames, believe(frames))


def forage(settings: Settings, seed: int, *, forgets: bool) -> Any:
    """Agents in a ring of patches with a predator that they see only now and then: a `History`.

    Who forgets believes at every step that it may be anywhere.

    **Example:** `forage(Settings(agents=10), 0, forgets=True).outcomes`.
    """
    world = hidden_predator(3)
    patches = world.states[1]
    anywhere = np.full((patches, patches, 1), 1 / patches)
    mind = eqx.tree_at(lambda m: m.B[1], world, anywhere) if forgets else world
    key = jax.random.key(seed)
    return vfe.live(Agent(mind, 2), world, settings.steps, key, repeats=settings.agents, keep=("percepts",))


class Found(NamedTuple):
    """Everything that was measured; `caught` (agents,) share of steps, for who carries and who forgets."""

    frames: np.ndarray
    beliefs: Beliefs
    many: Many
    caught: tuple[np.ndarray, np.ndarray]

    def less(self, measure: Any) -> Interval:
        """By how much the carried belief is lower than the frame-wise one in some measure of `Many`.

        **Example:** `found.less(Many.cost).low`.
        """
        return mean_of(measure(self.many, FRAMES) - measure(self.many, CARRIED))


def measure(settings: Settings, seed: int) -> Found:
    """One course, many courses, and foraging. **Example:** `measure(Settings(), 0).beliefs`."""
    frames = course(settings)
    caught = tuple(
        (np.asarray(forage(settings, seed, forgets=forgets).outcomes)[..., 3] == 1).mean(1)
        for forgets in (False, True)
    )
    many = draw_courses(settings, np.random.default_rng(seed))
    return Found(frames, believe(frames), many, (caught[0], caught[1]))


def run(
    settings: Settings,
    *,
    seed: int,
    data: dict[str, np.ndarray] | None,
    folder: Workspace,
    progress: Progress,
    resume: bool,
) -> JobResult:
    """One course, many, and foraging: figure predator.png; result.nc holds beliefs, F and the truth.

    **Example:** `vfe run predator`.
    """
    from vfe.gallery.discrete.predator_page import write_up

    progress.start("beliefs and lives", 1)
    found = measure(settings, seed)
    progress.step(F=float(found.many.free_energy(CARRIED).mean()))
    progress.done()
    return write_up(settings, found)
