"""perceive: minimise F over beliefs, for every observation, in one compiled call."""

import functools
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, PRNGKeyArray

from vfe.beliefs import (
    AbstractBelief,
    AbstractContinuous,
    AbstractDrawn,
    AbstractDrawnFamily,
    AbstractGaussian,
    Amortised,
    Categorical,
    ConjugateBelief,
    Enumerated,
    EnumeratedBelief,
    GaussNewtonLaplace,
    JointCategorical,
    JointGaussian,
    Laplace,
    MeanField,
    NodeGaussian,
    Particles,
    Point,
)
from vfe.conditioning import Conditioned, Energies, condition
from vfe.curvature import check_gauss_newton, curved
from vfe.declared import hidden_gaussians, why_not_quadratic
from vfe.elimination import check_size
from vfe.exact import require_exact, solve, why_not_exact
from vfe.expectation import AbstractExpectation, MonteCarlo
from vfe.free_energy import (
    Kind,
    align,
    default_expectation,
    free_energy_of,
    is_laplace,
    leading_axes,
)
from vfe.model import Model
from vfe.perception.coordinate_ascent import CoordinateAscent
from vfe.perception.descent import Descent
from vfe.perception.error_coordinates import ErrorCoordinates
from vfe.perception.exact_solver import Exact
from vfe.perception.feed_forward import FeedForward
from vfe.perception.implicit import attach
from vfe.perception.langevin import Langevin, sample_posterior
from vfe.perception.loop import AbstractSolver, Outcome, run, stride_of
from vfe.perception.minimum import ended, run_to_minimum
from vfe.perception.natural_gradient import NaturalGradient
from vfe.perception.objective import pose
from vfe.perception.percept import Percept
from vfe.perception.status import DivergenceError, Status

LARGEST_CURVATURE = 2048
MOST_STATES = 256


class Settings(eqx.Module):
    """How far to go: steps, tolerances of the gradient, and the expectation."""

    max_steps: int = eqx.field(static=True)
    rtol: float = eqx.field(static=True)
    atol: float = eqx.field(static=True)
    expectation: AbstractExpectation | None


def perceive(
    model: Model,
    observed: Mapping[str, Any],
    *,
    belief: Any = None,
    solver: Any = None,
    expectation: AbstractExpectation | None = None,
    max_steps: int = 500,
    rtol: float | None = None,
    atol: float | None = None,
    key: PRNGKeyArray | None = None,
    throw: bool = True,
    chunk: int | None = None,
) -> Percept:
    """Infer the hidden causes of what is observed: argmin over q of F[q].

    As −ln p(x) does not depend on q, this shrinks the divergence KL(q ‖ p(z | x)) alone (5).

    **Arguments:**

    - `observed`: a dictionary from nodes to arrays with common leading axes. NaN is missing; integer
      nodes: `vfe.masked`. Nodes not in it are inferred.
    - `belief`: a belief class, `vfe.Enumerated(...)`, `vfe.Amortised(...)`, or a belief to start from.
      By default `vfe.Laplace` for continuous nodes (under `vfe.Enumerated` for discrete nodes above
      them) and the exact posterior, or `vfe.Categorical` where that is too large, for discrete ones.
    - `solver`: how; by default `vfe.ErrorCoordinates` where hidden nodes are Gaussian, else
      `vfe.Descent`. `expectation`: how averages are taken (as in `vfe.free_energy`).
    - `max_steps`, `rtol`, `atol`: stop where the gradient's largest element is at most atol + rtol
      times the largest it has been. By default 1e-4 and 1e-5 in float32, 1e-8 and 1e-9 in float64.
    - `key`: for random methods. `throw`: raise where an observation has no answer; otherwise see
      `status`, and its numbers are NaN. `chunk`: at most so many observations at once, to bound
      memory.

    **Returns:** a `Percept`, with the leading axes of the data. Under `vfe.MonteCarlo` its F is over other
    draws than those the belief was sought with (and its `trace` is of), to which a belief fits itself.

    **Raises:** `ValueError` for data, beliefs or solvers that do not fit; `DivergenceError`.

    **Example:**
    ```python
    percept = vfe.perceive(model, {"x": images})
    percept.belief["z"].mean, percept.free_energy.total
    ```

    **Source:** equation (5) of the essay; Friston 2005.
    """
    conditioned, batch = condition(model, observed)
    key = jax.random.key(0) if key is None else key
    double = jnp.result_type(float) == jnp.float64
    settings = Settings(
        int(max_steps),
        float((1e-8 if double else 1e-4) if rtol is None else rtol),
        float((1e-9 if double else 1e-5) if atol is None else atol),
        expectation,
    )
    if max_steps < 1:
        raise ValueError(f"perceive: max_steps must be at least 1; got {max_steps}.")
    start = None
    if isinstance(belief, AbstractBelief):
        start, belief = prepare_start(belief, conditioned, batch), family_of(belief)
    family = default_family(conditioned, solver) if belief is None else belief
    count = int(np.prod(batch, dtype=int))
    keys = key if conditioned.repeats is not None else jax.random.split(key, count)
    found, free_energy, outcome = _perceive(conditioned, family, solver, settings, keys, start, chunk)
    if conditioned.repeats is None:
        shape = lambda a: a.reshape(*batch, *a.shape[1:])  # noqa: E731
        found, outcome = jax.tree.map(shape, (found, outcome))
        free_energy = free_energy.reshape(batch)
    stride = stride_of(settings.max_steps)
    percept = Percept(
        found,
        free_energy,
        outcome.status,
        outcome.steps,
        outcome.trace,
        outcome.gradient,
        conditioned,
        batch,
        stride,
        outcome.failed_state,
    )
    if throw and not isinstance(outcome.status, Tracer):
        _raise(outcome, conditioned, family)
    return percept


