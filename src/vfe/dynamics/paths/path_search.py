"""The most probable path of an augmented process, by Gauss–Newton over the whole path.

Linearised along a path, the process is a linear state-space model; its exact smoother is one step of
Gauss–Newton. Steps are damped by pseudo-observations of the path they start from, ever weaker ones. The
path of a linear process takes one step, and is exact.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vfe.dynamics.linear import kalman
from vfe.dynamics.linear.state_space import StateSpace
from vfe.dynamics.paths.augmented import Augmented
from vfe.dynamics.paths.process_filter import Grid, begin, constant_step, filter_rows
from vfe.free_energy import FreeEnergy, Kind
from vfe.perception.status import DivergenceError

WEAKEST = 1e-4  # of the first damping; weaker is none
AT_ONCE = 64


class Path(NamedTuple):
    """The most probable path row by row, its spread, energies, the steps it took, the last one's length."""

    mean: Float[Array, "rows n"]
    covariance: Float[Array, "rows n n"]
    terms: kalman.Terms
    steps: int
    change: float


class Search(NamedTuple):
    """`damping`: the precision, in units of 1 / variance along the first path, that ties the first step to
    it; it halves with every step; `max_steps`; `tolerance`: how far an undamped step may still move, in
    standard deviations; `iterations`: of the filter that finds the first path."""

    damping: float
    max_steps: int
    tolerance: float
    iterations: int

    def check(self) -> None:
        """**Raises:** `ValueError` for settings out of range."""
        if not (self.damping >= 0 and self.max_steps >= 1 and self.tolerance > 0):
            raise ValueError(
                f"smooth: got damping={self.damping}, max_steps={self.max_steps}, "
                f"tolerance={self.tolerance}; wanted at least 0, at least 1, and a positive number."
            )


def most_probable_path(
    process: Augmented, grid: Grid, samples: np.ndarray, even: bool, search: Search, advice: str
) -> Path:
    """The path, from that of the extended filter on.

    **Arguments:** `samples`: the rows of the grid that are samples; `even`: whether all steps are equal;
    `advice`: the end of the message where there is no path.

    **Raises:** `vfe.DivergenceError` with the sample at which the numbers left float64, or how far the last
    step moved.
    """
    path, usual = first_path(process, grid, search.iterations, even)
    _check_finite(path, samples, "the extended filter that starts the search", advice)
    left, change = 0.0 if process.constant else search.damping, np.inf
    for number in range(1, search.max_steps + 1):
        weight = jnp.where(usual > 0, left / jnp.where(usual > 0, usual, 1.0), 0.0)
        path, covariance, terms, moved = gauss_newton(process, grid, path, weight, even)
        _check_finite(path, samples, f"step {number} of Gauss–Newton", advice)
        change = float(moved)
        if process.constant:
            return Path(path, covariance, terms, number, 0.0)
        if left == 0 and change <= search.tolerance:
            return Path(path, covariance, terms, number, change)
        left = 0.5 * left if left > WEAKEST * search.damping else 0.0
    raise DivergenceError(
        f"smooth: no path after {search.max_steps} steps of Gauss–Newton; the last one still moved by "
        f"{change:.3g} standard deviations, wanted {search.tolerance:g}. Allow more (max_steps=), tie the "
        f"steps more (damping=), or {advice}."
    )


