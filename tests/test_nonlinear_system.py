"""Nonlinear systems in smooth noise: linear ones against the exact smoother, a pendulum, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close

import vfe
from vfe.dynamics import NonlinearSystem, smooth_noise_state_space

NOISE = {"dt": 0.1, "smoothness": 0.15, "observation_sd": 0.4, "white_sd": 0.05}
START = {"initial_mean": [1.0, 0.0], "initial_covariance": 0.5 * np.eye(2)}


def pendulum(x):
    return jnp.stack([x[1], -4.0 * jnp.sin(x[0])])


def swing(count, seed, smoothness=0.15, state_sd=0.5):
    """A pendulum in smooth noise and its samples, by small steps of Runge and Kutta in NumPy."""
    rng = np.random.default_rng(seed)
    fine = 20
    h = 0.1 / fine
    times = np.arange(count * fine + 1) * h

    def smooth(times, sd):
        kernel = np.exp(-((times[:, None] - times) ** 2) / (4 * smoothness**2))
        values, vectors = np.linalg.eigh(kernel)
        return sd * vectors @ (np.sqrt(np.maximum(values, 0)) * rng.normal(size=len(times)))

    force = np.stack([smooth(times[::4], state_sd) for _ in range(2)], 1)
    force = np.stack([np.interp(times, times[::4], f) for f in force.T], 1)

    def flow(x, w):
        return np.array([x[1], -4.0 * np.sin(x[0])]) + w

    x = np.array([1.0, 0.0])
    found = [x]
    for i in range(count * fine):
        half = 0.5 * (force[i] + force[i + 1])
        a = flow(x, force[i])
        b = flow(x + 0.5 * h * a, half)
        c = flow(x + 0.5 * h * b, half)
        x = x + h / 6 * (a + 2 * b + 2 * c + flow(x + h * c, force[i + 1]))
        found.append(x)
    states = np.array(found)[::fine][:count]
    noise = smooth(times[::fine][:count], 0.4) + 0.05 * rng.normal(size=count)
    return states, (states[:, 0] + noise)[:, None]


@pytest.mark.parametrize("smoothness", [0.15, 0.0])
def test_linear_flow_is_the_exact_smoother(smoothness):
    drift = np.array([[0.0, 1.0], [-4.0, -0.2]])
    noise = NOISE | {"smoothness": smoothness, "state_sd": [0.2, 0.6], "order": 6}
    y = np.random.default_rng(0).normal(size=(25, 1))
    y[7:10] = np.nan
    exact = vfe.smooth(smooth_noise_state_space(drift, [[1.0, 0.0]], **noise, **START), y)
    # Steps of a linear flow are exact, however many there are.
    system = NonlinearSystem(
        flow=lambda x: drift @ x, observe=lambda x: x[:1], **noise, **START, substeps=2
    )
    found = vfe.smooth(system, y)
    assert_close(found.mean, exact.mean[:, :2], 1e-9)
    assert_close(found.sd, exact.sd[:, :2], 1e-9)
    assert found.free_energy.total.sum() == pytest.approx(-exact.log_evidence, rel=1e-9)
    assert found.free_energy.kind is vfe.Kind.approximation


def test_pendulum():
    states, y = swing(150, 1)
    system = {"flow": pendulum, "observe": lambda x: x[:1], "state_sd": 0.5} | NOISE | START
    found = vfe.smooth(NonlinearSystem(**system), y)
    assert found.mean.dtype == np.float64
    standardised = ((found.mean - states) / found.sd) ** 2
    assert 0.4 < standardised.mean() < 2.0
    assert np.abs(found.mean - states)[:, 0].mean() < 0.7 * np.abs(y - states[:, :1]).mean()
    # More substeps change little, and F prefers the noise that there was to white noise.
    finer = vfe.smooth(NonlinearSystem(**system, substeps=5), y)
    assert np.abs(finer.mean - found.mean).max() < 0.3 * found.sd.max()
    white = vfe.smooth(NonlinearSystem(**(system | {"smoothness": 0.0})), y)
    assert white.free_energy.total.sum() > found.free_energy.total.sum() + 50
    data = found.to_xarray()
    assert_close(data["free_energy_by_term"].sum(), found.free_energy.total.sum(), 1e-10)
    assert len(found.plot()) == 2


def test_bad_input():
    system = {"flow": pendulum, "observe": lambda x: x[:1], "state_sd": 0.5} | NOISE | START
    for change, message in (
        ({"flow": lambda x: x[:1]}, r"flow returns .*\(1,\).* for a state of shape \(2,\)"),
        ({"observe": lambda x: x[0]}, r"observe returns .*wanted an array of shape \(k,\)"),
        ({"dt": 0.0}, r"got dt=0.0"),
        ({"smoothness": -0.1}, r"got smoothness=-0.1"),
        ({"white_sd": 0.0}, r"got white_sd=0.0"),
        ({"state_sd": [1.0] * 3}, r"state_sd has shape \(3,\); wanted \(\) or \(2,\)"),
        ({"initial_covariance": np.eye(3)}, r"initial_covariance \(3, 3\)"),
        ({"substeps": 0}, r"got substeps=0"),
    ):
        with pytest.raises(ValueError, match=message):
            NonlinearSystem(**(system | change))
    _, y = swing(20, 2)
    model = NonlinearSystem(**system)
    with pytest.raises(ValueError, match=r"y has shape \(20,\); wanted \(time, 1\)"):
        vfe.smooth(model, y[:, 0])
    with pytest.raises(vfe.DivergenceError, match="no path after 1 steps"):
        vfe.smooth(model, y, max_steps=1)
    explosive = NonlinearSystem(**(system | {"flow": lambda x: 100 * x**3}))
    with pytest.raises(vfe.DivergenceError, match="left float64 on the way to sample"):
        vfe.smooth(explosive, np.full((20, 1), np.nan))
    with pytest.raises(TypeError, match="wanted a model of a series"):
        vfe.filter(model, y)
    jax.clear_caches()
