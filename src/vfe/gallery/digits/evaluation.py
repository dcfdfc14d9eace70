"""What the learned model is asked: surprise, labels, hidden pixels, imagination, odd images."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np

import vfe
from vfe.evidence import ImportanceSampling, log_evidence
from vfe.gallery.digits.data import Images
from vfe.gallery.digits.model import mean_images
from vfe.gallery.digits.recognition import Recognised, recognise
from vfe.gallery.digits.settings import Chosen
from vfe.gallery.job import Progress
from vfe.gallery.linear import filled_in, probabilistic_pca

FOILS = 75
FILLED = 225
LAPLACE = 60
SHOWN = 8


@dataclasses.dataclass(frozen=True)
class Number:
    """A mean with its standard error over images, and that of the Monte Carlo (0 if none)."""

    value: float
    error: float
    monte_carlo: float = 0.0

    @staticmethod
    def of(values: np.ndarray, monte_carlo: float = 0.0) -> "Number":
        """The mean over images."""
        values = np.asarray(values, np.float64)
        return Number(float(values.mean()), float(values.std() / np.sqrt(values.size)), monte_carlo)


@dataclasses.dataclass(frozen=True)
class Filled:
    """One way of hiding pixels: images with NaN, what was filled in, and squared errors."""

    name: str
    seen: np.ndarray
    ours: np.ndarray
    linear: np.ndarray
    errors: dict[str, Number]
    difference: Number
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Surprise:
    """Importance-sampled −ln p(x) of some images; `rough`: how many have an error above 0.4 nats."""

    value: Number
    rough: int
    asked: int


@dataclasses.dataclass(frozen=True)
class Laplaced:
    """The Laplace value of some images beside the true F of the fitted Gaussians of the same images."""

    value: Number
    true: Number
    answers: int
    asked: int


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Everything the report tells; F in nats per image."""

    recognised: Recognised
    truth: np.ndarray
    images: np.ndarray
    total: Number
    surprise: "Surprise"
    laplace: "Laplaced"
    linear: Number
    difference: Number
    accuracy: float
    refined: dict[str, Number]
    filled: list[Filled]
    dreams: np.ndarray
    dreams_by_label: np.ndarray
    foils: dict[str, np.ndarray]
    foil_images: dict[str, np.ndarray]
    intact: np.ndarray
    auroc: dict[str, float]


def evaluate(
    learned: vfe.Learned, images: Images, settings: Chosen, progress: Progress, seed: int
) -> Evaluation:
    """Ask the model everything, on held-out images."""
    keys = iter(jax.random.split(jax.random.key(seed + 1), 32))
    encoded = settings.beliefs == "encoded"
    x, truth = images.x_test[: settings.evaluated], images.y_test[: settings.evaluated]
    progress.start("asking the model", 6)
    linear_model = probabilistic_pca(images.x_train, settings.z1 + settings.z2)
    linear = -np.asarray(vfe.exact.log_evidence(linear_model, {"x": x}))
    seen = recognise(learned, x, settings, next(keys))
    total = seen.free_energy
    progress.step(1, F=float(total.mean()))
    refined = {}
    fitted, some = seen, len(x)
    if encoded:
        # An encoder's belief is too rough a proposal for importance sampling: refined ones are used.
        some = FOILS
        fitted = recognise(learned, x[:some], settings, next(keys), refine=True)
        refined = {
            "encoder": Number.of(total[:some]),
            "refined": Number.of(fitted.free_energy, _mean_error(fitted.monte_carlo)),
            "linear": Number.of(linear[:some]),
        }
    surprise = _surprise(learned, x[:some], fitted, next(keys))
    progress.step(2)
    laplace = _laplace(learned, x[:LAPLACE], total[:LAPLACE])
    progress.step(1)
    filled = [
        _fill(learned, images, x, truth, settings, linear_model, name, mask, next(keys))
        for name, mask in _masks(x, images).items()
    ]
    progress.step(1)
    dreams, by_label = _imagine(learned.model, images.classes, next(keys), next(keys))
    progress.step(1)
    foil_images = _foils(x[:FOILS], images)
    foils = {}
    for name, foil in foil_images.items():
        foils[name] = recognise(learned, foil, settings, next(keys)).free_energy
    progress.step(1)
    progress.done()
    return Evaluation(
        recognised=seen,
        truth=truth,
        images=x,
        total=Number.of(total, _mean_error(seen.monte_carlo)),
        surprise=surprise,
        laplace=laplace,
        linear=Number.of(linear),
        difference=Number.of(total - linear),
        accuracy=float((seen.labels == truth).mean()),
        refined=refined,
        filled=filled,
        dreams=dreams,
        dreams_by_label=by_label,
        foils=foils,
        foil_images=foil_images,
        intact=total[:FOILS],
        auroc={n: area_under_curve(total[:FOILS], v) for n, v in foils.items()},
    )