def along(function: Callable, *rows: Any) -> Any:
    """A function of every row, some rows at a time so that memory does not grow with what it needs."""
    count = len(jax.tree.leaves(rows)[0])
    if count <= AT_ONCE:
        return jax.vmap(function)(*rows)
    # The last rows are done twice where their number is no multiple (lax.map fails on arrays of no size).
    batches = -(-count // AT_ONCE)
    index = jnp.minimum(jnp.arange(batches * AT_ONCE), count - 1).reshape(batches, AT_ONCE)
    found = jax.lax.map(lambda i: jax.vmap(function)(*jax.tree.map(lambda a: a[i], rows)), index)
    return jax.tree.map(lambda a: a.reshape(batches * AT_ONCE, *a.shape[2:])[:count], found)


@eqx.filter_jit
def first_path(process: Augmented, grid: Grid, iterations: int, even: bool) -> tuple[Array, Array]:
    """The means of the extended filter, and variances of c along them, or before the data if larger."""
    path = filter_rows(process, begin(process), grid, iterations, even, lambda row: row.mean)[1]
    prior = jnp.diagonal(process.looking @ process.covariance @ process.looking.T)
    return path, jnp.maximum((path @ process.looking.T).var(0), prior)


@eqx.filter_jit
def gauss_newton(
    process: Augmented, grid: Grid, path: Array, damping: Float[Array, " c"], even: bool
) -> tuple[Array, Array, kalman.Terms, Array]:
    """The exact smoother of the linearisation along a path; `damping`: what ties it to the path.

    **Returns:** means, covariances, energies, and how far c moved at most, in standard deviations.
    """
    size, k, wide = path.shape[1], grid.y.shape[1], len(damping)
    if process.constant and even:
        moves = jax.vmap(constant_step(process, grid))(grid)
        transition, noise = moves.transition[0], moves.covariance[0]
    else:
        moves = along(
            lambda s, now: process.move(s, now.before, now.eta, now.step),
            jnp.concatenate([path[:1], path[:-1]]),
            grid,
        )
        transition, noise = moves.transition, moves.covariance
    observe, offset = jax.vmap(process.look)(path, grid.eta)
    tied = damping > 0
    itself = jnp.broadcast_to(process.looking, (path.shape[0], wide, size))
    error = jnp.zeros((k + wide, k + wide)).at[:k, :k].set(process.error)
    # Noise before the states it moves: the energy of a step then splits into that of every noise.
    order = np.roll(np.arange(size), -process.states)
    model = StateSpace(
        initial_mean=process.mean[order],
        initial_covariance=process.covariance[order][:, order],
        transition=transition[..., order, :][..., order],
        transition_offset=moves.offset[:, order],
        transition_covariance=noise[..., order, :][..., order],
        observation=jnp.concatenate([observe, itself], 1)[..., order],
        observation_offset=jnp.concatenate([offset, jnp.zeros((len(path), wide))], 1),
        observation_covariance=error.at[k:, k:].set(jnp.diag(1 / jnp.where(tied, damping, 1.0))),
    )
    ties = path @ process.looking.T
    y = jnp.concatenate([grid.y, jnp.where(tied, ties, jnp.nan)], 1)
    steps = kalman.prepare(model, y, jnp.zeros((y.shape[0], 0)))
    future = kalman.look_back(model, steps)
    mean, covariance, _ = kalman.smooth_moments(future)
    terms = kalman.path_terms(model, steps, future, mean, covariance)
    back = np.argsort(order)
    terms = terms._replace(elements=terms.elements[:, back])
    mean, covariance = mean[:, back], covariance[:, back][:, :, back]
    moved = (mean - path) @ process.looking.T
    spread = ((process.looking @ covariance) * process.looking).sum(-1)
    change = (moved**2 / jnp.where(spread > 0, spread, jnp.inf)).max(initial=0.0)
    return mean, covariance, terms, jnp.sqrt(change)


def path_free_energy(process: Augmented, path: Path, samples: np.ndarray, rest: str) -> FreeEnergy:
    """F by sample and noise: what happens on the way to a sample counts there.

    `observation`: −ln p of the data given the path; `initial`: the belief at the first sample; then the
    energy of every noise by its name; `rest`: the name of the entropy of the path after the first sample.
    """
    owner = np.searchsorted(samples, np.arange(len(path.mean)))
    return _free_energy(process, path.terms, owner, len(samples), rest)


@eqx.filter_jit
def _free_energy(
    process: Augmented, terms: kalman.Terms, owner: np.ndarray, count: int, rest: str
) -> FreeEnergy:

    def later(values: Array) -> Array:
        return jnp.zeros(count).at[owner[1:]].add(values[1:])

    def first(values: Array) -> Array:
        return jnp.zeros(count).at[0].set(values[0])

    names = list(dict.fromkeys([*process.names, rest]))
    hidden = {"initial": first(terms.state)}
    for name in names:
        own = np.array([i for i, other in enumerate(process.names) if other == name], int)
        hidden[name] = later(terms.elements[:, own].sum(-1))
    return FreeEnergy(
        observed={"observation": first(terms.observation) + later(terms.observation)},
        hidden=hidden,
        entropies={"initial": first(terms.entropy), rest: later(terms.entropy)},
        error=None,
        weight=jnp.asarray(1.0),
        kind=Kind.exact if process.constant else Kind.approximation,
        shared=(),
        order=(*hidden, "observation"),
    )


def _check_finite(path: Any, samples: np.ndarray, where: str, advice: str) -> None:
    bad = np.flatnonzero(~np.isfinite(np.asarray(path)).all(-1))
    if bad.size:
        raise DivergenceError(
            f"smooth: {where} left float64 on the way to sample {np.searchsorted(samples, bad[0])} "
            "(counted from 0). Check the flow's units (per unit of time, as dt), and where the states "
            f"start; or take a smaller initial_covariance, more damping=, or {advice}."
        )
