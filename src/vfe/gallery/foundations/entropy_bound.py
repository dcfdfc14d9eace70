"""Mean free energy over time is never below the entropy rate of what is sensed.

Where sensations come from an ergodic world, the long-time average of surprise −ln p(o_t | o_1 … o_{t−1})
under the true model is their entropy rate h, and no model and no belief has a lower mean F:

mean F = h + what the model is wrong by + what the belief is wrong by ≥ h.

The world here is a hidden Markov chain, for which h has no closed form but lies between
H(o_n | o_1 … o_{n−1}, s_1) and H(o_n | o_1 … o_{n−1}), which close upon it and are summed exactly.
Expected: exact beliefs under the true model reach h, and the averages of single series gather there as
1/√T; a belief that is not carried in time pays H(o) − h, a wrong model its divergence rate, a belief that
takes the times for independent its gap to the evidence. It would be refuted by a mean F below h. In a
world that is not ergodic the averages of single series stay apart, and accuracy alone, without
complexity, can fall below h: these fail.

Source of the two bounds: Cover and Thomas, Elements of Information Theory, section 4.5.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

import vfe
from vfe.discrete import HiddenMarkov, MeanField
from vfe.gallery.job import JobResult, Progress, Workspace

SEES = np.array([[0.8, 0.1, 0.1], [0.1, 0.7, 0.1], [0.05, 0.1, 0.5], [0.05, 0.1, 0.3]])
ORDER = 8
FEW, SHORT = 10, 100  # series, and times, for beliefs that take the times for independent


@dataclasses.dataclass(frozen=True)
class Settings:
    """The world, the wrong model of it, and how long it is watched."""

    persistence: float = dataclasses.field(
        default=0.8, metadata={"help": "how probable it is that the world's state stays"}
    )
    believed: float = dataclasses.field(
        default=0.5, metadata={"help": "the same, as the wrong model has it"}
    )
    series: int = dataclasses.field(default=100, metadata={"help": "watched side by side"})
    length: int = dataclasses.field(default=400, metadata={"help": "sensations in each"})

    def __post_init__(self) -> None:
        for name in ("persistence", "believed"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(
                    f"entropy-bound: got {name}={getattr(self, name)}; wanted a probability between 0 "
                    f"and 1."
                )
        if self.series < 10 or self.length < 40:
            raise ValueError(
                f"entropy-bound: got series={self.series} and length={self.length}; wanted ten series of "
                "forty sensations, or more."
            )


class Found(NamedTuple):
    """`free` by name (series, length): F per time of the exact beliefs under the true model, of beliefs
    that are not carried, and of exact beliefs under a wrong model; `factorised` (series,): F per time of
    beliefs that take the times for independent, `accuracy` (series,): theirs; `low`, `high`: bounds of
    the entropy rate by the number of sensations conditioned on; `outcome_entropy`: H(o)."""

    free: dict[str, np.ndarray]
    factorised: np.ndarray
    accuracy: np.ndarray
    evidence: np.ndarray
    low: np.ndarray
    high: np.ndarray
    outcome_entropy: float

    @property
    def rate(self) -> float:
        """The entropy rate: the middle of its bounds, in nats."""
        return float(0.5 * (self.low[-1] + self.high[-1]))

    @property
    def width(self) -> float:
        """Between its bounds, in nats."""
        return float(self.high[-1] - self.low[-1])


def moves(persistence: float) -> np.ndarray:
    """p(next | now), (3, 3): stay, or go on in a circle or against it, 3 : 1.

    **Example:** `moves(0.8).sum(0)` is 1.
    """
    onward, back = np.roll(np.eye(3), 1, axis=0), np.roll(np.eye(3), -1, axis=0)
    return persistence * np.eye(3) + (1 - persistence) * (0.75 * onward + 0.25 * back)


def entropy_rate_bounds(likelihood: np.ndarray, transition: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """H(o_n | o_1 … o_{n−1}, s_1) and H(o_n | o_1 … o_{n−1}) for n = 1 … 8, over all sequences, nats.

    The states' distribution is uniform, as it is under transitions whose rows sum to one, too.

    **Example:** `entropy_rate_bounds(SEES, moves(0.8))[1][-1]`.
    """
    states = transition.shape[0]
    # p(s_1, o_1 … o_n, s_n): sequences, first state, last state.
    joint = np.eye(states)[None] / states * likelihood[:, None, :]
    blocks, given_first = [0.0], [0.0]
    first = np.log(states)
    for n in range(ORDER):
        if n:
            moved = joint @ transition.T
            joint = (moved[:, None] * likelihood[None, :, None, :]).reshape(-1, states, states)
        with_first = joint.sum(2)
        alone = with_first.sum(1)
        blocks.append(-(alone * np.log(alone)).sum())
        given_first.append(-(with_first * np.log(with_first)).sum() - first)
    return np.diff(given_first), np.diff(blocks)


def watch(settings: Settings, seed: int, *, ergodic: bool = True) -> Found:
    """Agents in the same world; `ergodic=False`: its state stays for ever, whatever it is believed to do.

    **Example:** `watch(Settings(), 0).rate`.
    """
    random = np.random.default_rng(seed)
    transition = moves(settings.persistence)
    shape = (settings.series, settings.length)
    steps = transition if ergodic else np.eye(3)
    states = np.zeros(shape, int)
    states[:, 0] = random.integers(3, size=settings.series)
    for t in range(1, settings.length):
        chances = steps[:, states[:, t - 1]].cumsum(0)
        states[:, t] = (chances < random.random(settings.series)).sum(0).clip(max=2)
    seen = (SEES.cumsum(0)[:, states] < random.random(shape)).sum(0).clip(max=3)
    start = np.full(3, 1 / 3)
    true = HiddenMarkov(SEES, start, transition)
    wrong = HiddenMarkov(SEES, start, moves(settings.believed))
    outcomes = seen[..., None]
    exact = np.asarray(vfe.filter(true, outcomes).surprise)
    some = outcomes[:FEW, :SHORT]
    factorised: Any = vfe.smooth(true, some, belief=MeanField(starts=1))
    low, high = entropy_rate_bounds(SEES, transition)
    alone = SEES @ start
    free = factorised.free_energy
    return Found(
        {
            "exact": exact,
            "not carried": -np.log(alone)[seen],
            "wrong model": np.asarray(vfe.filter(wrong, outcomes).surprise),
        },
        np.asarray(free.total).mean(-1),
        np.asarray(free.accuracy).mean(-1),
        exact[:FEW, :SHORT].mean(1),
        low,
        high,
        float(-(alone * np.log(alone)).sum()),
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
    """Four agents watch a world whose entropy rate is known: figure entropy_bound.png.

    **Example:** `vfe run entropy-bound`.
    """
    from vfe.gallery.foundations.entropy_bound_page import write_up

    progress.start("watching", 1)
    found = watch(settings, seed)
    progress.step(F=float(found.free["exact"].mean()))
    progress.done()
    return write_up(settings, found)
