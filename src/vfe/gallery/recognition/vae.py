"""Images learned by an encoder and a decoder, and by a hierarchy whose recognition is iterated.

The first model is the usual variational autoencoder: z ~ N(0, I), binary pixels through two tanh layers,
one diagonal Gaussian from an encoder, F descended by both. The second learns its prior too, p(z₁ | z₂), and
its encoder only proposes: in the last part of learning every belief is corrected by the backward
predictions before the model descends its F. −ln p(x) of held-out images is estimated with importance
samples from the encoder's beliefs. With both given the same processor time, and images enough to learn a
prior from,

    −ln p(x; hierarchy) < −ln p(x; one level) < F(iterated) < F(encoder).

Refuted if iteration did not lower F of held-out images (as where the backward connections are cut), or, of
ten thousand images and more, if the hierarchy's −ln p(x) were not lower by twice the standard error of the
difference. Of scikit-learn's 1,797 small digits a prior is hardly to
be learned: there the difference is shown, and not claimed.
"""

import dataclasses
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import vfe
from vfe.gallery.digits.data import Images, embedded, from_arrays
from vfe.gallery.job import JobResult, Progress, Workspace
from vfe.gallery.recognition.toys import decoder_cut
from vfe.gallery.settings import about

RATE = 2e-3
REFINEMENT = 0.01
REFINED = 100


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes and times. `None`: by the data (small for scikit-learn's digits, the usual size for others)."""

    latents: int | None = about("numbers in z (16 or 50)", None)
    above: int | None = about("numbers in z₂ (8 or 20)", None)
    width: int | None = about("of both tanh layers of encoder and decoder (64 or 200)", None)
    epochs: int | None = about("of the model of one level (200 or 30)", None)
    refined: float = about("share of the hierarchy's time in which beliefs are refined", 0.1)
    refinements: int = about("steps of each refinement", 3)
    batch_size: int = about("images per step", 100)
    draws: int = about("from every belief at a step, one antithetic pair or more", 2)
    refined_draws: int = about("from beliefs that are refined", 8)
    bound: int = about("K of an importance-weighted bound to descend instead of F (1: F)", 1)
    importance_samples: int = about("for −ln p(x) of held-out images", 1000)
    images: int = about("held-out images", 450)
    lesion: bool = about("cut the backward connections: what is iterated predicts nothing", False)
    cut: bool = about("cut the upper level off: z₁ keeps a prior of its own", False)

    def __post_init__(self) -> None:
        counts = (self.batch_size, self.refinements, self.importance_samples, self.images, self.bound)
        sizes = [n for n in (self.latents, self.above, self.width, self.epochs) if n is not None]
        if min(counts) < 1 or (sizes and min(sizes) < 1) or self.images < 2:
            raise ValueError(
                f"vae: got batch_size, refinements, importance_samples, images, bound={counts} and sizes "
                f"{sizes}; wanted at least one of each, and two images."
            )
        if not 0 <= self.refined < 1:
            raise ValueError(f"vae: got refined={self.refined}; wanted a share from 0 to below 1.")

    def resolved(self, small: bool) -> "Settings":
        """With every None replaced. **Example:** `Settings().resolved(True).latents` is 16."""
        usual = (
            {"latents": 16, "above": 8, "width": 64, "epochs": 200}
            if small
            else {"latents": 50, "above": 20, "width": 200, "epochs": 30}
        )
        chosen = {n: v for n, v in usual.items() if getattr(self, n) is None}
        return dataclasses.replace(self, **chosen)


class Grey(NamedTuple):
    """Grey images in [0, 1], (N, pixels), to draw binary ones from; those `held_out` are drawn once."""

    train: np.ndarray
    held_out: np.ndarray
    side: tuple[int, int]
    name: str


class Measured(NamedTuple):
    """A model that was learned: `history` of F by epoch (nats per image); of held-out images F, −ln p(x)
    and its standard error, (images,); what iteration takes off F, `gained`; the processor seconds
    of learning."""

    model: vfe.Model
    family: Any
    history: np.ndarray
    free_energy: np.ndarray
    surprise: np.ndarray
    surprise_error: np.ndarray
    bounds: dict[int, float]
    gained: np.ndarray
    processor_seconds: float


def grey_images(images: Images, count: int) -> Grey:
    """Held-out images, `count` at random, are made binary once, every pixel on with its grey value's
    probability (seed 0).

    **Example:** `grey_images(embedded(), 450).train.max()` is 1.
    """
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.permutation(len(images.x_test))[:count])
    train, test = (np.floor(x * images.levels) for x in (images.x_train, images.x_test[chosen]))
    most = max(train.max(), 1.0)
    drawn = rng.random(test.shape) < np.minimum(test / most, 1)
    return Grey((train / most).astype(np.float32), drawn.astype(int), images.side, images.name)


