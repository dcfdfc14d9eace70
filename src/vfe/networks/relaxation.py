"""What perception at given settings reaches of its equilibrium, and what learning then uses."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vfe.beliefs import GaussNewtonLaplace, Point
from vfe.cascade import Cascade
from vfe.conditioning import Conditioned, Energies, condition
from vfe.curvature import check_gauss_newton, flat_errors
from vfe.declared import hidden_gaussians
from vfe.expectation import Enumerate
from vfe.free_energy import FreeEnergy, free_energy_at, free_energy_of
from vfe.lanczos import extreme_eigenvalues
from vfe.learning.store import count_of, rows_of
from vfe.learning.trainable import noises, unfixed
from vfe.model import Model
from vfe.perception.anderson import Anderson
from vfe.perception.loop import AbstractSolver, rounding
from vfe.perception.perceive import Settings, default_solver, infer
from vfe.perception.status import DivergenceError, Status

PRODUCTS, INVERSES = 64, 16
TIGHT_STEPS = 500
CHUNK = 8
MOST_ROWS = 24


class WeightGradient(eqx.Module):
    """The gradient of one node's weights, averaged over the sample, at three places.

    At the activities `reached`, at the `equilibrium`, and by `backpropagation` (the gradient of
    −ln p(observed | feed-forward pass)): their norms, and the cosines between them, NaN where one is
    zero. For a `vfe.cascade`, by level from the top down.
    """

    reached: Float[Array, "*levels"]
    equilibrium: Float[Array, "*levels"]
    backpropagation: Float[Array, "*levels"]
    reached_equilibrium: Float[Array, "*levels"]
    reached_backpropagation: Float[Array, "*levels"]
    equilibrium_backpropagation: Float[Array, "*levels"]


class Spectrum(eqx.Module):
    """The ends of the spectrum of E's Hessian, by observation."""

    smallest: Float[Array, " n"]
    largest: Float[Array, " n"]

    @property
    def condition(self) -> Float[Array, " n"]:
        """Largest over smallest eigenvalue; infinite where the point is no minimum."""
        positive = self.smallest > 0
        return jnp.where(positive, self.largest / jnp.where(positive, self.smallest, 1.0), jnp.inf)


