"""Experiments of adaptation in discrete worlds: selection, the hidden predator, the dark room."""

import dataclasses

import jax
import numpy as np
import pytest
from gallery_cases import page_of
from scipy.stats import spearmanr

import vfe
from vfe.gallery.discrete import (
    homeostasis,
    homeostasis_page,
    predator,
    predator_page,
    selection,
    selection_page,
)

SMALL = selection.Settings(streams=8, generations=6, lineages=4, draws=200)
ROOMS = homeostasis.Settings(agents=40, steps=40)
HUNT = predator.Settings(courses=60, frames=60, agents=80, steps=25)


def forward(start, moves, sees, outcomes):
    """−ln p(o_t | before) and p(s_t | so far) of a hidden Markov model, in plain NumPy; −1: missing."""
    belief, surprises, beliefs = start, [], []
    for t, outcome in enumerate(outcomes):
        belief = moves @ belief if t else belief
        weighed = belief * (sees[outcome] if outcome >= 0 else 1.0)
        surprises.append(-np.log(weighed.sum()))
        belief = weighed / weighed.sum()
        beliefs.append(belief)
    return np.array(surprises), np.array(beliefs)


@pytest.fixture(scope="module")
def selected():
    return selection.measure(SMALL, 0)


def test_who_is_fitter_has_lower_free_energy(selected):
    claims = selection_page.claims(selected)
    assert all(claim.holds for claim in claims), [claim.row for claim in claims]
    page = page_of(selection_page.write_up(SMALL, selected))
    assert "dark room" in page
    assert selected.population.mean_free_energy.shape == (SMALL.agents,)


def test_fitness_dealt_out_at_random_fails():
    broken = selection.measure(SMALL, 0, deal=lambda fitness, rng: rng.permutation(fitness))
    holds = [claim.holds for claim in selection_page.claims(broken)]
    # The correlation, the null, and what selection does to F; what happens at a change needs no fitness.
    assert not any(holds[k] for k in (0, 1, 4))


def test_free_energy_and_fitness_in_plain_numpy(selected):
    world, people = selected.world, selected.population
    for agent in (0, 7):
        hazard, trust = people.traits.hazard[agent], people.traits.trust[agent]
        n = SMALL.places
        moves = np.where(np.eye(n) == 1, 1 - hazard, hazard / (n - 1))
        sees = np.where(np.eye(n) == 1, trust, (1 - trust) / (n - 1))
        food = 0.0
        for w in range(SMALL.streams):
            surprise, belief = forward(np.full(n, 1 / n), moves, sees, world.cues[w])
            np.testing.assert_allclose(people.free_energy[agent, w], surprise, rtol=1e-9)
            goes = belief.max(1) > 4 / 5
            there = belief.argmax(1) == world.food[w]
            food += (1.0 * (goes & there) - 4.0 * (goes & ~there)).sum()
        assert people.fitness(4.0)[agent] == pytest.approx(food / world.cues.size)
    stays = (np.diff(world.food, axis=1) == 0).mean()
    assert stays == pytest.approx(1 - 1 / SMALL.stays, abs=0.01)
    assert (world.food == world.cues).mean() == pytest.approx(SMALL.validity, abs=0.03)


def test_rank_correlation_and_what_is_left_after_a_change():
    rng = np.random.default_rng(0)
    one = rng.integers(6, size=40) + 0.0
    other = one + rng.normal(size=40) * 2
    found = selection.rank_correlation(one, other, 400, rng)
    assert found.value == pytest.approx(spearmanr(one, other).statistic)
    assert found.low < found.value < found.high
    null = selection.shuffled(one, other, 400, rng)
    assert null.low < 0 < null.high
    lags = np.arange(-8, 16)
    excess = np.stack([np.where(lags >= 0, g * 0.5 ** np.maximum(lags, 0), 0.0) for g in (4.0, 2.0, 1.0)])
    twice = np.stack([excess, 3 * excess])
    about = selection.Changes(lags, twice)
    np.testing.assert_allclose(about.rise.value, 2 * 0.75 * np.array([4, 2, 1]))
    share = np.mean(0.5 ** np.arange(4.0, 12.0)) / 0.75
    left = about.left(50, rng)
    np.testing.assert_allclose(left.value, [share, share, share, 0], atol=1e-12)


def test_one_series_under_many_models():
    y = np.array([0, 1, np.nan, 1, 0])

    def surprise(stays):
        B = stays * np.eye(2) + (1 - stays) * np.eye(2)[::-1]
        return vfe.filter(vfe.discrete.HiddenMarkov([[0.9, 0.2], [0.1, 0.8]], [0.5, 0.5], B), y).surprise

    stays = np.array([0.6, 0.95])
    with jax.enable_x64(True):
        many = jax.vmap(surprise)(stays)
        slope = jax.grad(lambda p: surprise(p).sum())(0.95)
    np.testing.assert_allclose(many, [surprise(p) for p in stays], rtol=1e-12)
    assert slope == pytest.approx(
        (surprise(0.95 + 1e-6).sum() - surprise(0.95 - 1e-6).sum()) / 2e-6, rel=1e-6
    )


