"""Other priors on a fitted dynamic model, against closed forms and fitting again."""

import jax
import numpy as np
import pytest

import vfe
from vfe.dynamics import Reference, linear_convolution, posterior_as_prior, reduce_dynamic_model

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(30, 2))
Y = INPUTS @ [0.8, 0.1] + 0.5 * RNG.normal(size=30)


def regression(covariance, mean=(0.0, 0.0), precision=4.0):
    """y = p · v + z with known inputs v."""
    level = vfe.Level(
        lambda x, v, p: (p @ v)[None],
        causes=2,
        parameters=np.array(mean),
        parameter_covariance=np.array(covariance),
        observation_precision=precision,
        cause_precision=1e10,
    )
    return vfe.DynamicModel(level)


def evidence(covariance, mean=(0.0, 0.0)):
    """ln p(y) with the weights integrated out, and their posterior."""
    covariance = np.diag(covariance)
    total = INPUTS @ covariance @ INPUTS.T + np.eye(30) / 4
    error = Y - INPUTS @ mean
    gain = covariance @ INPUTS.T @ np.linalg.inv(total)
    log = -0.5 * error @ np.linalg.solve(total, error) - 0.5 * np.linalg.slogdet(2 * np.pi * total)[1]
    return log, np.array(mean) + gain @ error, covariance - gain @ INPUTS @ covariance


@pytest.fixture(scope="module")
def full():
    model = regression([1.0, 0.5])
    return model, vfe.dem(model, Y, prior_causes=INPUTS, scheme=Reference(sweeps=32))


@pytest.mark.parametrize(
    ("covariance", "mean"),
    [
        ([1.0, 0.0], (0.0, 0.0)),
        ([0.0, 0.5], (0.0, 0.0)),
        ([0.2, 0.3], (0.5, -0.2)),
        ([0.0, 0.0], (0.8, 0.1)),
    ],
)
def test_a_regression_with_another_prior(full, covariance, mean):
    model, found = full
    before, weights, spread = evidence([1.0, 0.5])
    np.testing.assert_allclose(found.parameters.mean[0], weights, rtol=1e-5)
    np.testing.assert_allclose(found.parameters.covariance, spread, rtol=1e-5, atol=1e-9)
    after, weights, spread = evidence(covariance, mean)
    reduced = reduce_dynamic_model(model, found, regression(covariance, mean))
    assert reduced.log_evidence_change == pytest.approx(after - before, abs=1e-4)
    np.testing.assert_allclose(reduced.parameters.mean[0], weights, rtol=1e-5)
    np.testing.assert_allclose(reduced.parameters.covariance, spread, rtol=1e-5, atol=1e-9)
    assert np.asarray(reduced.log_evidence_change).dtype == np.float64


def test_log_precisions_with_another_prior(full):
    """Gaussian beliefs: the change is ln ∫ q(λ) p̃(λ) / p(λ) dλ, by quadrature."""

    def model(mean, variance):
        return regression(
            [1.0, 0.5], precision=vfe.Precision(components=[1.0], mean=mean, variance=variance)
        )

    one, other = model(1.0, 1.0), model(1.5, 0.2)
    found = vfe.dem(one, Y, prior_causes=INPUTS)
    reduced = reduce_dynamic_model(one, found, other)
    at = np.linspace(-4, 6, 4001)

    def gaussian(mean, variance):
        return np.exp(-0.5 * (at - mean) ** 2 / variance) / np.sqrt(2 * np.pi * variance)

    q = gaussian(found.log_precisions.mean[0], found.log_precisions.covariance[0, 0])
    weight = q * gaussian(1.5, 0.2) / gaussian(1.0, 1.0)
    total = np.trapezoid(weight, at)
    assert reduced.log_evidence_change == pytest.approx(np.log(total), abs=1e-6)
    assert reduced.log_precisions.mean[0] == pytest.approx(np.trapezoid(weight * at, at) / total, rel=1e-6)


