"""The hierarchical Gaussian filter against its equations written out in NumPy, and learners that choose."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vfe
from vfe.dynamics import (
    BinaryInput,
    ContinuousInput,
    EnhancedUpdate,
    HierarchicalGaussianFilter,
    StandardUpdate,
    choice_model,
)

RNG = np.random.default_rng(0)
BINARY = (RNG.uniform(size=60) < np.where(np.arange(60) < 30, 0.8, 0.2)).astype(float)
SERIES = np.cumsum(RNG.normal(size=50) * np.where(np.arange(50) < 25, 0.1, 0.5))
STEPS = RNG.uniform(0.5, 2.0, size=60)


def by_hand(kind, enhanced, u, elapsed, omega, kappa, mean, precision, noise):
    """The published equations, one state and one input at a time, in plain Python."""
    mean, precision, n = list(mean), list(precision), len(omega)
    rows = []
    for value, t in zip(u, elapsed, strict=True):
        before, earlier = list(mean), list(precision)
        drift = [t * np.exp(omega[i] + (kappa[i] * before[i + 1] if i + 1 < n else 0.0)) for i in range(n)]
        expected = [1 / (1 / earlier[i] + drift[i]) for i in range(n)]
        if kind == "binary":
            p = 1 / (1 + np.exp(-before[0]))
            surprise = -np.log(p if value == 1 else 1 - p)
            precision[0] = expected[0] + p * (1 - p)
            mean[0] = before[0] + (value - p) / precision[0]
        else:
            p = before[0]
            variance = 1 / expected[0] + 1 / noise
            surprise = 0.5 * np.log(2 * np.pi * variance) + 0.5 * (value - p) ** 2 / variance
            precision[0] = expected[0] + noise
            mean[0] = before[0] + noise * (value - p) / precision[0]
        for i in range(1, n):
            w = drift[i - 1] * expected[i - 1]
            spread = 1 / precision[i - 1] + (mean[i - 1] - before[i - 1]) ** 2
            delta = spread * expected[i - 1] - 1
            k = kappa[i - 1]
            if enhanced:
                mean[i] = before[i] + 0.5 * k * w * delta / expected[i]
                v = t * np.exp(omega[i - 1] + k * mean[i])
                again = 1 / (1 / earlier[i - 1] + v)
                w, delta = v * again, spread * again - 1
                gained = 0.5 * k**2 * w * (w + (2 * w - 1) * delta)
                precision[i] = expected[i] + max(0.0, gained)
            else:
                precision[i] = expected[i] + 0.5 * k**2 * w * (w + (2 * w - 1) * delta)
                mean[i] = before[i] + 0.5 * k * w * delta / precision[i]
        rows.append((list(mean), list(precision), before, expected, p, surprise))
    names = ("mean", "precision", "predicted_mean", "predicted_precision", "predicted_input", "surprise")
    return {name: np.asarray(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


@pytest.mark.core
@pytest.mark.parametrize("enhanced", [True, False])
@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("kind", ["binary", "continuous"])
def test_every_belief_is_that_of_the_equations(kind, n, enhanced):
    omega, kappa = np.array([-2.0, -4.0, -5.0])[:n], np.array([0.9, 0.6])[: n - 1]
    mean, precision = np.array([0.1, 0.5, 0.2])[:n], np.array([2.0, 3.0, 4.0])[:n]
    u, noise = (BINARY, 1.0) if kind == "binary" else (SERIES, 20.0)
    elapsed = STEPS[: len(u)]
    learner = HierarchicalGaussianFilter(
        input=BinaryInput() if kind == "binary" else ContinuousInput(noise),
        tonic_volatility=omega,
        volatility_coupling=kappa,
        initial_mean=mean,
        initial_precision=precision,
        update=EnhancedUpdate() if enhanced else StandardUpdate(),
    )
    found = vfe.filter(learner, u, time_steps=elapsed)
    wanted = by_hand(kind, enhanced, u, elapsed, omega, kappa, mean, precision, noise)
    for name, value in wanted.items():
        np.testing.assert_allclose(np.asarray(getattr(found, name)), value, rtol=1e-10, atol=1e-12)
    assert float(found.log_evidence) == pytest.approx(-wanted["surprise"].sum(), rel=1e-12)


def learner(**options):
    return HierarchicalGaussianFilter(input=BinaryInput(), tonic_volatility=[-2.0, -4.0], **options)


def test_a_missing_input_leaves_the_prediction_and_surprises_nobody():
    u = BINARY.copy()
    u[10] = np.nan
    found = vfe.filter(learner(), u)
    assert found.surprise[10] == 0.0
    np.testing.assert_array_equal(found.mean[10], found.predicted_mean[10])
    np.testing.assert_array_equal(found.precision[10], found.predicted_precision[10])
    # Two steps at once, where nothing was seen between, are nearly one step of twice the length.
    short = vfe.filter(learner(), np.delete(u, 10), time_steps=np.where(np.arange(59) == 10, 2.0, 1.0))
    np.testing.assert_allclose(found.predicted_mean[11], short.predicted_mean[10], rtol=1e-12)
    assert np.all(found.precision[11] <= found.predicted_precision[11] * 1.5)


def test_series_are_filtered_side_by_side_and_x64_is_not_needed():
    both = vfe.filter(learner(), np.stack([BINARY, 1 - BINARY]))
    alone = vfe.filter(learner(), 1 - BINARY)
    assert np.asarray(alone.mean).dtype == np.float64
    np.testing.assert_allclose(both.mean[1], alone.mean, rtol=1e-13)


def test_volatility_rises_where_a_series_begins_to_move_more():
    """Steps of standard deviation 0.1, then 0.5: the log-variance rises by 3.2, and the belief with it."""
    model = HierarchicalGaussianFilter(input=ContinuousInput(1e4), tonic_volatility=[-4.0, -1.0])
    mean = vfe.filter(model, SERIES).mean[:, 1]
    assert mean[45:].mean() - mean[15:25].mean() > 1.0


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: vfe.filter(learner(), [0.0, 0.5]), ValueError, "wanted 0, 1 or NaN"),
        (lambda: vfe.filter(learner(), []), ValueError, "at least one"),
        (lambda: vfe.filter(learner(), BINARY[:, None]), ValueError, r"Write y\[:, 0\]"),
        (lambda: vfe.filter(learner(), BINARY, time_steps=[1.0]), ValueError, "time_steps"),
        (lambda: vfe.filter(learner(), BINARY, time_steps=-STEPS), ValueError, "positive"),
        (lambda: ContinuousInput(0.0), ValueError, "positive"),
        (lambda: learner(initial_mean=[1.0]), ValueError, r"initial_mean has shape \(1,\)"),
        (lambda: learner(initial_precision=[1.0, -1.0]), ValueError, "positive"),
        (lambda: learner(update="standard"), TypeError, "EnhancedUpdate"),
        (lambda: choice_model(learner(), 0), ValueError, "trials=0"),
        (lambda: choice_model(learner(), 5, tonic_volatility_sd=0.0), ValueError, "small scale"),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_negative_precision_is_an_error_with_the_input_and_the_state():
    """π̂ + ½ w (w + (2 w − 1) δ) turns negative where a steady series (w < ½) leaps (δ of hundreds)."""
    options = {"tonic_volatility": [-6.0, -4.0], "input": ContinuousInput(100.0)}
    u = np.where(np.arange(40) < 20, 0.0, 5.0)
    with pytest.raises(
        vfe.DivergenceError, match=r"state 1 broke down at input 20 .* is -.*EnhancedUpdate"
    ):
        vfe.filter(HierarchicalGaussianFilter(update=StandardUpdate(), **options), u)
    assert np.all(vfe.filter(HierarchicalGaussianFilter(**options), u).precision > 0)


def test_fitting_choices_is_perception_and_finds_the_chooser():
    """The energy of the model is the log-likelihood of the choices, and its mode lies near the truth."""
    trials, zeta = 400, 3.0
    rng = np.random.default_rng(1)
    chance = np.where((np.arange(trials) // 50) % 2 == 0, 0.8, 0.2)
    inputs = (rng.uniform(size=trials) < chance).astype(float)
    true = HierarchicalGaussianFilter(input=BinaryInput(), tonic_volatility=[-1.0, -4.0])
    p = np.asarray(vfe.filter(true, inputs).predicted_input)
    lean = p**zeta / (p**zeta + (1 - p) ** zeta)
    choice = (rng.uniform(size=trials) < lean).astype(float)

    model = choice_model(learner(), trials, tonic_volatility_sd=[2.0, 0.5])
    at = {"tonic_volatility": jnp.asarray([-1.0, -4.0]), "log_inverse_temperature": jnp.log(zeta)}
    energy = model.energies({"inputs": inputs, "choice": choice, **at})["choice"]
    likelihood = np.sum(choice * np.log(lean) + (1 - choice) * np.log1p(-lean))
    assert float(energy) == pytest.approx(-likelihood, rel=2e-4)

    fit = vfe.perceive(model, {"inputs": inputs, "choice": choice}, belief=vfe.Laplace)
    volatility, temperature = fit.belief["tonic_volatility"], fit.belief["log_inverse_temperature"]
    assert abs(float(volatility.mean[0]) + 1.0) < 3 * float(volatility.sd[0]) < 3.0
    assert abs(float(temperature.mean) - np.log(zeta)) < 3 * float(temperature.sd) < 1.0
    # A learner whose choices follow nothing is worse by many nats.
    fixed = HierarchicalGaussianFilter(input=BinaryInput(), tonic_volatility=[-12.0, -12.0])
    dull = vfe.perceive(
        choice_model(fixed, trials, tonic_volatility_sd=0.01),
        {"inputs": inputs, "choice": choice},
        belief=vfe.Laplace,
    )
    assert float(dull.free_energy.total) > float(fit.free_energy.total) + 20


def test_choices_have_no_energy_where_the_filter_would_refuse():
    """Inputs coded −1 and 1, and a learner whose beliefs break down."""

    def energy(chooser, inputs, volatility):
        values = {"inputs": inputs, "choice": BINARY, "log_inverse_temperature": 0.0}
        model = choice_model(chooser, 60)
        whole = jax.jit(lambda v: model.energies({**values, "tonic_volatility": v})["choice"])
        return float(whole(jnp.asarray(volatility)))

    assert np.isfinite(energy(learner(), BINARY, [-2.0, -4.0]))
    assert np.isnan(energy(learner(), 2 * BINARY - 1, [-2.0, -4.0]))
    assert np.isnan(energy(learner(update=StandardUpdate()), BINARY, [2.0, -1.0]))
    broken = eqx.tree_at(
        lambda m: m.tonic_volatility, learner(update=StandardUpdate()), np.array([2.0, -1.0])
    )
    with pytest.raises(vfe.DivergenceError):
        vfe.filter(broken, BINARY)


def test_a_surprise_that_is_not_finite_is_an_error():
    model = HierarchicalGaussianFilter(input=ContinuousInput(1.0), tonic_volatility=[800.0])
    with pytest.raises(vfe.DivergenceError, match="input 0"):
        vfe.filter(model, [0.0, 1.0])


def test_what_was_filtered_is_stored_and_drawn():
    found = vfe.filter(learner(), BINARY)
    data = found.to_xarray()
    assert float(data["surprise"].sum()) == pytest.approx(-float(found.log_evidence))
    assert data["mean"].dims == ("input", "state")
    axes = found.plot()
    assert len(axes) == 4
    assert "nats" in axes[-1].get_ylabel()
    with pytest.raises(ValueError, match="wanted one"):
        vfe.filter(learner(), np.stack([BINARY, BINARY])).plot()
