"""Perception: when it stops, what it reports, and that jit, vmap and derivatives go through it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from helpers import assert_close, normal_energy

import vfe
from vfe.conditioning import condition
from vfe.perception.anderson import solve_small

pytestmark = pytest.mark.usefixtures("float64")

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(3, 2))
X = RNG.normal(size=(4, 3))
TIGHT = {"rtol": 1e-13, "atol": 1e-12, "throw": False}


def curved():
    """z ~ N(0, I), x = tanh(W z) + noise: a nonlinear model with one mode for these data."""
    return vfe.Model(
        z=vfe.gaussian(np.zeros(2)),
        x=vfe.gaussian(Tanh(jnp.asarray(WEIGHT)), scale=np.exp(-0.5), parents="z"),
    )


def learned(weight, log_scale):
    """The same with parameters that jit may trace: a map that holds its weight."""
    node = vfe.gaussian(Tanh(weight), scale=jnp.exp(log_scale), parents="z")
    return vfe.Model(z=vfe.gaussian(np.zeros(2)), x=node)


class Tanh(eqx.Module):
    """tanh(W z)."""

    weight: jax.Array

    def __call__(self, z):
        return jnp.tanh(self.weight @ z)


def energy(z, x, weight=WEIGHT, log_scale=-0.5):
    return (
        normal_energy(z, 0.0, 1.0).sum()
        + normal_energy(x, np.tanh(weight @ z), np.exp(2 * log_scale)).sum()
    )


@pytest.mark.core
def test_stopping_fires():
    """The loop ends because the gradient is small, not because steps ran out, and says so."""
    percept = vfe.perceive(curved(), {"x": X})
    assert np.all(np.asarray(percept.status) == vfe.Status.converged)
    assert np.all(np.asarray(percept.steps) < 60)
    assert np.all(np.asarray(percept.steps) > 0)
    assert bool(percept.converged.all())
    assert "4 of 4: the gradient is within the tolerance" in percept.report()
    # It is a minimum: the energy written out here rises in every direction.
    for z, x in zip(np.asarray(percept.belief["z"].mean), X, strict=True):
        for step in 1e-3 * np.concatenate([np.eye(2), -np.eye(2)]):
            assert energy(z + step, x) > energy(z, x)


def test_tighter_tolerance_takes_more_steps():
    loose = vfe.perceive(curved(), {"x": X}, solver=vfe.Descent(optax.sgd(0.1)), rtol=1e-2, max_steps=3000)
    tight = vfe.perceive(curved(), {"x": X}, solver=vfe.Descent(optax.sgd(0.1)), rtol=1e-7, max_steps=3000)
    assert np.all(np.asarray(loose.steps) < np.asarray(tight.steps))
    assert np.all(np.asarray(tight.status) == vfe.Status.converged)
    assert np.all(np.asarray(tight.gradient) < 1e-6)


@pytest.mark.core
def test_steps_run_out():
    """Status says so, the numbers are kept, and throw=True does not raise."""
    percept = vfe.perceive(curved(), {"x": X}, solver=vfe.Descent(optax.sgd(1e-4)), max_steps=3)
    assert np.all(np.asarray(percept.status) == vfe.Status.max_steps)
    assert np.all(np.asarray(percept.steps) >= 3)
    assert np.all(np.isfinite(percept.free_energy.total))
    assert not bool(percept.converged.any())
    assert "max_steps=" in percept.report()


def exploding():
    return vfe.Model(z=vfe.gaussian(0.0), x=vfe.gaussian(lambda z: jnp.exp(z), parents="z"))


@pytest.mark.core
def test_divergence_is_reported_and_the_others_are_kept():
    """One member of a batch overflows: throw=True names it, throw=False gives NaN for it alone."""
    data = {"x": np.array([1.0, 1e200, 1.0])}
    options = {"belief": vfe.Point, "solver": vfe.Descent(optax.sgd(0.1)), "max_steps": 50}
    with pytest.raises(vfe.DivergenceError, match=r"1 of 3 .*number 1.*not finite.*throw=False"):
        vfe.perceive(exploding(), data, **options)
    percept = vfe.perceive(exploding(), data, **options, throw=False)
    assert list(np.asarray(percept.status)) == [
        vfe.Status.converged,
        vfe.Status.diverged,
        vfe.Status.converged,
    ]
    assert np.isnan(percept.free_energy.total[1])
    assert np.isnan(percept.belief["z"].mean[1])
    # At x = 1 the mode is 0 = ln 1, and the energy two constants.
    assert_close(percept.belief["z"].mean[0], 0.0, 1e-9)
    assert_close(percept.free_energy.total[2], np.log(2 * np.pi), 1e-9)


def test_indefinite_curvature_is_not_given_a_laplace_belief():
    """A flat, quartic mode: the curvature there is 0, and status says that Laplace cannot stand for it."""
    flat = vfe.Model(
        z=vfe.conditional(lambda: Quartic(), parents=()), x=vfe.gaussian(lambda z: 0 * z, parents="z")
    )
    percept = vfe.perceive(flat, {"x": 0.0}, belief=vfe.Laplace, solver=vfe.Descent(), throw=False)
    assert percept.status == vfe.Status.indefinite
    assert np.isnan(percept.free_energy.total)


class Quartic(dist.Distribution):
    """p(z) ∝ exp(−z⁴)."""

    support = dist.constraints.real

    def __init__(self):
        super().__init__(batch_shape=(), event_shape=())

    def sample(self, key, sample_shape=()):
        return jax.random.normal(key, sample_shape)

    def log_prob(self, value):
        return -(value**4)

    @property
    def mean(self):
        return jnp.zeros(())


@pytest.mark.parametrize(
    ("solver", "belief"),
    [
        (vfe.ErrorCoordinates(), vfe.Point),
        (vfe.Descent(), vfe.Laplace),
        (vfe.Descent(), vfe.DiagonalGaussian),
        (vfe.NaturalGradient(0.5), vfe.JointGaussian),
        (vfe.GradientFlow(), vfe.Point),
        (vfe.Anderson(), vfe.Point),
    ],
    ids=[
        "ErrorCoordinates",
        "Descent-Laplace",
        "Descent-Gaussian",
        "NaturalGradient",
        "GradientFlow",
        "Anderson",
    ],
)
def test_trace_never_rises(solver, belief):
    """Monotone solvers lower the objective at every point of the trace, in a nonlinear model."""
    percept = vfe.perceive(curved(), {"x": 3 * X}, solver=solver, belief=belief, max_steps=150, throw=False)
    trace = np.asarray(percept.trace)
    assert np.all(np.isfinite(trace))
    assert np.all(np.diff(trace, axis=1) <= 16 * np.finfo(float).eps * np.maximum(1, np.abs(trace[:, :-1])))
    assert np.all(trace[:, -1] < trace[:, 0] - 1e-3)


def test_batch_jit_and_vmap_equal_a_loop():
    """One observation at a time, a batch, two batch axes, vmap and jit: the same belief and F."""
    model = curved()
    batch = vfe.perceive(model, {"x": X}, **TIGHT)
    assert batch.belief["z"].mean.shape == (4, 2)
    for i in range(4):
        one = vfe.perceive(model, {"x": X[i]}, **TIGHT)
        assert one.batch == ()
        assert_close(one.belief["z"].mean, batch.belief["z"].mean[i], 1e-10)
        assert_close(one.free_energy.total, batch.free_energy.total[i], 1e-12)
    grid = vfe.perceive(model, {"x": X.reshape(2, 2, 3)}, **TIGHT)
    assert grid.free_energy.total.shape == (2, 2)
    assert_close(grid.belief["z"].mean.reshape(4, 2), batch.belief["z"].mean, 1e-12)

    def mean(x):
        percept = vfe.perceive(model, {"x": x}, **TIGHT)
        return percept.belief["z"].mean, percept.free_energy.total

    for found in (jax.jit(mean)(X), jax.vmap(mean)(X)):
        assert_close(found[0], batch.belief["z"].mean, 1e-10)
        assert_close(found[1], batch.free_energy.total, 1e-12)


def test_without_jit():
    """Operation by operation, without compilation, F and perception are the same."""
    model = curved()
    belief = vfe.DiagonalGaussian.from_moments(model, {"z": [0.1, 0.2]}, np.diag([0.3, 0.4]))
    compiled = vfe.free_energy(model, belief, {"x": X[0]})
    percept = vfe.perceive(model, {"x": X[0]}, belief=vfe.Point, throw=False)
    with jax.disable_jit():
        plain = vfe.free_energy(model, belief, {"x": X[0]})
        slow = vfe.perceive(model, {"x": X[0]}, belief=vfe.Point, throw=False)
    assert_close(plain.total, compiled.total, 1e-13)
    assert_close(slow.belief["z"].mean, percept.belief["z"].mean, 1e-12)
    assert slow.steps == percept.steps


@pytest.mark.parametrize("belief", [vfe.Point, vfe.Laplace])
def test_derivatives_by_the_implicit_function_theorem(belief):
    """d(mode)/dθ, dF/dθ and d(mode)/dx through perceive, against central differences of new perceptions."""

    def outcome(weight, log_scale, x):
        percept = vfe.perceive(learned(weight, log_scale), {"x": x}, belief=belief, **TIGHT)
        return jnp.concatenate([percept.belief["z"].mean, percept.free_energy.total[None]])

    point = (jnp.asarray(WEIGHT), jnp.asarray(-0.5), jnp.asarray(X[0]))
    found = jax.jit(jax.jacrev(outcome, (0, 1, 2)))(*point)
    step = 1e-5
    for position, (value, jacobian) in enumerate(zip(point, found, strict=True)):
        for index in np.ndindex(value.shape):
            moved = [
                outcome(*point[:position], value.at[index].add(d), *point[position + 1 :])
                for d in (step, -step)
            ]
            want = (moved[0] - moved[1]) / (2 * step)
            assert_close(jacobian[(slice(None), *index)], want, 2e-8, f"argument {position}, {index}")


def test_derivatives_under_a_gaussian_belief():
    """The same for a variational Gaussian in a linear model, whose F is the surprise: dF = d(−ln p)."""

    def model_of(weight):
        return vfe.Model(z=vfe.gaussian(np.zeros(2)), x=vfe.gaussian(vfe.Affine(weight), parents="z"))

    def total(weight):
        percept = vfe.perceive(
            model_of(weight),
            {"x": X[0]},
            belief=vfe.JointGaussian,
            solver=vfe.NaturalGradient(),
            throw=False,
        )
        return percept.free_energy.total

    def surprise(weight):
        s = weight @ weight.T + jnp.eye(3)
        return 0.5 * (X[0] @ jnp.linalg.solve(s, X[0]) + jnp.linalg.slogdet(s)[1])

    assert_close(jax.grad(total)(jnp.asarray(WEIGHT)), jax.grad(surprise)(jnp.asarray(WEIGHT)), 1e-8)


def test_warm_start_from_a_belief():
    """Starting where one perception ended, the next has nothing left to do; new data move it."""
    model = curved()
    first = vfe.perceive(model, {"x": X})
    again = vfe.perceive(model, {"x": X}, belief=first.belief, atol=1e-6)
    assert np.all(np.asarray(again.steps) == 0)
    assert_close(again.belief["z"].mean, first.belief["z"].mean, 1e-9)
    near = vfe.perceive(model, {"x": X + 1e-3}, belief=first.belief, rtol=1e-9)
    cold = vfe.perceive(model, {"x": X + 1e-3}, rtol=1e-9)
    assert_close(near.free_energy.total, cold.free_energy.total, 1e-9)
    with pytest.raises(ValueError, match="leading axes"):
        vfe.perceive(model, {"x": X[:2]}, belief=first.belief)


def test_warm_start_from_an_encoder():
    """(3) then (4): refinement from an encoder never raises F, and lowers it where there is a gap."""
    rng = np.random.default_rng(1)
    weight, x = rng.normal(size=(4, 2)), rng.normal(size=(5, 4))
    model = vfe.Model(z=vfe.gaussian(np.zeros(2)), x=vfe.gaussian(vfe.Affine(weight), parents="z"))
    precision = np.eye(2) + weight.T @ weight
    gain = np.linalg.solve(precision, weight.T)
    log_scale = -0.5 * np.log(np.diag(precision))

    def perfect(x):
        return jnp.concatenate([gain @ x, log_scale])

    def poor(x):
        return jnp.concatenate([0.5 * gain @ x, log_scale + 0.3])

    best = vfe.exact.mean_field(model, {"x": x}, vfe.DiagonalGaussian)
    want = vfe.free_energy(model, best, {"x": x}).total
    for encoder in (perfect, poor):
        family = vfe.Amortised(encoder, vfe.DiagonalGaussian)
        amortised = vfe.free_energy(model, family, {"x": x}).total
        refined = vfe.perceive(model, {"x": x}, belief=family, solver=vfe.NaturalGradient(), throw=False)
        assert np.all(refined.free_energy.total <= amortised + 1e-12)
        assert_close(refined.free_energy.total, want, 1e-9)
        gap = np.asarray(amortised - want)
        assert np.all(gap > 1e-2) if encoder is poor else np.all(np.abs(gap) < 1e-12)


def test_predictions():
    """`prediction`, `predict` and `sample`: shapes, and moments of the linear model."""
    rng = np.random.default_rng(2)
    weight = rng.normal(size=(3, 2))
    model = vfe.Model(
        z=vfe.gaussian(np.zeros(2)), x=vfe.gaussian(vfe.Affine(weight), scale=0.5, parents="z")
    )
    x = np.array([[1.0, np.nan, 0.3], [0.2, -0.5, np.nan]])
    percept = vfe.perceive(model, {"x": x})
    posterior_mean = np.asarray(percept.belief["z"].mean)
    filled = percept.prediction("x", samples=4000)
    assert filled.shape == (2, 3)
    assert_close(filled, posterior_mean @ weight.T, 0.05)
    drawn = percept.predict(jax.random.key(0), (2000,))
    assert set(drawn) == {"x"}
    assert drawn["x"].shape == (2000, 2, 3)
    variance = np.einsum("ij,njk,ik->ni", weight, np.asarray(percept.belief["z"].covariance), weight) + 0.25
    assert_close(np.asarray(drawn["x"]).var(0), variance, 0.15)
    assert percept.sample(jax.random.key(0), (7,))["z"].shape == (7, 2, 2)
    assert percept.sample(jax.random.key(0))["z"].shape == (2, 2)
    point = vfe.perceive(model, {"x": x}, belief=vfe.Point)
    assert_close(point.prediction("x", samples=4), np.asarray(point.belief["z"].mean) @ weight.T, 1e-12)
    with pytest.raises(ValueError, match="neither an observed node"):
        percept.prediction("z")


def test_monte_carlo_perception_reports_its_error():
    """A Gaussian belief in a nonlinear model: the kind of F is Monte Carlo, with a standard error."""
    percept = vfe.perceive(
        curved(), {"x": X}, belief=vfe.DiagonalGaussian, expectation=vfe.MonteCarlo(256), throw=False
    )
    found = percept.free_energy
    assert found.kind is vfe.Kind.monte_carlo
    assert np.all(np.asarray(found.standard_error) > 0)
    # It bounds −ln p(x), summed over a grid here.
    grid = np.linspace(-6, 6, 241)
    z = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    for i, x in enumerate(X):
        each = normal_energy(z, 0.0, 1.0).sum(1) + normal_energy(
            x, np.tanh(z @ WEIGHT.T), np.exp(-1.0)
        ).sum(1)
        surprise = -np.log(np.exp(-each).sum() * 0.05**2)
        fresh = vfe.free_energy(
            curved(),
            jax.tree.map(lambda a, i=i: a[i], percept.belief),
            {"x": x},
            expectation=vfe.MonteCarlo(4096),
            key=jax.random.key(7),
        )
        assert float(fresh.total) > surprise - 3 * float(fresh.standard_error)
        assert float(fresh.total) < surprise + 0.5


def test_nothing_hidden():
    """Everything observed: there is nothing to infer, F is the surprise of the data."""
    model = vfe.Model(x=vfe.gaussian(np.zeros(2)))
    percept = vfe.perceive(model, {"x": np.ones((3, 2))})
    assert_close(percept.free_energy.total, normal_energy(np.ones((3, 2)), 0.0, 1.0).sum(1), 1e-13)


def test_steps_are_not_exceeded_by_escapes():
    """Where the steps run out on a slope of negative curvature, no more are taken."""
    model = vfe.Model(
        z=vfe.gaussian(np.zeros(2)),
        x=vfe.gaussian(lambda z: jnp.stack([3 * z[0] ** 2 - 3, 2 * z[0] * z[1]]), scale=0.1, parents="z"),
    )
    data = {"x": np.zeros(2)}
    short = vfe.perceive(model, data, solver=vfe.Descent(optax.adam(1e-3)), max_steps=10, throw=False)
    assert int(short.steps) <= 10
    long = vfe.perceive(model, data, throw=False)
    assert long.status == vfe.Status.converged
    assert abs(float(long.belief["z"].mean[0])) == pytest.approx(1.0, abs=0.05)


# Error coordinates.


def every_kind():
    """Hidden Gaussians: diagonal and full noise, one scale with a parent; three kinds of output."""
    rng = np.random.default_rng(4)
    root = rng.normal(size=(3, 3))
    return vfe.Model(
        u=vfe.given((2,)),
        a=vfe.gaussian(Tanh(rng.normal(size=(3, 2))), covariance=root @ root.T + np.eye(3), parents="u"),
        b=vfe.gaussian(Tanh(rng.normal(size=(2, 3))), scale=lambda a: jnp.exp(0.3 * a[:2]), parents="a"),
        c=vfe.gaussian(lambda a, b: a[:2] * b, scale=0.5, parents=("a", "b")),
        x=vfe.gaussian(Tanh(rng.normal(size=(4, 2))), scale=0.3, parents="c"),
        y=vfe.bernoulli(lambda b: 2 * b, parents="b"),
        k=vfe.categorical(logits=lambda a, c: jnp.concatenate([a, c]), parents=("a", "c")),
    )


def data_of_every_kind(model, count):
    key = jax.random.key(3)
    inputs = jax.random.normal(key, (count, 2))
    seen = model.sample(key, given={"u": inputs})
    return {n: np.array(seen[n]) for n in ("u", "x", "y", "k")}


def test_what_moves_and_what_does_not_make_the_energy():
    """The constant is that of scales without parents (b's, which has one, moves), whatever the errors."""
    model = every_kind()
    data = {n: jnp.asarray(v[0]) for n, v in data_of_every_kind(model, 1).items()}
    conditioned, _ = condition(model, {n: v[None] for n, v in data.items()})
    one = eqx.tree_at(
        lambda c: (c.observed, c.masks),
        conditioned,
        jax.tree.map(lambda a: a[0], (conditioned.observed, conditioned.masks)),
    )
    factor = model.nodes["a"](data["u"]).scale_tril
    sizes = jnp.log(jnp.diagonal(factor)).sum() + 2 * jnp.log(0.5) + 2.5 * jnp.log(2 * jnp.pi)
    assert float(one.error_constant()) == pytest.approx(float(sizes), abs=1e-12)
    for errors in jax.random.normal(jax.random.key(5), (3, one.layout.size)):
        whole = one.error_energy_that_moves(errors) + one.error_constant()
        assert float(whole) == pytest.approx(float(one.error_energy(errors)), abs=1e-11)
    percept = vfe.perceive(model, data, belief=vfe.Point, solver=vfe.Anderson())
    assert float(percept.trace[-1]) == pytest.approx(float(percept.free_energy.total), abs=1e-9)


def test_the_energy_in_errors():
    """E written in the errors is E at the values they stand for, and so is its gradient: to 1e-12."""
    model = every_kind()
    data = data_of_every_kind(model, 1)
    data["x"][0, 1] = np.nan
    conditioned, _ = condition(model, data)
    one = eqx.tree_at(
        lambda c: (c.observed, c.masks),
        conditioned,
        jax.tree.map(lambda a: a[0], (conditioned.observed, conditioned.masks)),
    )
    e = jnp.asarray(np.random.default_rng(5).normal(size=one.layout.size))
    unpacked = one.layout.unpack(e)

    def slow(e):
        return one.energy(one.push(one.layout.unpack(e)))

    assert_close(one.error_energy(e), slow(e), 1e-13)
    assert_close(jax.grad(one.error_energy)(e), jax.grad(slow)(e), 1e-12)
    back = one.errors(one.push(unpacked))
    for n in unpacked:
        assert_close(back[n], unpacked[n], 1e-12, n)


def test_anderson_finds_what_gauss_newton_finds():
    """The same mode and Laplace F by both, to 1e-8, with every kind of node; alone or in a batch."""
    model = every_kind()
    data = data_of_every_kind(model, 3)
    one = vfe.perceive(model, data, solver=vfe.Anderson(), **TIGHT)
    # The model has several modes, so the other search starts beside the one found.
    near = jax.tree.map(lambda a: a + 0.02, vfe.Point(one.belief.layout, one.belief.location))
    two = vfe.perceive(model, data, belief=near, solver=vfe.ErrorCoordinates(), **{**TIGHT, "atol": 1e-10})
    assert np.all(np.asarray(one.status) == vfe.Status.converged)
    assert_close(one.belief.location, two.belief.location, 1e-8)
    assert_close(one.trace[:, -1], two.free_energy.total, 1e-10)
    alone = vfe.perceive(model, {n: v[1] for n, v in data.items()}, solver=vfe.Anderson(), **TIGHT)
    assert_close(alone.belief.location, one.belief.location[1], 1e-9)
    with pytest.raises(ValueError, match="Anderson finds modes"):
        vfe.perceive(model, data, solver=vfe.Anderson(), belief=vfe.DiagonalGaussian)


def test_a_small_system():
    rng = np.random.default_rng(6)
    root = rng.normal(size=(5, 5))
    matrix, vector = root @ root.T + 0.1 * np.eye(5), rng.normal(size=5)
    found = solve_small(jnp.asarray(matrix), jnp.asarray(vector))
    assert_close(found, np.linalg.solve(matrix, vector), 1e-11)


def test_the_state_that_has_no_answer_is_named():
    """Under Enumerated a state that fails withholds the observation, one that the data exclude does not."""

    def model(other):
        return vfe.Model(
            label=vfe.categorical(np.full(3, 1 / 3)),
            z=vfe.gaussian(np.zeros(1)),
            x=vfe.gaussian(
                lambda label, z: jnp.where(label == 1, other, z[0] + label), parents=("label", "z")
            ),
        )

    seen, belief = {"x": np.array([0.5, 1.0])}, vfe.Enumerated("label", vfe.Laplace)
    with pytest.raises(vfe.DivergenceError, match="with node 'label' held at state 1"):
        vfe.perceive(model(jnp.nan), seen, belief=belief)
    percept = vfe.perceive(model(jnp.nan), seen, belief=belief, throw=False)
    assert percept.failed_state.tolist() == [1, 1]
    assert np.isnan(percept.free_energy.total).all()

    table = vfe.categorical(np.array([[0.0, 0.6, 0.3], [1.0, 0.4, 0.7]]), parents="label")
    excluded = vfe.Model(**{**model(0.0).nodes, "y": table})
    percept = vfe.perceive(excluded, {**seen, "y": np.zeros(2, int)}, belief=belief)
    assert percept.failed_state.tolist() == [-1, -1]
    assert_close(percept.belief["label"].probabilities[:, 0], np.zeros(2), 0.0)
    x = seen["x"]
    logs = [np.log(0.6) - 0.5 * x**2 - 0.5 * np.log(2 * np.pi), np.log(0.3) - 0.25 * (x - 2) ** 2]
    logs[1] = logs[1] - 0.5 * np.log(4 * np.pi)
    assert_close(percept.free_energy.total, -np.logaddexp(*logs) + np.log(3), 1e-6)


def product() -> vfe.Model:
    """x = a b + noise: two modes, between which every slope in the means vanishes."""
    return vfe.Model(
        a=vfe.gaussian(jnp.zeros(())),
        b=vfe.gaussian(jnp.zeros(())),
        x=vfe.gaussian(lambda a, b: a * b, scale=0.3, parents=("a", "b")),
    )


def test_sampled_free_energy_is_not_over_the_draws_the_belief_was_fitted_to() -> None:
    model, data = product(), {"x": jnp.full(64, 3.0)}
    percept = vfe.perceive(model, data, belief=vfe.DiagonalGaussian, expectation=vfe.MonteCarlo(64))
    F = percept.free_energy
    # The slope vanishes at the start, a = b = 0, where F is 51 at best; none may stay there.
    assert np.all(F.total < 20), F.total
    many = vfe.free_energy(
        model, percept.belief, data, expectation=vfe.MonteCarlo(4096), key=jax.random.key(9)
    ).mean()
    error = float(np.hypot(F.mean().standard_error, many.standard_error))
    assert abs(float(F.mean().total - many.total)) < 3 * error
    # What was minimised is too low, by the fit to its draws.
    fitted = np.asarray(percept.trace[:, -1])
    assert fitted.mean() < float(many.total) - 3 * fitted.std() / np.sqrt(len(fitted))
