"""Free energy as physics knows it: geodesics, cumulants, couplings, renormalisation."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gallery_cases import failing, page_of
from helpers import load

import vfe
from vfe.gallery.physics import (
    boltzmann,
    boltzmann_page,
    cumulants,
    cumulants_page,
    geodesic,
    geodesic_page,
    renormalisation,
    renormalisation_page,
)

pytestmark = pytest.mark.usefixtures("float64")


# Geodesic.

PATHS = geodesic.Settings(finest=512, observations=30, plain_steps=20)


@pytest.fixture(scope="module")
def travelled():
    with jax.enable_x64(True):
        return geodesic.Found(
            geodesic.paths(PATHS, True),
            geodesic.paths(PATHS, False),
            geodesic.unit_steps(PATHS),
            geodesic.conjugates(),
            geodesic.learning(PATHS, 0),
        )


def test_natural_paths_meet_and_plain_ones_do_not(travelled):
    result = geodesic_page.write_up(PATHS, travelled)
    page_of(result)
    assert failing(result.claims) == []
    # The broken variant: the plain gradient where the natural one is claimed, and the other way round.
    swapped = travelled._replace(natural=travelled.plain, plain=travelled.natural)
    assert len(set(failing(geodesic_page.claims(swapped))) & {c.statement for c in result.claims[:2]}) == 2


def test_steps_of_the_belief_by_hand(travelled):
    """F and its natural step in (m, ln s) with 1/s² and 2 for the metric, in plain NumPy."""
    x, gain, noise = geodesic.OBSERVED, 1.5, 0.8

    def f(m, s):
        prior = 0.5 * (m**2 + s**2) + 0.5 * np.log(2 * np.pi)
        likely = 0.5 * ((x - gain * m) ** 2 + gain**2 * s**2) / noise**2 + 0.5 * np.log(
            2 * np.pi * noise**2
        )
        return prior + likely - 0.5 * np.log(2 * np.pi * np.e * s**2)

    m, s = PATHS.mean, PATHS.scale
    assert float(geodesic.free_energy(jnp.asarray(m), jnp.asarray(s))) == pytest.approx(f(m, s), abs=1e-12)
    size = PATHS.time / PATHS.finest
    for walked, metric in ((travelled.natural, True), (travelled.plain, False)):
        here = np.array([m, np.log(s)])
        for seen in walked.finest["(m, ln s)"]:
            now, scale = here[0], np.exp(here[1])
            np.testing.assert_allclose(seen, [now, scale], atol=1e-10)
            precision = 1 + gain**2 / noise**2
            slope = np.array([now - gain * (x - gain * now) / noise**2, scale**2 * precision - 1])
            here = here - size * (slope * np.array([scale**2, 0.5]) if metric else slope)
    variance = 1 / (1 + gain**2 / noise**2)
    assert travelled.unit.surprise == pytest.approx(f(variance * gain * x / noise**2, variance**0.5))


# Cumulants.

TILTED = cumulants.Settings(orders=4, inputs=7)


@pytest.fixture(scope="module")
def derived():
    with jax.enable_x64(True):
        return cumulants.measure(TILTED)


def test_derivatives_of_free_energies_are_cumulants(derived):
    result = cumulants_page.write_up(TILTED, derived)
    page_of(result)
    assert failing(result.claims) == []
    prior = load("toys/toys")["discrete_pz"]
    np.testing.assert_allclose(cumulants.PRIOR, prior, atol=1e-15)
    z = np.arange(5.0)
    mean = (z * prior).sum()
    two, three, four = (((z - mean) ** n * prior).sum() for n in (2, 3, 4))
    np.testing.assert_allclose(derived.derived, [mean, two, three, four - 3 * two**2], atol=1e-10)


def test_derivatives_of_z_are_not(derived):
    with jax.enable_x64(True):
        moments = np.asarray(cumulants.derivatives(cumulants.partition, TILTED.orders)(jnp.zeros(())))
    z = np.arange(5.0)
    wanted = [(z**n * cumulants.PRIOR).sum() for n in (1, 2, 3, 4)]
    np.testing.assert_allclose(moments, wanted, rtol=1e-9)
    failed = set(failing(cumulants_page.claims(derived._replace(derived=moments))))
    assert failed == {"derivatives of ln Z are cumulants from sums, largest difference"}


def test_the_posterior_by_quadrature(derived):
    """Cumulants of p(z | x) under two causes, on a grid."""
    grid = np.linspace(-6, 6, 20_001)
    p = sum(w * np.exp(-0.5 * ((grid - m) / 0.5) ** 2) for w, m in ((0.35, -1), (0.65, 1)))
    for x, found in zip(derived.mixture.x, derived.mixture.derived, strict=True):
        weight = p * np.exp(-0.5 * ((x - grid) / cumulants.NOISE) ** 2)
        weight /= weight.sum()
        mean = (weight * grid).sum()
        others = [(weight * (grid - mean) ** n).sum() for n in (2, 3)]
        np.testing.assert_allclose(found, [mean, *others], atol=1e-9)


# Boltzmann.

MACHINE = boltzmann.Settings(visible=4, hidden=2)


def test_hidden_priors_couple_visible_units():
    result = boltzmann_page.write_up(MACHINE, boltzmann.measure(MACHINE, 0))
    page_of(result)
    assert failing(result.claims) == []
    wrong = set(failing(boltzmann_page.claims(boltzmann.measure(MACHINE, 0, moments=True))))
    assert "spins: κ₄ as read from couplings of four" in wrong
    assert "deviations fall with the weights to the power, the least" in wrong


def test_couplings_by_brute_force():
    """ln p(v) by sums over v and h in plain loops, and couplings by Möbius inversion over subsets."""
    rng = np.random.default_rng(2)
    bias, weights = rng.normal(size=4), 0.4 * rng.normal(size=(4, 2))
    spins = list(itertools.product([-1.0, 1.0], repeat=4))
    for prior in (boltzmann.priors()["skewed"], boltzmann.priors()["sparse"]):
        logs = []
        for v in spins:
            total = 0.0
            for states in itertools.product(range(len(prior.values)), repeat=2):
                h, p = prior.values[list(states)], prior.weights[list(states)].prod()
                total += p * np.exp(np.dot(v, bias + weights @ h))
            logs.append(np.log(total))
        logs = np.array(logs) - np.log(np.exp(logs).sum())
        found = boltzmann.couplings(prior, bias, weights)
        # Σ_S J_S Π_{i∈S} v_i must be ln p(v): solved as linear equations.
        design = np.array([[np.prod([v[i] for i in s]) for s in found.members] for v in spins])
        np.testing.assert_allclose(found.measured, np.linalg.solve(design, logs), atol=1e-10)


def test_a_gaussian_couples_pairs_alone():
    """½ |Wᵀ v|², the closed form, also where weights are large."""
    rng = np.random.default_rng(5)
    weights = 0.3 * rng.normal(size=(4, 2))
    found = boltzmann.couplings(boltzmann.priors()["Gaussian"], np.zeros(4), weights)
    measured, _ = found.of_order(2)
    pairs = weights @ weights.T
    np.testing.assert_allclose(measured, pairs[np.triu_indices(4, 1)], atol=1e-10)
    assert found.beyond(2) < 1e-10
    assert boltzmann.couplings(boltzmann.priors()["spin"], np.zeros(4), weights).beyond(2) > 1e-4


# Renormalisation.

RING = renormalisation.Settings(spins=8, observations=2)


@pytest.fixture(scope="module")
def scales():
    with jax.enable_x64(True):
        return renormalisation.Found(renormalisation.flow(RING), renormalisation.levels(RING, 0))


def test_what_is_integrated_out_changes_couplings_and_not_free_energy(scales):
    result = renormalisation_page.write_up(RING, scales)
    page_of(result)
    assert failing(result.claims) == []
    k, n = RING.coupling, RING.spins
    # By the eigenvalues of the transfer matrix.
    wanted = np.log((2 * np.cosh(k)) ** n + (2 * np.sinh(k)) ** n)
    np.testing.assert_allclose(scales.flow.total, wanted, rtol=1e-12)
    np.testing.assert_allclose(scales.flow.couplings[1], 0.5 * np.log(np.cosh(2 * k)), atol=1e-12)


def test_a_coupling_that_is_kept_fails(scales):
    with jax.enable_x64(True):
        kept = renormalisation.flow(RING, rule=lambda k: k)
    failed = set(failing(renormalisation_page.claims(scales._replace(flow=kept))))
    assert any("−ln Z" in statement for statement in failed)
    assert any("tanh" in statement for statement in failed)
    levels = scales.levels._replace(measured=scales.levels.kept)
    failed = set(failing(renormalisation_page.claims(scales._replace(levels=levels))))
    assert any("Schur" in statement for statement in failed)


def test_a_ring_by_sums_over_all_states():
    total = sum(
        np.exp(0.7 * sum(a * b for a, b in zip(s, s[1:] + s[:1], strict=True)))
        for s in itertools.product([-1, 1], repeat=8)
    )
    assert renormalisation.log_partition(8, 0.7) == pytest.approx(np.log(total), abs=1e-10)


def test_both_hierarchies_have_one_density_of_what_is_observed():
    whole, coarse = renormalisation.hierarchy(3)
    x = {"x": jnp.asarray(np.random.default_rng(0).normal(size=(2, 4)))}
    one, other = (vfe.exact.log_evidence(m, x) for m in (whole, coarse))
    np.testing.assert_allclose(one, other, atol=1e-10)
