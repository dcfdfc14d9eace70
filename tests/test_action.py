"""Action: world and agent together, against reference runs, limits and an ordinary integration."""

import dynamic_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from plain_action import LinearModel, LinearWorld
from plain_action import act as plain_act
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


def random_system(two, dt, smoothness, **options):
    """A linear world and model of random numbers, as systems and as plain matrices."""
    rng = np.random.default_rng(7)
    gx, gv, ga = rng.normal(size=(3, 2)), 0.3 * rng.normal(size=(3, 2)), 0.3 * rng.normal(size=(3, 2))
    fx = 0.4 * np.array([[0, 1], [-1, -0.7]])
    fv, fa = 0.2 * rng.normal(size=(2, 2)), 0.2 * rng.normal(size=(2, 2))
    process = vfe.Process(
        lambda x, v, a: gx @ x + gv @ v + ga @ a,
        lambda x, v, a: (fx @ x + fv @ v + fa @ a) / dt,
        states=[0.3, -0.2],
        actions=[0.2, -0.1],
        causes=2,
    )
    bx, bv = rng.normal(size=(3, 2)), 0.3 * rng.normal(size=(3, 1))
    hx, hv = np.array([[0, 0.5], [-0.4, -0.3]]), np.array([[0.1], [0.4]])
    kx, kv, lx = np.array([[-0.2, 0.1], [-0.1, -0.3]]), np.array([[0.2], [0.3]]), np.array([[0.8, 0.3]])
    common = {"states": 2, "smoothness": smoothness * dt}
    levels = [
        vfe.Level(
            lambda x, v, p: bx @ x + bv @ v,
            lambda x, v, p: (hx @ x + hv @ v) / dt,
            observation_precision=20.0,
            state_precision=30.0 * dt**2,
            state_smoothness=smoothness * dt,
            causes=0 if two else 1,
            cause_precision=5.0,
            **common,
        )
    ]
    gx_all, gv_all = np.vstack([bx, np.zeros((1, 2))]), np.vstack([bv, [[-1]]])
    model = LinearModel(gx_all, gv_all, hx, hv, np.diag([20.0] * 3 + [5]), 30.0 * np.eye(2), 1)
    if two:
        levels.append(
            vfe.Level(
                lambda x, v, p: lx @ x + 0.5 * v,
                lambda x, v, p: (kx @ x + kv @ v) / dt,
                observation_precision=9.0,
                state_precision=12.0 * dt**2,
                causes=1,
                cause_precision=5.0,
                state_smoothness=smoothness * dt,
                **common,
            )
        )
        gx_all, gv_all, fv_all = np.zeros((5, 4)), np.zeros((5, 2)), np.zeros((4, 2))
        gx_all[:3, :2], gx_all[3, 2:] = bx, lx
        gv_all[:3, :1], gv_all[3], gv_all[4, 1] = bv, [-1, 0.5], -1
        fv_all[:2, :1], fv_all[2:, 1:] = hv, kv
        precision = np.diag([20.0] * 3 + [9, 5])
        stacked = scipy.linalg.block_diag(hx, kx)
        model = LinearModel(gx_all, gv_all, stacked, fv_all, precision, np.diag([30.0] * 2 + [12] * 2), 1)
    # The model's own smoothness is that of the top causes alone: levels say theirs.
    mind = vfe.DynamicModel(levels, order=4, dt=dt, smoothness=smoothness * dt)
    return vfe.ActiveSystem(process, mind, **options), LinearWorld(gx, gv, ga, fx, fv, fa), model


@pytest.mark.parametrize(("two", "dt", "smoothness"), [(False, 0.5, 0.8), (True, 0.1, 0.5)])
def test_against_the_algorithm_in_plain_numpy(two, dt, smoothness):
    """Two actions that also reach the senses at once, two causes, matrices of precision, cut reflexes."""
    mask = np.array([[1.0, 0], [0, 1], [1, 1]])
    reflex = np.array([[2.0, 0.3, 0], [0.3, 1, 0], [0, 0, 0.5]])
    effort = np.array([[0.3, 0.1], [0.1, 0.2]])
    options = {"reflex_precision": reflex, "action_precision": effort, "reflexes": mask}
    system, world, model = random_system(two, dt, smoothness, **options)
    rng = np.random.default_rng(8)
    z = np.hstack([0.05 * rng.normal(size=(24, 3)), 0.1 * rng.normal(size=(24, 2)).cumsum(0)])
    w, eta = 0.02 * rng.normal(size=(24, 2)), 0.1 * rng.normal(size=(24, 1)).cumsum(0)
    found = vfe.act(system, causes=z[:, 3:], prior_causes=eta, noise=(z[:, :3], w / dt))
    x, v, a, u = plain_act(
        world, model, z, w, eta, n=5, d=3, s=smoothness, reflex=reflex, effort=effort, mask=mask,
        action=[0.2, -0.1], start=[0.3, -0.2],
    )  # fmt: skip
    near(found.world.states, x, 1e-11)
    near(np.hstack([found.world.sensations, found.world.causes]), v, 1e-11)
    near(found.action, a, 1e-11)
    near(found.percept.states.mean, u[:, : 4 if two else 2], 1e-11)
    assert np.abs(a).max() > 0.3


