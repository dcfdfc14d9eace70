"""Ready-made active systems: what action makes of expectations, and their experiments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vfe
from vfe import action
from vfe.gallery import JOBS
from vfe.gallery.job import Workspace
from vfe.gallery.progress import Silent


def test_a_reflex_mirrors_a_push():
    times = 0.1 * np.arange(80)
    push = np.exp(-((times - 4) ** 2) / 0.5)
    acting = vfe.act(action.limb(), causes=push)
    cut = vfe.act(action.limb(reflex_precision=0.0), causes=push)
    assert np.abs(acting.world.states).max() < 0.05 * np.abs(cut.world.states).max()
    assert np.corrcoef(acting.action[:, 0], push)[0, 1] < -0.97
    assert acting.percept.free_energy.total < cut.percept.free_energy.total


def test_a_car_gets_up_the_hill_by_expectation_and_not_by_haste():
    key = jax.random.key(3)
    climbed = vfe.act(action.mountain_car(), length=130, key=key)
    rushed = vfe.act(action.mountain_car(action.rushing), length=130, key=key)
    assert np.abs(climbed.world.states[-20:, 0] - np.pi / 6).max() < 0.1
    assert rushed.world.states[:, 0].max() < 0.1
    assert climbed.percept.free_energy.total < rushed.percept.free_energy.total


def test_the_energy_that_a_climber_expects_is_that_of_rest_on_the_top():
    # On the way down from rest at the top, nothing is lacking: no push is expected.
    for place in (-0.2, -0.6):
        speed = np.sqrt(2 * 0.25 / 3 * (1 - np.sin(3 * place)))
        assert abs(action.climbing(jnp.array([place, speed]))) < 1e-3
    assert action.climbing(jnp.array([-0.5, 0.1])) > 0.1
    assert action.climbing(jnp.array([-0.5, -0.1])) < -0.1


def test_a_hidden_target_is_pursued_by_who_believes_that_it_swings():
    times = 0.05 * np.arange(150)
    target = -1.5 * np.cos(np.pi / 2 * times)
    seen = np.asarray(jax.vmap(action.contrast)(jnp.asarray(target)))
    hidden = (seen < 0.5) & (times > 4)
    found = {}
    for belief in (action.swinging, action.stopping):
        course = vfe.act(action.pursuit(belief), causes=target, key=jax.random.key(0))
        eye = course.world.states[:, 0] - target
        believed = course.percept.states.mean[:, 0] - target
        sd = course.percept.states.sd[:, 0]
        found[belief] = [np.sqrt(np.mean(error[hidden] ** 2)) for error in (eye, believed)]
        assert sd[hidden].mean() > 5 * sd[(times > 4) & ~hidden].min()
    assert max(found[action.swinging]) < 0.1
    assert found[action.stopping][0] > 1
    assert found[action.stopping][1] > 3 * found[action.swinging][1]


def test_a_hand_goes_where_its_owner_expects_it():
    np.testing.assert_allclose(action.hand(jnp.array([0.0, np.pi / 2])), [1, 1], atol=1e-6)
    target = np.tile([0.5, 1.3], (120, 1))
    course = vfe.act(action.reaching(), causes=target)
    path = np.asarray(jax.vmap(action.hand)(jnp.asarray(course.world.states[:, :2])))
    apart = np.linalg.norm(path - target, axis=1)
    assert apart[0] > 0.4
    assert apart[-1] < 0.05


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("reflex", {"length": 120}),
        ("mountain-car", {"length": 30, "worlds": 1}),
        ("pursuit", {"length": 160}),
        ("reaching", {"seconds": 4.0}),
    ],
)
def test_experiments_run(name, settings, tmp_path):
    module = JOBS[name].load()
    result = module.run(
        module.Settings(**settings),
        seed=0,
        data=None,
        folder=Workspace(tmp_path),
        progress=Silent(),
        resume=False,
    )
    assert result.headline
    assert np.isfinite(result.dataset.free_energy).all()
    assert all(figure.axes for figure in result.figures.values())
    if name != "mountain-car":  # which needs more time than this
        assert all(claim.holds for claim in result.claims), [claim.row for claim in result.claims]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("reflex", {"length": 60}),
        ("reflex", {"push": 0.0}),
        ("mountain-car", {"worlds": 0}),
        ("pursuit", {"length": 60}),
        ("reaching", {"seconds": 0.0}),
    ],
)
def test_experiments_refuse_settings_that_leave_nothing_to_measure(name, settings):
    with pytest.raises(ValueError, match=name):
        JOBS[name].load().Settings(**settings)
