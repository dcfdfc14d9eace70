"""Beliefs about the states of a discrete chain at every time."""

import string
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from vfe.discrete.course import Course
from vfe.discrete.pomdp import POMDP
from vfe.discrete.states.elimination import chosen, step
from vfe.discrete.states.forward_backward import ratio
from vfe.double_precision import released
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


class FactorisedStates(eqx.Module):
    """Approximate beliefs about the states at every time, given all outcomes: a product over factors.

    `factors`: by factor (*batch, time, states); `free_energy` (*batch, time): F by modality and factor,
    in total no less than −ln p(o); `log_evidence` (*batch,): the exact ln p(o), None where it is not
    affordable; `trace` (*batch, sweeps): F of the sequence after every sweep of the best start, NaN
    beyond the last; `converged` (*batch,): whether it settled; `skipped` as in `FilteredStates`.
    `chains`: by factor q(s_t+1, s_t), None where times are independent; `model`, `course`: what it was
    computed from.
    """

    factors: tuple[Any, ...]
    free_energy: FreeEnergy
    log_evidence: Any
    trace: Float[Array, "*batch sweeps"]
    converged: Bool[Array, "*batch"]
    skipped: Bool[Array, "*batch time"]
    chains: tuple[Any, ...] | None
    model: POMDP
    course: Course

    @property
    def gap(self) -> Any:
        """F − (−ln p(o)) = KL(q ‖ exact posterior), nats; None where ln p(o) is not affordable."""
        return None if self.log_evidence is None else self.free_energy.total.sum(-1) + self.log_evidence

    @property
    def pairs(self) -> tuple[Any, ...]:
        """q(s_f,t+1, those s_t that it depends on) by factor: (*batch, time − 1, next states, *states).

        The states come in the order of `model.B_dependencies[f]`.
        """
        found = []
        for f, depends in enumerate(self.model.B_dependencies):
            letters = string.ascii_lowercase[: len(depends)]
            own = self.chains is not None and f in depends
            next, mine = self.factors[f][..., 1:, :], None
            operands, terms = [next], ["...Z"]
            if self.chains is not None and own:
                mine = letters[depends.index(f)]
                operands, terms = [self.chains[f]], [f"...Z{mine}"]
            for g, letter in zip(depends, letters, strict=True):
                if letter != mine:
                    operands.append(self.factors[g][..., :-1, :])
                    terms.append(f"...{letter}")
            found.append(np.einsum(f"{','.join(terms)}->...Z{letters}", *operands))
        return tuple(found)


class FilteredFactors(eqx.Module):
    """Approximate beliefs about the states at every time, given the outcomes up to it, step by step.

    `factors`, `predicted`: by factor (*batch, time, states), after and before the outcomes of a time;
    `free_energy` (*batch, time): F of every step, whose prior is the product of `predicted`;
    `step_surprise` (*batch, time): −ln p(o_t) under that prior, exact, None where that is not affordable;
    `converged`, `skipped` (*batch, time).

    F of a step is no less than its `step_surprise`; the sum over time is no bound on −ln p(o), since the
    priors are approximate.
    """

    factors: tuple[Any, ...]
    predicted: tuple[Any, ...]
    free_energy: FreeEnergy
    step_surprise: Any
    converged: Bool[Array, "*batch time"]
    skipped: Bool[Array, "*batch time"]

    @property
    def gap(self) -> Any:
        """F − `step_surprise` (*batch, time), nats: KL(q ‖ exact posterior) of every step, or None."""
        return None if self.step_surprise is None else self.free_energy.total - self.step_surprise


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
