"""Parameters and log-precisions by the evidence of the data: states and causes are integrated out."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from vfe.double_precision import released
from vfe.dynamics.generalised.batches import each_series
from vfe.dynamics.levels.dynamic_model import DynamicModel
from vfe.dynamics.levels.problem import Problem
from vfe.dynamics.levels.reading import read_series, read_times
from vfe.dynamics.levels.sessions import Sessions
from vfe.dynamics.levels.trajectory import Believed, Parameters
from vfe.dynamics.paths.causal import Causal
from vfe.dynamics.paths.filter_states import is_even
from vfe.dynamics.paths.level_process import level_process, noisy_rows
from vfe.dynamics.paths.process_filter import Grid, begin, filter_rows, make_grid
from vfe.perception.status import DivergenceError
from vfe.series.verbs import fit

LARGEST_STEP = 2.0  # of any parameter, in its own prior deviations or, of a log-precision, in nats
PRECISIONS = {
    "observation": "observation_precision",
    "states": "state_precision",
    "causes": "cause_precision",
}
FIRST_DAMPING, MOST_DAMPING = 1e-3, 1e8


class Collapsed(eqx.Module):
    """q(parameters, log-precisions) at the mode of p(y | θ) p(θ), states and causes integrated out.

    −ln p(y | θ) is the sum of the surprises of `vfe.dynamics.Causal`: exact for linear models, and an
    approximation (the extended Kalman filter's) for others. Its minimum with the priors is found by damped
    Fisher scoring; the covariance is the inverse of the curvature there, F the Laplace approximation of
    −ln p(y).

    `vfe.dynamics.Reference` takes the derivatives of an embedded series for independent data of every
    sample, order + 1 times too many: its precisions come out too high and its intervals too narrow
    (benchmarks/recovery.py). Here a sample counts once.

    **Arguments:** `filter`: the filter's settings; `max_steps`: of scoring; `tolerance`: how many nats a
    step must still promise to be taken.

    **Raises:** `ValueError` for settings out of range.

    **Example:** `vfe.fit(model, y, scheme=vfe.dynamics.Collapsed(max_steps=200))`.

    **Source:** Friston et al. 2007, "Variational free energy and the Laplace approximation", with states
    integrated out as in Särkkä 2013, chapter 12.
    """

    filter: Causal = eqx.field(static=True, default=Causal())
    max_steps: int = eqx.field(static=True, default=64)
    tolerance: float = eqx.field(static=True, default=1e-9, converter=float)

    def __check_init__(self):
        if not isinstance(self.filter, Causal):
            raise ValueError(f"Collapsed: got filter={self.filter!r}; wanted vfe.dynamics.Causal(...).")
        if not isinstance(self.max_steps, int) or self.max_steps < 1:
            raise ValueError(f"Collapsed: got max_steps={self.max_steps!r}; wanted at least 1.")
        if not (math.isfinite(self.tolerance) and self.tolerance > 0):
            raise ValueError(f"Collapsed: got tolerance={self.tolerance}; wanted it above zero.")


class LearnedLevels(eqx.Module):
    """Beliefs about what does not move, from whole series; of several series with a leading axis.

    `parameters`: by level, as the pytrees that the levels were given, with the covariance of all of them;
    `log_precisions`; `log_smoothness`: of what `model.learned_smoothness` names; `covariance`: of the free
    parameters, log-precisions and logs of smoothness together; `free_energy`: the
    Laplace approximation of −ln p(y), nats; `energy`: −ln p(y, θ) at the mode; `steps`: of scoring, and
    `promise`: how many nats a further one would gain.
    """

    parameters: Parameters
    log_precisions: Believed
    log_smoothness: Believed
    covariance: Float[Array | np.ndarray, "*batch b b"]
    free_energy: Float[Array | np.ndarray, "*batch"]
    energy: Float[Array | np.ndarray, "*batch"]
    steps: Float[Array | np.ndarray, "*batch"]
    promise: Float[Array | np.ndarray, "*batch"]

    def place(self, model: DynamicModel) -> DynamicModel:
        """The model at these means, for `vfe.filter` and `vfe.smooth`.

        **Raises:** `ValueError` for what was learned from several series.

        **Example:** `vfe.smooth(found.place(model), y)`.
        """
        if np.ndim(self.free_energy):
            raise ValueError(
                "place: got what was learned from several series; take one of them: "
                "jax.tree.map(lambda a: a[0], found).place(model)."
            )
        levels = list(model.levels)
        for number, mean in enumerate(self.parameters.mean):
            if jax.tree.leaves(mean):
                levels[number] = eqx.tree_at(lambda level: level.parameters, levels[number], mean)
        for block in model.problem.blocks:
            kind, _, number = block.name.partition(" ")
            if len(block.components):
                levels[int(number or 0) - 1] = eqx.tree_at(
                    lambda level, kind=kind: getattr(level, PRECISIONS[kind]).mean,
                    levels[int(number or 0) - 1],
                    np.asarray(self.log_precisions.mean)[block.own],
                )
        learned = dict(
            zip(model.learned_smoothness, np.exp(np.asarray(self.log_smoothness.mean)), strict=True)
        )
        for number, level in enumerate(levels, 1):
            own = [learned.get(f"{kind} {number}") for kind in ("observation", "states")]
            if own != [None, None]:
                levels[number - 1] = level.with_smoothness(*own)
        return DynamicModel(
            levels,
            None if model.static else model.order,
            None if model.static else model.cause_order,
            learned.get("model", model.smoothness),
            model.dt,
        )


@fit.register
def fit_dynamic_model(
    model: DynamicModel,
    y: Any,
    *,
    times: Any = None,
    prior_causes: Any = None,
    scheme: Collapsed | None = None,
) -> LearnedLevels:
    """Parameters and log-precisions of a dynamic model, states and causes integrated out.

    θ* minimises −ln p(y | θ) − ln p(θ), and F = −ln p(y, θ*) + ½ ln |H / 2π|, H the curvature there; see
    `vfe.dynamics.Collapsed`. Parameters with a prior variance above zero, precisions with components, and
    smoothness given as `vfe.dynamics.Smoothness` are learned.

    **Arguments:** `y`: (time, k), NaN where missing; (series, time, k) for series that are learned from one
    by one; `vfe.dynamics.Sessions` for series that share what is learned; `times`, `prior_causes`: as in
    `vfe.filter`.

    **Raises:** `ValueError` where nothing is to be learned, and for data that do not fit;
    `vfe.DivergenceError` where no minimum was found.

    **Example:** `vfe.fit(model, y).parameters.mean[0]`, with `.parameters.sd`, `.log_precisions.mean`.

    **Source:** Särkkä 2013, "Bayesian Filtering and Smoothing", chapter 12.
    """
    scheme = Collapsed() if scheme is None else scheme
    if not isinstance(scheme, Collapsed):
        raise TypeError(f"fit: got scheme={scheme!r}; wanted vfe.dynamics.Collapsed(...).")
    problem = model.problem
    if not problem.np + problem.nh + len(model.learned_smoothness):
        raise ValueError(
            "fit: got a model with nothing to learn: no parameter_covariance above zero, no "
            "vfe.Precision(components=...), no vfe.dynamics.Smoothness. Write vfe.filter(model, y)."
        )
    shared = isinstance(y, Sessions)
    if shared and not (times is None and prior_causes is None):
        raise ValueError(
            "fit: got Sessions together with times= or prior_causes=; give these to "
            "vfe.dynamics.Sessions(series, times=..., prior_causes=...), one for each series."
        )
    sessions = y if isinstance(y, Sessions) else Sessions([y], [times], [prior_causes])
    substeps = None if problem.constant else scheme.filter.substeps
    grids, evens, batched, traced = [], [], False, False
    with jax.enable_x64(True):
        for series, own, causes in zip(sessions.series, sessions.times, sessions.prior_causes, strict=True):
            series, eta, batched = read_series(model, series, causes, "fit", gaps=True)
            if shared and batched:
                raise ValueError(
                    f"fit: got a session of shape {series.shape}; wanted (time, {model.data_size}) for "
                    "each."
                )
            at = read_times(own, series.shape[-2], model.dt, "fit")
            grids.append(make_grid(at, series, eta, substeps)[0])
            evens.append(is_even(at))
            traced = traced or isinstance(series, Tracer)
        found = _learn(problem, model, tuple(grids), scheme, tuple(evens), batched, noisy_rows(problem))
        if not traced:
            found = jax.tree.map(np.asarray, found)
            _check(found, scheme)
    return released(found)


class State(NamedTuple):
    """A point θ, the energy, gradient and expected curvature there, and how the next step is damped."""

    point: Float[Array, " b"]
    value: Float[Array, ""]
    gradient: Float[Array, " b"]
    curvature: Float[Array, "b b"]
    damping: Float[Array, ""]
    steps: Float[Array, ""]
    promise: Float[Array, ""]


@eqx.filter_jit
def _learn(
    problem: Problem,
    model: DynamicModel,
    grids: tuple[Grid, ...],
    scheme: Collapsed,
    evens: tuple[bool, ...],
    batched: bool,
    noisy: tuple[tuple[bool, ...], ...],
) -> LearnedLevels:
    settings = scheme.filter
    npar, nh = problem.np, problem.nh
    unknown = model.learned_smoothness
    spread = np.array([smoothness.log_sd for smoothness in unknown.values()])
    logs = slice(npar, npar + nh), slice(npar + nh, npar + nh + len(unknown))
    variances = jnp.concatenate([jnp.asarray(problem.log_precision_variance), spread**2])
    prior = jax.scipy.linalg.block_diag(jnp.asarray(problem.prior_precision), jnp.diag(1 / variances))
    constant = jnp.linalg.slogdet(prior / (2 * np.pi))[1] / 2
    centre = jnp.concatenate(
        [jnp.zeros(npar), jnp.asarray(problem.log_precision_mean), jnp.zeros(len(unknown))]
    )
    reach = jnp.concatenate([1 / jnp.sqrt(jnp.diagonal(prior)[:npar]), jnp.ones(nh + len(unknown))])

    def surprise(point: Array, grid: Grid, even: bool) -> tuple[Array, tuple[Array, Array]]:
        """−ln p of a series, and what was expected of every row."""
        free = point[:npar], point[logs[0]], point[logs[1]]
        process = level_process(model, settings.order, settings.floor, free, noisy)
        report = lambda row: (row.surprise, row.expected, row.spread)  # noqa: E731
        found = filter_rows(process, begin(process), grid, settings.iterations, even, report)[1]
        return found[0].sum(), found[1:]

    def one(grids: tuple[Grid, ...]) -> LearnedLevels:
        def energy(point: Array) -> Array:
            away = point - centre
            values = [surprise(point, grid, even)[0] for grid, even in zip(grids, evens, strict=True)]
            return sum(values) + away @ prior @ away / 2 - constant

        def derivatives_of(grid: Grid, even: bool, point: Array) -> tuple[Array, Array, Array]:
            there = ~jnp.isnan(grid.y)
            seen = there[:, :, None] & there[:, None, :]

            def both(point: Array) -> tuple[Any, Any]:
                value, expected = surprise(point, grid, even)
                return (value, expected), (value, expected[1])

            (gradient, (moved, widened)), (value, spread) = jax.jacfwd(both, has_aux=True)(point)
            moved = jnp.where(there[..., None], moved, 0.0)
            widened = jnp.where(seen[..., None], widened, 0.0)
            inverse = jnp.linalg.inv(jnp.where(seen, spread, jnp.eye(spread.shape[-1])))
            shares = jnp.einsum("tij,tjkb->tikb", inverse, widened)
            curvature = jnp.einsum("tia,tij,tjb->ab", moved, inverse, moved)
            curvature = curvature + jnp.einsum("tija,tjib->ab", shares, shares) / 2
            return value, gradient, (curvature + curvature.T) / 2

        def derivatives(point: Array) -> tuple[Array, Array, Array]:
            """Energy, gradient, and the curvature expected under the model, from first derivatives."""
            parts = [derivatives_of(*pair, point) for pair in zip(grids, evens, strict=True)]
            value, gradient, curvature = (sum(part) for part in zip(*parts, strict=True))
            away = point - centre
            value = value + away @ prior @ away / 2 - constant
            return value, gradient + prior @ away, curvature + prior

        def step_of(state: State) -> tuple[Array, Array]:
            curvature = state.curvature * reach[:, None] * reach
            damped = curvature + state.damping * jnp.diag(jnp.diagonal(curvature))
            along = jnp.linalg.solve(damped, state.gradient * reach)
            step = -along * reach * jnp.minimum(1.0, LARGEST_STEP / jnp.max(jnp.abs(along)))
            return step, along @ (state.gradient * reach) / 2

        def advance(state: State) -> State:
            step, _ = step_of(state)
            value, gradient, curvature = derivatives(state.point + step)
            fell = (value < state.value) & jnp.isfinite(gradient).all() & jnp.isfinite(curvature).all()
            tried = State(
                state.point + step, value, gradient, curvature, state.damping / 10, state.steps, value
            )
            kept = state._replace(damping=jnp.maximum(10 * state.damping, FIRST_DAMPING))
            following = jax.tree.map(lambda a, b: jnp.where(fell, a, b), tried, kept)
            return following._replace(steps=state.steps + 1, promise=step_of(following)[1])

        def going(state: State) -> Array:
            unsettled = (state.promise > scheme.tolerance) & (state.damping < MOST_DAMPING)
            return unsettled & (state.steps < scheme.max_steps)

        first = State(centre, *derivatives(centre), jnp.zeros(()), jnp.zeros((), int), jnp.zeros(()))
        end = jax.lax.while_loop(going, advance, first._replace(promise=step_of(first)[1]))
        # The filter's loops have no length to go back along: forward over forward.
        curvature = jax.jacfwd(jax.jacfwd(energy))(end.point)
        curvature = (curvature + curvature.T) / 2
        covariance = jnp.linalg.inv(curvature)
        p, h, s = end.point[:npar], end.point[logs[0]], end.point[logs[1]]
        medians = np.array([smoothness.median for smoothness in unknown.values()])
        basis = jnp.asarray(problem.basis)
        volume = jnp.linalg.slogdet(curvature / (2 * np.pi))
        return LearnedLevels(
            Parameters(problem.unravel(problem.full(p)), basis @ covariance[:npar, :npar] @ basis.T),
            Believed(h, covariance[logs[0], logs[0]]),
            Believed(jnp.log(medians) + s, covariance[logs[1], logs[1]]),
            covariance,
            jnp.where(jnp.linalg.eigvalsh(curvature)[0] > 0, end.value + volume[1] / 2, jnp.nan),
            end.value,
            end.steps,
            end.promise,
        )

    if not batched:
        return one(grids)
    step, *several = grids[0]
    return each_series(lambda before, eta, y: one((Grid(step, before, eta, y),)), *several)


def _check(found: LearnedLevels, scheme: Collapsed) -> None:
    promise, steps = np.ravel(found.promise), np.ravel(found.steps)
    bad = ~np.isfinite(np.ravel(found.free_energy)) | ~(promise <= 1e-2)
    if bad.any():
        which = int(bad.argmax())
        raise DivergenceError(
            f"fit: no minimum of −ln p(y, θ) was found for series {which}: after {steps[which]} steps "
            f"(at most {scheme.max_steps}) another still promises {promise[which]:.3g} nats. Give "
            "priors nearer to the data (parameters=, Precision(mean=...)) or narrower ones, or more steps "
            "(vfe.dynamics.Collapsed(max_steps=200))."
        )