class Relaxation(eqx.Module):
    """How near perception comes to its equilibrium; made by [`relaxation`][vfe.networks.relaxation].

    `feed_forward`, `reached`, `equilibrium`: F (under Point the energy) by level at these activities;
    `drop`, `possible`: how far E falls from the feed-forward pass to the activities reached, and to the
    equilibrium, in nats; `residual`: ‖∂E/∂z‖ at the activities reached, relative to the feed-forward
    pass's, and `left` the same at the equilibrium; `status`, `steps`: how perception ended
    (`vfe.Status`) and after how many steps; all by observation. `gradients`: by node, a
    `WeightGradient`. `errors`, `activities`: the `Spectrum` of E's Hessian at the equilibrium in
    standardised errors and in activities.
    """

    feed_forward: FreeEnergy
    reached: FreeEnergy
    equilibrium: FreeEnergy
    drop: Float[Array, " n"]
    possible: Float[Array, " n"]
    residual: Float[Array, " n"]
    left: Float[Array, " n"]
    status: Int[Array, " n"]
    steps: Int[Array, " n"]
    gradients: dict[str, WeightGradient]
    errors: Spectrum
    activities: Spectrum
    settings: str = eqx.field(static=True)

    @property
    def share(self) -> Float[Array, " n"]:
        """Achieved over possible drop of E, by observation; NaN where nothing can drop but rounding."""
        # At the feed-forward pass hidden errors are zero, so E is that of what is observed.
        some = self.possible > rounding(self.feed_forward.accuracy)
        return jnp.where(some, self.drop / jnp.where(some, self.possible, 1.0), jnp.nan)

    @property
    def mean_share(self) -> Float[Array, ""]:
        """The mean drop achieved over the mean possible one; NaN where nothing can drop."""
        fine = jnp.isfinite(self.drop)
        drop, possible = (jnp.where(fine, a, 0.0).sum() for a in (self.drop, self.possible))
        return jnp.where(possible > 0, drop / jnp.where(possible > 0, possible, 1.0), jnp.nan)

    @property
    def converged(self) -> Array:
        """Whether the stop was reached, by observation."""
        return self.status == Status.converged.value

    @property
    def answered(self) -> Array:
        """Whether perception found an answer, by observation; those without take no part in any mean."""
        return self.status < Status.indefinite.value

    @property
    def stages(self) -> dict[str, FreeEnergy]:
        """F at the feed-forward pass, at the activities reached, and at the equilibrium."""
        return {
            "feed-forward": self.feed_forward,
            "reached": self.reached,
            "equilibrium": self.equilibrium,
        }

    def mean_by_level(self, stage: FreeEnergy) -> dict[str, float]:
        """F by level of one stage, averaged over the observations with an answer."""
        fine = np.asarray(self.answered)
        levels = stage.by_level.items()
        return {n: float(np.broadcast_to(np.asarray(v), fine.shape)[fine].mean()) for n, v in levels}

    def layers(self) -> dict[str, dict[str, float]]:
        """The numbers of `gradients` by layer: the nodes with weights, and each level of a cascade."""
        found = {}
        for name, gradient in self.gradients.items():
            numbers = {key: np.asarray(value, float) for key, value in vars(gradient).items()}
            if numbers["reached"].ndim == 0:
                found[name] = {k: float(v) for k, v in numbers.items()}
                continue
            for level in range(numbers["reached"].size):
                found[f"{name}[{level}]"] = {k: float(v[level]) for k, v in numbers.items()}
        return found

    def table(self) -> str:
        """The numbers as a table: how near, how stiff, F by level, and the gradients by layer."""
        count = int(self.status.size)
        rows = [f"relaxation of {count} observations ({self.settings})"]
        rows.append(
            f"{'relaxed share':<16}{_say(float(self.mean_share), '.3f')} of the mean drop possible; by "
            f"observation {_quartiles(self.share, '.3f')}"
        )
        rows.append(
            f"{'gradient left':<16}{_quartiles(self.residual, '.1e')} of the feed-forward pass's ‖∂E/∂z‖"
        )
        rows.append(
            f"{'stop reached':<16}{int(self.converged.sum())} of {count}; "
            f"steps {_quartiles(self.steps, '.0f')}"
        )
        if not np.all(self.answered):
            lost = Counter(Status(int(c)).name for c in np.asarray(self.status) if Status(int(c)).failed)
            rows.append(f"{'no answer':<16}" + ", ".join(f"{name} {n}" for name, n in lost.items()))
        rows.append(f"{'equilibrium':<16}{_quartiles(self.left, '.1e')} of that gradient left")
        for word, s in (("errors", self.errors), ("activities", self.activities)):
            low, high, condition = (np.median(np.asarray(a)) for a in (s.smallest, s.largest, s.condition))
            rows.append(f"{'condition':<16}{condition:.3g} in {word} (eigenvalues {low:.3g} to {high:.3g})")
        word = "energy" if self.reached.entropies is None else "F"
        means = [self.mean_by_level(stage) for stage in self.stages.values()]
        rows.append(f"{word + ', mean nats':<16}" + "".join(f"{stage:>14}" for stage in self.stages))
        rows += [f"{name:<16}" + "".join(f"{m[name]:14.4f}" for m in means) for name in means[0]]
        rows.append(f"{word:<16}" + "".join(f"{sum(m.values()):14.4f}" for m in means))
        rows.append(
            f"{'cosines':<16}{'with equil.':>14}{'with backprop':>14}"
            f"{'equil.–backprop':>17}{'‖g‖/‖backprop‖':>16}"
        )
        lines = []
        for name, g in self.layers().items():
            cosines = (g["reached_equilibrium"], g["reached_backpropagation"])
            size = g["reached"] / g["backpropagation"] if g["backpropagation"] > 0 else np.nan
            lines.append(
                f"{name:<16}"
                + "".join(f"{_say(c, '.4f'):>14}" for c in cosines)
                + f"{_say(g['equilibrium_backpropagation'], '.4f'):>17}{_say(size, '.2e'):>16}"
            )
        if len(lines) > MOST_ROWS:
            half = MOST_ROWS // 2
            lines = [*lines[:half], f"… {len(lines) - 2 * half} more: see layers()", *lines[-half:]]
        return "\n".join([*rows, *lines])

    def plot(self, **options: Any) -> Any:
        """Draw the shares, F by level, the cosines by layer and the spectra; returns matplotlib axes."""
        from vfe.results.relaxation import plot_relaxation

        return plot_relaxation(self, **options)

    def to_xarray(self) -> Any:
        """All numbers, by observation, level and layer, as an xarray Dataset."""
        from vfe.results.relaxation import relaxation_to_xarray

        return relaxation_to_xarray(self)

    def __repr__(self) -> str:
        return self.table()


