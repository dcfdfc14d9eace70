"""Run the glimpsing eye from data to report."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

import vfe
from vfe.gallery.digits.data import Images, embedded, from_arrays
from vfe.gallery.glimpses.eye import Choice, Scan, along, look, seeking
from vfe.gallery.glimpses.fixed import by_rows, centre_out, chosen_orders, right_on_training
from vfe.gallery.glimpses.model import Components, components_of, learn, patches
from vfe.gallery.glimpses.settings import Chosen, Settings
from vfe.gallery.job import JobResult, Progress, Workspace

SEEKS, AVOIDS, BORROWED, RANDOM = "information", "least information", "others' paths", "random"
CENTRE, ROWS, CHOSEN = "centre-out", "rows", "chosen order"


class Eye(NamedTuple):
    """A learned model and the places that an eye with it can look at."""

    model: vfe.Model
    pixels: np.ndarray
    components: Components


class Glimpsed(NamedTuple):
    """Scans by name, `random` one for each seed; `on_training`: the share of training images that each
    fixed order names rightly when scans are compared; the best is the chosen order."""

    scans: dict[str, Scan]
    random: list[Scan]
    truth: np.ndarray
    x: np.ndarray
    on_training: dict[str, float]


def eye_of(model: vfe.Model, settings: Chosen, images: Images) -> Eye:
    """An eye that knows the model.

    **Raises:** `ValueError` where patches do not tile the images, or are fewer than the glimpses.

    **Example:** `eye_of(learned.model, settings, images)`.
    """
    pixels = patches(images.side, settings.patch)
    if settings.glimpses >= len(pixels):
        raise ValueError(
            f"glimpses: got glimpses={settings.glimpses} for {len(pixels)} places to look at; wanted fewer."
        )
    return Eye(model, pixels, components_of(model, pixels))


def compare(
    eye: Eye, settings: Chosen, images: Images, seed: int, progress: Progress | None = None
) -> Glimpsed:
    """Scan the held-out images in every way.

    **Example:** `compare(eye_of(model, settings, images), settings, images, seed=0).scans["information"]`.
    """
    x, truth = images.x_test[: settings.evaluated], images.y_test[: settings.evaluated]
    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    orders = {
        ROWS: by_rows(len(eye.pixels)),
        CENTRE: centre_out(images.side, eye.pixels),
        **chosen_orders(eye.model, images, eye.components, eye.pixels, settings.glimpses),
    }
    orders = {name: order[: settings.glimpses] for name, order in orders.items()}
    on_training = {
        name: right_on_training(eye.model, images, eye.components, eye.pixels, order[: settings.judged])
        for name, order in orders.items()
    }
    best = max(on_training, key=lambda name: on_training[name])

    def scanned(choose: Choice, key: Any = None) -> Scan:
        found = look(eye.model, x, eye.pixels, eye.components, settings.glimpses, choose, key)
        if progress is not None:
            right = found.hits(truth)[:, settings.judged].mean()
            progress.step(1, right=100 * float(right), F=float(found.free_energy[:, -1].mean()))
        return found

    def seek(sign: float) -> Choice:
        return seeking(eye.components, settings.draws, jax.random.key(seed + 1), sign)

    scans = {SEEKS: scanned(seek(1.0), key)}
    others = np.roll(np.arange(len(x)), 1)  # of an image that is another for sure
    scans[CHOSEN] = scanned(along(orders[best]))
    scans[CENTRE] = scanned(along(orders[CENTRE]))
    scans[ROWS] = scanned(along(orders[ROWS]))
    scans[BORROWED] = scanned(along(scans[SEEKS].places[others]))
    scans[AVOIDS] = scanned(seek(-1.0))
    random = []
    for _ in range(settings.random_scans):
        paths = rng.permuted(np.tile(np.arange(len(eye.pixels)), (len(x), 1)), axis=1)
        random.append(scanned(along(paths[:, : settings.glimpses])))
    return Glimpsed(scans, random, truth, x, on_training)


def held_out(images: Images, folds: int) -> list[Images]:
    """All images split so that each is held out once, in parts of one size; for one fold, as they were.

    **Raises:** `ValueError` for more folds than images.

    **Example:** `len(held_out(embedded(), 4))`.
    """
    if folds == 1:
        return [images]
    x = np.concatenate([images.x_train, images.x_test])
    y = np.concatenate([images.y_train, images.y_test])
    if folds > len(x) // 2:
        raise ValueError(f"glimpses: got folds={folds} for {len(x)} images; wanted two images in each.")
    order = np.random.default_rng(0).permutation(len(x))
    size, found = len(x) // folds, []  # what is left over is never held out
    for fold in range(folds):
        out = order[fold * size : (fold + 1) * size]
        kept = np.setdiff1d(order, out, assume_unique=True)
        parts = {"x_train": x[kept], "y_train": y[kept], "x_test": x[out], "y_test": y[out]}
        found.append(dataclasses.replace(images, **parts))
    return found


def together(several: Sequence[Glimpsed]) -> Glimpsed:
    """What was glimpsed of the images of all folds.

    **Example:** `together([first, second]).truth`.
    """

    def joined(scans: Sequence[Scan]) -> Scan:
        return Scan(*(np.concatenate(parts) for parts in zip(*scans, strict=True)))

    return Glimpsed(
        {name: joined([one.scans[name] for one in several]) for name in several[0].scans},
        [joined(scans) for scans in zip(*(one.random for one in several), strict=True)],
        np.concatenate([one.truth for one in several]),
        np.concatenate([one.x for one in several]),
        {
            name: float(np.mean([one.on_training[name] for one in several]))
            for name in several[0].on_training
        },
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
    """Learn a mixture, scan held-out digits in seven ways, and write it up: figures accuracy.png, paths.png
    and promises.png; result.nc holds places, beliefs, F and expected information by glimpse.

    **Example:** `vfe run glimpses`, or `vfe run glimpses --data mnist.npz`.
    """
    from vfe.gallery.glimpses.page import write_up

    images = embedded() if data is None else from_arrays(data)
    chosen = settings.resolved(len(images.x_train))
    patches(images.side, chosen.patch)  # before anything is learned
    models, glimpsed = [], []
    for number, fold in enumerate(held_out(images, chosen.folds), 1):
        name = f" (fold {number} of {chosen.folds})" if chosen.folds > 1 else ""
        progress.start(f"learning{name}", 1)
        learned = learn(chosen, fold, seed)
        progress.step(1, F=float(learned.history["total"][-1]))
        progress.done()
        progress.start(f"looking{name}", 6 + chosen.random_scans)
        eye = eye_of(learned.model, chosen, fold)
        models.append(learned.model)
        glimpsed.append(compare(eye, chosen, fold, seed + number, progress))
        progress.done()
    arrays: dict[str, Any] = {
        "x_train": images.x_train,
        "y_train": images.y_train,
        "x_test": images.x_test,
        "y_test": images.y_test,
    }
    return write_up(chosen, images, models, together(glimpsed), arrays)
