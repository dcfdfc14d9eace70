"""What the experiments on the foundations claim, on small runs, against plain NumPy and closed forms."""

import jax
import numpy as np
import pytest
from gallery_cases import failing, page_of

import vfe
from vfe.gallery.foundations import (
    empirical_bayes,
    empirical_bayes_page,
    ensembles,
    ensembles_page,
    entropy_bound,
    entropy_bound_page,
    explaining_away,
    explaining_away_page,
    limits,
    limits_page,
    predictive_coding,
    predictive_coding_page,
    priors,
    priors_page,
    readings,
    readings_page,
)
from vfe.gallery.foundations.toys import discrete_model, gaussian_hierarchy, tables

TOYS = np.load("tests/reference/toys/toys.npz")


def test_the_tables_are_those_of_the_reference():
    prior, likelihood = tables()
    np.testing.assert_array_equal(prior, TOYS["discrete_pz"])
    np.testing.assert_array_equal(likelihood, TOYS["discrete_pxz"])
    with jax.enable_x64(True):
        grid = dict(zip("zx", np.indices((5, 7)), strict=True))
        joint = np.exp(-sum(np.asarray(e) for e in discrete_model().energies(grid).values()))
    np.testing.assert_allclose(joint, prior[:, None] * likelihood, rtol=1e-12)
    assert joint.sum() == pytest.approx(1, abs=1e-12)


@pytest.fixture(scope="module")
def read():
    settings = readings.Settings(beliefs=40)
    return readings.in_states(settings, 1), readings.in_levels(settings, 1)


def test_the_three_readings_agree_and_bound_surprise(read):
    assert failing(readings_page.claims(*read)) == []
    page_of(readings_page.write_up(*read))
    # By hand: p(x) of the tables, and F of the first belief about every sensation.
    states, _ = read
    prior, likelihood = tables()
    np.testing.assert_allclose(states.surprise[0], -np.log(prior @ likelihood), rtol=1e-12)
    random = np.random.default_rng(1)
    sharpness = random.choice([0.3, 1.0, 5.0], 40)
    q = random.dirichlet(np.full(5, sharpness[0]))
    by_hand = (q[:, None] * np.log(q[:, None] / (prior[:, None] * likelihood))).sum(0)
    np.testing.assert_allclose(states.readings[0, 0], by_hand, rtol=1e-9)


def test_readings_that_count_the_entropy_wrongly_fail(read):
    def with_entropy(factor):
        return failing(
            readings_page.claims(*(readings.with_entropy_times(found, factor) for found in read))
        )

    assert "energy − entropy and surprise + divergence differ by" in with_entropy(0.0)
    assert "F + ln p(x) less ½ |q − p(z | x)|₁², smallest (states)" in with_entropy(2.0)
    # The parameters of an empirical prior are not a likelihood's: they act through the complexity.
    swapped = [found._replace(likelihood=found.empirical) for found in read]
    assert "likelihood's parameters move complexity by" in failing(readings_page.claims(*swapped))
    assert np.abs(read[1].empirical[1]).max() == 0.0


@pytest.fixture(scope="module")
def ensemble():
    settings = ensembles.Settings(series=20, length=30)
    x = np.load("tests/reference/vae/ppca_iris_k2_r1.npz")["x_train"]
    return settings, ensembles.in_tables(), ensembles.in_time(settings, 0), ensembles.of_flowers(x)


def test_one_belief_for_all_costs_what_was_said(ensemble):
    settings, stated, timed, linear = ensemble
    assert failing(ensembles_page.claims(stated, timed, linear)) == []
    page_of(ensembles_page.write_up(settings, stated, timed, linear))
    assert round(stated.free["per sensation"], 4) == 1.7784
    assert round(stated.free["shared"], 4) == 2.1008
    assert round(stated.free["shared"] - stated.free["per sensation"], 4) == 0.3224
    reference = np.load("tests/reference/vae/ppca_iris_k2_r1.npz")
    assert linear.surprise == pytest.approx(float(reference["nll_train_mean"]), abs=1e-8)
    assert linear.shared == pytest.approx(float(reference["F_ensemble_train_mean"]), abs=1e-8)
    assert linear.prior == pytest.approx(float(reference["F_prior_train_mean"]), abs=1e-8)


