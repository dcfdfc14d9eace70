"""Ready-made active systems: what action makes of expectations, and their experiments."""

import dataclasses
import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gallery_cases import failing, page_of

import vfe
from vfe import action
from vfe.gallery import JOBS
from vfe.gallery.action import mountain_car, pursuit, reaching, reflex
from vfe.gallery.job import Workspace
from vfe.gallery.progress import Silent

HILL = mountain_car.Settings(length=130, worlds=1)
OCCLUDED = pursuit.Settings(length=160)


def result_of(module, settings):
    return module.run(
        settings, seed=0, data=None, folder=Workspace(Path()), progress=Silent(), resume=False
    )


def holds_with(monkeypatch, module, name, courses, settings):
    """The experiment on courses that ran before: its claims hold, and its page says its numbers."""
    with monkeypatch.context() as before:
        before.setattr(module, name, lambda *_: courses)
        result = result_of(module, settings)
    assert failing(result.claims) == []
    assert np.isfinite(result.dataset.free_energy).all()
    assert all(figure.axes for figure in result.figures.values())
    page_of(result)


def test_a_reflex_mirrors_a_push():
    times = 0.1 * np.arange(80)
    push = np.exp(-((times - 4) ** 2) / 0.5)
    acting = vfe.act(action.limb(), causes=push)
    cut = vfe.act(action.limb(reflex_precision=0.0), causes=push)
    assert np.abs(acting.world.states).max() < 0.05 * np.abs(cut.world.states).max()
    assert np.corrcoef(acting.action[:, 0], push)[0, 1] < -0.97
    assert acting.percept.free_energy.total < cut.percept.free_energy.total


@pytest.fixture(scope="module")
def drives():
    return mountain_car.drive(HILL, 3, Silent())


def test_a_car_gets_up_the_hill_by_expectation_and_not_by_haste(drives):
    (climbed,), (rushed,) = drives[mountain_car.SWINGS], drives[mountain_car.RUSHES]
    assert np.abs(climbed.world.states[-20:, 0] - np.pi / 6).max() < 0.1
    assert rushed.world.states[:, 0].max() < 0.1
    assert climbed.percept.free_energy.total < rushed.percept.free_energy.total


def test_the_claims_of_the_hill_and_what_breaks_them(drives, monkeypatch):
    idle = mountain_car.drive(dataclasses.replace(HILL, log_reflex_precision=-20.0), 3, Silent())
    holds_with(monkeypatch, mountain_car, "drive", drives, HILL)
    # The expectation to rush up where that to swing up is claimed, and the other way round.
    swings, rushes = mountain_car.SWINGS, mountain_car.RUSHES
    swapped = mountain_car.claims({swings: drives[rushes], rushes: drives[swings]})
    assert failing(swapped) == [claim.statement for claim in swapped]
    # Errors that do not reach action: nobody leaves the valley.
    (failed,) = failing(mountain_car.claims(idle))
    assert failed.startswith("who expects to swing up ends on the top")


def test_the_energy_that_a_climber_expects_is_that_of_rest_on_the_top():
    # On the way down from rest at the top, nothing is lacking: no push is expected.
    for place in (-0.2, -0.6):
        speed = np.sqrt(2 * 0.25 / 3 * (1 - np.sin(3 * place)))
        assert abs(action.climbing(jnp.array([place, speed]))) < 1e-3
    assert action.climbing(jnp.array([-0.5, 0.1])) > 0.1
    assert action.climbing(jnp.array([-0.5, -0.1])) < -0.1


@pytest.fixture(scope="module")
def followed():
    return pursuit.follow(OCCLUDED, 0, Silent())


def test_a_hidden_target_is_pursued_by_who_believes_that_it_swings(followed):
    times = 0.05 * np.arange(160)
    target = -1.5 * np.cos(np.pi / 2 * times)
    seen = np.asarray(jax.vmap(action.contrast)(jnp.asarray(target)))
    hidden = (seen < 0.5) & (times > 4)
    found = {}
    for belief, course in followed.items():
        eye = course.world.states[:, 0] - target
        believed = course.percept.states.mean[:, 0] - target
        sd = course.percept.states.sd[:, 0]
        found[belief] = [np.sqrt(np.mean(error[hidden] ** 2)) for error in (eye, believed)]
        assert sd[hidden].mean() > 5 * sd[(times > 4) & ~hidden].min()
    assert max(found[pursuit.SWINGS]) < 0.1
    assert found[pursuit.STOPS][0] > 1
    assert found[pursuit.STOPS][1] > 3 * found[pursuit.SWINGS][1]


def test_the_claims_of_pursuit_and_what_breaks_them(followed, monkeypatch):
    holds_with(monkeypatch, pursuit, "follow", followed, OCCLUDED)
    swings, stops = followed[pursuit.SWINGS], followed[pursuit.STOPS]
    # One belief for both eyes: the same is as far off. The beliefs exchanged: the wrong one is lost.
    same = pursuit.claims(OCCLUDED, {pursuit.SWINGS: swings, pursuit.STOPS: swings})
    assert [claim.holds for claim in same] == [True, True, False, False, True]
    swapped = pursuit.claims(OCCLUDED, {pursuit.SWINGS: stops, pursuit.STOPS: swings})
    assert [claim.holds for claim in swapped] == [False, False, False, False, True]
    # Nothing hides the target: no belief is less sure where it would be hidden.
    systems = importlib.import_module("vfe.action.systems.pursuit")
    with monkeypatch.context() as lesion:
        lesion.setattr(systems, "contrast", jnp.ones_like)
        plain = vfe.act(action.pursuit(), causes=pursuit.swing(OCCLUDED)[1], key=jax.random.key(0))
    (failed,) = failing(pursuit.claims(OCCLUDED, {**followed, pursuit.SWINGS: plain}))
    assert failed == "least rise of a belief's sd while hidden"


def test_a_hand_goes_where_its_owner_expects_it():
    np.testing.assert_allclose(action.hand(jnp.array([0.0, np.pi / 2])), [1, 1], atol=1e-6)
    target = np.tile([0.5, 1.3], (120, 1))
    course = vfe.act(action.reaching(), causes=target)
    path = np.asarray(jax.vmap(action.hand)(jnp.asarray(course.world.states[:, :2])))
    apart = np.linalg.norm(path - target, axis=1)
    assert apart[0] > 0.4
    assert apart[-1] < 0.05


def test_the_claims_of_reaching_and_what_breaks_them(monkeypatch):
    settings = reaching.Settings(seconds=4.0)
    courses = reaching.reach(settings, 0, Silent())
    stuck = reaching.reach(dataclasses.replace(settings, log_reflex_precision=-20.0), 0, Silent())
    holds_with(monkeypatch, reaching, "reach", courses, settings)
    # Errors that do not reach action, under the same expectation.
    assert [claim.holds for claim in reaching.claims(settings, stuck)][:2] == [False, True]
    # Who reaches taken for who cannot.
    swapped = {reaching.REACHES: courses[reaching.CUT], reaching.CUT: courses[reaching.REACHES]}
    swapped = reaching.claims(settings, swapped)
    assert failing(swapped) == [claim.statement for claim in swapped]


def test_the_claims_of_the_reflex():
    result = result_of(reflex, reflex.Settings(length=120))
    assert failing(result.claims) == []
    page_of(result)


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