def relaxation(
    model: Model,
    observed: Mapping[str, Any],
    *,
    belief: Any = Point,
    solver: AbstractSolver | None = None,
    perception_steps: int = 100,
    rtol: float = 1e-3,
    atol: float = 1e-4,
    observations: int = 64,
    key: PRNGKeyArray | None = None,
) -> Relaxation:
    """Measure, on a sample, how near perception comes to its equilibrium and what learning then uses.

    share = (E_feed-forward − E_reached) / (E_feed-forward − E_equilibrium),

    where every visit starts from the feed-forward pass (`vfe.learn(keep_beliefs=False)`), and the
    equilibrium is the lower of two tight solves, from the feed-forward pass and from the activities
    reached. Gradients of the weights are those that learning would take: of E with the activities held
    (`vfe.Point`), or of F with the standardised errors held (`vfe.GaussNewtonLaplace`). At no share at all
    learning under Point moves the layer above what is observed alone; at a small one it is backpropagation
    in disguise.

    **Arguments:** `observed`, `belief`, `solver`, `perception_steps`, `rtol`, `atol`: as in `vfe.learn`,
    with its defaults; `perception_steps=0` is the feed-forward pass itself. `observations`: the size of the
    sample, drawn with `key` (all where there are fewer).

    **Returns:** a `Relaxation`; print it for the table.

    **Raises:** `ValueError` for hidden nodes that are not Gaussian, shared by all observations or partly
    observed, for other beliefs, and for numbers that are not finite at the feed-forward pass (the node is
    named); `DivergenceError` where no observation has an answer.

    **Example:**
    ```python
    found = vfe.networks.relaxation(model, data, solver=vfe.Anderson(), perception_steps=4)
    print(found)
    found.mean_share, found.gradients["z1"].reached_equilibrium
    ```

    **Source:** Whittington and Bogacz 2017 (backpropagation as a limit of predictive coding).
    """
    if belief not in (Point, GaussNewtonLaplace):
        raise ValueError(
            f"relaxation: got belief={getattr(belief, '__name__', belief)!s}; wanted vfe.Point or "
            "vfe.GaussNewtonLaplace, the class."
        )
    if solver is not None and not isinstance(solver, AbstractSolver):
        raise TypeError(
            f"relaxation: got {type(solver).__name__} for a solver; wanted one that goes step by step, "
            "such as vfe.Anderson(), vfe.ErrorCoordinates(), vfe.Descent() or vfe.GradientFlow()."
        )
    if perception_steps < 0 or observations < 1:
        raise ValueError(
            f"relaxation: got perception_steps={perception_steps} and observations={observations}; wanted "
            "at least 0 and at least 1."
        )
    conditioned, _ = condition(model, observed)
    _check(conditioned, belief)
    sample_key, perceive_key, start_key = jax.random.split(jax.random.key(0) if key is None else key, 3)
    count = count_of(conditioned)
    if count > observations:
        rows = jnp.sort(jax.random.permutation(sample_key, count)[:observations])
        conditioned = _rows(conditioned, rows)
    _check_start(conditioned)
    if solver is None:
        first = _first(conditioned)
        solver = default_solver(first, Point.start(first, perceive_key))
    settings = Settings(int(perception_steps), float(rtol), float(atol), None)
    found = _relax(conditioned, belief, solver, settings, perceive_key)
    if not np.any(found["answered"]):
        raise DivergenceError(
            f"relaxation: none of {int(found['status'].size)} observations has an answer with "
            f"{type(solver).__name__}: {Status(int(found['status'][0])).sentence}."
        )
    gradients = _gradients(conditioned, belief, found["places"], found["answered"])
    spectra = _spectra(conditioned, found["places"][:, 2], start_key)
    words = f"{type(solver).__name__}, at most {perception_steps} steps, {belief.__name__} belief"
    return Relaxation(
        *(found["stages"][:, stage] for stage in range(3)),
        drop=found["drop"],
        possible=found["possible"],
        residual=found["residual"],
        left=found["left"],
        status=found["status"],
        steps=found["steps"],
        gradients={n: gradients[n] for n in model.order if n in gradients},
        errors=spectra[0],
        activities=spectra[1],
        settings=words,
    )


