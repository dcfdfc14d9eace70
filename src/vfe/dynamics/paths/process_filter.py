"""The extended filter of an augmented process, row by row of a grid of times."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vfe.beliefs import LOG_2PI
from vfe.dynamics.linear import kalman
from vfe.dynamics.linear.kalman import matvec, symmetric
from vfe.dynamics.paths.augmented import Augmented, Moved


class Grid(NamedTuple):
    """Rows of a series: time since the row before, η there and here, data (NaN where there are none)."""

    step: Float[Array, " rows"]
    before: Float[Array, "rows r"]
    eta: Float[Array, "rows r"]
    y: Float[Array, "rows k"]


class Carried(NamedTuple):
    """The belief after a row; `begun` is false before the first one."""

    mean: Float[Array, " n"]
    covariance: Float[Array, "n n"]
    begun: Bool[Array, ""]


class Row(NamedTuple):
    """The belief at a row, η there, what was expected of its data before them, and −ln p of those."""

    mean: Float[Array, " n"]
    covariance: Float[Array, "n n"]
    eta: Float[Array, " r"]
    expected: Float[Array, " k"]
    spread: Float[Array, "k k"]
    surprise: Float[Array, ""]


def make_grid(times: np.ndarray, y: Any, eta: Any, substeps: int | None) -> tuple[Grid, np.ndarray]:
    """Times and data on a grid that has `substeps` rows per unit of time, and the rows of the samples.

    With None, a row per sample: steps of linear processes are exact, however long. Data may have leading
    axes, which become those of η and y; the steps have none.
    """
    gaps = np.diff(times)
    pieces = np.ones(len(gaps), int)
    if substeps is not None:
        pieces = np.maximum(np.ceil(gaps * substeps * (1 - 1e-12)), 1).astype(int)
    samples = np.concatenate([[0], np.cumsum(pieces)]).astype(int)
    count = int(samples[-1]) + 1
    step = np.concatenate([[0.0], np.repeat(gaps / pieces, pieces)])
    # The share of the later sample in η at each row.
    at = np.repeat(np.arange(len(gaps)), pieces)
    share = np.concatenate([[0.0], (np.arange(count - 1) - samples[at] + 1) / np.repeat(pieces, pieces)])
    at = np.concatenate([[0], at]).astype(int)
    later = np.minimum(at + 1, len(times) - 1)
    fine = eta[..., at, :] + share[:, None] * (eta[..., later, :] - eta[..., at, :])
    rows = jnp.full((*y.shape[:-2], count, y.shape[-1]), jnp.nan).at[..., samples, :].set(y)
    before = jnp.concatenate([fine[..., :1, :], fine[..., :-1, :]], -2)
    return Grid(jnp.asarray(step), before, jnp.asarray(fine), rows), samples


def begin(process: Augmented) -> Carried:
    """Before the first row."""
    return Carried(process.mean, process.covariance, jnp.asarray(False))


def filter_rows(
    process: Augmented,
    start: Carried,
    grid: Grid,
    iterations: int,
    even: bool,
    report: Callable[[Row], Any],
) -> tuple[Carried, Any]:
    """Along the rows: a step of the process linearised at the mean, then the row's data.

    **Returns:** the belief at the end, and what `report` makes of every row: covariances of all noise need
    not be kept.

    `iterations`: of Gauss–Newton for the data of a row; `even`: all steps but the first equal the last
    one, so that the step of a linear process is computed once.
    """
    hoisted = constant_step(process, grid) if process.constant and even else None
    repeats = 1 if process.constant else iterations

    def row(carried: Carried, now: Grid) -> tuple[Carried, Any]:
        mean, covariance, begun = carried
        moved = hoisted(now) if hoisted else process.move(mean, now.before, now.eta, now.step)
        wide = symmetric(moved.transition @ covariance @ moved.transition.T + moved.covariance)
        mean = jnp.where(begun, matvec(moved.transition, mean) + moved.offset, mean)
        covariance = jnp.where(begun, wide, covariance)
        there = ~jnp.isnan(now.y)
        value = jnp.where(there, now.y, 0.0)
        error = jnp.where(there[:, None] & there, process.error, jnp.eye(len(there)))
        observe, offset = process.look(mean, now.eta)
        expected = matvec(observe, mean) + offset
        spread = symmetric(observe @ covariance @ observe.T) + process.error

        def correct(observe: Array, offset: Array) -> tuple[Array, Array, Array, Array]:
            masked, left = jnp.where(there[:, None], observe, 0.0), jnp.where(there, value - offset, 0.0)
            return kalman.correct(mean, covariance, masked, error, left)

        after, narrow, energy, _ = correct(observe, offset)
        for _ in range(repeats - 1):
            after, narrow, energy, _ = correct(*process.look(after, now.eta))
        surprise = 0.5 * (energy + there.sum() * LOG_2PI)
        found = Row(after, narrow, now.eta, expected, spread, surprise)
        return Carried(after, narrow, jnp.asarray(True)), report(found)

    return jax.lax.scan(row, start, grid)


def constant_step(process: Augmented, grid: Grid) -> Callable[[Grid], Moved]:
    """The step of a linear process over a time that is always the same: only its offset varies, with η."""
    still, time = jnp.zeros_like(process.mean), grid.step[-1]
    nothing = jnp.zeros_like(grid.eta[0])
    moved = process.move(still, nothing, nothing, time)
    if not nothing.size:
        return lambda now: moved

    def offset(before: Array, after: Array) -> Array:
        return process.move(still, before, after, time).offset

    first, second = jax.jacfwd(offset, (0, 1))(nothing, nothing)

    def at(now: Grid) -> Moved:
        drive = moved.offset + matvec(first, now.before) + matvec(second, now.eta)
        return Moved(moved.transition, drive, moved.covariance)

    return at