def test_a_connection_that_is_not_there_costs_what_fitting_again_says():
    """Two channels see one hidden state; the third may see the other one, and does not."""

    def model(variance, seen=(0.0, 0.0)):
        C = np.array([[1.0, 0.0], [0.0, 1.0], seen])
        return linear_convolution(
            observation=C,
            parameter_covariance=[0.0] * 10 + variance,
            observation_precision=np.e**4,
            state_precision=np.e**4,
            order=3,
        )

    push = np.exp(-((np.arange(40.0) - 12) ** 2) / 4)[:, None]
    world = model([0.0, 0.0])
    y = vfe.dynamics.simulate(world, jax.random.key(0), 40, causes=push).data
    one = model([0.25, 0.25])
    found = vfe.dem(one, y, prior_causes=push)
    for variance in ([0.25, 0.0], [0.0, 0.25]):
        reduced = reduce_dynamic_model(one, found, model(variance))
        again = vfe.dem(model(variance), y, prior_causes=push)
        change = found.free_energy.total - again.free_energy.total
        assert reduced.log_evidence_change == pytest.approx(change, abs=0.05)
        assert reduced.log_evidence_change > 1  # it is worth leaving out
        free = np.argmax(variance)
        got = reduced.parameters.mean[0]["C"][2, free]
        wanted = again.parameters.mean[0]["C"][2, free]
        assert got == pytest.approx(wanted, abs=0.1 * again.parameters.sd[-2:][free])


def test_what_was_learned_is_the_next_prior(full):
    model, found = full
    after = posterior_as_prior(model, found)
    np.testing.assert_array_equal(after.levels[0].parameters, found.parameters.mean[0])
    np.testing.assert_array_equal(after.levels[0].parameter_covariance, found.parameters.covariance)
    # Two halves one after the other are the whole.
    halves = [(Y[:15], INPUTS[:15]), (Y[15:], INPUTS[15:])]
    first = vfe.dem(model, halves[0][0], prior_causes=halves[0][1], scheme=Reference(sweeps=32))
    between = posterior_as_prior(model, first)
    second = vfe.dem(between, halves[1][0], prior_causes=halves[1][1], scheme=Reference(sweeps=32))
    np.testing.assert_allclose(second.parameters.mean[0], found.parameters.mean[0], rtol=1e-4)
    np.testing.assert_allclose(
        second.parameters.covariance, found.parameters.covariance, rtol=1e-4, atol=1e-9
    )


def test_learned_precisions_find_their_level():
    song = vfe.dynamics.birdsong(
        observation_precision=vfe.Precision(components=[1.0], mean=1.0),
        state_precision=(2.0, vfe.Precision(components=[1.0, 0.5], mean=[0.1, 0.2])),
        order=3,
    )
    y = vfe.dynamics.simulate(song, jax.random.key(0), 12).data
    found = vfe.dem(song, y, scheme=Reference(sweeps=1))
    after = posterior_as_prior(song, found)
    means = found.log_precisions.mean
    np.testing.assert_array_equal(after.levels[0].observation_precision.mean, means[:1])
    np.testing.assert_array_equal(after.levels[1].state_precision.mean, means[1:])
    variances = np.diag(found.log_precisions.covariance)
    np.testing.assert_allclose(after.levels[1].state_precision.variance, variances[1:], rtol=1e-12)
    assert after.levels[0].state_precision.fixed == 2.0
    assert after.dt == song.dt


@pytest.mark.parametrize(
    ("reduced", "words"),
    [
        (vfe.dynamics.linear_convolution(), "differ in order"),
        (regression([1.0, 0.5], precision=vfe.Precision(components=[1.0])), "components of precision"),
    ],
)
def test_models_that_differ_in_more_than_priors(full, reduced, words):
    with pytest.raises(ValueError, match=words):
        reduce_dynamic_model(*full, reduced)


def test_what_was_known_stays_known(full):
    known = regression([1.0, 0.0])
    found = vfe.dem(known, Y, prior_causes=INPUTS)
    with pytest.raises(ValueError, match="was known"):
        reduce_dynamic_model(known, found, regression([1.0, 0.5]))
    with pytest.raises(ValueError, match="was known"):
        reduce_dynamic_model(known, found, regression([1.0, 0.0], (0.0, 0.3)))
    with pytest.raises(TypeError, match="Trajectory"):
        reduce_dynamic_model(known, "found", known)
