"""GaussNewtonLaplace: the whole free energy of networks, through the smaller of output and error space."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from helpers import assert_close

import vfe
from vfe.conditioning import condition
from vfe.conditioning.residuals import fisher_root
from vfe.curvature import flat_errors, spread
from vfe.free_energy import free_energy_at
from vfe.networks import Dense, dense, supervised

KEY = jax.random.key(0)
pytestmark = pytest.mark.usefixtures("float64")


def classifier(scale=0.8):
    return supervised(dense([4, 5, 3, 4], key=KEY, activation=jnp.tanh), inputs=4, scale=scale)


def labelled(count=3):
    rng = np.random.default_rng(0)
    return {"x": rng.normal(size=(count, 4)), "y": np.arange(count) % 4}


def at_errors(model, seen, errors):
    conditioned, _ = condition(model, seen)
    return conditioned.over(lambda c, e: free_energy_at(c, e), errors)


@pytest.mark.parametrize("outputs", [2, 12], ids=["few outputs", "many outputs"])
def test_linear_networks_are_exact(outputs):
    """F = −ln p(y | x) of a linear-Gaussian network, by both routes, and split by level like Laplace's."""
    rng = np.random.default_rng(1)
    w = [rng.normal(size=s) / np.sqrt(s[1]) for s in ((5, 4), (3, 5), (outputs, 3))]
    layers = [Dense(jnp.asarray(m), jnp.zeros(len(m))) for m in w]
    model = supervised(layers, inputs=4, output="gaussian", scale=0.7, output_scale=0.4)
    seen = {"x": rng.normal(size=(3, 4)), "y": rng.normal(size=(3, outputs))}
    hidden = 0.7**2 * (w[1] @ w[1].T + np.eye(3))
    covariance = w[2] @ hidden @ w[2].T + 0.4**2 * np.eye(outputs)
    residual = seen["y"] - seen["x"] @ (w[2] @ w[1] @ w[0]).T
    quadratic = np.einsum("ni,ij,nj->n", residual, np.linalg.inv(covariance), residual)
    surprise = 0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * covariance)[1])
    percept = vfe.perceive(model, seen, belief=vfe.GaussNewtonLaplace)
    assert_close(percept.free_energy.total, surprise, 1e-9)
    other = vfe.perceive(model, seen, belief=vfe.Laplace)
    conditioned, _ = condition(model, seen)
    errors = conditioned.over(flat_errors, percept.belief.location)
    light = at_errors(model, seen, errors)
    for found in (percept.free_energy, light):
        for name in ("z2", "z1", "y"):
            assert_close(found.by_level[name], other.free_energy.by_level[name], 1e-9)
        for name in ("z2", "z1"):
            assert_close(found.entropies[name], other.free_energy.entropies[name], 1e-9)
    assert_close(percept.belief["z1"].covariance, other.belief["z1"].covariance, 1e-9)
    assert_close(percept.belief["z2"].variance, other.belief["z2"].variance, 1e-9)


def slow_free_energy(weights, scale, x, y, errors):
    """½ |e|² − ln p(y | z) + ½ ln |I + Jᵀ G J| in NumPy, J by central differences."""

    def logits(e):
        z2 = weights[0] @ x + scale * e[:5]
        z1 = weights[1] @ np.tanh(z2) + scale * e[5:]
        return weights[2] @ np.tanh(z1)

    eye = np.eye(8)
    jacobian = np.stack([(logits(errors + 1e-5 * d) - logits(errors - 1e-5 * d)) / 2e-5 for d in eye], 1)
    p = np.exp(logits(errors) - np.logaddexp.reduce(logits(errors)))
    curvature = eye + jacobian.T @ (np.diag(p) - np.outer(p, p)) @ jacobian
    return 0.5 * errors @ errors - np.log(p[y]) + 0.5 * np.linalg.slogdet(curvature)[1]


def weights_of(model):
    return [
        np.asarray(g.weight)
        for g in (model["z2"].mean, model["z1"].mean, model["y"].density.parameters["logits"])
    ]


