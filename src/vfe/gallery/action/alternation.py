"""Perceive, act, perceive: perception makes F a tight bound on surprise, then action lowers surprise
itself.

Two hidden causes make two sensations, x = W z + noise; action moves sensations, x(a) = x₀ + reach · tanh
a. F is lowered in turn by perception, over the belief q at fixed x, and by action, over a at fixed q:

F = −ln p(x) + KL(q ‖ p(z | x)).

Perception changes the divergence only. Once it has come to rest F = −ln p(x) + what its family cannot
reach: nothing for a full Gaussian, ½ (Σ ln Λ_ii − ln |Λ|) for a product of two, Λ the posterior's
precision. As this does not depend on x, what F then loses from round to round is surprise.

Expected: F falls at every step of either kind; after perception it exceeds the surprise by that number
exactly; surprise falls from round to round. And order matters: action on a belief that was never fitted
lowers F too, by making the world fit a mistake, and surprise rises.

It would have been refuted by any step at which F rises, a difference other than the closed form, or a
surprise that stays where it was. With the sign of action turned round F rises.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vfe
from vfe.gallery.job import JobResult, Progress, Workspace
from vfe.gallery.settings import about
from vfe.results.claims import Claim
from vfe.results.report import Report, Section, Table, picture
from vfe.results.style import BLUE, GREEN, INK, ORANGE, PALE, RED, style

# Two causes that both sensations tell of: their posterior is correlated, so that a product cannot reach it.
WEIGHTS = np.array([[1.0, 0.8], [0.8, 1.0]])
PRIOR_MEAN, PRIOR_SD, NOISE_SD = np.array([1.0, -0.5]), 0.7, 0.5
START = np.array([-2.0, 1.5])
MISTAKEN = np.array([-4.0, -2.0])
FAMILIES = {"product": vfe.DiagonalGaussian, "full": vfe.JointGaussian}


@dataclasses.dataclass(frozen=True)
class Settings:
    """How long, and how far action reaches."""

    rounds: int = about("of perception and action", 12)
    steps: int = about("of action in a round", 5)
    rate: float = about("of action, nats⁻¹; less than zero turns its sign round", 0.004)
    reach: float = about("how far action can move a sensation", 4.0)

    def __post_init__(self) -> None:
        if self.rounds < 2 or self.steps < 1 or not self.reach > 0 or self.rate == 0:
            raise ValueError(
                f"alternation: got rounds={self.rounds}, steps={self.steps}, rate={self.rate} and "
                f"reach={self.reach}; wanted two rounds and one step or more, a rate other than zero, and "
                f"a "
                "reach above zero."
            )


def model() -> vfe.Model:
    """z ~ N(η, σ² I), x = W z + noise. **Example:** `model().sample(jax.random.key(0), 3)`."""
    return vfe.Model(
        z=vfe.gaussian(jnp.asarray(PRIOR_MEAN), scale=PRIOR_SD),
        x=vfe.gaussian(vfe.Affine(jnp.asarray(WEIGHTS)), scale=NOISE_SD, parents="z"),
    )


def residual() -> float:
    """½ (Σ ln Λ_ii − ln |Λ|), Λ = WᵀW / s² + I / σ²: what a product of Gaussians cannot reach, nats.

    **Example:** `residual()`.
    """
    precision = WEIGHTS.T @ WEIGHTS / NOISE_SD**2 + np.eye(2) / PRIOR_SD**2
    return float(0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1]))


class Course(NamedTuple):
    """Step by step: its kind ("start", "perceive", "act"), F and surprise −ln p(x), in nats; x, the mean of
    the belief, and action, each (steps, 2)."""

    kind: np.ndarray
    free_energy: np.ndarray
    surprise: np.ndarray
    x: np.ndarray
    mean: np.ndarray
    action: np.ndarray

    @property
    def settled(self) -> np.ndarray:
        """Where perception has just come to rest."""
        return self.kind == "perceive"


def course(
    settings: Settings, family: str = "product", *, perceives: bool = True, acts: bool = True
) -> Course:
    """Rounds of perception and action from a mistaken belief; without perception the belief stays as it is.

    **Example:** `course(Settings(), "full").free_energy`.
    """
    records: list[tuple[Any, ...]] = []
    with jax.enable_x64(True):
        world = model()
        belief = FAMILIES[family].from_moments(world, {"z": jnp.asarray(MISTAKEN)}, 0.25 * jnp.eye(2))
        action = jnp.zeros(2)

        def felt(a: Any) -> Any:
            return START + settings.reach * jnp.tanh(a)

        def free(a: Any, belief: Any) -> Any:
            return vfe.free_energy(world, belief, {"x": felt(a)}).total

        slope = jax.jit(jax.grad(free))

        @jax.jit
        def told(a: Any, belief: Any) -> Any:
            x = felt(a)
            surprise = -vfe.exact.log_evidence(world, {"x": x})
            return free(a, belief), surprise, x, belief["z"].mean

        def record(kind: str) -> None:
            found = (np.asarray(part) for part in told(action, belief))
            records.append((kind, *found, np.asarray(action)))

        record("start")
        for _ in range(settings.rounds):
            if perceives:
                percept = vfe.perceive(
                    world, {"x": felt(action)}, belief=belief, solver=vfe.NaturalGradient(), rtol=1e-12
                )
                belief = percept.belief
                record("perceive")
            for _ in range(settings.steps if acts else 0):
                action = action - settings.rate * slope(action, belief)
                record("act")
    return Course(*(np.array(part) for part in zip(*records, strict=True)))


PERCEIVES, FULL, NO_ACTION, MISTAKE = (
    "perceives and acts",
    "the same, full Gaussian",
    "perceives only",
    "acts only, on a mistake",
)


def courses(settings: Settings) -> dict[str, Course]:
    """Four ways from the same start. **Example:** `courses(Settings())["perceives only"].surprise`."""
    return {
        PERCEIVES: course(settings),
        FULL: course(settings, "full"),
        NO_ACTION: course(settings, acts=False),
        MISTAKE: course(settings, perceives=False),
    }


def claims(found: dict[str, Course]) -> list[Claim]:
    """What would have refuted it: a step at which F rises, another gap, a surprise that stays.

    **Example:** `claims(courses(Settings()))[0].holds`.
    """
    both, full, stays, mistake = (found[name] for name in (PERCEIVES, FULL, NO_ACTION, MISTAKE))
    gaps = (both.free_energy - both.surprise)[both.settled] - residual()
    tight = (full.free_energy - full.surprise)[full.settled]
    rounds = both.surprise[both.settled]
    return [
        Claim(
            "largest change of F at any step (below zero: it always falls)",
            float(max(np.diff(each.free_energy).max() for each in (both, full, mistake))),
            high=1e-12,
            unit="nats",
            proved=False,
        ),
        Claim(
            "after perception: F − surprise − ½(Σ ln Λᵢᵢ − ln|Λ|), largest",
            float(np.abs(gaps).max()),
            high=1e-8,
            unit="nats",
        ),
        Claim(
            "the same for a full Gaussian, where it is zero",
            float(np.abs(tight).max()),
            high=1e-8,
            unit="nats",
        ),
        Claim(
            "largest change of surprise from round to round",
            float(np.diff(rounds).max()),
            high=1e-12,
            unit="nats",
            proved=False,
        ),
        Claim("surprise falls in all by", float(both.surprise[0] - both.surprise[-1]), 1.0, unit="nats"),
        Claim(
            "without action it falls by", float(stays.surprise[0] - stays.surprise[-1]), 0.0, 0.0, "nats"
        ),
        Claim(
            "action on a belief never fitted raises surprise by",
            float(mistake.surprise[-1] - mistake.surprise[0]),
            1.0,
            unit="nats",
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
    """Perception and action in turn: figure alternation.png; result.nc holds F, surprise and sensations by
    step. Nothing is drawn at random.

    **Example:** `vfe run alternation`.
    """
    progress.start("courses", 1)
    found = courses(settings)
    progress.step(F=float(found[PERCEIVES].free_energy[-1]))
    progress.done()
    figures = {"alternation": draw(found)}
    first, last = found[PERCEIVES], found[MISTAKE]
    headline = [
        ("F, from and to (nats)", f"{first.free_energy[0]:.2f}, {first.free_energy[-1]:.3f}"),
        ("surprise, from and to (nats)", f"{first.surprise[0]:.2f}, {first.surprise[-1]:.3f}"),
        ("F above surprise after perception (nats)", f"{residual():.4f}"),
        ("acting on a mistake: surprise (nats)", f"{last.surprise[0]:.2f}, {last.surprise[-1]:.2f}"),
    ]
    rows = [
        [
            name,
            *(
                f"{value:.3f}"
                for value in (one.free_energy[0], one.free_energy[-1], one.surprise[0], one.surprise[-1])
            ),
        ]
        for name, one in found.items()
    ]
    section = Section(
        "F by step",
        "Each round perceives until the belief is at rest, then takes a few steps of action at that "
        "belief. What "
        "would have refuted it: a step of either kind at which F rises, a gap after perception other "
        "than the closed form, or a surprise that action does not lower.",
        [
            picture(
                figures["alternation"],
                "Left: F and surprise by step (logarithmic above 10 nats); dots: perception, bars between: "
                "action. "
                "Middle: the divergence, F less surprise, and what a product of two Gaussians cannot reach "
                "(dotted). "
                "Right: where sensations go; ellipses: what the model expects, 50 and 95 %.",
                "F falls to the surprise plus a constant at each perception, and both fall from round to "
                "round. Acting on a mistake moves sensations away from what is expected.",
            )
        ],
        Table(
            ["course", "F at first", "F at last", "surprise at first", "surprise at last"],
            rows,
            "Nats. F = −ln p(x) + KL(q ‖ p(z | x)).",
        ),
    )
    return JobResult(
        model={name: one.mean for name, one in found.items()},
        dataset=_dataset(found),
        figures=figures,
        report=Report(
            "First see, then act",
            "F is surprise and divergence. Perception lowers the divergence and cannot change the "
            "surprise; "
            "action lowers F at the belief it finds. In turn, perception makes F a tight bound "
            f"({residual():.4f} nats above the surprise, what a product of Gaussians cannot reach) and "
            f"action then "
            f"lowers surprise itself, from {first.surprise[0]:.2f} to {first.surprise[-1]:.2f} nats; F "
            f"falls at "
            "every step. Action on a belief that was never fitted lowers F as well, by making the world "
            "fit a "
            f"mistake: surprise rises to {last.surprise[-1]:.2f} nats.",
            [section],
            headline,
        ),
        headline=headline,
        claims=claims(found),
    )


def _dataset(found: dict[str, Course]) -> Any:
    import xarray as xr

    parts = {}
    for number, one in enumerate(found.values()):
        step = f"step_{number}"
        parts[f"free_energy_{number}"] = (step, one.free_energy, {"units": "nats"})
        parts[f"surprise_{number}"] = (step, one.surprise, {"units": "nats"})
        parts[f"sensation_{number}"] = ((step, "channel"), one.x)
        parts[f"perceived_{number}"] = (step, one.settled)
    return xr.Dataset(parts, attrs={"courses": "; ".join(found)})


def draw(found: dict[str, Course]) -> Any:
    """F and surprise, divergence, and the way of sensations. **Example:** `draw(courses(Settings()))`."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(12.0, 4.2), layout="constrained")
        one, two, three = figure.subplots(1, 3)
        both, mistake = found[PERCEIVES], found[MISTAKE]
        steps = np.arange(len(both.kind))
        one.plot(steps, both.free_energy, color=BLUE, label="F")
        one.plot(steps[both.settled], both.free_energy[both.settled], "o", markersize=4, color=BLUE)
        one.plot(steps, both.surprise, color=ORANGE, label="surprise")
        one.plot(
            np.arange(len(mistake.kind)),
            mistake.free_energy,
            "--",
            color=BLUE,
            alpha=0.5,
            label="F, acts only",
        )
        one.plot(
            np.arange(len(mistake.kind)),
            mistake.surprise,
            "--",
            color=RED,
            alpha=0.8,
            label="surprise, acts only",
        )
        one.set_yscale("log")
        one.set(xlabel="step", ylabel="nats")
        one.set_title("perception (dots) and action in turn")
        one.legend()
        two.plot(steps, both.free_energy - both.surprise, color=BLUE, label="product of Gaussians")
        full = found[FULL]
        two.plot(steps, full.free_energy - full.surprise, color=GREEN, label="full Gaussian")
        two.axhline(residual(), color=INK, linestyle=":", linewidth=1.2)
        two.set(xlabel="step", ylabel="F − surprise (nats)", ylim=(-0.1, 2.0))
        two.set_title("divergence")
        two.legend()
        covariance = PRIOR_SD**2 * WEIGHTS @ WEIGHTS.T + NOISE_SD**2 * np.eye(2)
        angles = np.linspace(0, 2 * np.pi, 100)
        circle = np.linalg.cholesky(covariance) @ np.stack([np.cos(angles), np.sin(angles)])
        for radius in (1.177, 2.448):
            three.plot(*(radius * circle + (WEIGHTS @ PRIOR_MEAN)[:, None]), color=PALE)
        for each, colour, name in ((both, BLUE, "perceives and acts"), (mistake, RED, "acts only")):
            three.plot(*each.x.T, "o-", markersize=3, color=colour, label=name)
        three.plot(*START, "k*", markersize=12, label="start")
        three.set(xlabel="first sensation", ylabel="second sensation")
        three.set_aspect("equal")
        three.set_title("sensations")
        three.legend(loc="upper left")
    return figure