def _raise(outcome: Outcome, conditioned: Conditioned, family: Any) -> None:
    status = np.ravel(outcome.status)
    for member in (Status.diverged, Status.indefinite):
        bad = np.flatnonzero(status == member.value)
        if bad.size:
            step = int(np.ravel(outcome.steps)[bad[0]])
            state, held = int(np.ravel(outcome.failed_state)[bad[0]]), ""
            if isinstance(family, Enumerated) and state >= 0:
                held = f", with node {family.node!r} held at state {state}"
            raise DivergenceError(
                f"perceive: {bad.size} of {status.size} observations have no answer (the first is "
                f"number {bad[0]}, at step {step}; hidden nodes {list(conditioned.hidden)}"
                f"{held}): {member.sentence}. throw=False keeps the others."
            )


def default_family(conditioned: Conditioned, solver: Any) -> Any:
    """The belief family perceive chooses for a model, by declared type."""
    if isinstance(solver, Langevin):
        return Particles
    if isinstance(solver, Exact):
        return JointGaussian
    discrete, continuous = conditioned.discrete, conditioned.layout.size
    if not continuous:
        exact = why_not_exact(conditioned) is None and _fits(conditioned)
        mean_field = isinstance(solver, CoordinateAscent | Descent) or not exact
        return Categorical if mean_field and discrete else JointCategorical
    if isinstance(solver, CoordinateAscent):
        return NodeGaussian if not discrete else MeanField
    joint = int(np.prod(list(discrete.values()), dtype=object))
    if discrete and (joint > MOST_STATES or conditioned.repeats is not None):
        if why_not_quadratic(conditioned) is None:
            return MeanField
        if conditioned.repeats is not None:
            raise ValueError(
                f"perceive: the hidden discrete nodes {list(discrete)} are beside latents that all "
                "observations share, so their states cannot be weighed one observation at a time; "
                "make the model conditionally linear-Gaussian with vfe.Table and vfe.Affine, or observe "
                "them."
            )
        raise ValueError(
            f"perceive: the hidden discrete nodes {list(discrete)} have {joint:,} joint states, too "
            "many to give each a belief of its own; observe some, or make the model conditionally "
            "linear-Gaussian."
        )
    family: Any = Laplace
    for node in reversed(tuple(discrete)):
        family = Enumerated(node, family)
    return family


def _fits(conditioned: Conditioned) -> bool:
    names = [conditioned.family(i.name) for i in conditioned.model.info if not i.given]
    try:
        check_size(conditioned.discrete, [n for n in names if n])
    except ValueError:
        return False
    return True


def family_of(belief: AbstractBelief) -> Any:
    """The family a given belief belongs to, for a start from it."""
    if isinstance(belief, EnumeratedBelief):
        return Enumerated(belief.node, family_of(belief.conditional))
    return belief.family if isinstance(belief, AbstractDrawn) else type(belief)


