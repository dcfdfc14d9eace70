"""Action fulfils expectations: who expects to be elsewhere goes there, and who cannot act changes its mind.

The world is a place that only action moves, dx/dt = a, and it is felt, y = x + noise. The agent believes
that it is drawn to a place η, ds/dt = r (η − s): nothing in the world does that. Perception and action
descend one F, but action reaches it through the sensations alone, at a fixed belief:

dF/da = −(d accuracy / dx)(dx/da), and d complexity / da = 0.

Expected: with action the sensory prediction error goes to zero and the world ends where it was expected,
whatever place that is; a wrong expectation that is held fixed is made true. Without action the world stays,
the error stays, and the belief moves instead, to a place between what is felt and what is expected, as far
as their precisions say. If the expectation itself is open to doubt, the belief goes to what is felt.

It would have been refuted by an error that vanishes without action under a fixed expectation, by a world
that does not come to either place, by F that is as low without action, or by a derivative of F in action
that is more than the accuracy's.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vfe
from vfe.action import Acted, ActiveSystem, Process
from vfe.dynamics import DynamicModel, Level
from vfe.gallery.action.page import finish
from vfe.gallery.job import JobResult, Progress, Workspace
from vfe.gallery.settings import about
from vfe.results.claims import Claim
from vfe.results.style import BLUE, INK, ORANGE, style

# Time of a sample, s, and how fast the agent expects to be drawn, 1 / s.
DT, RATE = 0.1, 10.0
ACTS, WRONG = "acts", "acts on another expectation"
STUCK, OPEN = "cannot act", "cannot act, in doubt"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Where the world starts, what is expected, and for how long."""

    seconds: float = about("how long", 16.0)
    start: float = about("place where the world starts", 0.5)
    expected: float = about("place that is expected", 1.5)
    other: float = about("place that another agent expects", -1.0)
    log_precision: float = about("ln precision of the senses, and of the motion expected", 4.0)
    beliefs: int = about("random beliefs under which dF/da is checked", 50)

    def __post_init__(self) -> None:
        if self.seconds < 8 or self.beliefs < 1:
            raise ValueError(
                f"fulfilment: got seconds={self.seconds} and beliefs={self.beliefs}; wanted 8 seconds, in "
                "which the world comes to rest, and one belief, or more."
            )
        for name in ("expected", "other"):
            if abs(getattr(self, name) - self.start) < 0.1:
                raise ValueError(
                    f"fulfilment: got {name}={getattr(self, name)} and start={self.start}; wanted places "
                    f"that "
                    "are 0.1 or more apart: who is where it expects to be has nothing to do."
                )


def system(settings: Settings, *, acts: float = 1.0, log_doubt: float = -6.0) -> ActiveSystem:
    """The place and an agent in it; `acts`: 1, or 0 for one that cannot act, −1 for one that acts the
    wrong way; `log_doubt`: ln variance of its expectation.

    Action descends F itself: its errors weigh as the model says, and it costs nothing.

    **Example:** `vfe.act(system(Settings()), prior_causes=np.ones((80, 1))).world.states`.
    """
    precision = math.exp(settings.log_precision)
    process = Process(
        lambda x, v, a: x,
        lambda x, v, a: a,
        states=[settings.start],
        actions=1,
        observation_precision=math.exp(10),
    )
    level = Level(
        lambda x, v, p: x,
        lambda x, v, p: RATE * (v - x),
        states=1,
        causes=1,
        observation_precision=precision,
        state_precision=precision / RATE**2,
        cause_precision=math.exp(-log_doubt),
    )
    return ActiveSystem(
        process,
        DynamicModel(level, order=3, dt=DT),
        reflex_precision=precision,
        action_precision=0.0,
        reflexes=[[acts]],
    )


class Derivatives(NamedTuple):
    """Of F, accuracy and complexity in action, under random fixed beliefs, and dx/da: each (beliefs,)."""

    free_energy: np.ndarray
    accuracy_in_x: np.ndarray
    complexity: np.ndarray
    x_in_action: np.ndarray