def test_nonlinear_networks():
    """F at any errors is the slow one's; perceive's dense belief and the light route agree at the mode."""
    model, seen = classifier(), labelled()
    errors = np.random.default_rng(2).normal(size=(3, 8))
    found = at_errors(model, seen, errors)
    weights = weights_of(model)
    wanted = [
        slow_free_energy(weights, 0.8, *pair, e)
        for *pair, e in zip(seen["x"], seen["y"], errors, strict=True)
    ]
    assert_close(found.total, wanted, 1e-8)
    assert found.kind is vfe.Kind.approximation
    assert_close(found.energy - found.entropy, found.complexity - found.accuracy, 1e-12)

    percept = vfe.perceive(model, seen, belief=vfe.GaussNewtonLaplace)
    conditioned, _ = condition(model, seen)
    light = at_errors(model, seen, conditioned.over(flat_errors, percept.belief.location))
    for name in ("z2", "z1", "y"):
        assert_close(percept.free_energy.by_level[name], light.by_level[name], 1e-9)
    again = vfe.free_energy(model, percept.belief, seen)
    assert_close(again.total, percept.free_energy.total, 1e-9)


def test_one_step_of_learning():
    """θ ← θ − rate · ∂F/∂θ at the errors perception found, by finite differences of the slow F."""
    model, seen = classifier(), labelled()
    options = {
        "belief": vfe.GaussNewtonLaplace,
        "solver": vfe.Anderson(),
        "perception_steps": 300,
        "rtol": 1e-13,
        "atol": 1e-12,
        "epochs": 1,
        "optimiser": optax.sgd(0.1),
        "key": KEY,
    }
    conditioned, _ = condition(model, seen)
    mode = vfe.perceive(model, seen, belief=vfe.Point, rtol=1e-13, atol=1e-12, throw=False).belief
    errors = np.asarray(conditioned.over(flat_errors, mode.location))
    weights = weights_of(model)

    def slow(layer, entry, change):
        moved = [w.copy() for w in weights]
        moved[layer][entry] += change
        each = zip(seen["x"], seen["y"], errors, strict=True)
        return np.mean([slow_free_energy(moved, 0.8, x, y, e) for x, y, e in each])

    for keep in (False, True):
        learned = vfe.learn(model, seen, keep_beliefs=keep, **options)
        assert_close(learned.free_energy.total, at_errors(model, seen, errors).total, 1e-8)
        after = weights_of(learned.model)
        for layer, entry in ((0, (1, 2)), (1, (2, 3)), (2, (0, 1))):
            slope = (slow(layer, entry, 1e-3) - slow(layer, entry, -1e-3)) / 2e-3
            assert_close(after[layer][entry], weights[layer][entry] - 0.1 * slope, 1e-6)
    assert isinstance(learned.belief, vfe.GaussNewtonLaplace)


def test_stochastic_trace_is_unbiased(monkeypatch):
    """Averaged over all directions ξ of ±1 the derivative is the exact one, and the value always is."""
    model, seen = classifier(), labelled(1)
    conditioned, _ = condition(model, seen)
    errors = jnp.asarray(np.random.default_rng(2).normal(size=8))
    learned, fixed = eqx.partition(model, eqx.is_inexact_array)

    def determinant(learned, probe):
        live = eqx.tree_at(lambda c: c.model, conditioned, eqx.combine(learned, fixed))
        return live.over(lambda c: spread(c, errors, probe).log_determinant).sum()

    value, exact = jax.value_and_grad(determinant)(learned, None)
    mean = jax.tree.map(jnp.zeros_like, exact)
    for signs in itertools.product([-1.0, 1.0], repeat=4):
        monkeypatch.setattr(jax.random, "rademacher", lambda *_, s=signs: jnp.asarray(s))
        here, slope = jax.value_and_grad(determinant)(learned, KEY)
        assert_close(here, value, 1e-12)
        mean = jax.tree.map(lambda a, b: a + b / 16, mean, slope)
    for a, b in zip(jax.tree.leaves(mean), jax.tree.leaves(exact), strict=True):
        assert_close(a, b, 1e-11)