def test_the_carried_belief_by_hand_and_where_there_is_nothing_to_carry(ensemble):
    settings, stated, timed, linear = ensemble
    prior, likelihood = tables()
    q = prior
    for t in range(settings.length):
        predicted = prior if t == 0 else settings.persistence * q + (1 - settings.persistence) * prior
        joint = predicted * likelihood[:, timed.x[3, t]]
        assert timed.carried[3, t] == pytest.approx(-np.log(joint.sum()), abs=1e-12)
        q = joint / joint.sum()
    shuffled = ensembles.in_time(settings, 0, shuffled=True)
    wrong = failing(ensembles_page.claims(stated, shuffled, linear))
    assert wrong == ["a carried belief saves, per sensation, low end of its interval"]
    # A shared belief taken for the aggregate, or the other way round, is seen.
    mixed = stated._replace(shared=stated.aggregate, aggregate=stated.shared)
    assert len(failing(ensembles_page.claims(mixed, timed, linear))) == 2


@pytest.fixture(scope="module")
def limit():
    settings = limits.Settings(observations=30)
    return settings, limits.find(settings, 0)


def test_the_limits_of_recognition(limit):
    settings, found = limit
    assert failing(limits_page.claims(found)) == []
    page_of(limits_page.write_up(settings, found))
    curved = found.curved
    assert round(curved.energy, 3) == 2.634
    np.testing.assert_array_equal(np.round(curved.by_entropy[1::2], 2), [5.82, 10.43, 15.03])
    assert round(curved.surprise, 3) == 3.593
    # The mode solves z (1 + 2 (z² − x) / 0.09) = 0; F of a narrow belief is quadratic in its width.
    assert curved.modes[1.0] ** 2 == pytest.approx(4 - 0.045, abs=1e-9)
    w = curved.widths
    by_hand = 0.5 * (4 + w**2) + 0.5 * (4 * 4 * w**2) / 0.09 + np.log(0.3) - 0.5 - np.log(w)
    np.testing.assert_allclose(curved.free, by_hand + 0.5 * np.log(2 * np.pi), atol=1e-8)
    assert found.coordinates.jacobian[3] == pytest.approx(0.5 * np.log(5))


def test_an_energy_taken_for_a_free_energy_fails(limit):
    _, found = limit
    flat = found.curved._replace(free=np.full(6, found.curved.energy))
    gain = found.gain._replace(free=found.gain.energy)
    wrong = failing(limits_page.claims(found._replace(curved=flat, gain=gain)))
    assert "a belief about a number, for every e-fold that it is narrower, costs" in wrong
    assert "at the posterior, F and surprise differ by" in wrong


@pytest.fixture(scope="module")
def learned_priors():
    settings = empirical_bayes.Settings()
    x, truth = TOYS["empirical_bayes_x"], TOYS["empirical_bayes_truth"]
    true = empirical_bayes.Prior(2.0, 0.7)
    made = empirical_bayes.learn_groups(x, truth, settings.epochs, true)
    return settings, made, empirical_bayes.players(settings)


def test_priors_are_learned_from_many_groups(learned_priors):
    _, made, real = learned_priors
    assert failing(empirical_bayes_page.claims(*learned_priors)) == []
    page_of(empirical_bayes_page.write_up(*learned_priors))
    learned = made.priors["learned"]
    assert (round(learned.mean, 3), round(learned.sd**2, 3)) == (2.054, 0.496)
    errors = [round(made.found[name].error.mean(), 3) for name in ("flat", "learned", "true")]
    assert errors == [0.988, 0.337, 0.335]
    # Shrinkage by hand, and the known sum of squared errors of the unshrunk averages.
    share = 0.7**2 / (0.7**2 + 1)
    np.testing.assert_allclose(made.found["true"].estimate, 2 + share * (made.x - 2), rtol=1e-9)
    assert real.found["flat"].error.sum() == pytest.approx(17.57, abs=0.01)


def test_a_wrong_prior_fails(learned_priors):
    settings, made, real = learned_priors
    for groups, place in ((made, (made, real)), (real, (made, real))):
        mean, sd = groups.priors["learned"]
        wrong = empirical_bayes.Prior(mean + 3, sd)
        found = {**groups.found, "learned": empirical_bayes.assess(groups.x, groups.truth, wrong)}
        bad = groups._replace(found=found, priors={**groups.priors, "learned": wrong})
        pair = [bad if each is groups else each for each in place]
        assert len(failing(empirical_bayes_page.claims(settings, *pair))) >= 2


