"""Action: world and agent together, against reference runs, limits and an ordinary integration."""

import dynamic_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import vfe
from vfe.action.reflex_scheme import run_reflexes
from vfe.dynamics.levels.smooth_series import smooth_series


def near(got, wanted, tolerance):
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("case", ["adem_motor", "adem_motor_perturb"])
def test_the_reference_runs(case):
    data = cases.load(case)
    found = vfe.act(cases.motor(data), **cases.acting(data))
    # The reference differentiates by differences; 5e-9 is how far exact derivatives lie from it.
    near(found.percept.states.mean, data["qU_x1"].T, 5e-9)
    near(found.percept.causes.mean, data["qU_v2"].T, 1e-12)
    near(found.percept.prediction.mean, data["qU_v1"].T, 5e-9)
    near(found.action, data["qU_a2"].T, 5e-9)
    near(found.world.states, data["true_x1"].T, 5e-9)
    near(found.world.sensations, data["true_v1"].T, 5e-9)
    near(found.percept.states.covariance, data["qU_S"], 1e-11)
    near(found.percept.causes.covariance, data["qU_C"], 1e-11)
    free = found.percept.free_energy
    assert sum(free.by_level.values()) - free.entropy.sum() == pytest.approx(free.total, rel=1e-12)


def test_free_energy_of_the_reference():
    data = cases.load("adem_motor_perturb")
    system = cases.motor(data)
    problem = system.model.problem
    with jax.enable_x64(True):
        noise = jnp.concatenate([data["true_z1"].T, data["true_z2"].T], 1)
        kept = jax.jit(lambda *a: run_reflexes(system, *a))(noise, data["true_w1"].T, data["U"].T)
        Pi = np.asarray(problem.precision_matrix(problem.prior().log_precisions))
    # It counts the errors of precise causes too, which a Trajectory leaves out.
    errors, steps = np.asarray(kept.course.errors), 64
    value = -np.einsum("te,ef,tf", errors, Pi, errors) / 2 - 5 * 4 * steps / 2 * np.log(2 * np.pi)
    value += (steps * np.linalg.slogdet(Pi)[1] + np.linalg.slogdet(kept.covariance)[1].sum()) / 2
    assert value == pytest.approx(data["F"][-1], rel=1e-12)


def test_the_same_whether_known_to_be_linear_or_not_and_in_any_unit_of_time():
    data = cases.load("adem_motor")
    known = vfe.act(cases.motor(data), **cases.acting(data))
    bent = vfe.act(cases.motor(data, bend=1e-300), **cases.acting(data))
    assert cases.motor(data).process.constant
    assert not cases.motor(data, bend=1e-300).process.constant
    slow = vfe.act(cases.motor(data, dt=0.02), **cases.acting(data, 0.02))
    for other in (bent, slow):
        near(other.action, known.action, 1e-9)
        near(other.world.states, known.world.states, 1e-9)
        near(other.percept.states.mean, known.percept.states.mean, 1e-9)
    assert slow.time[1] == pytest.approx(0.02)


def test_action_cancels_a_perturbation_that_nobody_predicted():
    data = cases.load("adem_motor_perturb")
    push = -0.5 * np.exp(-((np.arange(1, 65) - 18) ** 2) / 4)
    quiet = vfe.act(cases.motor(data), length=64)
    acting = vfe.act(cases.motor(data), causes=push)
    idle = vfe.act(cases.motor(data, action_precision=1e12), causes=push)
    assert np.abs(quiet.world.states).max() == 0 == np.abs(quiet.action).max()
    assert np.abs(idle.action).max() < 1e-9
    assert np.abs(acting.world.states).max() < 0.35 * np.abs(idle.world.states).max()
    # Action mirrors the push, of which the agent knows nothing, and F is lower for it.
    assert np.corrcoef(acting.action[:, 0], push)[0, 1] < -0.9
    assert acting.percept.free_energy.total < idle.percept.free_energy.total
    assert acting.percept.free_energy.accuracy.sum() > idle.percept.free_energy.accuracy.sum()


