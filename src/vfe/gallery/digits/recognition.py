"""Perceiving images with the learned model: beliefs for every label, and q(label) from their F."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

import vfe
from vfe.gallery.digits.settings import Settings

AT_ONCE = 450


@dataclasses.dataclass(frozen=True)
class Recognised:
    """`percept`: with q(label) ∝ exp(−F_label); `by_label`: F_label, (N, labels), in nats."""

    percept: vfe.Percept
    by_label: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """The label with the least F."""
        return self.by_label.argmin(-1)


def recognise(
    learned: vfe.Learned,
    x: np.ndarray,
    settings: Settings,
    key: PRNGKeyArray,
    *,
    restarts: int = 0,
    refine: bool = False,
    samples: int = 64,
) -> Recognised:
    """Infer label and causes of images, (N, pixels); NaN pixels are hidden.

    Every label gets a belief q(z2, z1 | label) of its own: natural-gradient steps on its true
    (Monte Carlo) F, or the encoder's answer (which `refine` then improves). q(label) then follows from F_label on fresh samples.
    """
    family = learned.family
    fit_key, weigh_key = jax.random.split(key)
    encoded = isinstance(family, vfe.Amortised)
    belief = vfe.Enumerated("label", family if encoded else vfe.JointGaussian, restarts)
    options: dict[str, Any] = {"belief": belief, "expectation": vfe.MonteCarlo(8)}
    if encoded and not refine:
        options["solver"] = vfe.FeedForward()
    else:
        options["solver"] = vfe.NaturalGradient(0.6, vfe.GaussNewton())
        options |= {"max_steps": settings.steps, "rtol": 1e-3}
    percept = vfe.perceive(learned.model, {"x": x}, key=fit_key, throw=False, chunk=_chunk(x), **options)
    belief = percept.belief
    states = belief.log_probabilities.shape[-1]
    totals = []
    for label in range(states):
        inner = jax.tree.map(lambda a: a[:, label], belief.conditional)  # noqa: B023
        free_energy = vfe.free_energy(
            learned.model,
            inner,
            {"x": x, "label": jnp.full(len(x), label)},
            expectation=vfe.MonteCarlo(samples),
            key=weigh_key,
            chunk=_chunk(x),
        )
        totals.append(np.asarray(free_energy.total))
    by_label = np.stack(totals, -1)
    # A label whose belief diverged has no F and gets no weight.
    by_label = np.where(np.isfinite(by_label), by_label, np.inf)
    belief = vfe.EnumeratedBelief(
        "label", jax.nn.log_softmax(-jnp.asarray(by_label), -1), belief.conditional
    )
    return Recognised(dataclasses.replace(percept, belief=belief), by_label)


def true_free_energy(
    learned: vfe.Learned, seen: Recognised, x: np.ndarray, samples: int, key: PRNGKeyArray
) -> vfe.FreeEnergy:
    """F of the belief with its label latent, on samples that nothing was chosen by."""
    return vfe.free_energy(
        learned.model,
        seen.percept.belief,
        {"x": x},
        expectation=vfe.MonteCarlo(samples),
        key=key,
        chunk=_chunk(x),
    )


def predicted(seen: Recognised, key: PRNGKeyArray, samples: int = 64) -> Array:
    """⟨mean image⟩ under the belief: what fills hidden pixels."""
    return seen.percept.prediction("x", samples=samples, key=key)


def _chunk(x: np.ndarray) -> int:
    """How many images at once: fewer where they are large."""
    return max(1, min(len(x), AT_ONCE * 64 // x.shape[1]))
