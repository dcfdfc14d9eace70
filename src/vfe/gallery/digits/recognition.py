"""Perceiving images with the learned model: beliefs for every label, and q(label) from their F."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

import vfe
from vfe.gallery.digits.settings import Chosen

BLOCK = 75


@dataclasses.dataclass(frozen=True)
class Recognised:
    """Beliefs with q(label) ∝ exp(−F_label), one leading axis over images.

    `belief`: q(label) q(z2, z1 | label); `by_label`: F_label, (N, labels); `free_energy`: F of the belief
    per image on samples that nothing was chosen by, and `monte_carlo`, its standard error, in nats;
    `readings`: the same F by node, averaged; `prediction`: the mean image under the belief.
    """

    belief: vfe.EnumeratedBelief
    by_label: np.ndarray
    free_energy: np.ndarray
    monte_carlo: np.ndarray
    readings: vfe.FreeEnergy
    prediction: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """The label with the least F."""
        return self.by_label.argmin(-1)


def recognise(
    learned: vfe.Learned,
    x: np.ndarray,
    settings: Chosen,
    key: PRNGKeyArray,
    *,
    refine: bool = False,
    predict: bool = False,
) -> Recognised:
    """Infer label and causes of images, (N, pixels); NaN pixels are hidden.

    Every label gets a belief q(z2, z1 | label) of its own: natural-gradient steps on its true
    (Monte Carlo) F, then once more from where the best label ended; or the encoder's answer, which
    `refine` improves in the same way. An encoder has only seen whole images: where pixels are hidden it is
    not asked. q(label) then follows from F_label on fresh samples.

    Images are worked on in blocks of one size, so that everything is compiled once.
    """
    found = []
    for number, start in enumerate(range(0, len(x), BLOCK)):
        block = x[start : start + BLOCK]
        padded = np.concatenate([block, np.repeat(block[-1:], BLOCK - len(block), 0)])
        one = _block(learned, padded, settings, jax.random.fold_in(key, number), refine, predict)
        kept = slice(0, len(block))
        found.append(jax.tree.map(lambda a, kept=kept: a[kept] if np.ndim(a) else a, one))
    belief, by_label, free_energy, prediction = jax.tree.map(
        lambda *parts: np.concatenate(parts) if np.ndim(parts[0]) else parts[0], *found
    )
    return Recognised(
        belief,
        by_label,
        np.asarray(free_energy.total),
        np.asarray(free_energy.standard_error),
        free_energy.mean(),
        prediction,
    )


def _block(
    learned: vfe.Learned,
    x: np.ndarray,
    settings: Chosen,
    key: PRNGKeyArray,
    refine: bool,
    predict: bool,
) -> tuple[vfe.EnumeratedBelief, np.ndarray, vfe.FreeEnergy, np.ndarray]:
    family = learned.family
    fit_key, weigh_key, measure_key, predict_key = jax.random.split(key, 4)
    encoded = isinstance(family, vfe.Amortised) and not np.isnan(x).any()
    steps: dict[str, Any] = {
        "solver": vfe.NaturalGradient(0.6, vfe.GaussNewton(samples=2 if not encoded else 4)),
        "max_steps": settings.steps,
        "rtol": 1e-3,
    }
    if encoded and not refine:
        steps = {"solver": vfe.FeedForward()}
    percept = vfe.perceive(
        learned.model,
        {"x": x},
        belief=vfe.Enumerated("label", family if encoded else vfe.JointGaussian, int(not encoded)),
        expectation=vfe.MonteCarlo(8),
        key=fit_key,
        throw=False,
        **steps,
    )
    conditional = percept.belief.conditional
    states = percept.belief.log_probabilities.shape[-1]
    totals = []
    for label in range(states):
        inner = jax.tree.map(lambda a, k=label: a[:, k], conditional)
        free_energy = vfe.free_energy(
            learned.model,
            inner,
            {"x": x, "label": jnp.full(len(x), label)},
            expectation=vfe.MonteCarlo(settings.samples),
            key=weigh_key,
        )
        totals.append(np.asarray(free_energy.total))
    # A label whose belief diverged has no F and gets no weight.
    by_label = np.stack(totals, -1)
    by_label = np.where(np.isfinite(by_label), by_label, np.inf)
    belief = vfe.EnumeratedBelief("label", jax.nn.log_softmax(-jnp.asarray(by_label), -1), conditional)
    free_energy = vfe.free_energy(
        learned.model, belief, {"x": x}, expectation=vfe.MonteCarlo(settings.samples), key=measure_key
    )
    prediction = np.zeros((len(x), 0))
    if predict:
        seen = dataclasses.replace(percept, belief=belief)
        prediction = np.asarray(seen.prediction("x", samples=64, key=predict_key))
    return belief, by_label, free_energy, prediction
