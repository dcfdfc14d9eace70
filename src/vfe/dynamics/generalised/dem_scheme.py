"""Dynamic expectation maximisation: sweeps over a series of D-, M- and E-steps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vfe.dynamics.generalised.energies import energies
from vfe.dynamics.generalised.local_linear import log_determinant, regularised_step
from vfe.dynamics.generalised.outcome import Outcome
from vfe.dynamics.generalised.parameters import Evidence, gather, scatter
from vfe.dynamics.generalised.precision_step import score_precisions
from vfe.dynamics.generalised.states import Course, run_states, state_covariances
from vfe.dynamics.generalised.static import run_static
from vfe.dynamics.levels.problem import Learned, Problem

SETTLED = np.exp(-4)
COLDEST = -8.0


class Sweep(NamedTuple):
    """The states of one sweep, as reported, the errors after the last step of every sample, and sums."""

    course: Course
    errors: Float[Array, "time e"]
    covariances: Float[Array, "time u u"]
    evidence: Evidence
    entropies: Float[Array, " time"]
    entropy: Float[Array, ""]
    restart: Float[Array, "time u"]
    temperature: Float[Array, ""]


def sweep(
    problem: Problem,
    sensed: Float[Array, "steps m"],
    learned: Learned,
    restart: Float[Array, "time u"],
    temperature: Float[Array, ""],
    gain: float,
    substeps: int,
    learning: bool = True,
) -> Sweep:
    """One D-step over the series; `learning` where what it says of parameters and precisions is wanted."""
    mean_field = learning and problem.np > 0
    if problem.nx:
        course = run_states(problem, sensed, learned, gain, 1 / substeps, mean_field)
        covariances, ln = state_covariances(problem, course, learned)
        first = jax.tree.map(lambda a: a[::substeps], course)
        last = jax.tree.map(lambda a: a[substeps - 1 :: substeps], course)
        C = covariances[substeps - 1 :: substeps]
        evidence = gather(problem, last, C, learned) if learning else scatter(last)
        C, by_time = covariances[::substeps], ln[::substeps]
        return Sweep(first, last.errors, C, evidence, by_time, ln.sum(), restart, temperature)
    first, last, u, C, entropy, temperature = run_static(
        problem, sensed, restart, learned, temperature, substeps, mean_field
    )
    evidence = gather(problem, last, C, learned) if learning else scatter(last)
    course, by_time = Course(u, first.errors), log_determinant(C)
    return Sweep(course, last.errors, C, evidence, by_time, entropy, u, temperature)


def bound_of_states(
    problem: Problem, swept: Sweep, substeps: int, log_precisions: Float[Array, " h"]
) -> Float[Array, ""]:
    """The log-evidence bound of a sweep, all else as if known; noise that counts as none is left out."""
    cost = sum(jnp.sum(energy) for energy in energies(problem, swept.errors, log_precisions).values())
    return swept.entropy / (2 * substeps) - cost


def cost_of_learning(problem: Problem, point: Learned) -> Float[Array, ""]:
    """What parameters and log-precisions add to the bound: how far they went from their priors."""
    value = jnp.zeros(())
    if problem.np:
        prior = jnp.asarray(problem.prior_precision)
        value = value - point.p @ prior @ point.p / 2 + log_determinant(point.p_covariance @ prior) / 2
    if problem.nh:
        prior = 1 / jnp.asarray(problem.log_precision_variance)
        deviation = point.log_precisions - jnp.asarray(problem.log_precision_mean)
        value = value - deviation @ (prior * deviation) / 2
        value = value + log_determinant(point.log_precision_covariance * prior) / 2
    return value


def invert(
    problem: Problem,
    sensed: Float[Array, "steps m"],
    gain: float,
    substeps: int,
    sweeps: int,
    iterations: int,
    light: bool,
) -> Outcome:
    """Sweeps until parameters and log-precisions settle.

    **Arguments:** `sweeps`: at most; `iterations`: of the M-step, at most; `light`: whether parameters
    start with light regularisation (τ = 4, for linear models) or with more (0).

    **Source:** Friston, Trujillo-Barreto and Daunizeau 2008; Friston 2008.
    """
    npar, nh = problem.np, problem.nh
    steps = len(sensed) // (substeps if problem.nx else 1)
    prior_p = jnp.asarray(problem.prior_precision)
    prior_h = jnp.asarray(problem.log_precision_mean)
    if not npar and not nh:
        sweeps = 1
    learned = Learned(jnp.zeros(npar), jnp.zeros((npar, npar)), prior_h, jnp.zeros((nh, nh)))
    start = problem.start()
    restart = jnp.broadcast_to(start, (steps, len(start)))

    def once(learned: Learned, restart: Any, temperature: Any) -> Sweep:
        return sweep(problem, sensed, learned, restart, temperature, gain, substeps)

    shape = jax.eval_shape(once, learned, restart, jnp.array(2.0))
    blank = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shape)

    def iterate(state):
        number, learned, stored, highest, t_e, t_m, limit, _, history, _, _ = state
        before = state[7]
        swept = once(learned, before.restart, before.temperature)
        evidence = swept.evidence
        new_h, weighed = learned.log_precisions, learned.log_precisions
        C_h = learned.log_precision_covariance
        if nh:
            scored = score_precisions(
                problem, learned.log_precisions, evidence.squares + evidence.uncertainty, steps, t_m, limit
            )
            # F is that of the point from which the last iteration set out.
            new_h, C_h, weighed, _ = scored
        change = new_h - learned.log_precisions
        C_p = jnp.linalg.inv(evidence.precision + prior_p) if npar else learned.p_covariance
        value = bound_of_states(problem, swept, substeps, weighed)
        value = value + cost_of_learning(problem, Learned(learned.p, C_p, weighed, C_h))
        rose = (value > highest) | (number == 0)
        pick = lambda a, b: jax.tree.map(lambda x, y: jnp.where(rose, x, y), a, b)  # noqa: E731
        point = Learned(learned.p, C_p, new_h, C_h)
        stored_now = pick(Stored(point, evidence), stored)
        t_e = jnp.where(rose, jnp.minimum(t_e + 0.5, 8.0), jnp.minimum(t_e - 2, -2.0))
        t_m = jnp.where(rose, jnp.minimum(t_m + 0.5, 4.0), jnp.minimum(t_m - 2, -2.0))
        limit = jnp.where(rose, limit, 1)
        highest = jnp.where(rose, value, highest)
        best = stored_now.point
        move = jnp.zeros(npar)
        if npar:
            summed = stored_now.evidence
            move = regularised_step(summed.curvature - prior_p, summed.gradient - prior_p @ best.p, t_e)
        following = best._replace(p=best.p + move)
        settled = (jnp.abs(move).sum() < SETTLED * jnp.abs(following.p).sum()) & (
            jnp.abs(change).sum() < SETTLED
        )
        done = settled | (t_e < COLDEST)
        history = history.at[number].set(highest)
        return number + 1, following, stored_now, highest, t_e, t_m, limit, swept, history, done, learned

    state = (
        jnp.zeros((), int),
        learned,
        Stored(learned, blank.evidence),
        jnp.array(-jnp.inf),
        jnp.array(4.0 if light else 0.0),
        jnp.array(4.0),
        jnp.array(iterations if nh else 1),
        blank._replace(restart=restart, temperature=jnp.array(2.0)),
        jnp.full(sweeps, jnp.nan),
        jnp.zeros((), bool),
        learned,
    )
    if sweeps == 1:
        state = iterate(state)
    else:
        state = jax.lax.while_loop(lambda s: (s[0] < sweeps) & ~s[9], iterate, state)
    # The parameters reported are those that the last E-step moved to; their covariance is the best sweep's.
    number, learned, _, _, _, _, _, swept, history, _, used = state
    return Outcome(swept.course, swept.covariances, swept.entropies, used, learned, history, number)


class Stored(NamedTuple):
    """The best sweep so far."""

    point: Learned
    evidence: Evidence


def infer(problem: Problem, sensed: Float[Array, "steps m"], gain: float, substeps: int) -> Outcome:
    """States and causes alone: one sweep at the prior means of parameters and log-precisions."""
    prior = problem.prior()
    steps = len(sensed) // (substeps if problem.nx else 1)
    start = problem.start()
    restart = jnp.broadcast_to(start, (steps, len(start)))
    swept = sweep(problem, sensed, prior, restart, jnp.array(2.0), gain, substeps, False)
    value = bound_of_states(problem, swept, substeps, prior.log_precisions)
    return Outcome(
        swept.course, swept.covariances, swept.entropies, prior, prior, value[None], jnp.ones((), int)
    )