def derivatives(settings: Settings, seed: int) -> Derivatives:
    """dF/da in a model of two levels, p(x | z) p(z), with x = start + tanh a, q(z) Gaussian.

    **Example:** `derivatives(Settings(), 0).complexity`.
    """
    rng = np.random.default_rng(seed)
    precision = math.exp(settings.log_precision)
    with jax.enable_x64(True):
        model = vfe.Model(
            z=vfe.gaussian(jnp.array([settings.expected]), precision=precision),
            x=vfe.gaussian(jnp.sin, precision=precision, parents="z"),
        )

        def felt(a: Any) -> Any:
            return settings.start + jnp.tanh(a)

        def parts(x: Any, mean: Any, sd: Any) -> Any:
            belief = vfe.DiagonalGaussian.from_moments(model, {"z": mean[None]}, sd**2 * jnp.eye(1))
            free = vfe.free_energy(model, belief, {"x": x[None]}, expectation=vfe.MonteCarlo(64))
            return jnp.stack([free.total, free.accuracy, free.complexity]).reshape(3)

        def one(a: Any, mean: Any, sd: Any) -> Any:
            in_action = jax.jacfwd(lambda a: parts(felt(a), mean, sd))(a)
            in_x = jax.jacfwd(lambda x: parts(x, mean, sd))(felt(a))
            return in_action[0], in_x[1], in_action[2], jax.grad(felt)(a)

        given = rng.normal(size=(2, settings.beliefs)), rng.uniform(0.05, 1.0, settings.beliefs)
        found = jax.jit(jax.vmap(one))(*given[0], given[1])
        return Derivatives(*(np.asarray(part) for part in found))


def courses(settings: Settings, seed: int, progress: Progress | None = None) -> dict[str, Acted]:
    """Four agents in the same world with the same noise. **Example:** `courses(Settings(), 0)`."""
    length, found = round(settings.seconds / DT), {}
    for name, acts, place, doubt in (
        (ACTS, 1.0, settings.expected, -6.0),
        (WRONG, 1.0, settings.other, -6.0),
        (STUCK, 0.0, settings.expected, -6.0),
        (OPEN, 0.0, settings.expected, 0.0),
    ):
        built = system(settings, acts=acts, log_doubt=doubt)
        expected = np.full((length, 1), place)
        found[name] = vfe.act(built, prior_causes=expected, key=jax.random.key(seed))
        if progress is not None:
            progress.step(F=float(found[name].percept.free_energy.total))
    return found


class Ends(NamedTuple):
    """Means over the last quarter: the place, the place believed, the prediction error, and F per
    sample.
    """

    place: float
    belief: float
    error: float
    free_energy: float


