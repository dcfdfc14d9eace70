"""Beliefs about the states of a discrete chain at every time."""

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from vfe.free_energy import FreeEnergy


class FilteredStates(eqx.Module):
    """What is believed of the states at every time, given the outcomes up to it.

    `joint` (time, *states), `predicted` the same before the outcomes of that time; `surprise` (time,):
    −ln p(o_t | o_1 … o_t−1), nats.
    """

    joint: Float[Array, "time *states"]
    predicted: Float[Array, "time *states"]
    surprise: Float[Array, " time"]

    @property
    def factors(self) -> tuple[Any, ...]:
        """Marginals by factor, each (time, states)."""
        return marginals(self.joint)

    @property
    def log_evidence(self) -> Any:
        """ln p(o_1 … o_T), nats."""
        return -self.surprise.sum()


class SmoothedStates(eqx.Module):
    """What is believed of the states at every time, given all outcomes.

    `joint` (time, *states); `pairs` (time − 1, *next states, *states): of successive times; `filtered`;
    `free_energy`: F of the exact posterior by time, −ln p(o) in total: observed terms by modality, energy
    and entropy of states by factor (the entropy of a factor given those before it and the states of the
    time before).
    """

    joint: Float[Array, "time *states"]
    pairs: Float[Array, "steps *both"]
    filtered: FilteredStates
    free_energy: FreeEnergy

    @property
    def factors(self) -> tuple[Any, ...]:
        """Marginals by factor, each (time, states)."""
        return marginals(self.joint)


def marginals(joint: Any) -> tuple[Any, ...]:
    """Marginals of (time, *states) by factor. **Example:** `marginals(np.ones((1, 2, 3)) / 6)`."""
    axes = np.arange(1, joint.ndim)
    return tuple(joint.sum(tuple(axes[axes != f])) for f in axes)
