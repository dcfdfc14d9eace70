"""Smooth noise as a linear system, against its autocovariance and dense Gaussians; fitted parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from helpers import assert_close, gaussian_energy

import vfe
from vfe.dynamics import smooth_noise, smooth_noise_state_space

SYSTEM = {"dt": 0.1, "smoothness": 0.15, "state_sd": 0.8, "observation_sd": 0.5, "white_sd": 0.05}


def exact_covariances(count, a, dt, smoothness, state_sd, observation_sd, white_sd, fine=40):
    """Cov(x, x) and Cov(y, y) of x' = −a x + w, y = x + v + e, by a fine trapezoidal sum over the past."""
    # x(t) = ∫ exp(−a u) w(t − u) du, and Cov(x(t), x(t + h)) = ∫ k(r) exp(−a |h − r|) / 2a dr.
    lags = np.arange(count) * dt
    r = np.arange(-8 * fine, 8 * fine + 1) * smoothness / fine
    kernel = state_sd**2 * np.exp(-(r**2) / (4 * smoothness**2))
    blurred = np.trapezoid(kernel * np.exp(-a * np.abs(lags[:, None] - r)) / (2 * a), r, axis=1)
    states = scipy.linalg.toeplitz(blurred)
    noise = observation_sd**2 * np.exp(-((lags[:, None] - lags) ** 2) / (4 * smoothness**2))
    return states, states + noise + white_sd**2 * np.eye(count)


@pytest.mark.parametrize(("order", "error"), [(4, 2.2e-2), (6, 4.3e-3), (8, 9.2e-4), (10, 2.1e-4)])
def test_autocovariance(order, error):
    lags = np.linspace(-2, 2, 41)
    got = smooth_noise(3.0, 0.25, order=order).autocovariance(lags)
    want = 9 * np.exp(-(lags**2) / (4 * 0.25**2))
    assert np.abs(got - want).max() < 9 * error
    assert_close(got[20], 9.0, 1e-12)


def test_filter_under_smooth_noise_is_the_best_linear_estimator():
    y = np.random.default_rng(0).normal(size=60)
    states, series = exact_covariances(60, 0.7, **SYSTEM)
    gain = np.linalg.solve(series, states).T
    found = vfe.smooth(smooth_noise_state_space([[-0.7]], [[1.0]], **SYSTEM, order=10), y[:, None])
    spread = np.sqrt(np.diag(states - gain @ states))
    # y is no draw of the model but white: what the kernels differ by is amplified by 1 / white_sd.
    assert np.abs(found.mean[:, 0] - gain @ y).max() < 0.02 * np.abs(gain @ y).max()
    assert_close(found.sd[:, 0] / spread, np.ones(60), 2e-3)
    drawn = np.linalg.cholesky(series) @ y
    found = vfe.smooth(smooth_noise_state_space([[-0.7]], [[1.0]], **SYSTEM, order=10), drawn[:, None])
    assert np.abs(found.mean[:, 0] - gain @ drawn).max() < 0.02 * spread.mean()
    want = gaussian_energy(drawn, 0, series)
    assert abs(want + found.log_evidence) < 0.5
    assert_close(found.free_energy.sum().total, -found.log_evidence, 1e-9)


def test_white_noise_and_quick_smooth_noise():
    """At smoothness 0 the Kalman model; smooth noise far quicker than dt is white of the same integral."""
    arguments = SYSTEM | {"smoothness": 0, "dt": 0.5}
    model = smooth_noise_state_space([[-0.7]], [[1.0]], **arguments)
    decay = np.exp(-0.35)
    assert_close(model.transition, [[decay]], 1e-12)
    assert_close(model.transition_covariance, [[0.8**2 * 0.5 * (1 - decay**2) / 1.4]], 1e-12)
    assert_close(model.initial_covariance, [[0.8**2 * 0.5 / 1.4]], 1e-12)
    assert_close(model.observation_covariance, [[0.5**2 + 0.05**2]], 1e-12)
    quick = 1e-3
    sd = 0.8 * np.sqrt(0.5 / (2 * quick * np.sqrt(np.pi)))
    y = np.random.default_rng(1).normal(size=(30, 1))
    other = smooth_noise_state_space(
        [[-0.7]], [[1.0]], **(arguments | {"smoothness": quick, "state_sd": sd})
    )
    assert_close(vfe.smooth(other, y).mean[:, 0], vfe.smooth(model, y).mean[:, 0], 5e-3)


