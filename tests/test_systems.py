"""Ready-made linear systems against matrix exponentials and dense Gaussians; fits against quadrature."""

import jax
import numpy as np
import pytest
import scipy.linalg

import vfe
from vfe.dynamics import Autoregression, Components, LocalLevel, LocalTrend, Oscillator


def van_loan(drift, diffusion, interval):
    """exp(F τ) and ∫ exp(F s) L Lᵀ exp(F s)ᵀ ds by one matrix exponential (Van Loan 1978)."""
    n = len(drift)
    block = np.block([[-drift, diffusion], [np.zeros((n, n)), drift.T]]) * interval
    whole = scipy.linalg.expm(block)
    transition = whole[n:, n:].T
    return transition, transition @ whole[:n, n:]


GAMMA, OMEGA = 0.4, 2 * np.pi * 0.7
SYSTEMS = {
    "level": (LocalLevel(1.5), np.zeros((1, 1)), np.array([[1.5**2]])),
    "trend": (LocalTrend(0.8), np.array([[0.0, 1.0], [0.0, 0.0]]), np.diag([0.0, 0.8**2])),
    "oscillator": (
        Oscillator(0.7, GAMMA, 2.0),
        np.array([[-GAMMA, -OMEGA], [OMEGA, -GAMMA]]),
        2 * GAMMA * 2.0**2 * np.eye(2),
    ),
}


@pytest.mark.core
@pytest.mark.parametrize("name", SYSTEMS)
def test_intervals_are_bridged_exactly(name):
    system, drift, diffusion = SYSTEMS[name]
    intervals = [0.0, 1.0, 0.3, 2.7]
    found = Components([system], 1.0).state_space(intervals)
    for i, interval in enumerate(intervals[1:], start=1):
        transition, noise = van_loan(drift, diffusion, interval)
        np.testing.assert_allclose(found.transition[i], transition, atol=1e-12)
        np.testing.assert_allclose(found.transition_covariance[i], noise, atol=1e-12)


def draws(seed):
    return np.random.default_rng(seed)


def dense(components, times, y):
    """−ln p(y) of a level and an oscillator from covariance functions, in plain NumPy."""
    level, rhythm = components.parts
    between = np.abs(times[:, None] - times[None, :])
    since = np.minimum(times[:, None], times[None, :]) - times[0]
    covariance = level.initial_sd**2 + level.rate**2 * since
    decay = np.exp(-rhythm.damping * between)
    covariance = covariance + rhythm.amplitude**2 * decay * np.cos(2 * np.pi * rhythm.frequency * between)
    covariance = covariance + components.observation_sd**2 * np.eye(len(times))
    seen = np.isfinite(y)
    left = (y - components.offset - level.initial_mean)[seen]
    covariance = covariance[np.ix_(seen, seen)]
    _, size = np.linalg.slogdet(2 * np.pi * covariance)
    return 0.5 * left @ np.linalg.solve(covariance, left) + 0.5 * size


@pytest.mark.core
def test_a_sum_of_systems_is_the_gaussian_process_of_their_covariances():
    """Samples at irregular times, some missing: the filter's evidence is that of the dense Gaussian."""
    rng = draws(0)
    times = np.cumsum(rng.uniform(0.2, 1.5, size=60))
    y = rng.normal(size=60) + 3.0
    y[[4, 5, 30]] = np.nan
    parts = [LocalLevel(0.3, initial_mean=0.2, initial_sd=2.0), Oscillator(0.21, 0.1, 0.8)]
    model = Components(parts, observation_sd=0.5, offset=2.5)
    found = vfe.filter(model.state_space(np.diff(times, prepend=times[0] - 1.0)), y[:, None])
    assert float(found.log_evidence) == pytest.approx(-dense(model, times, y), rel=1e-10)


def test_an_autoregression_is_the_recursion():
    """One step ahead, without noise on the samples: φ₁ y_{t−1} + φ₂ y_{t−2}."""
    model = Components([Autoregression([1.2, -0.5], innovation_sd=1.0)], observation_sd=1e-6)
    y = draws(1).normal(size=30)
    expected = np.asarray(vfe.filter(model.state_space(1.0), y[:, None]).predicted_y.mean)[:, 0]
    np.testing.assert_allclose(expected[2:], 1.2 * y[1:-1] - 0.5 * y[:-2], atol=1e-9)


@pytest.fixture(scope="module")
def wandering():
    """A level that wanders, seen with noise, and the fit."""
    rng = draws(2)
    y = np.cumsum(rng.normal(size=80)) * 0.5 + rng.normal(size=80)
    y[[10, 11, 40]] = np.nan
    model = Components([LocalLevel(1.0, initial_sd=5.0)], observation_sd=0.5)
    return y, model, vfe.fit(model, y)


