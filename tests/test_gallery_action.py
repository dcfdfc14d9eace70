"""Experiments of action: their claims on small runs, independent numbers, and what makes them fail."""

import dataclasses
import math

import numpy as np
import pytest
from plain_action import LinearModel, LinearWorld, act

import vfe
from vfe.gallery.action import alternation, attention, fulfilment, reflex
from vfe.gallery.job import Workspace
from vfe.gallery.progress import Silent
from vfe.results.report import build_report

PLACE = fulfilment.Settings(seconds=10.0, beliefs=8)
TURNS = alternation.Settings(rounds=4)
CUED = attention.Settings(trials=20)


def told(claims):
    return [claim.row for claim in claims]


@pytest.fixture(scope="module")
def placed():
    return fulfilment.courses(PLACE, 0), fulfilment.derivatives(PLACE, 0)


def test_what_is_expected_is_made_true(placed):
    claims = fulfilment.claims(PLACE, *placed)
    assert all(claim.holds for claim in claims), told(claims)


def test_without_action_nothing_is_made_true(placed):
    found, slopes = placed
    stuck = found[fulfilment.STUCK]
    broken = fulfilment.claims(PLACE, {**found, fulfilment.ACTS: stuck, fulfilment.WRONG: stuck}, slopes)
    assert [k for k, claim in enumerate(broken) if not claim.holds] == [2, 3, 4, 8]
    # A slope with the wrong sign.
    wrong = slopes._replace(accuracy_in_x=-slopes.accuracy_in_x)
    assert not fulfilment.claims(PLACE, found, wrong)[0].holds


def test_action_of_the_wrong_sign_runs_away():
    expected = np.full((30, 1), PLACE.expected)
    away = vfe.act(fulfilment.system(PLACE, acts=-1.0), prior_causes=expected)
    distance = np.abs(away.world.states[:, 0] - PLACE.expected)
    assert distance[-1] > 2 * distance[0]


def test_courses_in_plain_numpy():
    """The reference algorithm in plain NumPy, with action and without, and no noise."""
    length, rate, precision = 40, fulfilment.DT * fulfilment.RATE, math.exp(PLACE.log_precision)
    world = LinearWorld(
        np.ones((1, 1)), np.zeros((1, 0)), np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((1, 0)),
        np.full((1, 1), fulfilment.DT),
    )  # fmt: skip
    model = LinearModel(
        np.array([[1.0], [0.0]]), np.array([[0.0], [-1.0]]), np.array([[-rate]]), np.array([[rate]]),
        np.diag([precision, math.exp(6)]), np.array([[precision / rate**2]]), 1,
    )  # fmt: skip
    nothing, expected = np.zeros((length, 1)), np.full((length, 1), PLACE.expected)
    for acts in (1.0, 0.0):
        states, _, action, beliefs = act(
            world, model, nothing, nothing, expected, n=4, d=3, s=0.5, reflex=precision,
            effort=np.zeros((1, 1)), mask=np.array([[acts]]), action=[0.0], start=[PLACE.start],
        )  # fmt: skip
        course = vfe.act(fulfilment.system(PLACE, acts=acts), prior_causes=expected)
        np.testing.assert_allclose(course.world.states, states.reshape(length, -1)[:, :1], atol=1e-6)
        np.testing.assert_allclose(course.action, action, atol=1e-6)
        np.testing.assert_allclose(course.percept.states.mean, beliefs[:, :1], atol=1e-6)


def test_slopes_by_hand():
    """The accuracy of sin z under N(m, s²) is −½ Π ((x − ⟨sin z⟩)² + Var): its slope in x, and dx/da."""
    slopes = fulfilment.derivatives(PLACE, 0)
    rng = np.random.default_rng(0)
    (action, mean), sd = rng.normal(size=(2, PLACE.beliefs)), rng.uniform(0.05, 1.0, PLACE.beliefs)
    np.testing.assert_allclose(slopes.x_in_action, 1 / np.cosh(action) ** 2, rtol=1e-10)
    x = PLACE.start + np.tanh(action)
    wanted = -math.exp(PLACE.log_precision) * (x - np.exp(-(sd**2) / 2) * np.sin(mean))
    # ⟨sin z⟩ is an average of 64 draws in F: within five of its standard errors.
    spread = np.sqrt(
        (1 - np.exp(-2 * sd**2) * np.cos(2 * mean)) / 2 - (np.exp(-(sd**2) / 2) * np.sin(mean)) ** 2
    )
    off = np.abs(slopes.accuracy_in_x - wanted) / math.exp(PLACE.log_precision)
    assert (off < 5 * spread / 8).all()


@pytest.fixture(scope="module")
def turns():
    return alternation.courses(TURNS)


def test_perception_tightens_the_bound_and_action_lowers_surprise(turns):
    claims = alternation.claims(turns)
    assert all(claim.holds for claim in claims), told(claims)


