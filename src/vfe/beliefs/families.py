"""Families of beliefs that are built of other families."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from vfe.beliefs.base import AbstractBelief
from vfe.beliefs.combined import MeanField
from vfe.beliefs.continuous import AbstractContinuous
from vfe.beliefs.discrete import Categorical
from vfe.beliefs.drawn import AbstractDrawnFamily
from vfe.beliefs.gaussian import AbstractLaplace, NodeGaussian
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


@dataclasses.dataclass(frozen=True)
class Present:
    """An encoder's input: 1 where an element of this node is observed, 0 where it is missing.

    **Example:** `vfe.Amortised(encoder, vfe.DiagonalGaussian, inputs=("x", vfe.Present("x")))`.
    """

    node: str


class Amortised(eqx.Module):
    """The family q_φ(z | x): an encoder gives the parameters of a belief from the data (3).

    **Arguments:** `encoder`: a callable of the values of `inputs`, that returns a vector of the family's
    numbers (2 n for `vfe.DiagonalGaussian`; `vfe.recognition` makes one of the right size); `family`: the
    belief class, a `vfe.Mixture`, a `vfe.Flow`, or, where hidden nodes are discrete, `vfe.Categorical`
    (logits) or `vfe.MeanField` (first the numbers of a `vfe.NodeGaussian`, then logits); `inputs`:
    the nodes it sees, observed or enumerated (a label under `Enumerated`), and `vfe.Present(node)` for
    which of their elements are there. Missing elements are seen as zeros.

    **Raises:** `ValueError` where the encoder returns another number of values, or wants what is not
    observed.

    **Example:** `vfe.Amortised(encoder, vfe.DiagonalGaussian, inputs=("x",))`.
    """

    encoder: Callable[..., Array]
    family: Any = eqx.field(static=True)
    inputs: tuple[str | Present, ...] = eqx.field(static=True, default=("x",))

    def start(self, conditioned: Conditioned, key: PRNGKeyArray) -> AbstractBelief:
        """The encoder's belief for one observation."""
        values = conditioned.states(conditioned.observed)
        seen = [self._input(n, values, conditioned) for n in self.inputs]
        vector = self.encoder(*seen)
        size = family_size(self.family, conditioned)
        if vector.shape != (size,):
            name = getattr(self.family, "__name__", repr(self.family))
            raise ValueError(
                f"Amortised: the encoder returned shape {vector.shape}; {name} over "
                f"{list(conditioned.hidden)} wants ({size},). vfe.recognition(model, observed=data, ...) "
                "makes a network of that size."
            )
        return _belief_from(self.family, conditioned, vector)

    def _input(self, which: str | Present, values: Mapping[str, Array], conditioned: Conditioned) -> Array:
        name = which.node if isinstance(which, Present) else which
        if name not in values:
            raise ValueError(
                f"Amortised: the encoder wants node {name!r}, which is not observed; observed are "
                f"{list(conditioned.observed)}."
            )
        if isinstance(which, str):
            return values[name]
        mask = conditioned.masks.get(name)
        return jnp.ones(jnp.shape(values[name])) if mask is None else mask.astype(float)


def family_size(family: Any, conditioned: Conditioned) -> int:
    """How many numbers a belief of this family about the hidden nodes has.

    **Raises:** `ValueError` for what is no family of an encoder's answers, and where the family leaves some
    of the hidden nodes out.
    """
    if not _answers(family):
        raise ValueError(
            f"Amortised: got family={getattr(family, '__name__', repr(family))}; wanted "
            "vfe.DiagonalGaussian, vfe.NodeGaussian, vfe.JointGaussian, vfe.Mixture(2), vfe.Flow(2), "
            "vfe.Conjugate(), vfe.Categorical, vfe.MeanField or vfe.Point (a vfe.Laplace belief is a mode "
            "with the curvature there, which no encoder gives)."
        )
    states = sum(conditioned.discrete.values())
    if family is Categorical or family is MeanField:
        _refuse(conditioned.repeats is not None, family, conditioned)
        _refuse(family is Categorical and conditioned.layout.size > 0, family, conditioned)
        _refuse(family is MeanField and not (states and conditioned.layout.size), family, conditioned)
        return states if family is Categorical else states + NodeGaussian.size(conditioned.layout)
    _refuse(states > 0, family, conditioned)
    return family.size(conditioned.layout)


def _answers(family: Any) -> bool:
    """Whether an encoder can answer with beliefs of this family."""
    if not isinstance(family, type):
        return isinstance(family, AbstractDrawnFamily)
    good = issubclass(family, AbstractContinuous | Categorical | MeanField)
    return good and not issubclass(family, AbstractLaplace)


def _refuse(wrong: bool, family: Any, conditioned: Conditioned) -> None:
    if wrong:
        raise ValueError(
            f"Amortised: {getattr(family, '__name__', repr(family))} does not hold the hidden nodes "
            f"{list(conditioned.hidden)} (discrete: {list(conditioned.discrete)}); use vfe.Categorical for "
            "discrete nodes alone, vfe.MeanField for both, and vfe.Enumerated around a continuous family."
        )


def _belief_from(family: Any, conditioned: Conditioned, vector: Array) -> AbstractBelief:
    if family is not Categorical and family is not MeanField:
        return family.from_vector(conditioned.layout, vector)
    first = NodeGaussian.size(conditioned.layout) if family is MeanField else 0
    logits, at = {}, first
    for name, states in conditioned.discrete.items():
        logits[name] = vector[at : at + states]
        at += states
    discrete = Categorical(logits)
    if family is Categorical:
        return discrete
    return MeanField(NodeGaussian.from_vector(conditioned.layout, vector[:first]), discrete)