def test_the_fit_is_the_mode_and_its_free_energy_is_near_the_integral(wandering):
    """By a grid over both numbers with a dense Gaussian at each: the mode, and −ln ∫ p(y | θ) p(θ) dθ."""
    y, _, found = wandering
    times = np.arange(80.0)
    since = np.minimum(times[:, None], times[None, :])
    seen = np.isfinite(y)

    def energy(log_rate, log_noise):
        covariance = 25.0 + np.exp(2 * log_rate) * since + np.exp(2 * log_noise) * np.eye(80)
        covariance = covariance[np.ix_(seen, seen)]
        _, size = np.linalg.slogdet(2 * np.pi * covariance)
        evidence = 0.5 * y[seen] @ np.linalg.solve(covariance, y[seen]) + 0.5 * size
        prior = [0.5 * (u / 2.0) ** 2 for u in (log_rate, log_noise - np.log(0.5))]
        return evidence + sum(prior) + 2 * np.log(2.0) + np.log(2 * np.pi)

    rate, noise = np.linspace(-3, 1, 81), np.linspace(-1.5, 1, 81)
    grid = np.array([[energy(a, b) for b in noise] for a in rate])
    i, j = np.unravel_index(grid.argmin(), grid.shape)
    assert np.log(found.values["0 LocalLevel.rate"]) == pytest.approx(rate[i], abs=0.04)
    assert np.log(found.values["observation_sd"]) == pytest.approx(noise[j], abs=0.03)
    assert energy(*np.asarray(found.location)) <= grid.min() + 1e-9
    integral = -np.log(np.exp(-(grid - grid.min())).sum() * (rate[1] - rate[0]) * (noise[1] - noise[0]))
    # Laplace's method is an approximation: the posterior of the rate has a tail towards zero.
    assert found.free_energy.total == pytest.approx(grid.min() + integral, abs=0.15)
    # Laplace's method by finite differences of that energy at the mode.
    u, h = np.asarray(found.location), 1e-3
    steps = h * np.eye(2)
    hessian = [
        [
            (energy(*(u + a + b)) - energy(*(u + a - b)) - energy(*(u - a + b)) + energy(*(u - a - b)))
            for b in steps
        ]
        for a in steps
    ]
    size = np.linalg.slogdet(np.array(hessian) / (4 * h**2))[1]
    laplace = energy(*u) + 0.5 * size - np.log(2 * np.pi)
    F = found.free_energy
    assert F.total == pytest.approx(laplace, abs=1e-4)
    assert F.complexity - F.accuracy == pytest.approx(F.total, rel=1e-12)
    # Complexity is that of Gaussians: KL(q ‖ p) by its closed form.
    ratio = np.diag(found.covariance) / 4
    shift = (u - [0.0, np.log(0.5)]) ** 2 / 4
    kl = 0.5 * (ratio.sum() + shift.sum() - 2 + np.log(16) - np.linalg.slogdet(found.covariance)[1])
    assert F.complexity == pytest.approx(kl, rel=1e-9)
    low, high = found.interval()["0 LocalLevel.rate"]
    assert low < 0.5 < high


def test_free_energy_prefers_the_system_that_made_the_series():
    t = np.arange(120.0)
    y = np.sin(2 * np.pi * 0.08 * t) + 0.3 * draws(3).normal(size=120)
    rhythm = vfe.fit(Components([Oscillator(0.1, 0.05, 1.0)], 0.5), y)
    level = vfe.fit(Components([LocalLevel(0.3, initial_sd=2.0)], 0.5), y)
    ranked = vfe.compare({"level": level, "rhythm": rhythm})
    assert ranked.best == "rhythm"
    assert ranked.differences[1] > 20
    assert ranked.free_energy[0] == pytest.approx(float(rhythm.free_energy.total), rel=1e-12)
    low, high = rhythm.interval()["0 Oscillator.frequency"]
    assert low < 0.08 < high
    assert high - low < 0.02
    assert "Oscillator.frequency" in repr(rhythm)
    fitted = np.asarray(rhythm.smoothed.fitted_y.mean)[:, 0]
    assert np.sqrt(np.mean((fitted - np.sin(2 * np.pi * 0.08 * t)) ** 2)) < 0.15


def test_the_interval_before_the_first_sample_does_not_count(wandering):
    """np.diff(times, prepend=times[0]) begins with a zero, which nothing depends on."""
    model = Components([Autoregression([0.5], 1.0), Oscillator(0.1, 0.1, 1.0)], 1.0)
    first, other = (model.state_space([start, 2.0, 2.0]) for start in (0.0, 7.0))
    y = np.arange(3.0)[:, None]
    assert float(vfe.filter(first, y).log_evidence) == float(vfe.filter(other, y).log_evidence)


def test_masked_samples_are_missing_ones(wandering):
    y, model, found = wandering
    masked = np.ma.masked_invalid(np.where(np.isnan(y), np.nan, y))
    assert vfe.fit(model, masked).free_energy.total == pytest.approx(found.free_energy.total, rel=1e-9)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: LocalLevel(-1.0), "LocalLevel: rate is -1.0"),
        (lambda: Oscillator(0.1, np.nan, 1.0), "finite"),
        (lambda: LocalTrend(1.0, initial_mean=0.0), r"\(2,\)"),
        (lambda: Components([], 1.0), "no parts"),
        (lambda: Components([LocalLevel(1.0)], 1.0).state_space([1.0, -2.0]), "intervals"),
        (lambda: Components([Autoregression([0.5], 1.0)], 1.0).state_space([1.0, 1.0, 2.0]), "equal"),
        (lambda: Components([Autoregression([0.5], 1.0)], 1.0).state_space([1e-9, 1e-9, 9e-9]), "equal"),
        (lambda: Components([LocalLevel(1.0)], 1.0).state_space([[1.0], [1.0]]), "intervals has shape"),
        (lambda: Autoregression(0.5, 1.0), r"wanted \(order,\)"),
        (lambda: Autoregression([], 1.0), r"wanted \(order,\)"),
        (lambda: vfe.fit(Components([LocalLevel(1.0)], 1.0), [1.0, np.nan, 2.0]), "at least three"),
        (lambda: vfe.fit(Components([LocalLevel(1.0)], 1.0), [1.0, np.inf, 2.0, 3.0]), "infinite at 1"),
        (lambda: vfe.fit(Components([LocalLevel(1.0)], 1.0), ["a", "b"]), "wanted numbers"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_fits_work_the_same_where_x64_is_on(wandering, float64):
    y, model, found = wandering
    assert jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
    assert vfe.fit(model, y).free_energy.total == pytest.approx(found.free_energy.total, rel=1e-9)
