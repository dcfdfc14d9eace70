"""Learning with states integrated out, against the dense density of the data in NumPy; steps under a drive;
series in groups."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import scipy.stats

import vfe
from vfe.dynamics import Collapsed, Sessions
from vfe.dynamics.generalised.batches import AT_ONCE, each_series
from vfe.dynamics.generalised.forced_step import forced_step
from vfe.dynamics.linear.smooth_noise import unit_system

STATE_PRECISION, START = 4.0, 0.5
PRIOR = np.array([0.3, 1.0]), np.array([0.04, 2.0])  # decay, log-precision: means, variances


@pytest.fixture(scope="module")
def model():
    level = vfe.Level(
        lambda x, v, p: x,
        lambda x, v, p: -p * x,
        states=1,
        parameters=PRIOR[0][0],
        parameter_covariance=PRIOR[1][0],
        initial_covariance=START,
        observation_precision=vfe.Precision(components=[1.0], mean=PRIOR[0][1], variance=PRIOR[1][1]),
        state_precision=STATE_PRECISION,
        smoothness=0.0,
        state_smoothness=0.0,
    )
    return vfe.DynamicModel(level)


@pytest.fixture(scope="module")
def series():
    y = np.cumsum(np.random.default_rng(0).normal(size=(2, 12)), 1) / 2
    y[0, 4] = np.nan
    return y[..., None]


def energy(point, y):
    """−ln p(y, a, λ): x decays at the rate a under white noise, y is x with white noise."""
    a, precision = point[0], np.exp(point[1])
    x = np.array([START])
    for _ in y[1:]:
        x = np.append(x, np.exp(-2 * a) * x[-1] + (1 - np.exp(-2 * a)) / (2 * a * STATE_PRECISION))
    t = np.arange(len(y))
    both = np.exp(-a * abs(t[:, None] - t)) * x[np.minimum(t[:, None], t)] + np.eye(len(y)) / precision
    there = ~np.isnan(y)
    density = scipy.stats.multivariate_normal(np.zeros(there.sum()), both[np.ix_(there, there)])
    return -density.logpdf(y[there]) - scipy.stats.norm(PRIOR[0], np.sqrt(PRIOR[1])).logpdf(point).sum()


def test_white_noise_and_a_gap_against_the_dense_density(model, series):
    found = vfe.fit(model, series)
    with pytest.raises(ValueError, match="several series"):
        found.place(model)
    for k, y in enumerate(series[..., 0]):
        least = scipy.optimize.minimize(energy, PRIOR[0], (y,), method="BFGS", options={"gtol": 1e-6})
        point = np.array([found.parameters.mean[0][k], found.log_precisions.mean[k, 0]])
        np.testing.assert_allclose(point, least.x, atol=2e-4)
        assert found.energy[k] == pytest.approx(energy(point, y), abs=1e-9)
        step, one = 1e-3, np.eye(2)

        def twice(a, b, step=step, one=one, point=point, y=y):
            signs = [(i, j) for i in (-1, 1) for j in (-1, 1)]
            return sum(i * j * energy(point + step * (i * one[a] + j * one[b]), y) for i, j in signs)

        bend = [[twice(a, b) / (4 * step**2) for b in (0, 1)] for a in (0, 1)]
        np.testing.assert_allclose(np.linalg.inv(found.covariance[k]), bend, rtol=1e-4, atol=1e-4)
        laplace = energy(point, y) + np.linalg.slogdet(np.array(bend) / (2 * np.pi))[1] / 2
        assert found.free_energy[k] == pytest.approx(laplace, abs=1e-4)


def test_masked_samples_are_missing_ones(model, series):
    y = series[1]
    gap = np.where(np.arange(12)[:, None] == 3, np.nan, y)
    masked = vfe.filter(model, np.ma.masked_array(y, mask=np.isnan(gap)))
    np.testing.assert_array_equal(masked.states.mean, vfe.filter(model, gap).states.mean)
    assert abs(masked.states.mean - vfe.filter(model, y).states.mean).max() > 1e-3


def test_sessions_of_other_lengths_share_what_is_learned(model, series):
    several = series[0, :, 0], series[1, :7, 0]
    found = vfe.fit(model, Sessions([y[:, None] for y in several]))
    prior = lambda point: -scipy.stats.norm(PRIOR[0], np.sqrt(PRIOR[1])).logpdf(point).sum()  # noqa: E731

    def both(point):
        return sum(energy(point, y) for y in several) - prior(point)

    least = scipy.optimize.minimize(both, PRIOR[0], method="BFGS", options={"gtol": 1e-6})
    point = np.array([found.parameters.mean[0], found.log_precisions.mean[0]])
    np.testing.assert_allclose(point, least.x, atol=2e-4)
    assert found.energy == pytest.approx(both(point), abs=1e-9)
    alone = vfe.fit(model, Sessions([series[1]]))
    assert alone.free_energy == pytest.approx(vfe.fit(model, series[1]).free_energy, abs=1e-9)
    irregular = vfe.fit(model, Sessions([series[0], series[0]], times=[None, 2 * np.arange(12.0)]))
    assert np.isfinite(irregular.free_energy)


def test_smooth_noise_is_learned_with_its_precision():
    """A mean seen in smooth noise: the density is that of the noise's own autocovariance."""
    rng, count, s = np.random.default_rng(1), 40, 1.0
    lag = np.subtract.outer(np.arange(count), np.arange(count))
    y = 0.5 + np.linalg.cholesky(np.exp(-(lag**2) / (4 * s**2)) + 1e-9 * np.eye(count)) @ rng.normal(
        size=count
    )
    level = vfe.Level(
        lambda x, v, p: x + p,
        lambda x, v, p: -x,
        states=1,
        parameters=0.0,
        parameter_covariance=100.0,
        initial_covariance=1e-8,
        state_precision=1e8,
        state_smoothness=0.0,
        observation_precision=vfe.Precision(components=[1.0], mean=0.0, variance=100.0),
    )
    model = vfe.DynamicModel(level, smoothness=s)
    found = vfe.fit(model, y, scheme=Collapsed(filter=vfe.dynamics.Causal(order=10, floor=0.05)))
    rho = vfe.dynamics.smooth_noise(1.0, s, order=10).autocovariance(np.arange(float(count)))
    K = scipy.linalg.toeplitz(rho) + 0.05**2 * np.eye(count)
    one = np.linalg.solve(K, np.ones(count))
    mean = one @ y / one.sum()  # generalised least squares; the priors are wide
    rest = y - mean
    precision = count / (rest @ np.linalg.solve(K, rest))
    placed = vfe.filter(found.place(model), y, scheme=vfe.dynamics.Causal(order=10, floor=0.05))
    away = np.array([found.parameters.mean[0], found.log_precisions.mean[0]])
    prior = scipy.stats.norm(0, 10).logpdf(away).sum()
    assert placed.free_energy.total.sum() == pytest.approx(float(found.energy) + prior, abs=1e-8)
    assert found.parameters.mean[0] == pytest.approx(mean, rel=2e-3)
    assert found.log_precisions.mean[0] == pytest.approx(np.log(precision), abs=2e-3)
    assert found.parameters.sd[0] == pytest.approx((precision * one.sum()) ** -0.5, rel=2e-3)
    assert found.log_precisions.sd[0] == pytest.approx((2 / count) ** 0.5, rel=2e-3)