def test_what_is_expected_is_done():
    data = cases.load("adem_motor")
    expected = np.exp(-((np.arange(1, 65) - 12) ** 2) / 16)
    found = vfe.act(cases.motor(data), prior_causes=expected)
    wish = solve_ivp(
        lambda t, x: (
            data["prior_pE"][:4].reshape(2, 2).T @ x + [np.exp(-((t - 11) ** 2) / 16), 0]
        ),
        (0, 63), np.zeros(2), t_eval=np.arange(64), rtol=1e-9, atol=1e-9,
    ).y.T  # fmt: skip
    apart = np.abs(found.world.states - wish).max() / np.abs(wish).max()
    assert apart < 0.25  # the world has no such cause: it is action that makes it
    assert np.abs(found.action).max() > 0.3


def pendulum(dt=0.05, **options):
    def flow(x, v, a):
        return jnp.stack([x[1], -jnp.sin(x[0]) - 0.1 * x[1] + v[0] + a[0]])

    process = vfe.Process(lambda x, v, a: x, flow, states=[1.0, 0.0], causes=1, actions=1)
    level = vfe.Level(
        lambda x, v, p: x,
        lambda x, v, p: jnp.stack([x[1], -x[0] - x[1]]),
        states=[1.0, 0.0],
        observation_precision=np.exp(4),
        state_precision=np.exp(4),
    )
    return vfe.ActiveSystem(process, vfe.DynamicModel(level, order=4, dt=dt), **options)


def test_the_world_moves_as_an_ordinary_integration_says():
    times = 0.05 * np.arange(120)
    found = vfe.act(pendulum(action_precision=1e12), causes=0.3 * np.sin(times))
    plain = solve_ivp(
        lambda t, x: [x[1], -np.sin(x[0]) - 0.1 * x[1] + 0.3 * np.sin(t)],
        (0, times[-1]), [1.0, 0.0], t_eval=times, rtol=1e-10, atol=1e-10,
    ).y.T  # fmt: skip
    near(found.world.states, plain, 1e-3)
    near(found.world.sensations, plain, 1e-3)


def test_a_world_that_the_model_does_not_match_is_made_to():
    free = vfe.act(pendulum(action_precision=1e12), length=160)
    acting = vfe.act(pendulum(reflex_precision=np.exp(6)), length=160)
    assert np.abs(free.world.states[100:, 0]).max() > 0.5  # hardly damped, the pendulum swings on
    assert np.abs(acting.world.states[100:, 0]).max() < 0.1  # expected to come to rest, it does


def test_delays_are_those_of_the_signals_and_can_be_made_up_for():
    push = 0.3 * np.sin(0.05 * np.arange(160))
    prompt = vfe.act(pendulum(), causes=push)
    late = vfe.act(pendulum(sensory_delay=0.08, motor_delay=0.04), causes=push)
    times = late.time
    for k in range(2):
        lagged = np.asarray(np.interp(times - 0.08, times, late.world.sensations[:, k]))
        np.testing.assert_allclose(late.sensed[20:, k], lagged[20:], atol=2e-3)
    delays = {"sensory_delay": 0.08, "motor_delay": 0.04}
    known = {f"known_{name}": value for name, value in delays.items()}
    compensated = vfe.act(pendulum(**delays, **known), causes=push)
    near(compensated.action, prompt.action, 1e-12)
    assert np.abs(late.action - prompt.action).max() > 1e-3


def test_a_reflex_that_is_cut_does_not_act():
    push = 0.3 * np.sin(0.05 * np.arange(60))
    cut = vfe.act(pendulum(reflexes=np.zeros((2, 1))), causes=push)
    assert np.abs(cut.action).max() == 0
    position_only = vfe.act(pendulum(reflexes=[[1.0], [0.0]]), causes=push)
    assert np.abs(position_only.action).max() > 0


def test_noise_of_the_world_has_the_autocorrelation_asked_for():
    with jax.enable_x64(True):
        draws = np.asarray(smooth_series(jax.random.key(1), 40, 20000, 1.5))
    covariance = draws.T.shape[0] ** -1 * draws @ draws.T
    lags = np.subtract.outer(np.arange(40), np.arange(40))
    # The kernel is sampled: at 1.5 samples the sum is the integral to rounding.
    np.testing.assert_allclose(covariance, np.exp(-(lags**2) / (4 * 1.5**2)), atol=0.04)
    found = vfe.act(pendulum(), length=30, key=jax.random.key(0))
    again = vfe.act(pendulum(), length=30, key=jax.random.key(0))
    np.testing.assert_array_equal(found.action, again.action)
    keys = jnp.stack([jax.random.key(0), jax.random.key(5)])
    many = jax.vmap(lambda key: vfe.act(pendulum(), length=30, key=key))(keys)
    near(np.asarray(many.action[0]), found.action, 1e-9)