def test_several_states_and_a_given_start():
    drift, observation = np.array([[0.0, 1.0], [-4.0, 0.1]]), np.array([[1.0, 0.0], [1.0, 1.0]])
    arguments = SYSTEM | {"state_sd": [0.1, 1.0], "observation_sd": [0.3, 0.2]}
    with pytest.raises(ValueError, match=r"not stable.*initial_covariance="):
        smooth_noise_state_space(drift, observation, **arguments)
    model = smooth_noise_state_space(
        drift,
        observation,
        **arguments,
        order=4,
        initial_mean=[1.0, 2.0],
        initial_covariance=np.eye(2),
    )
    assert model.transition.shape == (18, 18)
    assert_close(model.transition[:2, :2], scipy.linalg.expm(0.1 * drift), 1e-12)
    # The covariance of a step, by a fine sum of its integral; stationary noise stays what it is.
    whole, noise = np.zeros((18, 18)), np.zeros((18, 18))
    whole[:2, :2] = drift
    parts = [smooth_noise(sd, 0.15, order=4) for sd in (0.1, 1.0, 0.3, 0.2)]
    for i, part in enumerate(parts):
        own = slice(2 + 4 * i, 6 + 4 * i)
        whole[own, own], noise[own, own] = part.drift, np.outer(part.white, part.white)
        if i < 2:
            whole[i, own] = part.output
    times = np.linspace(0, 0.1, 201)
    moved = np.stack([scipy.linalg.expm(whole * t) for t in times])
    want = scipy.integrate.simpson(moved @ noise @ np.swapaxes(moved, 1, 2), x=times, axis=0)
    assert_close(model.transition_covariance, want, 1e-8)
    move, spread = np.asarray(model.transition)[2:, 2:], np.asarray(model.transition_covariance)[2:, 2:]
    assert_close(move @ move.T + spread, np.eye(16), 1e-10)


def test_parameters_by_the_evidence():
    """The variances of an independent series, whose posterior in their logarithm is known."""
    rng = np.random.default_rng(2)
    y = 2.0 * rng.normal(size=(300, 1))

    def build(p):
        return vfe.StateSpace(
            initial_mean=[0.0],
            initial_covariance=[[0.0]],
            transition=[[0.0]],
            transition_covariance=[[0.0]],
            observation=[[1.0]],
            observation_covariance=jnp.reshape(p["sd"] ** 2, (1, 1)),
        )

    for x64 in (False, True):
        with jax.enable_x64(x64):
            fitted = vfe.fit(build, y, prior={"sd": (1.0, 100.0)})
            assert_close(fitted.value["sd"], np.sqrt((y**2).mean()), 1e-5)
            assert_close(fitted.log_sd["sd"], 1 / np.sqrt(2 * 300), 1e-5)
            # n ln sd + n / 2 (1 + ln 2π) at the mode, a prior of deviation 100, a curvature of 2 n.
            u = np.log(fitted.value["sd"])
            wanted = 300 * u + 150 * (1 + np.log(2 * np.pi)) + 0.5 * (u / 100) ** 2 + np.log(100)
            assert_close(fitted.free_energy.total, wanted + 0.5 * np.log(2 * 300), 1e-6)
    lower, upper = fitted.interval(0.9)["sd"]
    assert_close(np.log(upper / lower), 2 * 1.6448536269514722 / np.sqrt(600), 1e-5)
    strict = vfe.fit(build, y, prior={"sd": (0.5, 1e-3)})
    assert abs(np.log(strict.value["sd"] / 0.5)) < 0.02
    with pytest.raises(ValueError, match="all positive"):
        vfe.fit(build, y, prior={"sd": (0.0, 1.0)})
    with pytest.raises(vfe.DivergenceError, match=r"no minimum after 1 steps"):
        vfe.fit(build, y, prior={"sd": (100.0, 100.0)}, max_steps=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dt": 0.0}, r"got dt=0.0; wanted a positive number"),
        ({"smoothness": -1.0}, r"got smoothness=-1.0; wanted a positive number"),
        ({"white_sd": 0.0}, r"got white_sd=0.0"),
        ({"state_sd": [1.0, 2.0]}, r"state_sd has shape \(2,\); wanted \(\) or \(1,\)"),
        ({"order": 11}, r"got order=11; wanted a whole number from 1 to 10"),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(ValueError, match=message):
        smooth_noise_state_space([[-1.0]], [[1.0]], **(SYSTEM | change))


def test_bad_shapes():
    with pytest.raises(ValueError, match=r"drift has shape \(2, 1\)"):
        smooth_noise_state_space([[-1.0], [1.0]], [[1.0]], **SYSTEM)