def _check(c: Conditioned, belief: Any) -> None:
    if not c.hidden:
        raise ValueError("relaxation: no node is hidden, so there is nothing to relax.")
    reason = hidden_gaussians(c)
    if c.discrete:
        reason = f"node {next(iter(c.discrete))!r} is hidden and discrete: observe it"
    elif c.repeats is not None:
        reason = "latents are shared by all observations"
    elif c.partial:
        reason = f"some elements of node {c.partial[0]!r}, which has children, are missing: leave it out"
    if reason is not None:
        raise ValueError(f"relaxation: {reason}; wanted Gaussian hidden nodes of single observations.")
    if belief is GaussNewtonLaplace:
        check_gauss_newton(c)


@eqx.filter_jit
def _energies_at_start(c: Conditioned) -> Energies:
    return c.over(lambda one: one.energies(one.start()))


def _check_start(c: Conditioned) -> None:
    found = _energies_at_start(c)
    for name in c.model.order:
        for part in (found.hidden, found.observed):
            if name in part and not np.all(np.isfinite(part[name])):
                raise ValueError(
                    f"relaxation: the energy of node {name!r} is not finite at the feed-forward pass; "
                    "check its parameters, and those of the nodes above it."
                )


def _rows(c: Conditioned, index: Array) -> Conditioned:
    observed, masks = rows_of((c.observed, c.masks), index)
    return dataclasses.replace(c, observed=observed, masks=masks)


@eqx.filter_jit
def _relax(
    c: Conditioned, belief: Any, solver: Any, settings: Settings, key: PRNGKeyArray
) -> dict[str, Any]:
    """Perception and the two tight solves, and what can be said of each observation.

    `places`: the standardised errors at the `STAGES`, (n, stage, errors); `stages`: F there.
    """
    tight = Settings(TIGHT_STEPS, 1e-9 if c.weight.dtype == jnp.float64 else 1e-6, 0.0, None)

    def one(c: Conditioned) -> dict[str, Any]:
        start = Point.start(c, key).location
        reached, outcome = infer(c, Point, solver, settings, key, Point(c.layout, start))
        answered = outcome.status < Status.indefinite.value
        reached = jnp.where(answered, reached.location, start)
        away = flat_errors(c, reached)

        def settle(begin: Array) -> tuple[Array, Array]:
            end, _ = infer(c, Point, Anderson(), tight, key, Point(c.layout, begin))
            errors = flat_errors(c, end.location)
            height = c.error_energy_that_moves(errors)
            return jnp.where(jnp.isfinite(height), height, jnp.inf), errors

        heights, ends = jax.vmap(settle)(jnp.stack([start, reached]))
        places = jnp.stack([jnp.zeros_like(away), away, ends[jnp.argmin(heights)]])
        standing = jax.vmap(lambda e: c.error_energy_that_moves(e))(places)
        slopes = jax.vmap(lambda e: jnp.linalg.norm(jax.grad(c.energy)(_place(c, e))))(places)
        slopes = slopes / jnp.where(slopes[0] > 0, slopes[0], 1.0)
        return {
            "places": places,
            "stages": jax.vmap(lambda e: _measure(c, belief, e))(places),
            "drop": jnp.where(answered, standing[0] - standing[1], jnp.nan),
            "possible": standing[0] - standing[2],
            "residual": jnp.where(answered, slopes[1], jnp.nan),
            "left": slopes[2],
            "status": outcome.status,
            "steps": outcome.steps,
            "answered": answered,
        }

    return c.over(one)


def _first(c: Conditioned) -> Conditioned:
    observed, masks = jax.tree.map(lambda a: a[0], (c.observed, c.masks))
    return dataclasses.replace(c, observed=observed, masks=masks)


def _place(c: Conditioned, errors: Array) -> Array:
    return c.push(c.layout.unpack(errors))


def _measure(c: Conditioned, belief: Any, errors: Array) -> FreeEnergy:
    if belief is GaussNewtonLaplace:
        return free_energy_at(c, errors)
    point = Point(c.layout, _place(c, errors))
    return free_energy_of(c, point, Enumerate(), jax.random.key(0))


