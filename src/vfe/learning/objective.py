"""What an encoder and its model descend: F, or F tempered, a tighter bound, F of refined beliefs."""

import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx

from vfe.beliefs import Amortised, Enumerated, MeanField, Point
from vfe.conditioning import Conditioned
from vfe.learning.gradient import StochasticTrace, TotalDerivative
from vfe.learning.trainable import is_amortised
from vfe.perception.feed_forward import FeedForward

FEW = 8


class Tempered(eqx.Module):
    """β · complexity − accuracy: KL annealing, and β-VAEs.

    F bounds −ln p(x) at β = 1 only; what `vfe.learn` reports is always F itself. Below one, beliefs
    may move far from the prior at little cost, which keeps latents from falling asleep early in
    learning; above one, they are pressed towards it.

    **Arguments:** `beta`: β ≥ 0, or a function from the epoch (0, 1, …) to β, such as
    `lambda epoch: min(1.0, 0.1 + epoch / 20)`. A number other than 1 warns: learning then ends on what is
    no bound on surprise.

    **Raises:** `ValueError` where β is negative or not a number.

    **Example:** `vfe.learn(model, data, belief=family, objective=vfe.Tempered(lambda e: min(1, e / 10)))`.

    **Source:** Bowman et al. 2016 (annealing); Higgins et al. 2017 (β-VAE).
    """

    beta: float | Callable[[int], float] = eqx.field(static=True)

    def __check_init__(self) -> None:
        if callable(self.beta):
            self.at(0)
            return
        _checked(self.beta)
        if self.beta != 1.0:
            warnings.warn(
                f"Tempered: with β = {self.beta} throughout, what is descended no longer bounds −ln p(x) "
                "(F does at β = 1 only, and F is what is reported).",
                stacklevel=4,
            )

    def at(self, epoch: int) -> float:
        """β in this epoch. **Raises:** `ValueError` where it is negative or not a number."""
        return _checked(self.beta(epoch) if callable(self.beta) else self.beta)

    def check_end(self, epochs: int) -> None:
        """Warn where learning ended, after so many epochs, with another β than 1."""
        if callable(self.beta) and epochs and self.at(epochs - 1) != 1.0:
            warnings.warn(
                f"Tempered: learning ended at β = {self.at(epochs - 1)}, where what is descended is no "
                "bound on −ln p(x) (F is, which is reported): let β come to 1 before the last epoch.",
                stacklevel=3,
            )


def _checked(beta: Any) -> float:
    try:
        number = float(beta)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 <= number < float("inf"):
        raise ValueError(f"Tempered: got β = {beta!r}; wanted a number of at least zero.")
    return number


class ImportanceWeighted(eqx.Module):
    """−⟨ln (1/K) Σ_k p(x, z_k) / q(z_k)⟩, z_k ~ q: a bound on −ln p(x) that K draws make tighter.

    At K = 1 it is F, of a Gaussian belief; of a `vfe.Mixture` or `vfe.Flow` draws come in antithetic pairs
    for every component, at least one, K rounded down to whole ones. It is not F of q itself, but of the
    better belief that weighing its draws makes; what `vfe.learn` reports is F of q, over the same draws.
    An estimate of the bound on held-out data: `vfe.log_evidence(model, data, belief=amortised,
    method=vfe.ImportanceSampling(K, degrees_of_freedom=None))`.

    **Arguments:** `samples`: K.

    **Raises:** `ValueError` for fewer than one.

    **Example:** `vfe.learn(model, data, belief=amortised, objective=vfe.ImportanceWeighted(5))`.

    **Source:** Burda et al. 2016; Cremer et al. 2017 (the belief it is F of).
    """

    samples: int = eqx.field(static=True, default=5)

    def __check_init__(self) -> None:
        if type(self.samples) is not int or self.samples < 1:
            raise ValueError(f"ImportanceWeighted: got samples={self.samples!r}; wanted 1, 2, …")