def test_smoothness_is_learned_against_the_dense_density():
    """A known mean seen in smooth noise of unknown precision and smoothness."""
    rng, count, order, floor = np.random.default_rng(3), 50, 8, 0.02

    drift, _, output = unit_system(order)

    def covariance(s):
        step = scipy.linalg.expm(drift / (np.sqrt(2) * s))
        rho = [output @ np.linalg.matrix_power(step, lag) @ output for lag in range(count)]
        return scipy.linalg.toeplitz(rho) + floor**2 * np.eye(count)

    y = np.linalg.cholesky(covariance(1.2)) @ rng.normal(size=count)

    def level(**smoothness):
        return vfe.Level(
            lambda x, v, p: x,
            lambda x, v, p: -x,
            states=1,
            initial_covariance=1e-10,
            state_precision=1e10,
            state_smoothness=0.0,
            observation_precision=vfe.Precision(components=[1.0], mean=0.0, variance=4.0),
            **smoothness,
        )

    def energy(point):
        density = scipy.stats.multivariate_normal(
            np.zeros(count), np.exp(-point[0]) * covariance(np.exp(point[1]))
        )
        prior = scipy.stats.norm([0, np.log(0.8)], [2, 1]).logpdf(point).sum()
        return -density.logpdf(y) - prior

    least = scipy.optimize.minimize(energy, [0, 0], method="BFGS", options={"gtol": 1e-5})
    unknown = vfe.dynamics.Smoothness(0.8, 1.0)
    scheme = Collapsed(filter=vfe.dynamics.Causal(order=order, floor=floor))
    for model in (
        vfe.DynamicModel(level(), order=3, smoothness=unknown),
        vfe.DynamicModel(level(smoothness=unknown), order=3, smoothness=0.0),
    ):
        found = vfe.fit(model, y, scheme=scheme)
        point = np.array([found.log_precisions.mean[0], found.log_smoothness.mean[0]])
        np.testing.assert_allclose(point, least.x, atol=2e-4)
        assert found.energy == pytest.approx(energy(point), abs=1e-6)
        assert 0.05 < found.log_smoothness.sd[0] < 0.5
        placed = found.place(model)
        assert not placed.learned_smoothness
        assert placed.smoothness_in_samples(0)[0] == pytest.approx(np.exp(point[1]))
    with pytest.raises(ValueError, match="log_sd"):
        vfe.dynamics.Smoothness(1.0, 0.0)