@eqx.filter_jit
def _gradients(
    c: Conditioned, belief: Any, places: Float[Array, "n 3 errors"], answered: Array
) -> dict[str, WeightGradient]:
    """By node: the gradients at the activities reached, at the equilibrium, and of backpropagation."""
    spec = eqx.tree_at(
        noises(c.model), unfixed(c.model), replace_fn=lambda noise: jax.tree.map(lambda _: False, noise)
    )
    learned, fixed = eqx.partition(c.model, spec)

    def gradient(measure: Any, at: Array) -> dict[str, Array]:
        def mean(learned: Any) -> Array:
            live = dataclasses.replace(c, model=eqx.combine(learned, fixed))
            each = live.over(measure, at)
            return jnp.sum(jnp.where(answered, each, 0.0)) / jnp.sum(answered)

        return _by_node(c.model, jax.grad(mean)(learned))

    def taken(one: Conditioned, e: Array) -> Array:
        if belief is GaussNewtonLaplace:
            return free_energy_at(one, e).total
        return one.energy(jax.lax.stop_gradient(_place(one, e)))

    back = gradient(lambda one, e: one.error_energy_that_moves(e), places[:, 0])
    both = jax.vmap(lambda at: gradient(taken, at), in_axes=1)(places[:, 1:])

    def compare(name: str) -> WeightGradient:
        (a, b), p = both[name], back[name]
        norm = lambda v: jnp.linalg.norm(v, axis=-1)  # noqa: E731
        return WeightGradient(norm(a), norm(b), norm(p), _cosine(a, b), _cosine(a, p), _cosine(b, p))

    return {name: compare(name) for name in back}


def _by_node(model: Model, gradient: Any) -> dict[str, Array]:
    """Every node's gradient as one vector; of a cascade, as one per level."""
    found = {}
    for name in model.order:
        leaves = jax.tree.leaves(gradient.nodes[name])
        if not leaves:
            continue
        node = model.nodes[name]
        shape = (node.levels, -1) if isinstance(node, Cascade) else (-1,)
        found[name] = jnp.concatenate([a.reshape(shape) for a in leaves], -1)
    return found


def _cosine(a: Array, b: Array) -> Array:
    lengths = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
    return jnp.where(lengths > 0, jnp.sum(a * b, -1) / jnp.where(lengths > 0, lengths, 1.0), jnp.nan)


@eqx.filter_jit
def _spectra(c: Conditioned, equilibrium: Array, key: PRNGKeyArray) -> tuple[Spectrum, Spectrum]:
    """The ends of E's spectrum at the equilibrium, in errors and in activities.

    At a stationary point H_e = Tᵀ H_z T with T = ∂z/∂e. So the smallest eigenvalue of H_z, which a Krylov
    method finds last, is the largest of T H_e⁻¹ Tᵀ, which it finds first; and H_z has one that is not
    positive where H_e has.
    """

    def one(c: Conditioned, e: Array) -> tuple[Array, Array, Array, Array]:
        start = jax.random.normal(key, e.shape, e.dtype)

        z, down = jax.linearize(lambda e: _place(c, e), e)
        _, bend_errors = jax.linearize(jax.grad(c.error_energy), e)
        _, bend = jax.linearize(jax.grad(c.energy), z)
        low_e, high_e = extreme_eigenvalues(bend_errors, start, PRODUCTS)
        low, high = extreme_eigenvalues(bend, start, PRODUCTS)
        if e.shape[0] > PRODUCTS:
            up = jax.linear_transpose(down, e)

            def unbend(v: Array) -> Array:
                solved, _ = jax.scipy.sparse.linalg.cg(bend_errors, up(v)[0], tol=1e-5, maxiter=200)
                return down(solved)

            _, inverse = extreme_eigenvalues(unbend, start, INVERSES)
            low = jnp.where(low_e > 0, jnp.minimum(low, 1.0 / inverse), jnp.minimum(low, 0.0))
        return low_e, high_e, low, high

    low_e, high_e, low, high = c.over(one, equilibrium, chunk=CHUNK)
    return Spectrum(low_e, high_e), Spectrum(low, high)


def _quartiles(values: Any, form: str) -> str:
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if not values.size:
        return "—"
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:{form}} ({low:{form}} – {high:{form}})"


def _say(value: float, form: str) -> str:
    return "—" if np.isnan(value) else f"{value:{form}}"
