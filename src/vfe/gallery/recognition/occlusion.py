"""Handwritten digits whose lower half is hidden, recognised by encoders and by iteration."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vfe
from vfe.gallery.digits.data import embedded
from vfe.gallery.recognition.toys import count_parameters, decoder_cut

HIDDEN = 8
ITERATIONS = (0, 1, 3, 10, 30)
SAMPLES = 64
JOINT_SAMPLES = 256


class Occluded(NamedTuple):
    """F of held-out digits without their lower half, (images,) nats.

    `unmet`: of an encoder learned on whole images, to which what is hidden is black; `blind`: of the same
    learned on half images; `seeing`: of one that is told what is there, with as many parameters;
    `refined`: from the latter on, `course` after so many `ITERATIONS` (images, 5); `joint`: with a full
    covariance; `surprise`: −ln p(x) by importance sampling, with its `surprise_error`.
    """

    unmet: np.ndarray
    blind: np.ndarray
    seeing: np.ndarray
    refined: np.ndarray
    course: np.ndarray
    joint: np.ndarray
    surprise: np.ndarray
    surprise_error: np.ndarray
    parameters: dict[str, int]


def hide_half(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Images (N, 8, 8) of which nothing, or one half (upper, lower, left, right) is NaN, at random."""
    hidden = x.copy()
    for image, which in zip(hidden, rng.integers(0, 5, len(x)), strict=True):
        if which:
            rows = (slice(0, 4), slice(4, 8), slice(None), slice(None))[which - 1]
            columns = (slice(None), slice(None), slice(0, 4), slice(4, 8))[which - 1]
            image[rows, columns] = np.nan
    return hidden


def occluded_digits(settings: Any, key: Any) -> Occluded:
    """Learn a model of digits and two encoders, then recognise half images.

    **Example:** `occluded_digits(Settings(images=20, digit_epochs=5), jax.random.key(0)).blind`.
    """
    images = embedded()
    keys = jax.random.split(key, 4)
    decoder = vfe.MLP(HIDDEN, images.pixels, 48, 1, key=keys[0])
    model = vfe.Model(
        z=vfe.gaussian(jnp.zeros(HIDDEN)),
        x=vfe.gaussian(decoder, scale=vfe.learnable(0.25), parents="z"),
    )
    epochs = settings.digit_epochs
    whole = images.x_train.reshape(-1, 8, 8)
    first = vfe.recognition(model, width=64, depth=1, key=keys[1])
    learned = _learn(model, whole, first, epochs, keys[2], None)
    model, unmet = learned.model, learned.family
    # The mask makes the first layer twice as wide, so its hidden layer is narrower: 64 · (64 + 16) numbers.
    seeing = vfe.recognition(model, width=36, depth=1, key=keys[3], inputs=("x", vfe.Present("x")))
    rng = np.random.default_rng(0)
    halves = np.concatenate([hide_half(whole, rng) for _ in range(2)])
    blind = _learn(model, halves, first, epochs, keys[3], lambda m: ()).family
    seeing = _learn(model, halves, seeing, epochs, keys[3], lambda m: ()).family

    shown = images.x_test[: settings.images].reshape(-1, 8, 8).copy()
    shown[:, 4:] = np.nan
    data = {"x": shown.reshape(len(shown), -1)}
    guess = vfe.perceive(model, data, belief=seeing, solver=vfe.FeedForward()).belief
    back = decoder_cut(model) if settings.lesion else model
    options: dict[str, Any] = {"expectation": vfe.MonteCarlo(SAMPLES), "throw": False}
    diagonal, course = guess, [_fresh(model, guess, data)]
    for steps in ITERATIONS[1:]:
        diagonal = vfe.perceive(back, data, belief=guess, max_steps=steps, **options).belief
        course.append(_fresh(model, diagonal, data))
    joint = vfe.JointGaussian.from_factor(diagonal.layout, diagonal.location, diagonal.factor())
    # A full covariance is free enough to fit a few draws instead of the posterior.
    options["expectation"] = vfe.MonteCarlo(JOINT_SAMPLES)
    joint = vfe.perceive(back, data, belief=joint, max_steps=ITERATIONS[-1], **options).belief
    estimate = vfe.log_evidence(model, data, belief=joint, method=vfe.ImportanceSampling(1000))
    return Occluded(
        _fresh(model, unmet, data),
        _fresh(model, blind, data),
        course[0],
        course[-1],
        np.stack(course, 1),
        _fresh(model, joint, data),
        -np.asarray(estimate.value),
        np.asarray(estimate.standard_error),
        {"not told": count_parameters(blind), "told": count_parameters(seeing)},
    )


def _learn(
    model: vfe.Model, x: np.ndarray, belief: vfe.Amortised, epochs: int, key: Any, where: Any
) -> Any:
    steps = epochs * -(-len(x) // 100)
    return vfe.learn(
        model,
        {"x": x.reshape(len(x), -1)},
        belief=belief,
        where=where,
        epochs=epochs,
        batch_size=100,
        expectation=vfe.MonteCarlo(4),
        optimiser=optax.adam(optax.cosine_decay_schedule(5e-3, steps, 0.01)),
        key=key,
    )


def _fresh(model: vfe.Model, belief: Any, data: dict[str, Any]) -> np.ndarray:
    F = vfe.free_energy(
        model, belief, data, expectation=vfe.MonteCarlo(256), key=jax.random.key(7), chunk=64
    )
    return np.asarray(F.total)
