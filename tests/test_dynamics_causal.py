"""The causal filter and the smoother of dynamic models: exact for linear ones, and what is refused."""

import dynamic_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import scipy.stats

import vfe
from vfe.dynamics import Causal, Reference, smooth_noise
from vfe.dynamics.linear.smooth_noise import discretise
from vfe.dynamics.paths.augmented import discretise_forward

DT, ORDER, FLOOR = 0.1, 4, 1e-2
SCHEME = Causal(order=ORDER, floor=FLOOR)
A = np.array([[-0.4, 3.0], [-2.0, -0.3]])
DATA_PRECISION = np.array([[9.0, 2.0], [2.0, 4.0]])


def two_levels():
    """A damped rhythm, driven by a leaky cause that follows the top cause; its noise of every kind."""
    below = vfe.Level(
        lambda x, v, p: jnp.array([x[0] + v[0], 2 * x[1]]),
        lambda x, v, p: A @ x + jnp.array([1.5, 0.0]) * v[0],
        states=[1.0, -0.5],
        observation_precision=DATA_PRECISION,
        state_precision=[2.0, 5.0],
        initial_covariance=[[0.5, 0.1], [0.1, 0.3]],
        smoothness=0.08,
        state_smoothness=0.05,
    )
    above = vfe.Level(
        lambda x, v, p: 0.7 * x + 0.2 * v,
        lambda x, v, p: 3 * (v - x),
        states=1,
        causes=1,
        observation_precision=vfe.Precision(components=[2.0], mean=1.5),
        cause_precision=4.0,
        state_precision=6.0,
        state_smoothness=0.0,
        initial_covariance=0.2,
    )
    return vfe.DynamicModel([below, above], order=3, smoothness=0.06, dt=DT)


def series(count=14, seed=0):
    rng = np.random.default_rng(seed)
    y, eta = rng.normal(size=(count, 2)), rng.normal(size=(count, 1))
    y[3, 0] = y[6] = y[7, 1] = np.nan
    return y, eta, 0.7 + np.cumsum(rng.uniform(0.03, 0.31, size=count))


def by_hand(times, eta):
    """The same two levels as a state space: x of both, then noise of w1, z2, u and z1."""
    data = np.linalg.cholesky(np.linalg.inv(DATA_PRECISION))
    noises = [
        *(smooth_noise(p**-0.5, 0.05, order=ORDER) for p in (2.0, 5.0)),
        smooth_noise((2 * np.exp(1.5)) ** -0.5, 0.06, order=ORDER),
        smooth_noise(4**-0.5, 0.06, order=ORDER),
        *(smooth_noise(1.0, 0.08, order=ORDER) for _ in range(2)),
    ]
    size = 3 + ORDER * len(noises)
    output = np.zeros((len(noises), size))
    F, W = np.zeros((size, size)), np.zeros((size, size))
    for i, noise in enumerate(noises):
        own = slice(3 + i * ORDER, 3 + (i + 1) * ORDER)
        output[i, own] = noise.output
        F[own, own] = noise.drift
        W[own, own] = np.outer(noise.white, noise.white)
    x = np.eye(3, size)
    u = output[3]
    v = 0.7 * x[2] + 0.2 * u + output[2]
    F[:2] = A @ x[:2] + output[:2] + np.outer([1.5, 0.0], v)
    F[2] = 3 * (u - x[2])
    W[2, 2] = DT / 6.0
    of_eta = np.zeros((size, 1))
    of_eta[:3, 0] = [1.5 * 0.2, 0.0, 3.0]
    C = np.stack([x[0] + v, 2 * x[1]]) + data @ output[4:]
    D = np.array([[0.2], [0.0]])
    transition, noise, offset = [np.eye(size)], [np.zeros((size, size))], [np.zeros(size)]
    with jax.enable_x64(True):
        for k, gap in enumerate(np.diff(times)):
            step, spread = discretise(jnp.asarray(F), jnp.asarray(W), gap)
            transition.append(np.asarray(step))
            noise.append(np.asarray(spread))
            # η goes straight from sample to sample: 1 and time beside the states.
            block = np.zeros((size + 2, size + 2))
            block[:size, :size], block[-1, -2] = F, 1.0
            block[:size, -2:-1] = of_eta * eta[k]
            block[:size, -1:] = of_eta * (eta[k + 1] - eta[k]) / gap
            offset.append(scipy.linalg.expm(block * gap)[:size, -2])
    start = np.eye(size)
    start[:3, :3] = scipy.linalg.block_diag([[0.5, 0.1], [0.1, 0.3]], 0.2)
    covariance = data @ data.T
    model = vfe.StateSpace(
        initial_mean=np.concatenate([[1.0, -0.5, 0.0], np.zeros(size - 3)]),
        initial_covariance=start,
        transition=np.array(transition),
        transition_offset=np.array(offset),
        transition_covariance=np.array(noise),
        observation=C,
        observation_offset=eta @ D.T,
        observation_covariance=FLOOR**2 * np.diag(np.diag(covariance)),
    )
    return model, v, u, F