def prepare_start(belief: AbstractBelief, conditioned: Conditioned, batch: Any) -> Any:
    """A given belief as one to start from for each observation, on one leading axis."""
    belief = align(belief, conditioned)
    lead = leading_axes(belief)
    if conditioned.repeats is not None:
        return belief
    count = int(np.prod(batch, dtype=int))
    if lead == ():
        return jax.tree.map(lambda a: jnp.broadcast_to(a, (count, *a.shape)), belief)
    if lead != batch:
        raise ValueError(
            f"perceive: the belief to start from has leading axes {lead} and the data {batch}."
        )
    return jax.tree.map(lambda a: a.reshape(count, *a.shape[len(lead) :]), belief)


@eqx.filter_jit
def _perceive(
    conditioned: Conditioned,
    family: Any,
    solver: Any,
    settings: Settings,
    keys: Any,
    start: Any,
    chunk: int | None,
) -> Any:
    def one(c: Conditioned, key: Any, start: Any) -> Any:
        return perceive_one(c, family, solver, settings, key, start)

    return conditioned.over(one, keys, start, chunk=chunk)


def perceive_one(
    conditioned: Conditioned,
    family: Any,
    solver: Any,
    settings: Settings,
    key: PRNGKeyArray,
    start: Any,
) -> Any:
    """The belief about one observation (or one data set with shared latents), its F, and how it ended."""
    belief, outcome = infer(conditioned, family, solver, settings, key, start)
    expectation = settings.expectation or default_expectation(conditioned, belief)
    free_energy = free_energy_of(conditioned, belief, expectation, key)
    failed = outcome.status >= Status.indefinite.value
    withheld = jax.tree.map(
        lambda a: jnp.where(failed, jnp.nan, a) if jnp.issubdtype(a.dtype, jnp.inexact) else a,
        (belief, free_energy),
    )
    return *withheld, outcome


def infer(
    conditioned: Conditioned,
    family: Any,
    solver: Any,
    settings: Settings,
    key: PRNGKeyArray,
    start: Any,
) -> tuple[Any, Outcome]:
    """Minimise over one family, recursively where a discrete node is enumerated."""
    if not conditioned.hidden:
        belief = start_belief(conditioned, family, key)
        return belief, _immediate(conditioned.energy(jnp.zeros(0)), settings)
    if isinstance(solver, Exact) or family is JointCategorical:
        require_exact(conditioned)
        belief, log_evidence = solve(conditioned)
        return belief, _immediate(-log_evidence, settings)
    if isinstance(family, Enumerated):
        return _enumerate(conditioned, family, solver, settings, key, start)
    expectation = settings.expectation or default_expectation(conditioned, family)
    if isinstance(family, Amortised):
        start = family.start(conditioned, key) if start is None else start
        family = family.family
        if isinstance(solver, FeedForward):
            value = free_energy_of(conditioned, start, expectation, key).total
            return start, _immediate(value, settings, Status.encoded)
    if isinstance(solver, FeedForward):
        raise ValueError("perceive: FeedForward wants a belief with an encoder; use vfe.Amortised(...).")
    if conditioned.layout.size and conditioned.discrete and family is not MeanField:
        raise ValueError(
            f"perceive: the hidden nodes {list(conditioned.discrete)} are discrete; use "
            f'vfe.Enumerated("{next(iter(conditioned.discrete))}", ...) around the belief of the '
            "others, or vfe.MeanField."
        )
    if family is Particles or isinstance(solver, Langevin):
        langevin = solver if isinstance(solver, Langevin) else Langevin()
        objective, vector = pose(conditioned, Point.start(conditioned, key), expectation, key)
        particles, _ = sample_posterior(conditioned, langevin, objective, vector, key)
        energy = jax.vmap(conditioned.energy)(particles.pooled()).mean()
        outcome = _immediate(energy, settings, Status.sampled)
        return particles, outcome
    if start is None:
        start = start_belief(conditioned, family, key)
        sampled = isinstance(expectation, MonteCarlo) and not is_laplace(family)
        if sampled and isinstance(start, AbstractGaussian):
            start = _aside(start, key)
    if is_laplace(family):
        _check_size(conditioned)
    if family is GaussNewtonLaplace:
        check_gauss_newton(conditioned)
    target = Point(start.layout, start.location) if is_laplace(family) else start
    held = jax.tree.map(lambda a: jax.lax.stop_gradient(a) if eqx.is_array(a) else a, conditioned)
    chosen = solver if solver is not None else default_solver(conditioned, target)
    if not isinstance(chosen, AbstractSolver):
        raise TypeError(
            f"perceive: got {type(chosen).__name__} for a solver; wanted vfe.GradientFlow(), "
            "vfe.Descent(), vfe.ErrorCoordinates(), vfe.Anderson(), vfe.ActivityDescent(), "
            "vfe.ErrorDescent(), vfe.CoordinateAscent(), vfe.NaturalGradient(), vfe.FeedForward(), "
            "vfe.Langevin() or vfe.Exact()."
        )
    chosen.check(held, target)
    # A belief fits the draws it is sought with, so their average is low: F is taken over others.
    sought_with = jax.random.fold_in(key, 1)
    objective, vector = chosen.pose(held, jax.lax.stop_gradient(target), expectation, sought_with)
    limits = (settings.max_steps, settings.rtol, settings.atol)
    if family is Laplace:
        vector, outcome = run_to_minimum(objective, chosen, vector, limits)
    else:
        vector, outcome = run(objective, chosen, vector, *limits)
    outcome = eqx.tree_at(lambda o: o.trace, outcome, outcome.trace + objective.constant())
    if conditioned.partial and isinstance(target, Point):
        # The trace is of E, without what the idle coordinates of elements that are present have at rest.
        rest = Energies({}, held.idle_energies(jnp.zeros_like(target.location)))
        rest = rest.total(held.weight, held.shared)
        outcome = eqx.tree_at(lambda o: o.trace, outcome, outcome.trace - rest)
    outcome = jax.lax.stop_gradient(outcome)
    live = eqx.tree_at(lambda o: o.conditioned, objective, conditioned)
    belief = live.belief(attach(jax.lax.stop_gradient(vector), live))
    if family is Laplace:
        return _curve(conditioned, belief, outcome)
    if family is GaussNewtonLaplace:
        return curved(conditioned, belief.location), outcome
    return belief, outcome