def one_level(settings: Settings, grey: Grey, key: Any) -> tuple[vfe.Model, vfe.Amortised]:
    """z → pixels, and its encoder.

    **Example:** `one_level(Settings().resolved(True), grey, key)[0].order`.
    """
    assert settings.latents is not None
    decode_key, key = jax.random.split(key)
    model = vfe.Model(
        z=vfe.gaussian(jnp.zeros(settings.latents)),
        x=vfe.bernoulli(decoder(settings, grey, decode_key), parents="z"),
    )
    return model, vfe.recognition(model, width=settings.width or 1, depth=2, key=key)


def two_levels(settings: Settings, grey: Grey, key: Any) -> tuple[vfe.Model, vfe.Amortised]:
    """z₂ → z₁ → pixels, and its encoder; at first p(z₁ | z₂) is N(0, I) nearly.

    **Example:** `two_levels(Settings().resolved(True), grey, key)[0].order`.
    """
    assert settings.latents is not None
    assert settings.above is not None
    mean_key, scale_key, key = jax.random.split(key, 3)
    sizes = (settings.above, settings.latents, 2 * settings.latents)
    mean = vfe.MLP(*sizes, 2, key=mean_key)
    scale = scaled(vfe.MLP(*sizes, 1, key=scale_key), 0.1)
    decode_key, key = jax.random.split(key)
    lower: Any = vfe.gaussian(mean, scale=vfe.Exp(scale), parents="z2")
    if settings.cut:
        lower = vfe.gaussian(vfe.Fixed(jnp.zeros(settings.latents)))
    model = vfe.Model(
        z2=vfe.gaussian(jnp.zeros(settings.above)),
        z1=lower,
        x=vfe.bernoulli(decoder(settings, grey, decode_key), parents="z1"),
    )
    return model, vfe.recognition(model, width=settings.width or 1, depth=2, key=key)


def decoder(settings: Settings, grey: Grey, key: Any) -> vfe.MLP:
    """Two tanh layers whose last bias starts at every pixel's mean.

    **Example:** `decoder(settings, grey, key)`.
    """
    assert settings.latents is not None
    assert settings.width is not None
    made = vfe.MLP(settings.latents, grey.train.shape[1], settings.width, 2, key=key)
    share = np.clip(grey.train.mean(0), 1e-3, 1 - 1e-3)
    return eqx.tree_at(lambda m: m.biases[-1], made, jnp.asarray(np.log(share / (1 - share)), float))


def scaled(made: vfe.MLP, factor: float) -> vfe.MLP:
    """A network whose answers start near zero. **Example:** `scaled(vfe.MLP(2, 3, 4, 1, key=key), 0.1)`."""
    return eqx.tree_at(lambda m: m.weights[-1], made, factor * made.weights[-1])


