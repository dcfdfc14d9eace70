"""`vfe.filter` and `vfe.smooth` of a `POMDP`: what a user gives, read; what is impossible, said."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer

from vfe.discrete.course import ENTRIES, Course, check_size, read
from vfe.discrete.pomdp import POMDP
from vfe.discrete.states.approximate import smooth_factorised, told
from vfe.discrete.states.exact import METHODS, exact_filter, exact_smooth
from vfe.discrete.states.filtered import filter_factorised
from vfe.discrete.states.settings import Marginal, MeanField, Structured
from vfe.double_precision import released
from vfe.series.methods import ParallelInTime, Sequential
from vfe.series.verbs import filter, smooth


@filter.register
def filter_pomdp(
    model: POMDP,
    y: Any,
    *,
    actions: Any = None,
    mask: Any = None,
    belief: Any = None,
    method: Sequential | ParallelInTime = Sequential(),  # noqa: B008 (frozen)
    impossible: str = "error",
) -> Any:
    """Beliefs about the states at every time, given the outcomes up to it: exact, over joint states.

    p(s_t | o_1 … o_t) ∝ Π_m A_m[o_m,t | s_t] Σ_s p(s_t | s, u_t−1) p(s | o_1 … o_t−1).

    **Arguments:**

    - `y`: outcomes, whole numbers, NaN where missing: (time, modalities), or (time,) for one modality, or
      (batch, time, modalities); or a dictionary from names of modalities to whole numbers (*batch, time),
      `vfe.discrete.Soft` or `vfe.discrete.Several`; a modality that is left out was not observed.
    - `actions`: (*batch, time − 1, factors), the control of each factor from a time to the next, or
      (time − 1,) for one factor; zero if not given. Many courses of action with one sequence of outcomes
      (NaN in the future) give beliefs about past and future under every one.
    - `mask`: (*batch, time), true where a sequence goes on; sequences that differ in length are padded at
      their end.
    - `belief`: `vfe.discrete.MeanField()` for factorised beliefs, step by step; exact if not given.
    - `method`: `vfe.dynamics.Sequential()`, or `vfe.dynamics.ParallelInTime()` for long chains of few
      joint states on accelerators.
    - `impossible`: "error", or "skip": outcomes whose probability is zero are taken as missing, and the
      result says where (`skipped`).

    Under `jax.vmap`, `jax.jit` and `jax.grad` over tables (one outcome series under many models) exact
    beliefs are not checked: outcomes that are impossible have infinite surprise and are passed over.

    **Returns:** a `vfe.discrete.FilteredStates`; with `belief` a `vfe.discrete.FilteredFactors`.

    **Raises:** `ValueError` for outcomes and actions out of range or impossible under the model, with the
    time; for too many joint states.

    **Example:** `vfe.filter(model, [0, 1, 1]).factors[0]`.

    **Source:** Rabiner 1989, "A tutorial on hidden Markov models".
    """
    course = _read(model, y, actions, mask, method, impossible, "filter")
    if belief is not None:
        _check_belief(belief, (MeanField,), method, "filter")
        with jax.enable_x64(True):
            found = jax.tree.map(np.asarray, filter_factorised(model, course, belief))
        _skipped(found.skipped, course, impossible, "filter")
        return released(found)
    check_size(model, course, "filter")
    with jax.enable_x64(True):
        found = exact_filter(model, course, type(method))
    if isinstance(found.surprise, Tracer):
        return found
    found = jax.tree.map(np.asarray, found)
    return released(_settled(found, course, impossible, "filter"))


@smooth.register
def smooth_pomdp(
    model: POMDP,
    y: Any,
    *,
    actions: Any = None,
    mask: Any = None,
    belief: Any = None,
    method: Sequential | ParallelInTime = Sequential(),  # noqa: B008 (frozen)
    impossible: str = "error",
) -> Any:
    """Beliefs about the states at every time and every two, given all outcomes: exact, with F = −ln p(o).

    **Arguments, raises:** as `vfe.filter` of a `POMDP`; `belief` may be `vfe.discrete.MeanField()`,
    `vfe.discrete.Structured()` or `vfe.discrete.Marginal()`.

    **Returns:** a `vfe.discrete.SmoothedStates`; with `belief` a `vfe.discrete.FactorisedStates`.

    **Example:** `vfe.smooth(model, [0, 1, 1]).free_energy.total.sum()`.

    **Source:** Rabiner 1989, "A tutorial on hidden Markov models".
    """
    course = _read(model, y, actions, mask, method, impossible, "smooth")
    if belief is not None:
        _check_belief(belief, (MeanField, Structured, Marginal), method, "smooth")
        with jax.enable_x64(True):
            found = jax.tree.map(np.asarray, smooth_factorised(model, course, belief))
        _skipped(found.skipped, course, impossible, "smooth")
        return released(told(found))
    check_size(model, course, "smooth")
    with jax.enable_x64(True):
        found = jax.tree.map(np.asarray, exact_smooth(model, course, type(method)))
    filtered = _settled(found.filtered, course, impossible, "smooth")
    return released(eqx.tree_at(lambda one: one.filtered, found, filtered))


def _read(model: POMDP, y: Any, actions: Any, mask: Any, method: Any, impossible: str, verb: str) -> Course:
    if impossible not in ("error", "skip"):
        raise ValueError(f'{verb}: got impossible={impossible!r}; wanted "error" or "skip".')
    if type(method) not in METHODS:
        raise ValueError(
            f"{verb}: got method={method!r}; wanted vfe.dynamics.Sequential() or "
            "vfe.dynamics.ParallelInTime()."
        )
    if impossible == "skip" and isinstance(method, ParallelInTime):
        raise ValueError(
            f'{verb}: got impossible="skip" with ParallelInTime(), whose products vanish from the first '
            "impossible time on; wanted vfe.dynamics.Sequential()."
        )
    course = read(model, y, actions, mask, verb)
    pairs = course.present.size * model.joint_size**2
    if isinstance(method, ParallelInTime) and pairs > ENTRIES:
        raise ValueError(
            f"{verb}: got ParallelInTime() for {course.present.size} times and {model.joint_size} joint "
            f"states, whose products have {pairs} entries; wanted {ENTRIES} at most, or "
            "vfe.dynamics.Sequential()."
        )
    return course


def _check_belief(belief: Any, known: tuple[type, ...], method: Any, verb: str) -> None:
    if not isinstance(belief, known):
        names = " or ".join(f"vfe.discrete.{one.__name__}()" for one in known)
        raise ValueError(f"{verb}: got belief={belief!r}; wanted {names}, or none for exact beliefs.")
    if isinstance(method, ParallelInTime):
        raise ValueError(
            f"{verb}: got ParallelInTime() with {type(belief).__name__}(), which has an order of its own; "
            "leave method out."
        )


def _settled(found: Any, course: Course, impossible: str, verb: str) -> Any:
    """Beliefs whose surprise is finite. **Raises:** `ValueError` for impossible outcomes."""
    bad = found.skipped & course.present
    _skipped(bad, course, impossible, verb)
    surprise = np.where(bad, 0.0, found.surprise)
    return eqx.tree_at(lambda one: (one.surprise, one.skipped), found, (surprise, bad))


def _skipped(skipped: Any, course: Course, impossible: str, verb: str) -> None:
    bad = skipped & course.present
    if bad.any() and impossible == "error":
        *sequence, t = (int(i) for i in np.argwhere(bad)[0])
        which = f" of sequence {sequence[0]}" if sequence else ""
        raise ValueError(
            f"{verb}: the outcomes at time {t}{which} are impossible under the model (their surprise is "
            "infinite); give every outcome some probability in A, or every move in B, or write "
            'impossible="skip" to take them as missing.'
        )