def default_solver(conditioned: Conditioned, belief: Any) -> AbstractSolver:
    """ErrorCoordinates for modes under Gaussian nodes, CoordinateAscent for factors, NaturalGradient for
    beliefs in exponential families, else Descent."""
    if isinstance(belief, Categorical | MeanField):
        return CoordinateAscent()
    if isinstance(belief, ConjugateBelief):
        return NaturalGradient()
    if isinstance(belief, Point) and hidden_gaussians(conditioned) is None:
        try:
            eqx.filter_eval_shape(lambda u: conditioned.sensitivity(lambda v: v, u), belief.location)
        except ValueError:
            return Descent()
        return ErrorCoordinates()
    return Descent()


def start_belief(conditioned: Conditioned, family: Any, key: PRNGKeyArray) -> Any:
    """Where perception starts for one observation: the family's first guess."""
    if not conditioned.hidden:
        return JointGaussian(conditioned.layout, jnp.zeros(0), jnp.zeros(0), jnp.zeros(0))
    if isinstance(family, Enumerated):
        states = conditioned.discrete[family.node]
        inner = eqx.filter_vmap(
            lambda k: start_belief(conditioned.clamp(family.node, k), family.family, key)
        )(jnp.arange(states))
        return EnumeratedBelief(family.node, jnp.full(states, -jnp.log(states)), inner)
    if family is MeanField:
        return MeanField(NodeGaussian.start(conditioned, key), Categorical.start(conditioned, key))
    if family is JointCategorical:
        return solve(conditioned)[0]
    if isinstance(family, Amortised):
        return family.start(conditioned, key)
    drawn = isinstance(family, AbstractDrawnFamily)
    if drawn or (isinstance(family, type) and issubclass(family, AbstractContinuous | Categorical)):
        return family.start(conditioned, key)
    if isinstance(family, type) and issubclass(family, AbstractDrawnFamily):
        raise TypeError(
            f"got the class vfe.{family.__name__} for a belief; wanted one of its families, such as "
            "vfe.Mixture(2), vfe.Flow(2) or vfe.Conjugate()."
        )
    raise TypeError(
        f"got {family!r} for a belief; wanted a class such as vfe.Laplace, vfe.Point, "
        "vfe.JointGaussian, vfe.Categorical, or vfe.Mixture(2), vfe.Flow(2), vfe.Conjugate(), "
        "vfe.Enumerated(...), vfe.Amortised(...)."
    )


def _aside(belief: AbstractGaussian, key: PRNGKeyArray) -> AbstractGaussian:
    """The belief a hundredth of its width aside.

    Over pairs ±ε the derivative in the location vanishes exactly wherever F is even, minimum or not.
    """
    noise = jax.random.normal(key, belief.location.shape, belief.location.dtype)
    return eqx.tree_at(lambda b: b.location, belief, belief.displaced(0.01 * noise))