def test_surprise_and_gap_in_plain_numpy(turns):
    both = turns[alternation.PERCEIVES]
    W, noise = alternation.WEIGHTS, alternation.NOISE_SD**2
    covariance = alternation.PRIOR_SD**2 * W @ W.T + noise * np.eye(2)
    off = both.x - W @ alternation.PRIOR_MEAN
    surprise = 0.5 * (
        np.einsum("ti,ij,tj->t", off, np.linalg.inv(covariance), off)
        + np.linalg.slogdet(2 * np.pi * covariance)[1]
    )
    np.testing.assert_allclose(both.surprise, surprise, rtol=1e-10)
    np.testing.assert_allclose(both.x, alternation.START + TURNS.reach * np.tanh(both.action), rtol=1e-12)
    # One step of action by hand, −∂F/∂a = Σ ∂x/∂a ∂⟨ln p(x | z)⟩/∂x, at the belief just fitted.
    k = int(np.flatnonzero(both.kind == "perceive")[0])
    slope = (both.x[k] - W @ both.mean[k]) / noise * TURNS.reach / np.cosh(both.action[k]) ** 2
    np.testing.assert_allclose(both.action[k + 1], both.action[k] - TURNS.rate * slope, rtol=1e-9)


def test_action_of_the_wrong_sign_raises_free_energy():
    broken = dataclasses.replace(TURNS, rate=-TURNS.rate)
    held = [claim.holds for claim in alternation.claims(alternation.courses(broken))]
    assert not any(held[k] for k in (0, 3, 4))


@pytest.fixture(scope="module")
def cued():
    return attention.respond(CUED, 0), attention.sweep(CUED, 0)


def test_a_cue_that_raises_a_precision_speeds_the_response(cued):
    claims = attention.claims(*cued)
    assert all(claim.holds for claim in claims), told(claims)


def test_a_gain_of_zero_or_the_wrong_sign_does_not(cued):
    for gain in (0.0, -1.0):
        broken = attention.respond(dataclasses.replace(CUED, gain=gain), 0)
        held = [claim.holds for claim in attention.claims(broken, cued[1])]
        assert held[:2] == [False, False]
    # Noise of another precision than the claim says.
    assert not attention.claims(cued[0], attention.sweep(CUED, 0, true_precision=4.0))[2].holds


def test_descent_and_free_energy_by_hand(cued):
    found, matched = cued
    signs, b, g = np.array([1.0, -1.0]), CUED.log_precision, CUED.gain
    x = np.random.default_rng(0).normal(size=(CUED.trials, 2))[3] * CUED.noise + [CUED.target, 0.0]
    a, z, course = 0.0, np.zeros(2), []
    for shown in [0] * round(attention.CUE_TIME / attention.STEP) + [1] * len(found.time_axis):
        precision = np.exp(b + g * signs * a)
        error = x - z
        in_a = a + (a - 1.0) / attention.CUE_SD**2
        in_a += shown * (0.5 * g * signs * (precision * error**2 - 1)).sum()
        if shown:
            course.append(z[0])
        a, z = a - attention.STEP * in_a, z - attention.STEP * (z - shown * precision * error)
    np.testing.assert_allclose(found.belief["valid"][:, 3], course, rtol=1e-8, atol=1e-12)
    # F of N(0, 1 + 1/Π) at the second moment m of the data: ½ (ln 2πv + m / v), least at v = m.
    v = 1 + np.exp(-matched.log_precision)
    k = len(v) // 2
    moment = (2 * matched.free_energy[k] - np.log(2 * np.pi * v[k])) * v[k]
    np.testing.assert_allclose(matched.free_energy, 0.5 * (np.log(2 * np.pi * v) + moment / v), rtol=1e-9)
    assert matched.best == pytest.approx(-np.log(moment - 1), abs=0.01)


def result_of(module, settings, folder):
    return module.run(
        settings, seed=0, data=None, folder=Workspace(folder), progress=Silent(), resume=False
    )


@pytest.mark.parametrize(
    ("module", "settings"),
    [
        (fulfilment, PLACE),
        (alternation, TURNS),
        (attention, CUED),
    ],
)
def test_pages_and_claims(module, settings, tmp_path):
    result = result_of(module, settings, tmp_path)
    assert all(claim.holds for claim in result.claims), told(result.claims)
    page = build_report(result.report)
    assert page.count("<img") == len(result.figures)
    for label, value in result.headline:
        assert label in page
        assert "nan" not in value
    result.dataset.to_netcdf(tmp_path / "result.nc")


def test_errors_that_do_not_reach_action_move_nothing(tmp_path):
    broken = result_of(reflex, reflex.Settings(length=120, log_reflex_precision=-20.0), tmp_path)
    assert not any(broken.claims[k].holds for k in (0, 1, 3))