def binary(key: Any, observed: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Pixels that are on with the probability of their grey value.

    **Example:** `binary(key, {"x": grey})`.
    """
    return {"x": jax.random.uniform(key, observed["x"].shape) < observed["x"]}


class Course(NamedTuple):
    """What learning ends with: F by epoch, and the seconds of all processors together."""

    model: vfe.Model
    family: Any
    history: list[float]
    processor_seconds: float


class Stage(NamedTuple):
    """A part of learning: epochs, the rates it goes from and to, whether beliefs are refined, and how many
    processor seconds an epoch takes as far as is known."""

    epochs: int
    first: float
    last: float
    refined: bool
    seconds: float = 0.0


def learn(
    settings: Settings,
    grey: Grey,
    built: tuple[vfe.Model, Any],
    stages: list[Stage],
    key: Any,
    told: Callable[[float], None] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> "Course":
    """Learn through these stages, each with a checkpoint folder of its own below `checkpoint`.

    **Example:** see `measured`.
    """
    model, family = built
    history: list[float] = []
    processor = 0.0
    per_epoch = -(-len(grey.train) // settings.batch_size)
    for number, stage in enumerate(stages):
        if not stage.epochs:
            continue
        schedule = optax.cosine_decay_schedule(
            stage.first, stage.epochs * per_epoch, stage.last / stage.first
        )
        options: dict[str, Any] = {"expectation": vfe.MonteCarlo(settings.draws)}
        if stage.refined:
            options = {
                "expectation": vfe.MonteCarlo(settings.refined_draws),
                "objective": vfe.Refined(),
                # A few draws are soon fitted in place of the posterior: small steps, and more draws.
                "solver": vfe.Descent(optax.adam(REFINEMENT)),
                "perception_steps": settings.refinements,
            }
        elif settings.bound > 1:
            # The bound has draws of its own.
            options = {"objective": vfe.ImportanceWeighted(settings.bound)}

        ticks: list[float] = []

        def shown(epoch: int, numbers: dict[str, Any], model: vfe.Model, ticks: Any = ticks) -> None:
            ticks.append(time.process_time())
            if told is not None:
                told(numbers["total"])

        learned = vfe.learn(
            model,
            {"x": grey.train},
            epochs=stage.epochs,
            batch_size=settings.batch_size,
            belief=family,
            augment=binary,
            optimiser=optax.adam(schedule),
            key=jax.random.fold_in(key, number),
            callback=shown,
            checkpoint=None if checkpoint is None else checkpoint / str(number),
            checkpoint_every=max(1, stage.epochs // 10),
            resume=resume,
            **options,
        )
        model, family = learned.model, learned.family
        history += [float(f) for f in learned.history["total"]]
        # The first epoch had to be compiled; where a checkpoint left no more than one to do, what is known.
        each = (ticks[-1] - ticks[0]) / (len(ticks) - 1) if len(ticks) > 1 else stage.seconds
        processor += stage.epochs * each
    return Course(model, family, history, processor)


def seconds_per_epoch(settings: Settings, grey: Grey, built: Any, refined: bool, key: Any) -> float:
    """Processor seconds of an epoch, compilation left out.

    **Example:** `seconds_per_epoch(settings, grey, one_level(settings, grey, key), False, key)`.
    """
    epochs = 2 + 20_000 // len(grey.train)
    return (
        learn(settings, grey, built, [Stage(epochs, RATE, RATE, refined)], key).processor_seconds / epochs
    )


def hierarchy_stages(settings: Settings, plain: float, proposed: float, refined: float) -> list[Stage]:
    """Stages that take as long as the epochs of one level, from the processor seconds of an epoch each.

    **Example:** `hierarchy_stages(Settings().resolved(True), 1.0, 1.2, 3.0)`.
    """
    assert settings.epochs is not None
    whole = settings.epochs * plain
    second = 0 if settings.lesion else int(settings.refined * whole / refined)
    first = max(1, int((whole - second * refined) / proposed))
    return [
        Stage(first, RATE, 0.2 * RATE, False, proposed),
        Stage(second, 0.2 * RATE, 0.005 * RATE, True, refined),
    ]


def measured(
    settings: Settings,
    grey: Grey,
    built: Any,
    stages: list[Stage],
    key: Any,
    told: Any = None,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> Measured:
    """Learn, then ask about held-out images.

    **Example:** `measured(settings, grey, one_level(settings, grey, key), stages, key).surprise.mean()`.
    """
    model, family, history, processor = learn(settings, grey, built, stages, key, told, checkpoint, resume)
    data = {"x": grey.held_out}
    F = vfe.free_energy(model, family, data, expectation=vfe.MonteCarlo(64), chunk=500)

    def bound(samples: int) -> vfe.Estimate:
        with warnings.catch_warnings():
            # How unsure the estimates are is shown beside them.
            warnings.filterwarnings("ignore", message="log_evidence")
            return vfe.log_evidence(
                model,
                data,
                belief=family,
                method=vfe.ImportanceSampling(samples, degrees_of_freedom=None),
            )

    estimate = bound(settings.importance_samples)
    tighter = {k: -float(np.mean(bound(k).value)) for k in (5, 50) if k < settings.importance_samples}
    return Measured(
        model,
        family,
        np.asarray(history),
        np.asarray(F.total),
        -np.asarray(estimate.value),
        np.asarray(estimate.standard_error),
        {
            1: float(np.mean(F.total)),
            **tighter,
            settings.importance_samples: -float(np.mean(estimate.value)),
        },
        gained_by_iteration(settings, model, family, grey.held_out[:REFINED]),
        processor,
    )


def gained_by_iteration(settings: Settings, model: vfe.Model, family: Any, x: np.ndarray) -> np.ndarray:
    """F of the encoder's beliefs less F of what twenty steps make of them, over draws of their own, nats.

    **Example:** `gained_by_iteration(settings, model, family, grey.held_out[:100]).mean()`.
    """
    data = {"x": x}
    guess = vfe.perceive(model, data, belief=family, solver=vfe.FeedForward()).belief
    back = decoder_cut(model) if settings.lesion else model
    refined = vfe.perceive(
        back, data, belief=guess, expectation=vfe.MonteCarlo(512), max_steps=20, throw=False
    ).belief
    options: dict[str, Any] = {"expectation": vfe.MonteCarlo(256), "key": jax.random.key(5), "chunk": 50}
    before, after = (vfe.free_energy(model, b, data, **options).total for b in (guess, refined))
    return np.asarray(before - after)


def run(
    settings: Settings,
    *,
    seed: int,
    data: dict[str, np.ndarray] | None,
    folder: Workspace,
    progress: Progress,
    resume: bool,
) -> JobResult:
    """Learn both models for the same time and compare them: figures learning.png and imagined.png.

    **Example:** `vfe run vae`, or, for three quarters of an hour each on two cores,
    `vfe run vae --data mnist.npz --set epochs=600 importance_samples=5000 images=2000`.
    """
    from vfe.gallery.recognition.vae_page import write_up

    images = embedded() if data is None else from_arrays(data)
    chosen = settings.resolved(len(images.x_train) < 10_000)
    grey = grey_images(images, chosen.images)
    keys = jax.random.split(jax.random.key(seed), 4)
    plain, deep = one_level(chosen, grey, keys[0]), two_levels(chosen, grey, keys[1])
    before = folder.load({"seconds": np.zeros(3)}) if resume else None
    if before is None:
        progress.start("timing an epoch", 3)
        times = []
        for built, refined in ((plain, False), (deep, False), (deep, True)):
            times.append(seconds_per_epoch(chosen, grey, built, refined, keys[2]))
            progress.step()
        progress.done()
        folder.save(0, {"seconds": np.asarray(times)})
    else:
        times = [float(t) for t in before[1]["seconds"]]
    assert chosen.epochs is not None
    found = {}
    stages = {
        "one level": [Stage(chosen.epochs, RATE, 0.005 * RATE, False, times[0])],
        "hierarchy, iterated": hierarchy_stages(chosen, *times),
    }
    for name, built in (("one level", plain), ("hierarchy, iterated", deep)):
        progress.start(name, sum(s.epochs for s in stages[name]))
        found[name] = measured(
            chosen,
            grey,
            built,
            stages[name],
            keys[3],
            lambda f: progress.step(F=f),
            folder.path / name.replace(", ", "-").replace(" ", "-"),
            resume,
        )
        progress.done()
    return write_up(chosen, grey, found, stages, images)