@pytest.fixture(scope="module")
def hunted():
    return predator.measure(HUNT, 0)


def test_the_hidden_predator_stays_in_mind(hunted):
    claims = predator_page.claims(HUNT, hunted)
    assert all(claim.holds for claim in claims), [claim.row for claim in claims]
    page_of(predator_page.write_up(HUNT, hunted))
    carried, frames, _ = (hunted.beliefs.present[name] for name in predator.KINDS)
    for value, wanted in (
        (carried[5], 0.9987),
        (carried[15], 0.8240),
        (carried[-1], 0.0011),
        (frames[15], 0.3333),
    ):
        assert value == pytest.approx(wanted, abs=5e-5)


def test_what_is_not_seen_is_not_seen_to_be_absent(hunted):
    zeros = predator_page.claims(HUNT, hunted, predator.ZEROS)
    assert not zeros[0].holds
    assert not zeros[1].holds
    assert not zeros[4].holds
    # The belief of one frame is not above itself, and is not lower in F or in cost.
    single = predator_page.claims(HUNT, hunted, predator.FRAMES)
    assert not any(single[k].holds for k in (0, 1, 2))


def test_beliefs_and_decay_in_plain_numpy(hunted):
    frames = np.nan_to_num(hunted.frames, nan=-1).astype(int)
    moves = np.array([[0.99, 0.01], [0.02, 0.98]]).T
    sees = np.array([[0.98, 0.05], [0.02, 0.95]])
    surprise, belief = forward(np.array([2 / 3, 1 / 3]), moves, sees, frames)
    np.testing.assert_allclose(hunted.beliefs.present[predator.CARRIED], belief[:, 1], rtol=1e-9)
    np.testing.assert_allclose(hunted.beliefs.free_energy[predator.CARRIED], surprise, atol=1e-12)
    powers = [np.linalg.matrix_power(moves, n) @ belief[5] for n in range(1, HUNT.hidden + 1)]
    np.testing.assert_allclose(predator.decay(HUNT, belief[5, 1]), np.array(powers)[:, 1], rtol=1e-9)
    # Of the truth: it stays as long as the dynamics say.
    many = predator.draw_courses(predator.Settings(courses=400, frames=60), np.random.default_rng(1))
    goes = many.present[:, :-1] == 1
    assert (many.present[:, 1:][goes] == 1).mean() == pytest.approx(0.98, abs=0.01)


@pytest.fixture(scope="module")
def housed():
    return homeostasis.measure(ROOMS, 0)


def test_who_expects_to_be_fed_leaves_the_dark_room(housed):
    claims = homeostasis_page.claims(housed)
    assert all(claim.holds for claim in claims), [claim.row for claim in claims]
    page_of(homeostasis_page.write_up(ROOMS, housed))


def test_who_expects_to_starve_does():
    broken = homeostasis.measure(dataclasses.replace(ROOMS, preference=-1.0), 0)
    holds = [claim.holds for claim in homeostasis_page.claims(broken)]
    assert not any(holds[k] for k in (0, 4, 7))


def test_free_energy_of_densities_moves_with_their_units(housed):
    units = homeostasis.in_other_units(housed, 100.0)
    assert all(claim.holds for claim in homeostasis_page.claims_of_units(units))
    # By hand: readings are N(mean, 1 + 0.3²) one by one.
    felt = housed.energy[0, 0] + 0.3 * np.random.default_rng(0).normal(size=ROOMS.steps)
    for k, mean in enumerate((felt.mean(), felt.mean() / 2)):
        by_hand = 0.5 * ((felt - mean) ** 2 / 1.09 + np.log(2 * np.pi * 1.09)).sum()
        assert units.before[k] == pytest.approx(by_hand, rel=1e-9)
    # Models that are not told of other units.
    told = homeostasis.in_other_units(housed, 100.0, convert=False)
    assert not homeostasis_page.claims_of_units(told)[0].holds


def test_surprise_of_a_life_by_hand(housed):
    """Sight: the place is known from what was done, so ln of the scenes or nothing; energy: its own law."""
    tires, feeds, top = ROOMS.tires, ROOMS.feeds, ROOMS.levels
    place, energy = housed.place, housed.energy
    felt = np.zeros(energy.shape)
    before, now, left = energy[..., :-1], energy[..., 1:], place[..., :-1]
    dark = np.where(now < before, tires, 1 - tires)
    kitchen = np.where(before == top, 1.0, np.where(now > before, feeds, 1 - feeds))
    felt[..., 1:] = -np.log(np.where(before == 0, 1.0, np.where(left == 1, kitchen, dark)))
    np.testing.assert_allclose(housed.eyes_closed, felt, atol=1e-9)
    np.testing.assert_allclose(housed.free_energy, felt + np.log(ROOMS.scenes) * place, atol=2e-5)
    dark_seen = np.where(place == 1, -np.log(0.02 / ROOMS.scenes), -np.log(0.98))
    np.testing.assert_allclose(housed.all_dark, felt + dark_seen, atol=1e-9)
