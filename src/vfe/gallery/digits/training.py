"""Learning the digits: the optimiser, the beliefs, and what is kept on the way."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray

import vfe
from vfe.gallery.digits.data import Images
from vfe.gallery.digits.model import build, encoder
from vfe.gallery.digits.settings import Chosen
from vfe.gallery.job import Progress


def train(
    settings: Chosen,
    images: Images,
    *,
    seed: int,
    folder: Path,
    progress: Progress,
    resume: bool,
) -> vfe.Learned:
    """Minimise F of images and labels over weights, tables and precisions.

    The label is observed while learning; `vfe.Contrast` sharpens its recognition. The noise within a
    grey step is drawn anew at each visit.
    """
    build_key, encoder_key, learn_key = jax.random.split(jax.random.key(seed), 3)
    kept = settings.beliefs == "kept"
    count = len(images.x_train)
    batch = settings.batch_size
    watched = slice(0, 450 if kept else 1000)
    contrast = None
    if settings.contrast > 0:
        contrast = vfe.Contrast(
            "label",
            settings.contrast,
            settings.temperature,
            min(settings.rivals, images.classes - 1),
            delay=0.15,
        )
    belief: dict[str, Any] = (
        {
            "belief": vfe.JointGaussian,
            "solver": vfe.NaturalGradient(0.5, vfe.GaussNewton()),
            "perception_steps": 1,
        }
        if kept
        else {"belief": encoder(settings, images, encoder_key)}
    )
    levels = images.levels

    def renewed(key: PRNGKeyArray, arrays: dict[str, Array]) -> dict[str, Array]:
        grey = jnp.floor(arrays["x"] * levels)
        return {"x": (grey + jax.random.uniform(key, grey.shape)) / levels}

    progress.start("learning", settings.epochs)
    shown = 0

    def report(epoch: int, numbers: dict[str, Any], model: vfe.Model) -> None:
        nonlocal shown
        progress.step(epoch - shown, F=numbers["total"])
        shown = epoch

    learned = vfe.learn(
        build(settings, images, build_key),
        {"x": images.x_train, "label": images.y_train},
        epochs=settings.epochs,
        batch_size=batch,
        key=learn_key,
        expectation=vfe.MonteCarlo(4),
        optimiser=_optimiser(settings, settings.epochs * -(-count // batch)),
        contrast=contrast,
        augment=renewed,
        validation={"x": images.x_test[watched], "label": images.y_test[watched]},
        checkpoint=folder,
        checkpoint_every=max(1, settings.epochs // 5),
        resume=resume,
        callback=report,
        **belief,
    )
    progress.done()
    return learned


def _optimiser(settings: Chosen, steps: int) -> optax.GradientTransformation:
    """AdamW with warm-up and cosine decay; decay on weight matrices, not on biases, tables of means
    or pixel noise."""
    peak = settings.learning_rate
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, peak, max(1, min(500, steps // 8)), max(2, steps), 0.01 * peak
    )

    def decayed(parameters: Any) -> Any:
        def one(path: Any, array: Any) -> bool:
            return array.ndim == 2 and "values" not in jax.tree_util.keystr(path)

        return jax.tree_util.tree_map_with_path(one, parameters)

    return optax.chain(
        optax.clip_by_global_norm(200.0),
        optax.adamw(schedule, b2=0.99, weight_decay=settings.weight_decay, mask=decayed),
    )
