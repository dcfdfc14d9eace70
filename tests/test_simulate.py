"""Ready-made systems and courses drawn from them, against SciPy's integrators and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import dblquad, solve_ivp

import vfe
from vfe.dynamics import simulate

KEY = jax.random.key(0)


def push(t):
    return np.exp(-((t - 6) ** 2) / 4)


def convolution(t, x):
    A = np.array([[-1, 4], [-2, -1]]) / 4
    return A @ x + np.array([1, 0]) * push(t)


def wells(t, x):
    return (16 * x / (1 + x**2) - x / 2 + 2 * push(t)) / 8


def attractor(x, s, r, b):
    return np.array([s * (x[1] - x[0]), x[0] * (r - x[2]) - x[1], x[0] * x[1] - b * x[2]])


def singer(t, x):
    below = 4 * attractor(x[:3], 10, x[5] - 4, 8 / 3)
    return np.concatenate([below, 0.5 * attractor(x[3:], 10, 32, 8 / 3)])


def balloon(t, x):
    """In the states themselves, not in their logarithms."""
    s, f, v, q = x
    extracted = 1 - (1 - 0.34) ** (1 / f)
    return np.array(
        [
            0.54 * push(t) - 0.65 * s - 0.41 * (f - 1),
            s,
            (f - v ** (1 / 0.32)) / 0.98,
            (f * extracted / 0.34 - v ** (1 / 0.32) * q / v) / 0.98,
        ]
    )


def bold(x):
    _, _, v, q = x
    return 2 * (7 * 0.34 * (1 - q) + 2 * (1 - q / v) + (2 * 0.34 - 0.2) * (1 - v))


DCT = np.cos(np.pi * (2 * np.arange(4) + 1) / 8) * np.sqrt(0.5) / 4
CASES = {
    "convolution": (
        lambda: vfe.dynamics.linear_convolution(dt=0.5),
        convolution,
        lambda x: np.stack([np.full(4, 1 / 8), DCT], 1) @ x,
        np.zeros(2),
    ),
    "double well": (lambda: vfe.dynamics.double_well(dt=0.5), wells, lambda x: x**2 / 16, np.ones(1)),
    "lorenz": (
        lambda: vfe.dynamics.lorenz(dt=0.02),
        lambda t, x: attractor(x, 10, 28, 8 / 3),
        lambda x: x.sum(0, keepdims=True),
        np.array([1.0, 1.0, 20.0]),
    ),
    "birdsong": (vfe.dynamics.birdsong, singer, lambda x: x[1:3], np.array([1.0, 1, 8, 1, 1, 8])),
    "haemodynamic": (
        lambda: vfe.dynamics.haemodynamic(dt=0.5),
        balloon,
        lambda x: bold(x)[None],
        np.array([0.0, 1, 1, 1]),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_course_without_noise_is_what_scipy_integrates(name):
    make, flow, observe, start = CASES[name]
    model = make()
    causes = push if model.cause_sizes[-1] else None
    course = simulate(model, KEY, 50, causes=causes, noise=False, substeps=40)
    times = model.dt * np.arange(50)
    np.testing.assert_allclose(course.time, times, rtol=1e-12)
    wanted = solve_ivp(flow, (0, times[-1]), start, "DOP853", times, rtol=1e-11, atol=1e-11).y
    np.testing.assert_allclose(course.data.T, observe(wanted), rtol=1e-5, atol=1e-7)
    states = np.asarray(course.states.T)
    if name == "haemodynamic":
        states = np.concatenate([states[:1], np.exp(states[1:])])
    np.testing.assert_allclose(states, wanted, rtol=1e-5, atol=1e-7)
    assert course.data.dtype == np.float64


def test_two_regions_are_two_balloons():
    one, two = vfe.dynamics.haemodynamic(dt=0.5), vfe.dynamics.haemodynamic(2, dt=0.5)
    both = simulate(two, KEY, 20, causes=lambda t: np.stack([push(t), 0.3 * push(t)], 1), noise=False)
    for region, size in enumerate((1.0, 0.3)):
        alone = simulate(one, KEY, 20, causes=lambda t, size=size: size * push(t), noise=False)
        np.testing.assert_allclose(both.data[:, region], alone.data[:, 0], rtol=1e-10)
        np.testing.assert_allclose(both.states[:, region::2], alone.states, rtol=1e-10, atol=1e-12)


def still(**options):
    """States that only noise moves, and data that only noise tells from them."""
    level = vfe.Level(lambda x, v, p: x, lambda x, v, p: 0 * x, states=2, **options)
    return vfe.DynamicModel(level, dt=0.2, smoothness=0.17)


def draws(model, length, count=4000):
    return jax.vmap(lambda key: simulate(model, key, length))(jax.random.split(KEY, count))


def near_covariance(got, wanted, count=4000):
    """Within five standard errors of a sampled covariance of Gaussian variables."""
    sd = np.sqrt((np.outer(np.diag(wanted), np.diag(wanted)) + wanted**2) / count)
    assert np.all(np.abs(got - wanted) < 5 * sd + 1e-12)


def test_noise_of_the_data_has_its_autocovariance():
    precision = np.array([[2.0, 0.5], [0.5, 1.0]])
    model = still(observation_precision=precision, state_precision=1e30)
    found = draws(model, 6)
    noise = np.asarray(found.data - found.states).reshape(4000, -1)
    lags = 0.2 * (np.arange(6)[:, None] - np.arange(6))
    wanted = np.kron(np.exp(-(lags**2) / (4 * 0.17**2)), np.linalg.inv(precision))
    near_covariance(noise.T @ noise / 4000, wanted)


def test_noise_of_the_motion_moves_the_states():
    """The covariance of integrals of smooth noise, by quadrature."""
    found = draws(still(observation_precision=1e30, state_precision=vfe.Precision(components=[3.0])), 4)
    at = np.asarray(found.states)[:, 1:, 0]

    def kernel(s, t):
        return np.exp(-((s - t) ** 2) / (4 * 0.17**2)) / 3

    times = 0.2 * np.arange(1, 4)
    wanted = np.array([[dblquad(kernel, 0, a, 0, b)[0] for b in times] for a in times])
    near_covariance(at.T @ at / 4000, wanted)


def test_white_noise_has_the_intensity_that_the_filters_take():
    level = vfe.Level(lambda x, v, p: x, lambda x, v, p: 0 * x, states=1, state_precision=4.0)
    found = draws(vfe.DynamicModel(level, dt=0.2, smoothness=0.0), 4)
    at = np.asarray(found.states)[:, 1:, 0]
    noise = np.asarray(found.data[..., 0] - found.states[..., 0])
    near_covariance(at.T @ at / 4000, 0.2**2 / 4 * np.minimum.outer([1, 2, 3], [1, 2, 3]))
    near_covariance(noise.T @ noise / 4000, np.eye(4))


def test_causes_are_drawn_from_their_prior_or_taken():
    model = vfe.DynamicModel(vfe.Level(lambda x, v, p: 2 * v, causes=1, cause_precision=4.0))
    found = draws(model, 3)
    causes = np.asarray(found.causes)[..., 0]
    near_covariance(causes.T @ causes / 4000, np.eye(3) / 4)  # a static model: independent samples
    course = simulate(model, KEY, 3, causes=[1.0, 2.0, 4.0], noise=False)
    np.testing.assert_allclose(course.data[:, 0], [2, 4, 8], rtol=1e-12)


def test_levels_are_cut_out():
    course = simulate(vfe.dynamics.birdsong(), KEY, 5)
    below, above = course.state_levels
    assert below.shape == above.shape == (5, 3)
    assert course.cause_levels[0].shape == (5, 1)
    assert course.cause_levels[1].shape == (5, 0)
    np.testing.assert_allclose(course.cause_levels[0][:, 0], above[:, 2], atol=0.2)  # noise of e⁻⁴


def test_a_filter_finds_what_was_drawn():
    model = vfe.dynamics.linear_convolution(observation_precision=np.e**8, state_precision=np.e**8)
    course = simulate(model, KEY, 48, causes=lambda t: np.exp(-((t - 12) ** 2) / 4))
    found = vfe.filter(model, course.data, scheme=vfe.dynamics.Reference())
    error = np.sqrt(np.mean((found.states.mean - course.states)[6:] ** 2))
    assert error < 0.3 * np.asarray(course.states).std()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: simulate(m, KEY, 0), ["length=0", "at least 1"]),
        (lambda m: simulate(m, KEY, 9, states=[1.0]), [r"\(1,\)", r"\(2,\)"]),
        (lambda m: simulate(m, KEY, 9, causes=np.zeros((8, 1))), [r"\(8, 1\)", r"\(9, 1\)", "sample"]),
        (lambda m: simulate(m, KEY, 9, causes=np.full((9, 1), np.nan)), ["finite"]),
        (lambda m: vfe.dynamics.linear_convolution(drift=[[1.0]]), [r"\(1, 1\)", r"\(2, 1\)"]),
        (lambda m: vfe.dynamics.double_well(-1.0), ["rate", "-1.0"]),
        (lambda m: vfe.dynamics.lorenz(observation=[1.0]), [r"\(1,\)", r"\(channels, 3\)"]),
        (lambda m: vfe.dynamics.birdsong((1.0, 0.0)), ["second rate"]),
        (lambda m: vfe.dynamics.haemodynamic(0), ["regions=0"]),
        (lambda m: vfe.dynamics.haemodynamic(parameter_sd={"decai": 0.1}), ["decai", "transit"]),
    ],
)
def test_what_cannot_be(call, words):
    model = vfe.dynamics.linear_convolution()
    with pytest.raises(ValueError, match=".*".join(words)):
        call(model)


def test_a_course_that_leaves_all_bounds_names_its_level():
    level = vfe.Level(lambda x, v, p: x, lambda x, v, p: x**3 + 0 * jnp.sum(v), states=[2.0])
    with pytest.raises(vfe.DivergenceError, match=r"level 1 .*time index"):
        simulate(vfe.DynamicModel(level, dt=1.0), KEY, 20)
    with pytest.raises(TypeError, match=r"vfe\.DynamicModel"):
        simulate("model", KEY, 3)