def near(got, want, tolerance=1e-9):
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * max(1.0, np.abs(want).max()))


def test_two_linear_levels_are_an_exact_state_space():
    y, eta, times = series()
    model = two_levels()
    space, v, u, F = by_hand(times, eta)
    found = vfe.filter(model, y, times=times, prior_causes=eta, scheme=SCHEME)
    exact = vfe.filter(space, y)
    assert found.free_energy.kind is vfe.Kind.exact
    assert found.states.mean.dtype == np.float64
    for got, want in ((found, exact), (vfe.smooth(model, y, times=times, prior_causes=eta, scheme=SCHEME),
                                       vfe.smooth(space, y))):  # fmt: skip
        near(got.states.mean, want.mean[:, :3])
        near(got.states.covariance, want.covariance[:, :3, :3])
        near(got.causes.mean[:, 1:], want.mean @ u[:, None] + eta)
        near(got.causes.mean[:, :1], want.mean @ v[:, None] + 0.2 * eta)
        rows = np.stack([v, u])
        near(got.causes.covariance, rows @ want.covariance @ rows.T)
        driven = eta * [[1.5 * 0.2, 0.0, 3.0]]
        near(got.motion.mean, want.mean @ F[:3].T + driven)
        near(got.motion.covariance, F[:3] @ want.covariance @ F[:3].T)
        near(got.free_energy.total.sum(), -exact.log_evidence)
        near(got.log_evidence, exact.log_evidence)
    near(found.prediction.mean, exact.predicted_y.mean)
    near(found.prediction.covariance, exact.predicted_y.covariance)
    near(found.free_energy.total, exact.surprise)
    # In hindsight: what fills a gap, and the error of w at the first sample.
    near(got.data.mean[6], want.fitted_y.mean[6])
    near(got.data.mean[0], y[0], 0.1)
    assert got.errors["observation 2"].shape == (14, 1)
    assert set(got.free_energy.by_level) == {
        "initial", "observation", "observation 1", "states 1", "observation 2", "states 2", "causes", "path"
    }  # fmt: skip


def bent():
    """A pendulum whose sine is seen, pushed by a cause."""
    level = vfe.Level(
        lambda x, v, p: jnp.sin(x[:1]),
        lambda x, v, p: jnp.array([x[1], -4.0 * jnp.sin(x[0])]) + v,
        states=[1.0, 0.0],
        causes=2,
        observation_precision=25.0,
        state_precision=np.exp(16),
        cause_precision=4.0,
        initial_covariance=0.1,
    )
    return vfe.DynamicModel(level, dt=DT, smoothness=0.1)