def test_results_as_numbers_and_as_a_picture():
    found = vfe.act(pendulum(), length=30)
    data = found.to_xarray()
    assert data.action.shape == (30, 1)
    assert data.world_states.shape == (30, 2)
    figure = found.plot()
    assert len(figure.axes) == 5


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"length": 3}, "5 or more"),
        ({}, "length="),
        ({"causes": np.zeros((30, 2))}, r"\(30, 1\)"),
        ({"causes": np.full(30, np.nan)}, "finite"),
        ({"causes": ["a"] * 30}, "wanted numbers"),
        ({"length": 30, "key": jax.random.key(0), "noise": (0, 0)}, "both"),
        ({"length": 30, "noise": (np.zeros((30, 1)), np.zeros((30, 2)))}, "sensations"),
        ({"length": 30, "key": 0}, "jax.random.key"),
        ({"length": 20.5}, "whole number"),
    ],
)
def test_bad_input_to_act(wrong, word):
    with pytest.raises(ValueError, match=word):
        vfe.act(pendulum(), **wrong)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"reflex_precision": -1.0}, "negative"),
        ({"action_precision": np.zeros((2, 2))}, "wanted a scalar"),
        ({"reflexes": np.ones(3)}, "one row per sensation"),
        ({"sensory_delay": -1.0}, "zero or positive"),
        ({"sensory_delay": 5.0}, "made up for"),
    ],
)
def test_bad_active_systems(wrong, word):
    with pytest.raises(ValueError, match=word):
        pendulum(**wrong)


def test_worlds_and_agents_that_do_not_fit():
    good = pendulum()
    with pytest.raises(TypeError, match=r"vfe\.Process"):
        vfe.ActiveSystem(good.model, good.model)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="ActiveSystem"):
        vfe.act(good.model, length=30)  # pyright: ignore[reportArgumentType]
    one = vfe.Process(lambda x, v, a: x[:1], lambda x, v, a: x + a, states=[0.0, 0.0], actions=2)
    with pytest.raises(ValueError, match="makes 1 sensations and the model predicts 2"):
        vfe.ActiveSystem(one, good.model)
    static = vfe.DynamicModel(vfe.Level(lambda x, v, p: v, causes=2))
    with pytest.raises(ValueError, match="without hidden states"):
        vfe.ActiveSystem(good.process, static)
    with pytest.raises(ValueError, match="flow returns shape"):
        vfe.Process(lambda x, v, a: x, lambda x, v, a: x[:1], states=[0.0, 0.0], actions=1)
    with pytest.raises(ValueError, match="observe fails"):
        vfe.Process(lambda x, v, a: jnp.ones(2) @ v, lambda x, v, a: x, states=[0.0], actions=1)
    with pytest.raises(ValueError, match="at least one action"):
        vfe.Process(lambda x, v, a: x, lambda x, v, a: x, states=[0.0], actions=0)
    with pytest.raises(ValueError, match="no array of real numbers"):
        vfe.Process(lambda x, v, a: 1j * x, lambda x, v, a: x, states=[0.0], actions=1)
    with pytest.raises(ValueError, match="wanted numbers"):
        vfe.Process(lambda x, v, a: x, lambda x, v, a: x, states="a", actions=1)
    with pytest.raises(ValueError, match="positive numbers"):
        vfe.Process(lambda x, v, a: x, lambda x, v, a: x, states=[0.0], actions=1, state_precision=0.0)


def test_divergence_says_when():
    process = vfe.Process(lambda x, v, a: x, lambda x, v, a: x**3 + a, states=[2.0], actions=1)
    model = vfe.DynamicModel(vfe.Level(lambda x, v, p: x, lambda x, v, p: -x, states=1))
    with pytest.raises(vfe.DivergenceError, match="time index"):
        vfe.act(vfe.ActiveSystem(process, model), length=60)
