"""Where feed-forward recognition suffices, and what backward connections buy: three gaps apart.

An encoder answers in one pass. What it loses against −ln p(x) has three parts, and only the last two are
mended by iterating from its guess with the model's own (backward) predictions:

    F(encoder) + ln p(x) = family gap + unseen context + amortisation gap.

*Family*: the best q the encoder may give is not the posterior (two causes for one sensation, x = z²: about
ln 2 nats for a single Gaussian, nothing for a mixture of two). *Unseen context*: what the model knows and
the encoder does not see. *Amortisation*: the encoder is not at its optimum for this x. In an invertible
world the first vanishes with the noise and the last with the encoder's width, so that one pass is enough;
in a linear-Gaussian one all three do.

Refuted if iterating from the encoder did not lower F where causes are many or pixels are hidden; if a
mixture left more than a hundredth of a nat; if an affine encoder lost anything in the linear world; or if
a wide encoder of the invertible world lost as much as a narrow one, or of two causes next to nothing.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vfe
from vfe.gallery.job import JobResult, Progress, Workspace
from vfe.gallery.recognition.occlusion import Occluded, occluded_digits
from vfe.gallery.recognition.toys import (
    context_losses,
    count_parameters,
    cubic_world,
    encoder_for,
    gaussian_free_energy,
    linear_loss,
    regression_answer,
    square_world,
    square_world_cut,
    surprise,
    width_for,
)
from vfe.gallery.settings import about


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much is learned from, and how long."""

    held_out: int = about("observations of each toy world that beliefs are compared on", 128)
    steps: int = about("of learning an encoder of a toy world, each on 128 fresh observations", 1500)
    width: int = about("of the hidden layers of a Gaussian encoder; others match its parameters", 24)
    noises: tuple[float, ...] = about("of the invertible world", (0.5, 0.2, 0.05))
    widths: tuple[int, ...] = about("of encoders, from narrow to wide, that both worlds are given", (4, 64))
    images: int = about("held-out digits whose lower half is hidden", 60)
    digit_epochs: int = about("of the model of digits, and of its encoders", 30)
    lesion: bool = about("cut the backward connections: what is iterated predicts nothing", False)

    def __post_init__(self) -> None:
        counts = (self.held_out, self.steps, self.width, self.images, self.digit_epochs)
        if min(counts) < 2 or len(self.noises) < 2 or min(self.noises) <= 0:
            raise ValueError(
                f"recognition-gaps: got held_out, steps, width, images, digit_epochs={counts} and "
                f"noises={self.noises}; wanted at least two of each, and positive noises."
            )
        if len(self.widths) < 2 or sorted(set(self.widths)) != list(self.widths) or self.widths[0] < 1:
            raise ValueError(
                f"recognition-gaps: got widths={self.widths}; wanted two or more, each wider than the last."
            )


class ManyCauses(NamedTuple):
    """x = z² + 0.3 ε, nats.

    At x = 4: F of the regression answer, of what perception makes of its mean, of a mixture of two, and
    −ln p(x). Held out: F (observations,) by kind, −ln p(x); parameters by kind.
    """

    regression: float
    refined: float
    mixture: float
    surprise: float
    held_out: dict[str, np.ndarray]
    held_out_surprise: np.ndarray
    parameters: dict[str, int]


class Invertible(NamedTuple):
    """Mean F less −ln p(x), nats: of encoders by `width` and `noise`, of what the widest is `refined` to by
    noise, and of encoders by width where there are `two_causes`."""

    width: np.ndarray
    noise: np.ndarray
    encoder: np.ndarray
    refined: np.ndarray
    two_causes: np.ndarray


class Found(NamedTuple):
    """What `measure` returns."""

    many: ManyCauses
    invertible: Invertible
    linear: float
    context: dict[str, float]
    occluded: Occluded