def test_sample_by_sample_is_the_whole_pass():
    y = np.sin(np.cos(2 * np.arange(12) * DT))[:, None] + 0.1
    y[4] = np.nan
    eta, times = 0.1 * np.ones((12, 2)), np.cumsum([DT] * 6 + [2.6 * DT] * 6)
    model, scheme = bent(), Causal(iterations=3)
    whole = vfe.filter(model, y, times=times, prior_causes=eta, scheme=scheme)
    assert whole.free_energy.kind is vfe.Kind.approximation
    state = scheme.init(model)
    size = sum(a.nbytes for a in jax.tree.leaves(state) if hasattr(a, "nbytes"))
    gaps = np.diff(times, prepend=times[0])
    for k in range(12):
        state, now = scheme.step(model, state, y[k], gaps[k] or None, prior_causes=eta[k])
        for name in ("states", "causes", "motion", "prediction", "data"):
            near(getattr(now, name).mean, getattr(whole, name).mean[k], 1e-10)
            near(getattr(now, name).covariance, getattr(whole, name).covariance[k], 1e-10)
        near(now.surprise, whole.free_energy.total[k], 1e-9)
    assert state.samples == 12
    assert sum(a.nbytes for a in jax.tree.leaves(state) if hasattr(a, "nbytes")) == size
    # What comes next is what the filter says where samples are missing.
    longer = vfe.filter(
        model,
        np.concatenate([y, np.full((3, 1), np.nan)]),
        times=np.concatenate([times, times[-1] + DT * np.arange(1, 4)]),
        prior_causes=np.concatenate([eta, np.zeros((3, 2))]),
        scheme=scheme,
    )
    ahead = whole.forecast(3)
    near(ahead.states.mean, longer.states.mean[12:], 1e-10)
    near(ahead.data.covariance, longer.prediction.covariance[12:], 1e-10)
    near(ahead.time, longer.time[12:], 1e-12)
    lower, upper = ahead.data.interval(0.9)
    near(upper - lower, 2 * 1.6448536 * ahead.data.sd, 1e-6)


def test_the_past_does_not_know_the_future():
    y = np.random.default_rng(0).normal(size=(12, 1)) * 0.3
    other = y.copy()
    other[8:] += 1.0
    one, two = (vfe.filter(bent(), data) for data in (y, other))
    np.testing.assert_array_equal(one.states.mean[:8], two.states.mean[:8])
    assert np.abs(one.states.mean[8] - two.states.mean[8]).max() > 1e-3


def test_several_series_at_once_and_what_can_be_shown():
    y = np.random.default_rng(1).normal(size=(3, 9, 1)) * 0.3
    for verb in (vfe.filter, vfe.smooth):
        together, alone = verb(bent(), y), verb(bent(), y[2])
        near(together.states.mean[2], alone.states.mean, 1e-9)
        near(together.log_evidence[2], alone.log_evidence, 1e-9)
        near(together[2].forecast(2).data.mean, alone.forecast(2).data.mean, 1e-9)
        near(together.forecast(2).data.mean[2], alone.forecast(2).data.mean, 1e-9)
        table = alone.to_xarray()
        near(table["free_energy_by_term"].sum(), alone.free_energy.total.sum(), 1e-9)
        assert table["states"].shape == (9, 2)
        assert table.attrs["kind"] == "approximation"
        assert len(alone.plot()) == 4
        assert "9 samples" in repr(alone)
        with pytest.raises(ValueError, match=r"trajectory\[0\]"):
            together.plot()


def test_one_sample_through_a_curve_is_laplace():
    """y = x² + white noise: the mode and the Gauss–Newton curvature there, by SciPy."""
    level = vfe.Level(
        lambda x, v, p: x**2, lambda x, v, p: -x, states=[1.0], observation_precision=4.0, smoothness=0.0
    )
    found = vfe.filter(vfe.DynamicModel(level), [3.0], scheme=Causal(iterations=40))

    def energy(x):
        return 0.5 * (x - 1) ** 2 + 2 * (3 - x**2) ** 2

    mode = scipy.optimize.minimize_scalar(energy, bounds=(0, 3), options={"xatol": 1e-12}).x
    curvature = 1 + 4 * (2 * mode) ** 2
    near(found.states.mean[0, 0], mode, 1e-6)
    near(found.states.covariance[0, 0, 0], 1 / curvature, 1e-6)
    constant = 0.5 * np.log(2 * np.pi) - 0.5 * np.log(4.0)
    near(found.free_energy.total, [energy(mode) + constant + 0.5 * np.log(curvature)], 1e-6)