def test_smoothness_may_be_said_by_the_model_or_by_its_levels():
    def system(**own):
        level = vfe.Level(lambda x, v, p: x, lambda x, v, p: -x, states=[1.0], **own)
        process = vfe.Process(lambda x, v, a: x, lambda x, v, a: a, states=[1.0], actions=1)
        smoothness = {} if own else {"smoothness": 0.1}
        return vfe.ActiveSystem(process, vfe.DynamicModel(level, order=4, dt=0.1, **smoothness))

    whole = vfe.act(system(), length=30)
    by_level = vfe.act(system(smoothness=0.1, state_smoothness=0.1), length=30)
    near(by_level.action, whole.action, 1e-12)


def test_noise_of_the_world_has_its_precision_and_smoothness():
    precision = np.array([[4.0, 1.0], [1.0, 2.0]])
    process = vfe.Process(
        lambda x, v, a: x,
        lambda x, v, a: 0 * x + a[0],
        states=[0.0, 0.0],
        actions=1,
        observation_precision=precision,
        smoothness=0.3,
    )
    level = vfe.Level(lambda x, v, p: x, lambda x, v, p: -x, states=2)
    model = vfe.DynamicModel(level, order=3, dt=0.1)
    system = vfe.ActiveSystem(process, model, reflex_precision=0.0)
    noise = vfe.act(system, length=12000, key=jax.random.key(2)).world.sensations
    np.testing.assert_allclose(noise.T @ noise / 12000, np.linalg.inv(precision), atol=0.03)
    for lag in (1, 3, 6):
        together = noise[lag:].T @ noise[:-lag] / (12000 - lag)
        np.testing.assert_allclose(together, np.exp(-(lag**2) / 36) * np.linalg.inv(precision), atol=0.03)
    moving = vfe.Process(
        lambda x, v, a: x, lambda x, v, a: a, states=[0.0], actions=1, state_precision=4.0
    )  # fmt: skip
    level = vfe.Level(lambda x, v, p: x, lambda x, v, p: -x, states=1)
    system = vfe.ActiveSystem(moving, vfe.DynamicModel(level, order=3, dt=0.1), reflex_precision=0.0)
    path = vfe.act(system, length=12000, key=jax.random.key(3)).world.states[:, 0]
    # Increments over many samples: the variance of ∫ w is dt² Σ cov(w), a dt-sum of ¼ exp(−h²).
    steps = path[40::40] - path[:-40:40]
    assert steps.var() == pytest.approx(0.01 * 40 * 0.25 * np.sqrt(np.pi), rel=0.2)


def test_a_motor_delay_alone_delays_the_reflex():
    push = 0.3 * np.sin(0.05 * np.arange(200))
    times = 0.05 * np.arange(200)
    prompt = vfe.act(pendulum(), causes=push).action[60:, 0]
    late = vfe.act(pendulum(motor_delay=0.08), causes=push).action[:, 0]
    lags = np.arange(-0.2, 0.21, 0.01)
    shifted = [np.square(np.interp(times[60:-5] + lag, times, late) - prompt[:-5]).sum() for lag in lags]
    assert 0.02 < lags[np.argmin(shifted)] < 0.15


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
        ({"causes": ["1"] * 30}, "real numbers"),
        ({"causes": 1j * np.ones(30)}, "real numbers"),
        ({"length": 30, "noise": 5}, "two series"),
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
        ({"sensory_delay": 5.0}, "sensory_delay of 5"),
        ({"known_motor_delay": 5.0}, "known_motor_delay of 5"),
        ({"reflexes": [[np.nan], [0.0]]}, "finite"),
        ({"sensory_delay": "a"}, "real numbers"),
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
    with pytest.raises(ValueError, match="real numbers"):
        vfe.Process(lambda x, v, a: x, lambda x, v, a: x, states="a", actions=1)
    with pytest.raises(ValueError, match="positive numbers"):
        vfe.Process(lambda x, v, a: x, lambda x, v, a: x, states=[0.0], actions=1, state_precision=0.0)


def test_divergence_says_when():
    process = vfe.Process(lambda x, v, a: x, lambda x, v, a: x**3 + a, states=[2.0], actions=1)
    model = vfe.DynamicModel(vfe.Level(lambda x, v, p: x, lambda x, v, p: -x, states=1))
    with pytest.raises(vfe.DivergenceError, match="time index"):
        vfe.act(vfe.ActiveSystem(process, model), length=60)