@pytest.fixture(scope="module")
def chains():
    settings = priors.Settings(kernels=20)
    return settings, priors.in_states(settings, 0), priors.in_levels(settings, 0)


def test_priors_by_recursion_in_both_directions(chains):
    _, states, levels = chains
    assert failing(priors_page.claims(states, levels)) == []
    page_of(priors_page.write_up(*chains))
    # The mean divergence of p(z1 | x) from p(z1), by hand: the information that x has of z1.
    _, (top, middle, senses) = priors.discrete_chain()
    pairs = senses * (middle @ top)
    alone = np.outer(pairs.sum(1), pairs.sum(0))
    assert states.mutual["z1"] == pytest.approx((pairs * np.log(pairs / alone)).sum(), abs=1e-12)
    # One density of the Gaussian chain by sampling its levels.
    model = gaussian_hierarchy()
    drawn = jax.jit(lambda key: model.sample(key, shape=(20_000,)))(jax.random.key(0))
    sd = np.sqrt(np.diag(levels.up["z1"][1]))
    np.testing.assert_array_less(np.abs(drawn["z1"].mean(0) - levels.up["z1"][0]), 5 * sd / np.sqrt(2e4))
    np.testing.assert_allclose(drawn["z1"].std(0), sd, rtol=0.04)


def test_an_upward_kernel_that_is_not_of_the_joint_does_not_agree(chains):
    _, states, levels = chains
    found = priors_page.upward_with_wrong_kernel(states)
    assert "states: marginals upward and downward differ by" in failing(priors_page.claims(found, levels))
    calm = priors.in_states(priors.Settings(kernels=3, disturbance=1e-9), 0)
    assert any("do not come" in claim for claim in failing(priors_page.claims(calm, levels)))


@pytest.fixture(scope="module")
def network():
    settings = predictive_coding.Settings(observations=40, steps=1500)
    return settings, predictive_coding.find(settings, 0)


def test_predictive_coding_descends_free_energy_by_local_updates(network):
    settings, found = network
    assert failing(predictive_coding_page.claims(found)) == []
    page_of(predictive_coding_page.write_up(settings, found))
    # The posterior by hand, from the joint covariance of z1 and what is seen of x.
    w = predictive_coding.weights()
    _, middle, senses = predictive_coding.NOISE
    z1 = w.upper @ w.upper.T + middle**2 * np.eye(6)
    seen = found.seen[0]
    lower = w.lower[seen]
    gain = z1 @ lower.T @ np.linalg.inv(lower @ z1 @ lower.T + senses**2 * np.eye(seen.sum()))
    np.testing.assert_allclose(found.intact.middle[-1], found.x[:, seen] @ gain.T, atol=1e-8)


def test_units_that_do_not_hear_of_errors_from_below_fail(network):
    _, found = network
    w = predictive_coding.weights()
    deaf = predictive_coding.settle(w, found.x, 50, forward=0.0)
    off = predictive_coding.against_automatic(w, found.x, 0, forward=0.0)
    wrong = failing(
        predictive_coding_page.claims(found._replace(intact=deaf, gradient=(off, found.gradient[1])))
    )
    assert "state units at rest and the posterior mean differ by" in wrong
    assert "local updates and −dF differ, relative to the largest, by" in wrong
    # A lesion that cuts nothing costs nothing.
    whole = found._replace(lesioned=found.intact, energy=(found.energy[0], found.energy[0]))
    assert len(failing(predictive_coding_page.claims(whole))) == 1
    # Beliefs that take single units for independent come to rest elsewhere: with 8 ½ ln variances by hand.
    with jax.enable_x64(True):
        units = predictive_coding.mean_field_flow(w, found.x[:4], vfe.DiagonalGaussian)
        off = np.asarray(units.free_energy.total)
    gap = found.gap + off - found.flow[:, -1]
    wrong = failing(
        predictive_coding_page.claims(found._replace(flow=np.asarray(units.trace), flow_gap=gap))
    )
    assert wrong == ["where it comes to rest, its gap to surprise and the closed form differ by"]
    lower = w.lower[found.seen[0]] / predictive_coding.NOISE[2]
    upper = np.hstack([-w.upper, np.eye(6)]) / predictive_coding.NOISE[1]
    precision = upper.T @ upper
    precision[:2, :2] += np.eye(2)
    precision[2:, 2:] += lower.T @ lower
    by_hand = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])
    np.testing.assert_allclose(gap, by_hand, atol=1e-7)