def test_without_noise_of_states_the_start_is_a_regression():
    level = vfe.Level(
        lambda x, v, p: x,
        lambda x, v, p: -0.5 * x,
        states=[2.0],
        observation_precision=16.0,
        state_precision=1e8,
        smoothness=0.0,
        initial_covariance=0.25,
    )
    model = vfe.DynamicModel(level, dt=0.2)
    times = np.array([0.0, 0.3, 1.1, 1.2])
    y = np.array([1.4, 1.5, 0.9, np.nan])
    X, seen = np.exp(-0.5 * times), np.array([True, True, True, False])
    spread = 1 / (4 + 16 * (X[seen] ** 2).sum())
    mean = spread * (4 * 2.0 + 16 * X[seen] @ y[seen])
    for verb in (vfe.filter, vfe.smooth):
        found = verb(model, y, times=times)
        near(found.states.mean[3, 0], X[3] * mean)
        near(found.states.sd[3, 0], X[3] * spread**0.5)
    near(found.states.mean[:, 0], X * mean)
    assert not found.errors["states 1"].any()


def test_a_static_model_is_a_regression_of_every_sample():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(5, 2)), rng.normal(size=(3, 5))
    y[1, 2:4] = np.nan
    level = vfe.Level(
        lambda x, v, p: p @ v, causes=2, parameters=X, observation_precision=4.0, cause_precision=0.5
    )
    found = vfe.filter(vfe.DynamicModel(level), y)
    for k in range(3):
        seen = ~np.isnan(y[k])
        C = np.linalg.inv(4 * X[seen].T @ X[seen] + 0.5 * np.eye(2))
        near(found.causes.covariance[k], C)
        near(found.causes.mean[k], 4 * C @ X[seen].T @ y[k, seen])
        spread = X[seen] @ X[seen].T / 0.5 + np.eye(seen.sum()) / 4
        near(found.free_energy.total[k], -scipy.stats.multivariate_normal(cov=spread).logpdf(y[k, seen]))
    near(vfe.smooth(vfe.DynamicModel(level), y).causes.mean, found.causes.mean)


def test_white_noise_over_smooth_noise_is_the_path_of_a_nonlinear_system():
    """The data's noise as two levels: white below, smooth above."""
    y = np.sin(2 * np.arange(25) * DT)[:, None] + 0.1 * np.random.default_rng(3).normal(size=(25, 1))
    y[7:9] = np.nan
    state = {"initial_mean": [0.0, 2.0], "initial_covariance": 0.3 * np.eye(2)}

    def swing(x):
        return jnp.array([x[1], -4.0 * jnp.sin(x[0])])

    system = vfe.dynamics.NonlinearSystem(
        flow=swing, observe=lambda x: x[:1], dt=DT, smoothness=0.15, state_sd=0.5, observation_sd=0.2,
        white_sd=0.1, **state,
    )  # fmt: skip
    floor = vfe.Level(lambda x, v, p: v, observation_precision=100.0, smoothness=0.0)
    pendulum = vfe.Level(
        lambda x, v, p: x[:1],
        lambda x, v, p: swing(x),
        states=[0.0, 2.0],
        observation_precision=25.0,
        state_precision=4.0,
        initial_covariance=0.3,
    )
    model = vfe.DynamicModel([floor, pendulum], dt=DT, smoothness=0.15)
    path, found = vfe.smooth(system, y, tolerance=1e-8), vfe.smooth(model, y, tolerance=1e-8)
    near(found.states.mean, path.mean, 1e-6)
    near(found.states.sd, path.sd, 1e-6)
    near(found.free_energy.total.sum(), path.free_energy.total.sum(), 1e-5)


def test_a_step_in_time_against_quadrature():
    rng = np.random.default_rng(0)
    F, G = 3 * rng.normal(size=(5, 5)), rng.normal(size=(5, 2))
    nodes, weights = np.polynomial.legendre.leggauss(60)
    parts = [scipy.linalg.expm(F * (1 + t) * 0.4) @ G for t in nodes]
    spread = sum(w * 0.4 * part @ part.T for w, part in zip(weights, parts, strict=True))
    with jax.enable_x64(True):
        step, covariance = discretise_forward(jnp.asarray(F), jnp.asarray(G @ G.T), jnp.asarray(0.8))
    for got, want in ((step, scipy.linalg.expm(0.8 * F)), (covariance, spread)):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-11 * np.abs(want).max())


