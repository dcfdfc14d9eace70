"""Families of beliefs that are built of other families."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
from jaxtyping import Array, PRNGKeyArray

from vfe.beliefs.continuous import AbstractContinuous
from vfe.beliefs.point import Point
from vfe.conditioning import Conditioned


class Enumerated(eqx.Module):
    """The family q(l) q(z | l): every state of one discrete node gets a belief of its own.

    F_l is the free energy with the node held at l, −ln p(l) included; the best q(l) ∝ exp(−F_l), and
    F = −ln Σ_l exp(−F_l).

    **Arguments:** `node`: a discrete node; `family`: a belief class or another such family. Not
    `Point`, whose F_l would be energies. `restarts`: how often every state starts again from the
    belief of the best one, keeping whichever F_l is lower (for models with several optima).

    **Example:** `vfe.perceive(model, {"x": x}, belief=vfe.Enumerated("label", vfe.Laplace))`.
    """

    node: str = eqx.field(static=True)
    family: Any
    restarts: int = eqx.field(static=True, default=0)

    def __check_init__(self) -> None:
        if self.family is Point:
            raise ValueError(
                "Enumerated: Point below a discrete node gives energies, which cannot weigh its "
                "states; use vfe.Laplace or a Gaussian belief."
            )


class Amortised(eqx.Module):
    """The family q_φ(z | x): an encoder gives the parameters of a belief from the data (3).

    **Arguments:** `encoder`: a callable of the values of `inputs`, that returns a vector of
    `family.size(layout)` numbers (2 n for `DiagonalGaussian`); `family`: the belief class;
    `inputs`: the nodes it sees, observed or enumerated (a label
    under `Enumerated`). Missing elements are seen as zeros.

    **Example:** `vfe.Amortised(encoder, vfe.DiagonalGaussian, inputs=("x",))`.
    """

    encoder: Callable[..., Array]
    family: Any = eqx.field(static=True)
    inputs: tuple[str, ...] = eqx.field(static=True, default=("x",))

    def start(self, conditioned: Conditioned, key: PRNGKeyArray) -> AbstractContinuous:
        """The encoder's belief for one observation."""
        values = conditioned.states(conditioned.observed)
        for n in self.inputs:
            if n not in values:
                raise ValueError(
                    f"Amortised: the encoder wants node {n!r}, which is not observed; observed are "
                    f"{list(conditioned.observed)}."
                )
        layout = conditioned.layout
        vector = self.encoder(*[values[n] for n in self.inputs])
        size = self.family.size(layout)
        if vector.shape != (size,):
            raise ValueError(
                f"Amortised: the encoder returned shape {vector.shape}; {self.family.__name__} over "
                f"{list(layout.names)} wants ({size},)."
            )
        return self.family.from_vector(layout, vector)