def many_causes(settings: Settings, key: Any) -> ManyCauses:
    """Two causes for one sensation. **Example:** `many_causes(Settings(), jax.random.key(0)).mixture`."""
    model = square_world()
    four = {"x": jnp.asarray([4.0])}
    regressed, cost = regression_answer(model, 0.3, 4.0)
    # F of a Gaussian is stationary in its mean at zero, and at the width of least F there hardly less than
    # flat: recognition goes from the mean down E to a cause, and there on down F.
    aside = vfe.Laplace.from_vector(regressed.layout, regressed.location + 0.01)
    back = square_world_cut() if settings.lesion else model
    mode = vfe.perceive(back, four, belief=aside, solver=vfe.Descent()).belief
    start = vfe.DiagonalGaussian.from_factor(mode.layout, mode.location, mode.factor())
    percept = vfe.perceive(back, four, belief=start, expectation=vfe.MonteCarlo(2048))
    mixture = vfe.perceive(
        model, four, belief=vfe.Mixture(2), expectation=vfe.MonteCarlo(2048), key=jax.random.fold_in(key, 3)
    )
    z = percept.belief["z"]
    refined = gaussian_free_energy(float(z.mean[0]), float(z.variance[0]), 0.3, 4.0)

    one, two, three = jax.random.split(key, 3)
    new = model.sample(one, shape=(settings.held_out,))["x"]
    steps = settings.steps
    gaussian = encoder_for(model, family=vfe.DiagonalGaussian, width=settings.width, steps=steps, key=two)
    parameters = count_parameters(gaussian)
    width = width_for(parameters, model, vfe.Mixture(2))
    mixed = encoder_for(model, family=vfe.Mixture(2), width=width, steps=steps, key=three)
    held, data = {}, {"x": new}
    for name, belief in (("Gaussian", gaussian), ("mixture of two", mixed)):
        # F of every belief over the same fresh draws, none of which it was fitted to.
        guess = vfe.perceive(model, data, belief=belief, solver=vfe.FeedForward())
        held[name] = fresh(model, guess.belief, data)
        better = vfe.perceive(
            back, data, belief=guess.belief, expectation=vfe.MonteCarlo(256), max_steps=40
        )
        held[f"{name}, refined"] = fresh(model, better.belief, data)
    return ManyCauses(
        cost,
        refined,
        float(mixture.free_energy.total),
        float(surprise(model, [[4.0]])[0]),
        held,
        surprise(model, new),
        {"Gaussian": parameters, "mixture of two": count_parameters(mixed)},
    )


def fresh(model: vfe.Model, belief: Any, data: dict[str, Any], samples: int = 1024) -> np.ndarray:
    """F over draws of its own, nats per observation. **Example:** `fresh(model, percept.belief, data)`."""
    F = vfe.free_energy(
        model, belief, data, expectation=vfe.MonteCarlo(samples), key=jax.random.key(7), chunk=64
    )
    return np.asarray(F.total)


def invertible(settings: Settings, key: Any) -> Invertible:
    """x = z + z³/5 + noise ε, beside x = z² + 0.3 ε for the same encoders.

    **Example:** `invertible(Settings(), jax.random.key(0)).refined`.
    """
    one, two = jax.random.split(key)
    worlds = [cubic_world(noise) for noise in settings.noises]
    lost = np.zeros((len(settings.widths), len(worlds) + 1))
    refined = np.zeros(len(worlds))
    for column, model in enumerate([*worlds, square_world()]):
        data = {"x": model.sample(one, shape=(settings.held_out,))["x"]}
        least = surprise(model, data["x"])
        guess = None
        for row, width in enumerate(settings.widths):
            belief = encoder_for(
                model,
                family=vfe.DiagonalGaussian,
                width=width,
                steps=settings.steps,
                key=two,
                rate=3e-3,
                initial_sd=0.1,
            )
            guess = vfe.perceive(model, data, belief=belief, solver=vfe.FeedForward()).belief
            lost[row, column] = np.mean(fresh(model, guess, data) - least)
        if column < len(worlds):
            better = vfe.perceive(model, data, belief=guess, expectation=vfe.MonteCarlo(256), max_steps=40)
            refined[column] = np.mean(fresh(model, better.belief, data) - least)
    sizes = np.asarray(settings.widths), np.asarray(settings.noises)
    return Invertible(*sizes, lost[:, :-1], refined, lost[:, -1])


def measure(settings: Settings, seed: int, progress: Progress | None = None) -> Found:
    """All of it. **Example:** `measure(Settings(steps=100, images=20), 0).linear`."""
    one, two, three = jax.random.split(jax.random.key(seed), 3)
    tasks = (
        lambda: many_causes(settings, one),
        lambda: invertible(settings, two),
        linear_loss,
        context_losses,
        lambda: occluded_digits(settings, three),
    )
    parts = []
    for task in tasks:
        parts.append(task())
        if progress is not None:
            progress.step()
    return Found(*parts)


def run(
    settings: Settings,
    *,
    seed: int,
    data: dict[str, np.ndarray] | None,
    folder: Workspace,
    progress: Progress,
    resume: bool,
) -> JobResult:
    """Learn the encoders, take the gaps apart: figures many-causes.png, invertible.png and occluded.png.

    **Example:** `vfe run recognition-gaps`.
    """
    from vfe.gallery.recognition.gaps_page import write_up

    progress.start("worlds", 5)
    found = measure(settings, seed, progress)
    progress.done()
    return write_up(settings, found)
