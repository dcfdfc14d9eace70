"""The terms of the expected free energy: which count, and by how much."""

from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

# +1: costs, which G adds; −1: gains, which it takes off.
SIGNS = {
    "utility": -1.0,
    "risk": 1.0,
    "ambiguity": 1.0,
    "state_information": -1.0,
    "A_information": -1.0,
    "B_information": -1.0,
    "inductive": -1.0,
}

Weight = float | Array | None


class Terms(eqx.Module):
    """Which terms the expected free energy has, with their weights; None: a term is left out.

    G = Σ over steps of − utility − state_information − A_information − B_information − inductive
    (+ risk + ambiguity), each times its weight; nats.

    - `utility`: ⟨C(o)⟩ under the outcomes expected; C as given, not normalised.
    - `state_information`: I(s; o), what outcomes are expected to say about states; zero or more.
    - `risk`: KL[q(o) ‖ softmax C]; `ambiguity`: ⟨H(o | s)⟩. With log-softmax C for C,
      risk + ambiguity = −(utility + state_information): take one pair or the other.
    - `A_information`, `B_information`: the expected divergence that one more count would cause in the
      Dirichlet beliefs about A and B; the agent must learn these.
    - `inductive`: ln ε for the probability of states from which the goal is not one step nearer, on a way
      along which every transition is more probable than a threshold (`vfe.discrete.Goal`).
    - `averages`: "joint" takes entropies over all modalities together and counts under p(o | s) q(s);
      "factorised" sums over modalities and takes counts under q(o) q(s), as published schemes do. The
      sum over modalities counts what two of them say alike twice.

    **Raises:** `ValueError` for weights that are not finite, and unknown averages.

    **Example:** `vfe.discrete.Terms(state_information=None)` seeks utility alone.

    **Source:** Parr, Pezzulo and Friston 2022, "Active Inference", chapters 2 and 4.
    """

    utility: Weight = 1.0
    risk: Weight = None
    ambiguity: Weight = None
    state_information: Weight = 1.0
    A_information: Weight = None
    B_information: Weight = None
    inductive: Weight = None
    averages: Literal["joint", "factorised"] = eqx.field(static=True, default="joint")

    def __check_init__(self):
        if self.averages not in ("joint", "factorised"):
            raise ValueError(f'Terms: got averages={self.averages!r}; wanted "joint" or "factorised".')
        for name, weight in self.weights.items():
            if isinstance(weight, Tracer):
                continue
            if isinstance(weight, bool | str) or np.ndim(weight) or not np.isfinite(weight):
                raise ValueError(
                    f"Terms: got {name}={weight!r}; wanted a finite weight, or None to leave it out."
                )
        if not self.weights:
            raise ValueError("Terms: every term is left out; give at least one a weight.")

    @property
    def weights(self) -> dict[str, Any]:
        """The terms that count, with their weights."""
        return {name: getattr(self, name) for name in SIGNS if getattr(self, name) is not None}

    def total(self, values: dict[str, Array]) -> Array:
        """G of the values of the terms, summed by weight and sign. **Example:** `terms.total(values)`."""
        parts: list[Any] = [SIGNS[name] * weight * values[name] for name, weight in self.weights.items()]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total


def only(names: Sequence[str]) -> Terms:
    """Terms with some of them, each of weight one. **Example:** `only(["utility"])`."""
    unknown = [name for name in names if name not in SIGNS]
    if unknown:
        raise ValueError(f"only: got {unknown}; the terms are {list(SIGNS)}.")
    weights: dict[str, Any] = {name: 1.0 if name in names else None for name in SIGNS}
    return Terms(**weights)


def surprise_alone() -> Terms:
    """Reflex: the least expected surprise −⟨ln p(o)⟩ of outcomes under what is preferred, nothing else.

    **Example:** `vfe.discrete.Agent(model, terms=surprise_alone())`.
    """
    return only(["utility"])