def ends(course: Acted) -> Ends:
    """Where a course came to. **Example:** `ends(courses(Settings(), 0)["acts"]).error`."""
    last = slice(-(len(course.time) // 4), None)
    error = (course.sensed - course.percept.prediction.mean)[last]
    return Ends(
        float(course.world.states[last].mean()),
        float(course.percept.states.mean[last].mean()),
        float(np.abs(error.mean())),
        float(course.percept.free_energy.by_time[last].mean()),
    )


def claims(settings: Settings, found: dict[str, Acted], slopes: Derivatives) -> list[Claim]:
    """What would have refuted it: see the words above.

    **Example:** `claims(settings, courses(settings, 0), derivatives(settings, 0))`.
    """
    acts, wrong, stuck, doubt = (ends(found[name]) for name in (ACTS, WRONG, STUCK, OPEN))
    distance = abs(settings.expected - settings.start)
    by_accuracy = -slopes.accuracy_in_x * slopes.x_in_action
    size = np.abs(by_accuracy).max()
    return [
        Claim(
            "dF/da is the accuracy's alone, largest deviation",
            float(np.abs(slopes.free_energy - by_accuracy).max() / size),
            high=1e-10,
            unit="of the largest slope",
        ),
        Claim(
            "slope of complexity in action, largest",
            float(np.abs(slopes.complexity).max()),
            0.0,
            0.0,
            "nats",
        ),
        Claim("with action: error left, of the distance expected", acts.error / distance, high=0.02),
        Claim(
            "an expectation is made true: off the place expected",
            abs(acts.place - settings.expected) / distance,
            high=0.02,
            unit="of the distance",
        ),
        Claim(
            "so is another: off that place",
            abs(wrong.place - settings.other) / abs(settings.other - settings.start),
            high=0.02,
            unit="of the distance",
        ),
        Claim("without action: error left, of the distance expected", stuck.error / distance, 0.2),
        Claim(
            "the belief moves instead, towards what is felt, by",
            abs(stuck.belief - settings.expected) / distance,
            0.2,
            unit="of the distance",
        ),
        Claim(
            "in doubt it moves there: off what is felt",
            abs(doubt.belief - settings.start) / distance,
            high=0.1,
            unit="of the distance",
        ),
        Claim(
            "action lowers F by",
            stuck.free_energy - acts.free_energy,
            1.0,
            unit="nats per sample",
        ),
    ]


def run(
    settings: Settings,
    *,
    seed: int,
    data: dict[str, np.ndarray] | None,
    folder: Workspace,
    progress: Progress,
    resume: bool,
) -> JobResult:
    """Two expectations with action, and one without: figure fulfilment.png.

    **Example:** `vfe run fulfilment`.
    """
    progress.start("courses", 4)
    found = courses(settings, seed, progress)
    slopes = derivatives(settings, seed)
    progress.done()
    at = {name: ends(course) for name, course in found.items()}
    headline = [
        (f"{name}: place, believed, error", f"{one.place:.2f}, {one.belief:.2f}, {one.error:.3f}")
        for name, one in at.items()
    ]
    headline = [(name, value.replace("-", "−")) for name, value in headline]
    return finish(
        "What is expected is made true",
        f"The world is a place, {settings.start:g} at first, which only action moves. An agent that "
        f"expects to be "
        f"drawn to {settings.expected:g} goes there, since that is how its sensations come to be as it "
        f"predicts; one that expects {settings.other:g} goes there. Neither expectation was true "
        "before, and nothing in the world asks for it: a wrong expectation that is held fixed is made "
        "true. Action knows nothing but prediction errors of the senses: dF/da is the slope of accuracy "
        "alone, for beliefs and so complexity are fixed while it acts.\n\nTake action away and the world "
        f"stays. The error stays too ({at[STUCK].error:.2f}), and the belief moves instead, to "
        f"{at[STUCK].belief:.2f}, between what is felt and what is expected. Only who doubts its "
        "expectation comes to believe what it feels.",
        headline,
        found,
        {"fulfilment": draw(settings, found)},
        {
            "fulfilment": (
                "Four agents, one world",
                "Above: the place, the place believed, and that expected (dotted). Middle: prediction "
                "error "
                "of the senses. Below: F of each sample, from 1 s on.",
                "With action the place goes to what was expected and the error to zero; without it "
                "the place stays, and the belief settles between.",
            )
        },
        {"slopes": np.stack(slopes)},
        after=settings.seconds * 0.75,
        claims=claims(settings, found, slopes),
    )


def draw(settings: Settings, found: dict[str, Acted]) -> Any:
    """Place and belief, error, and F. **Example:** `draw(settings, courses(settings, 0))`."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(12.0, 7.0), layout="constrained")
        axes = figure.subplots(3, len(found), sharex=True, sharey="row", height_ratios=(2, 1, 1))
        for column, (name, course) in enumerate(found.items()):
            above, middle, below = axes[:, column]
            place = settings.other if name == WRONG else settings.expected
            above.axhline(place, color=INK, linestyle=":", linewidth=1.2, label="expected")
            above.plot(course.time, course.world.states[:, 0], color=BLUE, label="place")
            above.plot(course.time, course.percept.states.mean[:, 0], "--", color=ORANGE, label="believed")
            above.set_title(name)
            middle.plot(course.time, course.sensed[:, 0] - course.percept.prediction.mean[:, 0], color=BLUE)
            middle.axhline(0, color=INK, linewidth=0.8)
            later = course.time >= 1
            below.plot(course.time[later], course.percept.free_energy.by_time[later], color=BLUE)
            below.set_xlabel("time (s)")
        axes[0, 0].set_ylabel("place")
        axes[1, 0].set_ylabel("felt − predicted")
        axes[2, 0].set_ylabel("F (nats per sample)")
        axes[0, 0].legend(loc="center right")
    return figure