def test_fisher_information():
    """R Rᵀ is the Fisher information of the parameters predicted, elements that are missing left out."""
    rng = np.random.default_rng(3)
    logits, mean = rng.normal(size=3), rng.normal(size=3)
    matrix = rng.normal(size=(3, 3))
    matrix = matrix @ matrix.T + np.eye(3)
    p, b = np.exp(logits) / np.exp(logits).sum(), 1 / (1 + np.exp(-logits))
    block = np.zeros((3, 3))
    block[np.ix_([0, 2], [0, 2])] = np.linalg.inv(matrix[np.ix_([0, 2], [0, 2])])
    some = jnp.array([True, False, True])
    cases = [
        (dist.Normal(mean, 0.5), None, 4 * np.eye(3)),
        (dist.Normal(mean, 0.5), some, 4 * np.diag([1, 0, 1])),
        (dist.MultivariateNormal(mean, matrix), None, np.linalg.inv(matrix)),
        (dist.MultivariateNormal(mean, matrix), some, block),
        (dist.BernoulliLogits(logits), None, np.diag(b * (1 - b))),
        (dist.BernoulliLogits(logits).to_event(1), some, np.diag(b * (1 - b) * [1, 0, 1])),
        (dist.CategoricalLogits(logits), None, np.diag(p) - np.outer(p, p)),
        (dist.CategoricalLogits(logits), jnp.array(False), np.zeros((3, 3))),
    ]
    for density, mask, wanted in cases:
        rows = fisher_root(density, mask, True)(jnp.eye(3))
        assert_close(rows.T @ rows, wanted, 1e-12)
    # The scale predicted too: 1 / s² for the mean and 2 for ln s, element by element.
    rows = fisher_root(dist.Normal(jnp.zeros(2), 0.5), None, False)(jnp.eye(4).reshape(2, 2, 4))
    assert_close(rows.T @ rows, np.diag([4.0, 2.0, 4.0, 2.0]), 1e-12)


def test_certain_outputs_have_derivatives():
    """Probabilities that underflow give zeros, not NaN."""
    layers = [Dense(jnp.eye(3), jnp.zeros(3)), Dense(2000.0 * jnp.eye(3), jnp.zeros(3))]
    model = supervised(layers, inputs=3)
    seen = {"x": np.array([[1.0, 0.0, 0.0]]), "y": np.array([0])}
    conditioned, _ = condition(model, seen)
    learned, fixed = eqx.partition(model, eqx.is_inexact_array)

    def total(learned):
        live = eqx.tree_at(lambda c: c.model, conditioned, eqx.combine(learned, fixed))
        return live.over(lambda c: free_energy_at(c, jnp.zeros(3))).total.sum()

    assert all(np.all(np.isfinite(a)) for a in jax.tree.leaves(jax.grad(total)(learned)))


def test_labels_are_weighed():
    """Under Enumerated every label has its F_l: that of Laplace where the rest is linear-Gaussian."""
    table = jnp.asarray(np.random.default_rng(4).normal(size=(2, 3)))
    model = vfe.Model(
        label=vfe.categorical(probabilities=jnp.array([0.2, 0.3, 0.5])),
        z=vfe.gaussian(lambda label: table[:, label], scale=0.6, parents="label"),
        x=vfe.gaussian(vfe.Affine(jnp.eye(2)), scale=0.3, parents="z"),
    )
    x = np.random.default_rng(5).normal(size=(4, 2))
    families = (vfe.Enumerated("label", f) for f in (vfe.GaussNewtonLaplace, vfe.Laplace))
    ours, wanted = (vfe.perceive(model, {"x": x}, belief=f) for f in families)
    assert_close(ours.free_energy.total, wanted.free_energy.total, 1e-9)
    assert_close(ours.belief["label"].probabilities, wanted.belief["label"].probabilities, 1e-9)