def _mean_error(errors: np.ndarray) -> float:
    """The Monte Carlo error of a mean of independent estimates."""
    return float(np.sqrt(np.mean(np.square(errors)) / errors.size))


def _surprise(learned: vfe.Learned, x: np.ndarray, seen: Recognised, key: jax.Array) -> Surprise:
    with warnings.catch_warnings():
        # The report says how many estimates are rough.
        warnings.simplefilter("ignore", UserWarning)
        evidence = log_evidence(
            learned.model,
            {"x": x},
            method=ImportanceSampling(200),
            belief=jax.tree.map(jnp.asarray, seen.belief),
            key=key,
        )
    errors = np.asarray(evidence.standard_error)
    value = Number.of(-np.asarray(evidence.value), _mean_error(errors))
    return Surprise(value, int((errors > 0.4).sum()), len(x))


def _laplace(learned: vfe.Learned, x: np.ndarray, total: np.ndarray) -> Laplaced:
    percept = vfe.perceive(
        learned.model,
        {"x": x},
        belief=vfe.Enumerated("label", vfe.Laplace),
        max_steps=40,
        rtol=1e-3,
        throw=False,
    )
    values = np.asarray(percept.free_energy.total)
    good = np.isfinite(values)
    if not good.any():
        nothing = Number(float("nan"), float("nan"))
        return Laplaced(nothing, nothing, 0, len(x))
    return Laplaced(Number.of(values[good]), Number.of(total[good]), int(good.sum()), len(x))


def _masks(x: np.ndarray, images: Images) -> dict[str, np.ndarray]:
    """Which pixels are hidden: the lower half; half of the pixels at random, anew for every image."""
    x = x[: FILLED if images.pixels <= 256 else FOILS]
    lower = np.zeros(x.shape, bool)
    lower[:, images.pixels // 2 :] = True
    order = np.random.default_rng(1).random(x.shape).argsort(-1)
    return {"lower half": lower, "random half": order < images.pixels // 2}


def _fill(
    learned: vfe.Learned,
    images: Images,
    x: np.ndarray,
    truth: np.ndarray,
    settings: Chosen,
    linear_model: vfe.Model,
    name: str,
    hidden: np.ndarray,
    key: jax.Array,
) -> Filled:
    x, truth = x[: len(hidden)], truth[: len(hidden)]
    seen = np.where(hidden, np.nan, x)
    recognised = recognise(learned, seen, settings, key, refine=True, predict=True)
    ours = np.where(hidden, recognised.prediction, x)
    linear = filled_in(linear_model, seen)
    mean = np.where(hidden, images.x_train.mean(0), x)

    def error(guess: np.ndarray) -> np.ndarray:
        return np.square(guess - x).sum(-1) / hidden.sum(-1)

    errors = {
        "this model": Number.of(error(ours)),
        "probabilistic PCA": Number.of(error(linear)),
        "mean image": Number.of(error(mean)),
    }
    return Filled(
        name,
        seen,
        ours,
        linear,
        errors,
        Number.of(error(ours) - error(linear)),
        float((recognised.labels == truth).mean()),
    )


def _imagine(
    model: vfe.Model, classes: int, one: jax.Array, two: jax.Array
) -> tuple[np.ndarray, np.ndarray]:
    """Mean images of draws from the prior, and with the label clamped (one row per label)."""
    free = model.sample(one, shape=(3 * SHOWN,))["z1"]
    shown = min(classes, 10)
    label = jnp.repeat(jnp.arange(shown)[:, None], SHOWN, 1)
    clamped = model.sample(two, given={"label": label})["z1"]
    return np.asarray(mean_images(model, free)), np.asarray(mean_images(model, clamped))


def _foils(x: np.ndarray, images: Images) -> dict[str, np.ndarray]:
    """Images that are no digits, with the same kind of pixels."""
    rng = np.random.default_rng(2)
    shuffled = rng.permuted(x, axis=-1)
    inverted = 1.0 + 1.0 / images.levels - x
    foils = {"shuffled pixels": shuffled, "inverted": inverted}
    height, width = images.side
    if height == width:
        square = x.reshape(-1, height, width)
        foils["turned by 90°"] = np.rot90(square, axes=(1, 2)).reshape(x.shape)
    foils["blend of two"] = 0.5 * (x + np.roll(x, 1, axis=0))
    return {n: np.ascontiguousarray(v, np.float32) for n, v in foils.items()}


def area_under_curve(intact: np.ndarray, odd: np.ndarray) -> float:
    """The probability that F of an odd image is above that of an intact one (AUROC): chance is 0.5.

    **Example:** `area_under_curve(np.zeros(2), np.ones(2))` is 1.
    """
    from sklearn.metrics import roc_auc_score

    truth = np.r_[np.zeros(len(intact)), np.ones(len(odd))]
    # No finite F at all is as surprising as can be.
    most = float(np.finfo(np.float32).max)
    scores = np.nan_to_num(np.r_[intact, odd], nan=most, posinf=most)
    return float(roc_auc_score(truth, scores))
