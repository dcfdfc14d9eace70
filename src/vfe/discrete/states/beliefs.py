"""Beliefs about the states of a discrete chain at every time."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from vfe.discrete.course import Course
from vfe.discrete.pomdp import POMDP
from vfe.discrete.states.elimination import chosen, step
from vfe.discrete.states.forward_backward import ratio
from vfe.dynamics.precision import released
from vfe.free_energy import FreeEnergy


class FilteredStates(eqx.Module):
    """What is believed of the states at every time, given the outcomes up to it.

    `joint` (*batch, time, *states), `predicted` the same before the outcomes of that time; `surprise`
    (*batch, time): −ln p(o_t | o_1 … o_t−1), nats; `skipped` (*batch, time): where the outcomes were
    impossible, and passed over as `impossible="skip"` asked. Where a sequence is over (`mask`) beliefs are
    NaN and surprise is zero.
    """

    joint: Float[Array, "*batch_time_states"]
    predicted: Float[Array, "*batch_time_states"]
    surprise: Float[Array, "*batch time"]
    skipped: Bool[Array, "*batch time"]

    @property
    def factors(self) -> tuple[Any, ...]:
        """Marginals by factor, each (*batch, time, states)."""
        return marginals(self.joint, self.surprise.ndim)

    @property
    def log_evidence(self) -> Any:
        """ln p(o_1 … o_T), nats."""
        return -self.surprise.sum(-1)


class SmoothedStates(eqx.Module):
    """What is believed of the states at every time, given all outcomes.

    `joint` (*batch, time, *states); `filtered`; `free_energy` (*batch, time): F of the exact posterior,
    −ln p(o) in total: observed terms by modality, energy and entropy of states by factor (the entropy of a
    factor given those before it and the states of the time before); `model`, `course`: what it was computed
    from.
    """

    joint: Float[Array, "*batch_time_states"]
    filtered: FilteredStates
    free_energy: FreeEnergy
    model: POMDP
    course: Course

    @property
    def factors(self) -> tuple[Any, ...]:
        """Marginals by factor, each (*batch, time, states)."""
        return marginals(self.joint, self.filtered.surprise.ndim)

    @property
    def pairs(self) -> tuple[Any, ...]:
        """p(s_f,t+1, those s_t that it depends on | o) by factor: (*batch, time − 1, next states, *states).

        The states come in the order of `model.B_dependencies[f]`. Computed when asked for.
        """
        filtered = self.filtered
        with jax.enable_x64(True):
            found = _pairs(self.model, self.course, filtered.joint, filtered.predicted, self.joint)
        return released(found)

    @property
    def log_evidence(self) -> Any:
        """ln p(o_1 … o_T), nats."""
        return self.filtered.log_evidence


@eqx.filter_jit
def _pairs(model: POMDP, course: Course, filtered: Array, predicted: Array, joint: Array) -> Any:
    def one(controls: Array, belief: Array, expected: Array, later: Array) -> Any:
        return step(model, chosen(model, controls), belief, ratio(later, expected)).pairs

    def series(controls: Array, filtered: Array, predicted: Array, joint: Array) -> Any:
        return jax.vmap(one)(controls, filtered[:-1], predicted[1:], joint[1:])

    run = jax.vmap(series) if course.many else series
    return run(course.controls, filtered, predicted, joint)


def marginals(joint: Any, leading: int = 1) -> tuple[Any, ...]:
    """Marginals of (*leading, *states) by factor. **Example:** `marginals(np.ones((1, 2, 3)) / 6)`."""
    axes = np.arange(leading, joint.ndim)
    return tuple(joint.sum(tuple(int(a) for a in axes[axes != f])) for f in axes)