def test_what_cannot_be_learned_is_said(model, series):
    with pytest.raises(ValueError, match="nothing to learn"):
        vfe.fit(vfe.DynamicModel(vfe.Level(lambda x, v, p: x, lambda x, v, p: -x, states=1)), np.zeros(9))
    with pytest.raises(TypeError, match="Collapsed"):
        vfe.fit(model, series[1], scheme=vfe.dynamics.Reference())
    with pytest.raises(TypeError, match="wanted a model of a series"):
        vfe.fit(np.eye(2), series[1])
    with pytest.raises(ValueError, match="at least one series"):
        Sessions([])
    with pytest.raises(ValueError, match="one for each"):
        vfe.fit(model, Sessions([series[1]]), times=np.arange(12.0))
    with pytest.raises(ValueError, match="for each"):
        vfe.fit(model, Sessions([series]))
    with pytest.raises(ValueError, match="no array of real numbers"):
        vfe.fit(model, series[1] + 1j)
    with pytest.raises(TypeError, match=r"wanted a vfe\.StateSpace"):
        vfe.fit(lambda p: 3, series[1], prior={"a": (1.0, 1.0)})
    with pytest.raises(ValueError, match="max_steps"):
        Collapsed(max_steps=0)
    with pytest.raises(vfe.DivergenceError, match="max_steps=200"):
        vfe.fit(model, series, scheme=Collapsed(max_steps=1, tolerance=1e-9))


@pytest.mark.parametrize(("size", "stiff"), [(1, 1.0), (6, 1e2), (20, 1e4), (20, 1e8)])
def test_a_step_under_a_drive_against_scipy(size, stiff):
    rng = np.random.default_rng(0)
    rates, Q = np.geomspace(0.1, stiff, size), np.linalg.qr(rng.normal(size=(size, size)))[0]
    A = 0.5 * np.eye(size, k=1) - (Q * rates) @ Q.T
    drives = A @ rng.normal(size=(size, 7))
    whole = np.block([[A, drives], [np.zeros((7, size)), np.eye(7, k=-1)]])
    wanted = scipy.linalg.expm(whole)[:size, size]
    with jax.enable_x64(True):
        got = forced_step(jnp.asarray(A), jnp.asarray(drives))
    # Rounding of A alone moves slow directions by stiff · 1e-16.
    np.testing.assert_allclose(got, wanted, atol=(1e-12 + 1e-14 * stiff) * abs(wanted).max())


def test_series_in_groups_are_the_series():
    y = np.random.default_rng(0).normal(size=(7, AT_ONCE // 3, 2))
    found = each_series(lambda a: {"sum": a.sum(0), "none": jnp.zeros((3, 0))}, jnp.asarray(y))
    np.testing.assert_allclose(found["sum"], y.sum(1), atol=1e-3)
    assert found["none"].shape == (7, 3, 0)