@pytest.mark.parametrize("gradient", [vfe.ExpectationMaximisation(), vfe.StochasticTrace()])
def test_learned_precisions_do_not_collapse(gradient):
    """With the entropy in F hidden precisions find an optimum: the scales stay of order one, F falls."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = images[:600] / 16.0
    layers = dense([64, 24, 24, 10], key=KEY, activation=jnp.tanh)
    model = supervised(layers, inputs=64, scale=vfe.learnable(1.0))
    learned = vfe.learn(
        model,
        {"x": x, "y": labels[:600]},
        epochs=15,
        batch_size=60,
        belief=vfe.GaussNewtonLaplace,
        solver=vfe.Anderson(),
        perception_steps=3,
        keep_beliefs=False,
        gradient=gradient,
        optimiser=optax.adam(1e-2),
        key=KEY,
    )
    total = np.asarray(learned.history["total"])
    assert total[-1] < 0.25 * total[0]
    for name in ("z1", "z2"):
        scale = float(jnp.exp(-0.5 * learned.model[name].noise.log_precision))
        assert 0.5 < scale < 3.0
    guess = vfe.networks.predict(learned.model, {"x": images[600:] / 16.0}).argmax(-1)
    assert float((guess == labels[600:]).mean()) > 0.85


@pytest.mark.parametrize("outputs", [4, 12], ids=["few outputs", "many outputs"])
def test_kept_modes_have_the_free_energy_of_their_beliefs(tmp_path, outputs):
    """Of held-out data, and of what is learned from: F of the n × n curvatures, which are not kept."""
    layers = dense([5, 4, 4, outputs], key=KEY, activation=jnp.tanh)
    model = supervised(layers, inputs=5, scale=0.8)
    rng = np.random.default_rng(6)
    seen = {"x": rng.normal(size=(9, 5)), "y": rng.integers(0, outputs, 9)}
    train, held = ({n: a[where] for n, a in seen.items()} for where in (slice(5), slice(5, 9)))
    options = {
        "belief": vfe.GaussNewtonLaplace,
        "solver": vfe.Anderson(),
        "perception_steps": 300,
        "rtol": 1e-13,
        "atol": 1e-12,
        "epochs": 2,
        "optimiser": optax.adam(1e-2),
        "validation": held,
        "checkpoint": tmp_path,
    }
    learned = vfe.learn(model, train, **options)
    assert learned.modes.location.shape == (5, 8)
    tight = {n: options[n] for n in ("belief", "solver", "rtol", "atol")}
    wanted = vfe.perceive(learned.model, held, throw=False, **tight).free_energy
    assert_close(learned.history["validation"]["total"][-1], wanted.mean().total, 1e-10)

    done = vfe.learn(model, train, resume=True, **options)
    assert isinstance(done.belief, vfe.GaussNewtonLaplace)
    again = vfe.free_energy(done.model, done.belief, train)
    assert_close(done.free_energy.total, again.total, 1e-10)
    for name in ("z2", "z1", "y"):
        assert_close(done.free_energy.by_level[name], again.by_level[name], 1e-10)
    rest = {n: options[n] for n in ("solver", "perception_steps", "rtol", "atol")}
    still = optax.sgd(0.0)
    onward = vfe.learn(done.model, train, belief=done.belief, epochs=1, optimiser=still, **rest)
    anew = vfe.perceive(done.model, train, throw=False, **tight).free_energy
    assert_close(onward.free_energy.total, anew.total, 1e-10)


def test_the_total_derivative_starts_afresh_too():
    """dF/dθ along new perceptions, by finite differences of F there."""
    model, seen = classifier(), labelled()
    tight = {"rtol": 1e-13, "atol": 1e-12}
    options = {"belief": vfe.GaussNewtonLaplace, "solver": vfe.Anderson(), "epochs": 1, **tight}
    weights = weights_of(model)

    def anew(entry, change):
        moved = eqx.tree_at(lambda m: m["z1"].mean.weight, model, weights[1] + change * entry)
        percept = vfe.perceive(moved, seen, belief=vfe.GaussNewtonLaplace, throw=False, **tight)
        return float(percept.free_energy.mean().total)

    for keep in (False, True):
        learned = vfe.learn(
            model,
            seen,
            gradient=vfe.TotalDerivative(),
            keep_beliefs=keep,
            perception_steps=300,
            optimiser=optax.sgd(1.0),
            **options,
        )
        step = weights[1] - weights_of(learned.model)[1]
        entry = np.zeros_like(weights[1])
        entry[2, 3] = 1.0
        assert_close(step[2, 3], (anew(entry, 1e-4) - anew(entry, -1e-4)) / 2e-4, 1e-6)


def test_modes_are_kept_of_as_many_observations_as_there_are():
    """2000 curvatures of 1800 hidden elements are 6.5 · 10⁹ numbers; their modes are 3.6 · 10⁶."""
    model = supervised(dense([4, 900, 900, 3], key=KEY), inputs=4)
    seen = {"x": np.zeros((2000, 4)), "y": np.zeros(2000, int)}
    with pytest.raises(ValueError, match=r"keep_beliefs=False.*GaussNewtonLaplace, of which the modes"):
        vfe.learn(model, seen, belief=vfe.Laplace)
    learned = vfe.learn(
        model,
        seen,
        belief=vfe.GaussNewtonLaplace,
        batch_size=500,
        perception_steps=1,
        epochs=1,
        optimiser=optax.sgd(0.0),
    )
    assert learned.modes.location.shape == (2000, 1800)
    assert np.ptp(learned.free_energy.total) < 1e-9
    with pytest.raises(ValueError, match=r"6,480,000,000 numbers.*modes"):
        _ = learned.belief
    with pytest.raises(ValueError, match="kept no modes"):
        _ = vfe.learn(model, {n: a[:2] for n, a in seen.items()}, belief=vfe.Point, epochs=1).modes


def test_an_expectation_is_refused():
    with pytest.raises(ValueError, match=r"closed form.*got MonteCarlo"):
        vfe.learn(classifier(), labelled(), belief=vfe.GaussNewtonLaplace, expectation=vfe.MonteCarlo(4))


def plain(scale):
    return vfe.Model(
        z=vfe.gaussian(jnp.zeros(2)),
        y=vfe.gaussian(vfe.Affine(jnp.eye(2)), scale=scale, parents="z"),
        x=vfe.gaussian(vfe.Affine(jnp.eye(2)), parents="y"),
    )


@pytest.mark.parametrize(
    ("model", "seen", "words"),
    [
        (
            plain(lambda z: jnp.exp(z)),
            {"x": np.zeros(2)},
            "'y' is hidden and not a vfe.gaussian",
        ),
        (plain(1.0), {"x": np.zeros(2), "y": np.array([0.0, np.nan])}, "some elements of node 'y'"),
        (
            vfe.Model(w=vfe.gaussian(0.0, shared=True), x=vfe.gaussian(lambda w: w, parents="w")),
            {"x": np.zeros(3)},
            "shared by all observations",
        ),
        (
            vfe.Model(z=vfe.gamma(2.0, 1.0), x=vfe.gaussian(lambda z: z, parents="z")),
            {"x": np.zeros(3)},
            "'z' is hidden and not a vfe.gaussian",
        ),
        (
            vfe.Model(z=vfe.gaussian(0.0), x=vfe.gamma(lambda z: jnp.exp(z), 1.0, parents="z")),
            {"x": np.ones(3)},
            "has no Gauss–Newton form",
        ),
    ],
)
def test_what_it_cannot_stand_for(model, seen, words):
    with pytest.raises(ValueError, match=words):
        vfe.perceive(model, seen, belief=vfe.GaussNewtonLaplace)