@pytest.fixture(scope="module")
def watched():
    settings = entropy_bound.Settings(series=60, length=200)
    return settings, entropy_bound.watch(settings, 0)


def test_mean_free_energy_is_never_below_the_entropy_rate(watched):
    settings, found = watched
    assert failing(entropy_bound_page.claims(found)) == []
    page_of(entropy_bound_page.write_up(settings, found))
    # Where states are seen exactly the entropy rate has a closed form, from the second sensation on.
    transition = entropy_bound.moves(0.8)
    low, high = entropy_bound.entropy_rate_bounds(np.eye(3) + 1e-300, transition)
    closed = -(0.8 * np.log(0.8) + 0.15 * np.log(0.15) + 0.05 * np.log(0.05))
    np.testing.assert_allclose([low[1:], high[1:]], closed, rtol=1e-9)
    # Bounds close monotonically, and two sensations by hand.
    assert (np.diff(found.low) >= 0).all()
    assert (np.diff(found.high) <= 0).all()
    pair = entropy_bound.SEES @ transition / 3 @ entropy_bound.SEES.T
    alone = pair.sum(0)
    by_hand = -(pair * np.log(pair)).sum() + (alone * np.log(alone)).sum()
    assert found.high[1] == pytest.approx(by_hand, abs=1e-12)


def test_a_world_that_is_not_ergodic_and_accuracy_alone_fail(watched):
    settings, found = watched
    still = entropy_bound.watch(settings, 0, ergodic=False)
    wrong = failing(entropy_bound_page.claims(still))
    assert any("quarter" in statement for statement in wrong)
    assert "exact beliefs: mean F, from the entropy rate" in wrong
    accuracy = entropy_bound_page.with_accuracy_alone(found)
    assert len(failing(entropy_bound_page.claims(accuracy))) == 1


@pytest.fixture(scope="module")
def causes():
    settings = explaining_away.Settings(starts=0)
    return settings, explaining_away.find(settings, 0)


def test_causes_that_share_effects_are_not_settled_in_one_pass(causes):
    settings, found = causes
    assert failing(explaining_away_page.claims(found)) == []
    page_of(explaining_away_page.write_up(settings, found))
    # The alarm by hand, and the whole table of the six effects.
    prior, miss = settings.prior, 1 - settings.strength
    rings = 1 - (1 - settings.leak) * np.array([[1, miss], [miss, miss**2]])
    joint = np.outer([1 - prior, prior], [1 - prior, prior]) * rings
    by_hand = (prior, joint[1].sum() / joint.sum(), joint[1, 1] / joint[:, 1].sum())
    np.testing.assert_allclose(found.alarm, by_hand, rtol=1e-9)
    evidence = np.zeros(64)
    for z in np.ndindex(2, 2, 2, 2):
        chance = [
            1 - (1 - settings.leak) * miss ** (z[i] + z[j]) for i in range(4) for j in range(i + 1, 4)
        ]
        on = np.where(explaining_away.PATTERNS, chance, 1 - np.array(chance)).prod(1)
        evidence += on * prior ** sum(z) * (1 - prior) ** (4 - sum(z))
    np.testing.assert_allclose(found.shared.surprise, -np.log(evidence), rtol=1e-9)
    # F of the encoder's beliefs from its probabilities: never below, and no better than iterated.
    assert (found.shared.iterated >= found.shared.surprise - 1e-9).all()


def test_without_shared_effects_there_is_nothing_to_iterate(causes):
    _, found = causes
    wrong = failing(explaining_away_page.claims(found._replace(shared=found.alone)))
    assert "shared effects: iterating the encoder's beliefs saves" in wrong
    swapped = failing(explaining_away_page.claims(found._replace(alone=found.shared)))
    assert len(swapped) == 2
