"""Bistable percepts: what the experiment claims, how it fails, and its numbers by other means."""

import dataclasses

import jax
import numpy as np
import pytest

from vfe.gallery.foundations import bistable, bistable_page
from vfe.results.report import build_report

SETTINGS = bistable.Settings(chains=32, duration=150.0, draws=4000)


@pytest.fixture(scope="module")
def found():
    return bistable.find(SETTINGS, 0)


def failing(found):
    return [claim.statement for claim in bistable_page.claims(found) if not claim.holds]


def test_percepts_alternate_as_the_posterior_says(found):
    assert failing(found) == []
    result = bistable_page.write_up(SETTINGS, found)
    page = build_report(result.report)
    for name, value in result.headline:
        assert name in page
        assert "nan" not in value
    assert page.count("<img") == len(result.figures)


def with_kinds(found, order):
    """The same with kinds of stimuli taken for one another."""
    course, percepts = found.course, found.percepts
    parts = {name: getattr(course, name)[order] for name in ("share", "changes", "lasting")}
    modes = bistable.Percepts(percepts.mode[order], percepts.free_energy[order], percepts.rise)
    return found._replace(course=course._replace(**parts), percepts=modes)


def energy(a, b, x, context):
    """E = −ln p(x, z, context), written out."""
    quadratic = (a - context) ** 2 + b**2 + context**2
    senses = ((x[0] - a - b) / 0.5) ** 2 + ((x[1] - a * b) / 0.8) ** 2
    return 0.5 * (quadratic + senses) + 2.5 * np.log(2 * np.pi) + np.log(0.5 * 0.8)


def test_percepts_and_surprise_by_hand(found):
    a, b = np.meshgrid(*[np.arange(-4.0, 7.0, 0.02)] * 2, indexing="ij")
    for k, context in enumerate((0.0, SETTINGS.context)):
        each = energy(a, b, (4.0, 0.0), context)
        density = np.exp(-each)
        surprise = -np.log(density.sum() * 0.02**2)
        assert found.expected.surprise[k] == pytest.approx(surprise, abs=1e-6)
        share = (density[a > b].sum() + 0.5 * density[a == b].sum()) / density.sum()
        assert found.expected.share[k] == pytest.approx(share, abs=1e-3)
    # F of the Gaussian belief: energy at the mode and half the log-determinant of its curvature.
    mode, h = found.percepts.mode[0, 0], 1e-3
    around = [
        [energy(mode[0] + h * i, mode[1] + h * j, (4.0, 0.0), 0.0) for j in (-1, 0, 1)] for i in (-1, 0, 1)
    ]
    e = np.array(around)
    slope = np.array([e[2, 1] - e[0, 1], e[1, 2] - e[1, 0]]) / (2 * h)
    np.testing.assert_allclose(slope, 0, atol=1e-4)
    cross = (e[2, 2] - e[2, 0] - e[0, 2] + e[0, 0]) / 4
    curvature = (e[2, 1] + e[0, 1] - 2 * e[1, 1]) * (e[1, 2] + e[1, 0] - 2 * e[1, 1]) - cross**2
    expected = e[1, 1] + 0.5 * np.log(curvature / h**4) - np.log(2 * np.pi)
    assert found.percepts.free_energy[0, 0] == pytest.approx(expected, abs=1e-4)


def test_the_committor_in_one_dimension_has_a_closed_form():
    # With a density of x alone, q = ∫ dx / p up to x over all of it, and the flux is one over all of it.
    grid = np.linspace(-1.0, 1.0, 401)
    barrier = np.exp(2.0 * grid**2)
    density = np.repeat((barrier / barrier.sum())[:, None], 3, 1) / 3
    spacing = grid[1] - grid[0]
    q, flux = bistable.committor(density, spacing)
    between = np.exp(-2.0 * ((grid[1:] + grid[:-1]) / 2) ** 2)
    expected = np.concatenate([[0.0], between.cumsum()]) / between.sum()
    np.testing.assert_allclose(q, expected[:, None].repeat(3, 1), atol=1e-4)
    whole = spacing * barrier.sum() * spacing * between.sum()
    assert flux == pytest.approx(1 / whole, rel=1e-3)


def test_without_noise_or_with_the_wrong_noise_or_nothing_ambiguous_it_fails(found):
    lasts = "ambiguous: percepts last, relative to what the posterior's ridge says"
    still = failing(with_kinds(found, [3, 1, 2, 3]))
    assert "with noise, percepts end, in a chain, on average" in still
    assert lasts in still
    with jax.enable_x64(True):
        loud = bistable.simulate(dataclasses.replace(SETTINGS, temperature=2.0), 0)
    assert failing(found._replace(course=loud)) == ["with context: it is off quadrature by", lasts]
    # The stimulus whose overlap is seen, taken for the ambiguous one.
    wrong = failing(with_kinds(found, [2, 1, 0, 3]))
    assert "ambiguous: recognition from either side ends in percepts that are apart by" in wrong
    assert lasts in wrong
    assert "overlap seen: recognition from either side ends apart by" in wrong


def test_percepts_are_counted_from_end_to_end():
    label = np.array([[[1, 1, -1, -1, -1, 1, 1, 1]] * 2] * 4)
    course = bistable.measured(label.astype(float), label)
    unit = bistable.STEP * bistable.OFTEN
    np.testing.assert_array_equal(course.changes[0], [[1, 1], [1, 1]])
    np.testing.assert_allclose(course.lasting[0], np.array([[4, 4], [3, 3]]) * unit)
    np.testing.assert_allclose(course.whole, [3 * unit] * 2)
    np.testing.assert_allclose(course.share[0], 5 / 8)
