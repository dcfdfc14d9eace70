"""Dynamic models: units, batches, learning of a linear regression, and what bad input is told."""

import dynamic_cases as cases
import jax.numpy as jnp
import numpy as np
import pytest

import vfe
from vfe.dynamics import Reference


@pytest.fixture(scope="module")
def data():
    return cases.load("conv_state")


@pytest.fixture(scope="module")
def model(data):
    return cases.convolution("conv_state", data)


@pytest.fixture(scope="module")
def found(data, model):
    return vfe.filter(model, data["Y"].T, scheme=Reference())


def test_units_of_time_change_nothing_but_units(data, found):
    slow = vfe.filter(cases.convolution("conv_state", data, dt=0.01), data["Y"].T, scheme=Reference())
    np.testing.assert_allclose(slow.states.mean, found.states.mean, atol=1e-10)
    np.testing.assert_allclose(slow.states.covariance, found.states.covariance, rtol=1e-9)
    np.testing.assert_allclose(slow.derivatives[0][:, 1] * 0.01, found.derivatives[0][:, 1], atol=1e-10)
    np.testing.assert_allclose(slow.errors["states 1"] * 0.01, found.errors["states 1"], atol=1e-10)
    assert slow.free_energy.total == pytest.approx(found.free_energy.total, rel=1e-10)
    assert slow.time[-1] == pytest.approx(0.31)


def test_several_series_at_once(data, model, found):
    y = np.stack([data["Y"].T, 2 * data["Y"].T])
    both = vfe.filter(model, y, scheme=Reference())
    np.testing.assert_allclose(both.states.mean[0], found.states.mean, atol=1e-12)
    np.testing.assert_allclose(both.states.mean[1], 2 * found.states.mean, atol=1e-12)
    with pytest.raises(ValueError, match="take one first"):
        both.plot()


def test_prediction_errors_are_what_the_equations_leave(data, model, found):
    level = model.levels[0]
    G, A, h = level.parameters["G"].T, level.parameters["A"].T, level.parameters["h"]
    np.testing.assert_allclose(found.prediction.mean, found.states.mean @ G.T, atol=1e-12)
    np.testing.assert_allclose(
        found.errors["observation 1"], data["Y"].T - found.prediction.mean, atol=1e-12
    )
    motion = found.derivatives[0][:, 1] - found.states.mean @ A.T - found.causes.mean * h
    np.testing.assert_allclose(found.errors["states 1"], motion, atol=1e-12)
    spread = G @ found.states.covariance[3] @ G.T + np.exp(-8) * np.eye(4)
    np.testing.assert_allclose(found.prediction.covariance[3], spread, rtol=1e-9, atol=1e-15)


def test_prior_causes_known_exactly_are_believed(data):
    level = vfe.Level(
        lambda x, v, p: x,
        lambda x, v, p: v - x,
        states=1,
        causes=1,
        cause_precision=1e8,
        state_precision=1e4,
    )
    v = np.ones(64)
    found = vfe.filter(vfe.DynamicModel(level), np.linspace(0, 1, 64), prior_causes=v, scheme=Reference())
    np.testing.assert_allclose(found.causes.mean[8:, 0], 1, atol=1e-3)


def test_results_can_be_shown_and_stored(data, found):
    table = found.to_xarray()
    assert table.states.shape == (32, 2)
    assert float(table.free_energy) == found.free_energy.total
    figure = found.plot(data["Y"].T)
    assert len(figure.axes) == 4


def test_a_static_linear_model_is_bayesian_regression():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(6, 2)), rng.normal(size=6)
    level = vfe.Level(
        lambda x, v, p: p @ v, causes=2, parameters=X, observation_precision=4.0, cause_precision=0.5
    )
    found = vfe.dem(vfe.DynamicModel(level), y[None])
    C = np.linalg.inv(4 * X.T @ X + 0.5 * np.eye(2))
    np.testing.assert_allclose(found.causes.covariance[0], C, rtol=1e-9)
    np.testing.assert_allclose(found.causes.mean[0], 4 * C @ X.T @ y, rtol=1e-6)


def level(**options):
    settings = {"states": 2, "causes": 1}
    return vfe.Level(lambda x, v, p: x[:1], lambda x, v, p: v[0] - x, **{**settings, **options})


def alone(observe, flow):
    return vfe.DynamicModel(vfe.Level(observe, flow, states=2))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: alone(lambda x, v, p: x, lambda x, v, p: x[:1]), r"flow of level 1 returns shape \(1,\)"),
        (lambda: alone(lambda x, v, p: x.sum(), lambda x, v, p: x), "observe of level 1 returns"),
        (lambda: alone(lambda x, v, p: x @ jnp.ones((3, 1)), lambda x, v, p: x), "observe of level 1 f"),
        (lambda: vfe.DynamicModel(level(), dt=0.0), "dt=0"),
        (lambda: vfe.DynamicModel(level(), smoothness=-1.0), "smoothness=-1"),
        (lambda: vfe.DynamicModel(level(), order=2, cause_order=3), "cause_order"),
        (lambda: vfe.DynamicModel(level(), order=20), "lower order"),
        (lambda: vfe.DynamicModel(level(), smoothness=1e60), "double precision"),
        (lambda: vfe.DynamicModel(level(observation_precision=-1.0)), "negative eigenvalue"),
        (lambda: vfe.DynamicModel(level(state_precision=[1.0, 0.0])), "state_precision.*positive definite"),
        (lambda: vfe.DynamicModel(level(state_precision=np.ones(3))), "wanted a scalar"),
        (lambda: vfe.DynamicModel([level(), level()]), "top level only"),
        (lambda: vfe.DynamicModel([]), "lowest first"),
        (lambda: vfe.Level(lambda x, v, p: x, states=2), "needs flow"),
        (lambda: level(parameters=1.0, parameter_covariance=-1.0), "negative eigenvalue"),
        (lambda: level(parameters=np.ones(2), parameter_covariance=np.ones(3)), "parameter_covariance"),
        (lambda: level(smoothness=-0.1), "smoothness=-0.1"),
        (lambda: vfe.Precision(components=[1.0], variance=0.0), "positive"),
        (lambda: vfe.dynamics.Reference(gain=0.0), "gain"),
    ],
)  # fmt: skip
def test_models_that_cannot_be(build, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        build()


def test_data_that_cannot_be(model, data):
    y = data["Y"].T
    for wrong, message in (
        (y[:, :3], r"wanted \(time, 4\)"),
        (y[:5], "order=4"),
        (y[:1], "1 samples"),
        (np.where(np.arange(32)[:, None] == 7, np.nan, y), r"nan at index \(7, 0\)"),
        ([["a"] * 4] * 32, "no array of real numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            vfe.filter(model, wrong, scheme=Reference())
    with pytest.raises(ValueError, match="prior_causes"):
        vfe.filter(model, y, prior_causes=np.zeros(31))
    with pytest.raises(TypeError, match="Reference"):
        vfe.filter(model, y, scheme="reference")
    with pytest.raises(TypeError, match="DynamicModel"):
        vfe.dem(3, y)
    static = vfe.DynamicModel(vfe.Level(lambda x, v, p: v, causes=4))
    with pytest.raises(ValueError, match="without hidden states"):
        vfe.generalised_filter(static, y)


def test_a_filter_that_diverges_says_where():
    level = vfe.Level(lambda x, v, p: x, lambda x, v, p: x**9, states=[1e40])
    bad = vfe.DynamicModel(level, order=3)
    with pytest.raises(vfe.DivergenceError, match="states of level 1 diverged at time index"):
        vfe.filter(bad, np.linspace(0, 30, 30), scheme=Reference())