def test_bad_input():
    model, y = bent(), np.zeros(9)
    back = np.r_[0.0, 0.2, 0.1, np.arange(1, 7)]
    for verb in (vfe.filter, vfe.smooth):
        with pytest.raises(ValueError, match=r"time goes from 0.2 to 0.1 at index 2"):
            verb(model, y, times=back)
        with pytest.raises(ValueError, match="every sample of the series is missing"):
            verb(model, np.full(9, np.nan))
        with pytest.raises(ValueError, match=r"got inf at index \(3, 0\)"):
            verb(model, np.where(np.arange(9) == 3, np.inf, y))
        with pytest.raises(ValueError, match=r"times of shape \(3,\); wanted \(9,\)"):
            verb(model, y, times=[0.0, 1.0, 2.0])
        with pytest.raises(ValueError, match="prior_causes"):
            verb(model, y, prior_causes=np.full((9, 2), np.nan))
        with pytest.raises(TypeError, match=r"vfe.dynamics.Causal\(...\)"):
            verb(model, y, scheme="causal")
    with pytest.raises(ValueError, match="Reference, which embeds"):
        vfe.filter(model, y, times=np.arange(9.0), scheme=Reference())
    with pytest.raises(ValueError, match=r"nan at index \(1, 0\)"):
        vfe.filter(model, np.where(np.arange(9) == 1, np.nan, y), scheme=Reference())
    known = vfe.Level(lambda x, v, p: v, causes=1, cause_precision=1e8)
    with pytest.raises(ValueError, match="nothing in it is hidden"):
        vfe.filter(vfe.DynamicModel(known), y)
    wild = vfe.Level(lambda x, v, p: x, lambda x, v, p: x**3, states=[2.0])
    with pytest.raises(vfe.DivergenceError, match=r"states of level 1 diverged at time index \d+. Check"):
        vfe.filter(vfe.DynamicModel(wild, dt=5.0), np.full(9, 100.0))
    with pytest.raises(vfe.DivergenceError, match="extended filter that starts the search left float64"):
        vfe.smooth(vfe.DynamicModel(wild, dt=5.0), np.full(9, 100.0))
    scheme = Causal()
    state = scheme.init(model)
    for wrong in ({"y": [0.0, 1.0]}, {"y": 0.0, "dt": 0.0}, {"y": 0.0, "prior_causes": [1.0]}):
        with pytest.raises(ValueError, match="step: got"):
            scheme.step(model, state, **wrong)
    for wrong in ({"order": 11}, {"substeps": 0}, {"iterations": 1.5}, {"floor": 0.0}):
        with pytest.raises(ValueError, match=f"Causal: got {next(iter(wrong))}="):
            Causal(**wrong)
    with pytest.raises(ValueError, match="initial_covariance with a negative eigenvalue"):
        vfe.Level(lambda x, v, p: x, lambda x, v, p: x, states=1, initial_covariance=-1.0)
    with pytest.raises(ValueError, match="steps=0"):
        vfe.filter(model, y).forecast(0)


def test_states_near_the_truth():
    """Errors against the states that made the data, beside those of the published scheme."""
    data = cases.load("conv_state")
    model, truth = cases.convolution("conv_state", data), data["true_x1"].T

    def error(states):
        return np.sqrt(((states - truth) ** 2).mean())

    filtered, smoothed = vfe.filter(model, data["Y"].T), vfe.smooth(model, data["Y"].T)
    published = error(data["qU_x1"].T)
    assert error(smoothed.states.mean) < published < error(filtered.states.mean) < 1.1 * published
    for found in (filtered, smoothed):
        assert 0.5 < (((found.states.mean - truth) / found.states.sd) ** 2).mean() < 1.5
    near(smoothed.log_evidence, filtered.log_evidence)


def test_traced_data():
    y = np.random.default_rng(2).normal(size=(2, 9, 1)) * 0.3
    with jax.enable_x64(True):
        mapped = jax.vmap(lambda data: vfe.filter(bent(), data).states.mean)(jnp.asarray(y))
    near(mapped, vfe.filter(bent(), y).states.mean, 1e-12)
    with pytest.raises(TypeError, match="got traced data"):
        jax.jit(lambda data: vfe.smooth(bent(), data).states.mean)(y[0])
