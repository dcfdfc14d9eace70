"""World and agent advanced together: sensations, states, beliefs and action in one local linear step."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float

from vfe.action.active_system import ActiveSystem
from vfe.action.process import Slopes
from vfe.action.world_motion import by_action, motion_jacobian, settle
from vfe.dynamics.generalised.local_linear import driven_exponential, regularised_inverse
from vfe.dynamics.generalised.states import Course, error_jacobian, errors, jacobian_at
from vfe.dynamics.levels.dynamic_model import DynamicModel
from vfe.dynamics.levels.problem import Learned, Problem
from vfe.dynamics.levels.smoothness import (
    derivative_operator,
    embed,
    embedding_windows,
    smoothness_precision,
)

# Beliefs have a weak prior about zero at every order.
FIRM = math.exp(-8)


class Moment(NamedTuple):
    """What is kept of a sample."""

    seen: Float[Array, " yv"]
    x: Float[Array, " x"]
    action: Float[Array, " a"]
    felt: Float[Array, " y"]
    course: Course
    covariance: Float[Array, "u u"]


class Fixed(eqx.Module):
    """What does not change along a series."""

    prior: Float[Array | np.ndarray, "u u"]
    error_precision: Float[Array | np.ndarray, "e e"]
    sensed: Float[Array | np.ndarray, "e s"]
    expected: Float[Array | np.ndarray, "e c"]
    reflex: Float[Array | np.ndarray, "e e"]
    late: Float[Array | np.ndarray, "n n"]
    world_shift: Float[Array | np.ndarray, "s s"]
    known_shift: Float[Array | np.ndarray, "k k"]
    entering: Float[Array | np.ndarray, "s k"]


class Curvatures(NamedTuple):
    """Derivatives at a point, and the covariance of beliefs there."""

    E_u: Float[Array, "e u"]
    E_a: Float[Array, "e a"]
    A: Float[Array, "s s"]
    B: Float[Array, "s k"]
    covariance: Float[Array, "u u"]


def run_reflexes(
    system: ActiveSystem,
    noise: Float[Array, "time yv"],
    motion_noise: Float[Array, "time x"],
    prior_causes: Float[Array, "time c"],
) -> Moment:
    """The whole course; `noise` stacks that of the sensations and the causes of the world, `motion_noise`
    is per sample.

    **Source:** Friston et al. 2010, "Action and behavior: a free-energy formulation".
    """
    model, process = system.model, system.process
    problem, dt = model.problem, model.dt
    learned = problem.prior()
    n, length = problem.n, len(noise)
    fixed = _fixed(system, problem, learned)
    z, w, eta = embed(noise, n), embed(motion_noise, n), embed(prior_causes, n)
    actions = process.actions.size
    weights, which, samples = embedding_windows(length, n, np.arange(1.0, length + 1))
    # Action is known up to now only.
    samples = np.minimum(samples, np.arange(length)[:, None])
    sizes = (n * (process.data_size + process.causes), n * process.states.size, problem.nu, actions)
    cuts = list(np.cumsum(sizes)[:-1])
    constant = problem.constant and process.constant
    effort = jnp.asarray(system.action_precision)

    def curvatures(seen, x, a, u) -> Curvatures:
        slopes = process.slopes(x[0], seen[0, process.data_size :], a, dt)
        return _curvatures(system, problem, learned, fixed, slopes, u)

    if constant:
        start = problem.start()
        states = jnp.asarray(process.states)
        slopes = process.slopes(states, jnp.zeros(process.causes), jnp.asarray(process.actions), dt)
        once = _curvatures(system, problem, learned, fixed, slopes, start)
        m, s = len(fixed.known_shift), sum(sizes)
        N = jnp.zeros((m + s, m + s)).at[:m, :m].set(fixed.known_shift)
        _, moves = driven_exponential(once.A, jnp.concatenate([once.B, jnp.eye(s)], 1), N)
        by_flow = moves[:, m:]
        by_known = moves[:, :m] - by_flow @ once.B
    else:
        slopes = once = by_flow = by_known = None

    def advance(carry: Any, now: Any):
        seen, x, u, a, record, number = carry
        z, w, eta, window, picked = now
        record = record.at[number].set(a)
        a_orders = jnp.einsum("ji,ik->jk", window, record[picked])
        here = slopes
        if here is None:
            here = process.slopes(x[0], z[0, process.data_size :], a, dt)
        seen, x = settle(process, here, dt, seen, x, a_orders, z, w)
        felt = fixed.late @ seen[:, : process.data_size]
        error = errors(
            problem, u, jnp.concatenate([felt.ravel(), jnp.zeros(problem.d * problem.nc)]), learned.p
        )
        error = error + fixed.expected @ eta.ravel()
        c = curvatures(seen, x, a, u) if once is None else once
        reacted = c.E_a.T @ (fixed.reflex @ error) + effort @ a
        believed = c.E_u.T @ (fixed.error_precision @ error) + fixed.prior @ u
        shifted = fixed.world_shift @ jnp.concatenate([seen.ravel(), x.ravel()])
        flow = jnp.concatenate([shifted, problem.state_shift @ u - believed, -reacted])
        known = jnp.concatenate([z.ravel(), w.ravel(), eta[: problem.d].ravel()])
        if by_flow is None or by_known is None:
            drives = [flow]
            for _ in range(1, n):
                known = fixed.known_shift @ known
                drives.append(c.B @ known)
            _, moved = driven_exponential(c.A, jnp.stack(drives, 1), jnp.eye(n, k=-1))
            moved = moved[:, 0]
        else:
            moved = by_flow @ flow + by_known @ known
        kept = Moment(
            seen[0], x[0], a, felt[0], Course(u, error), c.covariance if once is None else jnp.zeros(())
        )
        d_seen, d_x, d_u, d_a = jnp.split(moved, cuts)
        moved = (
            seen + d_seen.reshape(seen.shape),
            x + d_x.reshape(x.shape),
            u + d_u,
            a + d_a,
            record,
            number + 1,
        )
        return moved, kept

    start = (
        jnp.zeros((n, process.data_size + process.causes)),
        jnp.zeros((n, process.states.size)).at[0].set(process.states),
        problem.start(),
        jnp.asarray(process.actions),
        jnp.zeros((length, actions)),
        jnp.zeros((), int),
    )
    _, moments = jax.lax.scan(advance, start, (z, w, eta, weights[which], samples))
    if once is not None:
        covariances = jnp.broadcast_to(once.covariance, (length, *once.covariance.shape))
        moments = moments._replace(covariance=covariances)
    return moments


def _diagonal(*blocks: np.ndarray) -> np.ndarray:
    return np.asarray(scipy.linalg.block_diag(*blocks))


def _prior_orders(model: DynamicModel) -> Float[np.ndarray, "u u"]:
    """The precision over orders of all states, each as smooth as its noise, and of all causes."""
    n, d, sizes = model.order + 1, model.cause_order + 1, model.state_sizes
    states = np.zeros((n * sum(sizes),) * 2)
    for number, (size, end) in enumerate(zip(sizes, np.cumsum(sizes), strict=True)):
        rows = (np.arange(n)[:, None] * sum(sizes) + np.arange(end - size, end)).ravel()
        R = smoothness_precision(n, model.smoothness_in_samples(number)[1])
        states[np.ix_(rows, rows)] = np.kron(R, np.eye(size))
    R = smoothness_precision(n, model.smoothness_in_samples(len(model.levels))[0])
    return _diagonal(states, np.kron(R[:d, :d], np.eye(sum(model.cause_sizes))))


def _fixed(system: ActiveSystem, problem: Problem, learned: Learned) -> Fixed:
    model, process = system.model, system.process
    n, d, nz = problem.n, problem.d, problem.nz
    prior = FIRM * _prior_orders(model)
    behind = (system.sensory_delay - system.known_sensory_delay) / model.dt
    late = scipy.linalg.expm(-behind * np.eye(n, k=1))
    data_rows = (np.arange(n)[:, None] * nz + np.arange(problem.ny)).ravel()
    expected = np.zeros((problem.ne, n * problem.nc))
    tops = np.arange(n)[:, None] * nz + nz - problem.nc + np.arange(problem.nc)
    expected[tops.ravel(), np.arange(n * problem.nc)] = -1
    lag = (system.motor_delay - system.known_motor_delay) / model.dt
    R = smoothness_precision(n, model.smoothness_in_samples(0)[0])
    reacting = R @ scipy.linalg.expm(-lag * np.eye(n, k=1))
    reflex = jnp.zeros((problem.ne, problem.ne))
    reflex = reflex.at[np.ix_(data_rows, data_rows)].set(jnp.kron(reacting, system.reflex_precision))
    k, c, m, nc = process.data_size, process.causes, process.states.size, problem.nc
    # All orders of what is expected enter the errors; those that causes have move during a step.
    shift = [derivative_operator(n, k + c), derivative_operator(n, m), derivative_operator(d, nc)]
    seen, moved = n * (k + c), n * m
    entering = np.zeros((seen + moved, seen + moved + d * nc))
    entering[:seen, :seen] = shift[0]
    entering[seen:, seen : seen + moved] = np.eye(moved)
    sensed = np.zeros((problem.ne, seen))
    columns = (np.arange(n)[:, None] * (k + c) + np.arange(k)).ravel()
    sensed[np.ix_(data_rows, columns)] = np.kron(late, np.eye(k))
    return Fixed(
        prior,
        problem.precision_matrix(learned.log_precisions),
        sensed,
        expected,
        reflex,
        late,
        _diagonal(*shift[:2]),
        _diagonal(*shift),
        entering,
    )


def _curvatures(
    system: ActiveSystem, problem: Problem, learned: Learned, fixed: Fixed, slopes: Slopes, u: Array
) -> Curvatures:
    n = problem.n
    world, acted = motion_jacobian(system.process, slopes, n)
    s, nu, na = len(world), problem.nu, acted.shape[1]
    E_u = error_jacobian(problem, jacobian_at(problem, u, learned.p))
    # Late sensations are felt late, but what an action will do to them is not: the reflex arc is known.
    reached = by_action(slopes, n) * jnp.asarray(system.reflexes)
    E_a = jnp.asarray(problem.data_errors) @ reached.reshape(-1, na)
    Pi = (fixed.error_precision @ E_u).T
    Gamma = (fixed.reflex.T @ E_a).T
    H = jnp.asarray(fixed.prior) + Pi @ E_u
    seen = fixed.sensed.shape[1]
    to_u, to_a = -(Pi @ fixed.sensed), -(Gamma @ fixed.sensed)
    rest = jnp.zeros((nu, s - seen))
    A = jnp.block(
        [
            [world, jnp.zeros((s, nu)), acted],
            [to_u, rest, problem.state_shift - H, -(Pi @ E_a)],
            [to_a, jnp.zeros((na, s - seen)), -(Gamma @ E_u), -(Gamma @ E_a) - system.action_precision],
        ]
    )
    known = len(fixed.known_shift) - problem.d * problem.nc
    moving = fixed.expected[:, : problem.d * problem.nc]
    B = jnp.concatenate(
        [
            jnp.asarray(fixed.entering),
            jnp.concatenate([jnp.zeros((nu, known)), -(Pi @ moving)], 1),
            jnp.concatenate([jnp.zeros((na, known)), -(Gamma @ moving)], 1),
        ]
    )
    C = regularised_inverse(H)
    return Curvatures(E_u, E_a, A, B, (C + C.T) / 2)