def _check_size(conditioned: Conditioned) -> None:
    size = conditioned.layout.size
    if size > LARGEST_CURVATURE:
        raise ValueError(
            f"Laplace: {size:,} hidden elements want a curvature of {size**2:,} numbers per "
            f"observation (the limit is {LARGEST_CURVATURE:,} elements); use belief=vfe.Point, or "
            "vfe.DiagonalGaussian."
        )


def _curve(conditioned: Conditioned, point: Point, outcome: Outcome) -> tuple[Laplace, Outcome]:
    curvature = jax.hessian(conditioned.energy)(point.location)
    belief = Laplace.from_precision(conditioned.layout, point.location, 0.5 * (curvature + curvature.T))
    indefinite = ~jnp.all(jnp.isfinite(belief.root))
    bad = indefinite & (outcome.status < Status.indefinite.value)
    status = jnp.where(bad, Status.indefinite.value, outcome.status)
    return belief, eqx.tree_at(lambda o: o.status, outcome, status)


def _enumerate(
    conditioned: Conditioned,
    family: Enumerated,
    solver: Any,
    settings: Settings,
    key: PRNGKeyArray,
    start: Any,
) -> tuple[EnumeratedBelief, Outcome]:
    node = family.node
    if conditioned.repeats is not None:
        raise ValueError(
            f"Enumerated: latents are shared by all observations, so {node!r} cannot get one belief per "
            "state; use belief=vfe.MeanField or vfe.Categorical."
        )
    if node not in conditioned.discrete:
        raise ValueError(
            f"Enumerated: {node!r} is not a hidden discrete node; those are {list(conditioned.discrete)}."
        )
    states = jnp.arange(conditioned.discrete[node])

    def one(state: Array, start: Any) -> Any:
        c = conditioned.clamp(node, state)
        belief, outcome = infer(c, family.family, solver, settings, key, start)
        expectation = settings.expectation or default_expectation(c, belief)
        free_energy = free_energy_of(c, belief, expectation, key)
        if free_energy.kind is Kind.energy:
            raise ValueError(
                "Enumerated: the belief below has no entropy, so its F_l are energies, which cannot "
                "weigh the states; use vfe.Laplace or a Gaussian belief."
            )
        return belief, free_energy.total, outcome

    inner_start = None if start is None else start.conditional
    if inner_start is None:
        beliefs, totals, outcomes = eqx.filter_vmap(lambda k: one(k, None))(states)
    else:
        beliefs, totals, outcomes = eqx.filter_vmap(one)(states, inner_start)
    for _ in range(family.restarts):
        best = jnp.argmin(jnp.where(jnp.isfinite(totals), totals, jnp.inf))
        again = jax.tree.map(functools.partial(_spread_one, best), beliefs)
        found = eqx.filter_vmap(one)(states, again)
        keep = functools.partial(_pick, found[1] < totals)
        beliefs, totals, outcomes = jax.tree.map(keep, found, (beliefs, totals, outcomes))
    # A state that the data exclude has infinite F and no weight; only finite ones can fail.
    excluded = jnp.isposinf(totals)
    log_q = jax.nn.log_softmax(jnp.where(excluded, -jnp.inf, -totals))
    statuses = jnp.where(excluded, Status.converged.value, outcomes.status)
    # Nothing bounds F of a state without an answer from below, so its weight could be any.
    failed = statuses >= Status.indefinite.value
    outcome = Outcome(
        jnp.max(statuses),
        jnp.max(outcomes.steps),
        -jax.nn.logsumexp(-outcomes.trace, axis=0),
        jnp.max(jnp.where(excluded, 0.0, outcomes.gradient)),
        jnp.max(jnp.where(excluded, 0.0, outcomes.scale)),
        jnp.where(jnp.any(failed), jnp.argmax(failed), -1),
    )
    return EnumeratedBelief(node, log_q, beliefs), outcome


def _spread_one(index: Array, array: Array) -> Array:
    return jnp.broadcast_to(array[index], array.shape)


def _pick(flags: Array, new: Array, old: Array) -> Array:
    return jnp.where(flags.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def _immediate(value: Array, settings: Settings, status: Status = Status.converged) -> Outcome:
    return ended(value, settings.max_steps, status)
