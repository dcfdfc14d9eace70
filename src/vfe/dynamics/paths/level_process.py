"""A hierarchy of levels as an augmented process, in samples, and what is believed of its levels."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float

from vfe.dynamics.levels.dynamic_model import DynamicModel
from vfe.dynamics.levels.problem import EXACT, Problem
from vfe.dynamics.levels.trajectory import Believed
from vfe.dynamics.linear.kalman import matvec, symmetric
from vfe.dynamics.paths.augmented import Augmented, Noise, augmented


class LevelEquations(eqx.Module):
    """f, g and the causes of all levels, of c = (x, ζ + E η), at the prior means of parameters."""

    problem: Problem

    def flow(self, c: Float[Array, " c"]) -> Float[Array, " x"]:
        """Per sample."""
        problem = self.problem
        x, v = self._levels(c)
        moved = [
            problem.dt * flow(x[i], v[i], p)
            for i, (flow, p) in enumerate(zip(problem.flows, self._parameters, strict=True))
            if flow is not None
        ]
        return jnp.concatenate([jnp.zeros(0), *moved])

    def observe(self, c: Float[Array, " c"]) -> Float[Array, " k"]:
        """What the lowest level predicts of the data."""
        x, v = self._levels(c)
        return self.problem.observes[0](x[0], v[0], self._parameters[0])

    def causes(self, c: Float[Array, " c"]) -> Float[Array, " v"]:
        """The causes of all levels, stacked, the lowest first."""
        return jnp.concatenate(self._levels(c)[1])

    @property
    def _parameters(self) -> tuple:
        problem = self.problem
        return problem.unravel(jnp.asarray(problem.parameters))

    def _levels(self, c: Array) -> tuple[list[Array], list[Array]]:
        problem = self.problem
        x = jnp.split(c[: problem.nx], np.cumsum(problem.state_sizes)[:-1])
        zeta = jnp.split(c[problem.nx :], np.cumsum(problem.cause_sizes)[:-1])
        v = [zeta[-1]]
        for i in range(len(x) - 1, 0, -1):
            v.insert(0, problem.observes[i](x[i], v[0], self._parameters[i]) + zeta[i - 1])
        return x, v


def noisy_rows(problem: Problem) -> tuple[tuple[bool, ...], ...]:
    """For every noise, which of its rows have any: a known precision of e¹⁶ or more counts as none."""
    return tuple(
        # Noise of the data has to be there for a density of the data to be.
        tuple(bool(v < EXACT * (1 - 1e-9)) or block.name == "observation 1" for v in np.diag(block.fixed))
        for block in problem.blocks
    )


def level_process(
    model: DynamicModel,
    order: int,
    floor: float,
    free: tuple[Float[Array, " p"], Float[Array, " h"], Float[Array, " s"]] | None = None,
    noisy: tuple[tuple[bool, ...], ...] | None = None,
) -> Augmented:
    """The process of a `vfe.DynamicModel` in units of samples; `order`, `floor`: of `Causal`.

    `free`: the free parameters, log-precisions and logs of smoothness over its median, by default at their
    prior means; they may be traced, and
    with them the model, of which `noisy` then says what `noisy_rows` did.

    **Raises:** `ValueError` for a model in which nothing is hidden.
    """
    problem, log_precisions = model.problem, model.problem.log_precision_mean
    xp: Any = np
    stack: Callable = scipy.linalg.block_diag
    if free is not None:
        xp, log_precisions, stack = jnp, free[1], jax.scipy.linalg.block_diag
        problem = eqx.tree_at(lambda held: held.parameters, problem, problem.full(free[0]))
    moving, causing = [], []
    names = [f"states {number}" for number, count in enumerate(model.state_sizes, 1) for _ in range(count)]
    observing = Noise(np.zeros((problem.ny, 0)), 0.0, "observation 1")
    error = np.zeros((problem.ny, problem.ny))
    for block, chosen in zip(problem.blocks, noisy or noisy_rows(problem), strict=True):
        count = len(block.fixed)
        kind, _, number = block.name.partition(" ")
        of = model.smoothness_in_samples(int(number) - 1 if number else len(model.levels))
        smoothness = of[kind == "states"]
        which = model.smoothness_of(block.name)
        scale = 1.0 if free is None or which is None else jnp.exp(free[2][which])
        kept = np.array(chosen, bool)
        weights = xp.exp(log_precisions[block.own])
        precision = block.fixed + xp.tensordot(weights, block.components, 1)
        data = block.name == "observation 1"
        covariance = xp.linalg.inv(precision[np.ix_(kept, kept)])
        factor = np.eye(count)[:, kept] @ xp.linalg.cholesky(covariance)
        if data:
            observing = Noise(factor, smoothness, block.name, scale)
            error = floor**2 * xp.diag(xp.diag(covariance)) if smoothness > 0 else error
            continue
        start = block.start - (problem.nz if kind == "states" else problem.ny)
        rows = problem.nx if kind == "states" else problem.nv
        tall = np.eye(rows)[:, start : start + count] @ factor
        (moving if kind == "states" else causing).append(Noise(tall, smoothness, block.name, scale))
    if not problem.nx and not any(noise.factor.size for noise in causing):
        raise ValueError(
            "got a model without states, whose causes are all known (precision e¹⁶ or more): nothing in it "
            "is hidden. Give a level flow= and states=, or lower cause_precision."
        )
    return augmented(
        LevelEquations(problem),
        names=names,
        moving=moving,
        causing=causing,
        observing=observing,
        error=error,
        inputs=np.eye(problem.nv)[:, problem.nv - problem.nc :],
        mean=problem.states,
        covariance=stack(
            *(level.initial_covariance for level in model.levels if level.states.size), np.zeros((0, 0))
        ),
        order=order,
        constant=problem.constant,
    )


class Estimate(NamedTuple):
    """The belief at one time, in the units of the model; as `StateTrajectory`."""

    states: Believed
    causes: Believed
    motion: Believed
    data: Believed
    errors: dict[str, Array]


def describe(
    process: Augmented, mean: Float[Array, " n"], covariance: Float[Array, "n n"], eta: Float[Array, " r"]
) -> Estimate:
    """What a belief about s says of the levels."""
    equations, count = process.equations, process.states
    problem = equations.problem
    c = process.coordinates(mean, eta)
    felt = jnp.zeros((count, len(mean))).at[:, : process.core].set(process.drift[:count])

    def along(function: Callable, more: Any = 0.0, unit: float = 1.0) -> Believed:
        """The function of c plus more · s."""
        slope = (jax.jacfwd(function)(c) @ process.looking + more) / unit
        value = function(c) + (matvec(more, mean) if isinstance(more, jax.Array) else 0.0)
        return Believed(value / unit, symmetric(slope @ covariance @ slope.T))

    noise = {"states": matvec(felt, mean) / problem.dt, "causes": matvec(process.looking[count:], mean)}
    errors = {}
    for block in problem.blocks:
        if block.name == "observation 1":
            continue
        word = "states" if block.name.startswith("states") else "causes"
        start = block.start - (problem.nz if word == "states" else problem.ny)
        errors[block.name] = noise[word][start : start + len(block.fixed)]
    return Estimate(
        states=Believed(mean[:count], covariance[:count, :count]),
        causes=along(equations.causes),
        motion=along(equations.flow, felt, problem.dt),
        data=along(equations.observe, process.seen),
        errors=errors,
    )


def replicate(
    process: Augmented, mean: Float[Array, " n"], covariance: Float[Array, "n n"], eta: Float[Array, " r"]
) -> Believed:
    """Another sample at that time, with noise of its own."""
    c = process.coordinates(mean, eta)
    slope = jax.jacfwd(process.equations.observe)(c) @ process.looking
    spread = symmetric(slope @ covariance @ slope.T) + process.seen @ process.seen.T + process.error
    return Believed(process.equations.observe(c), spread)