class Refined(eqx.Module):
    """F of beliefs that start at the encoder's guess and are refined: iterated amortised recognition.

    Forward connections propose, backward connections correct: each visit takes `perception_steps` of
    `solver` from the encoder's belief, and the model descends F of where they end. The encoder descends

        (1 − w) F[q_φ] + w KL(refined ‖ q_φ),

    the model held: F of its own guess at w = 0, and nothing but the refined belief at w = 1.

    **Arguments:** `distillation`: w, between 0 and 1.

    **Raises:** `ValueError` outside.

    **Example:**
    ```python
    vfe.learn(
        model, data, belief=amortised, objective=vfe.Refined(),
        solver=vfe.Descent(optax.adam(0.1)), perception_steps=5,
    )
    ```

    **Source:** Hjelm et al. 2016; Kim et al. 2018 (semi-amortised); Marino et al. 2018.
    """

    distillation: float = eqx.field(static=True, default=0.0)

    def __check_init__(self) -> None:
        number = isinstance(self.distillation, int | float)
        if not number or not 0 <= self.distillation <= 1:
            raise ValueError(
                f"Refined: got distillation={self.distillation!r}; wanted a number between 0 and 1."
            )


def check_objective(
    objective: Any,
    family: Any,
    solver: Any,
    contrast: Any,
    conditioned: Conditioned,
    expectation: Any = None,
    gradient: Any = None,
) -> None:
    """**Raises:** `TypeError` or `ValueError` where the objective does not go with the rest."""
    if is_amortised(family) and isinstance(gradient, StochasticTrace | TotalDerivative):
        raise ValueError(
            "learn: an encoder's beliefs do not follow the model by themselves, so "
            f"{type(gradient).__name__}() would not be used; leave gradient= out."
        )
    if objective is None:
        if is_amortised(family) and solver is not None and not isinstance(solver, FeedForward):
            raise ValueError(
                f"learn: the encoder's beliefs are taken as they are, so {type(solver).__name__}(...) "
                "would not be used; write objective=vfe.Refined() to refine them, or leave solver= out."
            )
        return
    if not isinstance(objective, Tempered | ImportanceWeighted | Refined):
        raise TypeError(
            f"learn: got {objective!r} for objective; wanted vfe.Tempered(...), "
            "vfe.ImportanceWeighted(...) or vfe.Refined(...)."
        )
    name = type(objective).__name__
    if not is_amortised(family):
        raise ValueError(
            f"learn: vfe.{name} is for beliefs with an encoder; give belief=vfe.Amortised(...)."
        )
    if contrast is not None or conditioned.repeats is not None:
        raise ValueError(
            f"learn: vfe.{name} is about observations on their own; leave contrast= and shared latents out."
        )
    inner = family.family if isinstance(family, Amortised) else None
    if inner is Point:
        raise ValueError(
            f"learn: vfe.{name} wants a belief with a density; vfe.Point has none. Take "
            "vfe.DiagonalGaussian."
        )
    if isinstance(objective, ImportanceWeighted) and (
        isinstance(family, Enumerated) or conditioned.discrete or inner is MeanField
    ):
        raise ValueError("learn: vfe.ImportanceWeighted draws continuous nodes; none may be discrete.")
    if isinstance(objective, ImportanceWeighted) and expectation is not None:
        raise ValueError(
            f"learn: vfe.ImportanceWeighted({objective.samples}) takes its bound and F over its own "
            f"draws, so {type(expectation).__name__}(...) would not be used; leave expectation= out."
        )
    if isinstance(objective, Refined):
        draws = getattr(expectation, "samples", None)
        if draws is not None and draws < FEW:
            warnings.warn(
                f"learn: vfe.Refined over {draws} draws of each belief: refinement fits so few in place of "
                f"the posterior, and F of the beliefs it ends with may rise. Give expectation="
                f"vfe.MonteCarlo({4 * FEW}) or more, or steps that are small and few.",
                stacklevel=3,
            )
        if not isinstance(family, Amortised):
            raise ValueError("learn: vfe.Refined wants vfe.Amortised itself, not inside vfe.Enumerated.")
        if isinstance(solver, FeedForward):
            raise ValueError("learn: vfe.Refined wants a solver that takes steps, not vfe.FeedForward.")
    elif solver is not None and not isinstance(solver, FeedForward):
        raise ValueError(
            f"learn: under vfe.{name} the encoder's beliefs are taken as they are; leave solver= out, or "
            "take objective=vfe.Refined()."
        )
