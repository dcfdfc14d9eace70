"""scikit-learn estimators: its own checks, closed forms in NumPy, and what they reach on real data."""

import jax
import numpy as np
import pytest
from helpers import assert_close, gaussian_energy
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import vfe
from vfe.sklearn import (
    FreeEnergyEncoder,
    GenerativeClassifier,
    PredictiveCodingClassifier,
    PredictiveCodingRegressor,
)

TINY = {"hidden_layer_sizes": (4,), "batch_size": 256, "learning_rate": 3e-2}


@pytest.fixture(autouse=True)
def quick_compilation():
    """scikit-learn's checks alone use some twenty shapes, each compiled anew, and run for milliseconds."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.mark.filterwarnings("default::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize(
    "estimator",
    [
        PredictiveCodingClassifier(max_iter=20, perception_steps=2, solver=vfe.Anderson(memory=1), **TINY),
        PredictiveCodingRegressor(max_iter=40, perception_steps=2, solver=vfe.Anderson(memory=1), **TINY),
        FreeEnergyEncoder(2, max_iter=4, **TINY | {"hidden_layer_sizes": ()}),
        GenerativeClassifier(
            latent_size=1, max_iter=20, perception_steps=2, solver=vfe.Anderson(memory=1), **TINY
        ),
    ],
    ids=["classifier", "regressor", "encoder", "generative classifier"],
)
def test_checks_of_scikit_learn(estimator):
    check_estimator(estimator)


def features(count=40, size=3, seed=0):
    return np.random.default_rng(seed).normal(size=(count, size))


def test_linear_encoder_is_probabilistic_pca():
    """Posterior means and −F, NaN or not, are those of the Gaussian marginal in NumPy; learning gets
    the evidence that the eigenvectors give."""
    rng = np.random.default_rng(0)
    x = 3.0 + rng.normal(size=(60, 2)) @ rng.normal(size=(2, 5)) * 10 + rng.normal(size=(60, 5))
    encoder = FreeEnergyEncoder(
        2, (), learning_rate=5e-2, batch_size=128, max_iter=200, tol=0.0, random_state=0
    ).fit(x)
    mean = encoder.model_["x"].mean
    w, b = np.asarray(mean.weight, float), np.asarray(mean.bias, float)
    variance = float(np.exp(-encoder.model_["x"].noise.log_precision))
    holes = x[:6].copy()
    holes[1, 2] = holes[2, 0] = holes[2, 4] = np.nan
    holes[3] = np.nan
    codes, scores = encoder.transform(holes), encoder.score_samples(holes)
    for i, row in enumerate(holes):
        here = ~np.isnan(row)
        c = w[here] @ w[here].T + variance * np.eye(here.sum())
        posterior = w[here].T @ np.linalg.solve(c, row[here] - b[here])
        assert_close(codes[i], posterior, 2e-4)
        assert_close(scores[i], -gaussian_energy(row[here], b[here], c), 2e-4)
        filled = encoder.impute(holes)[i]
        assert np.array_equal(filled[here], row[here])
        assert_close(filled[~here], (w @ posterior + b)[~here], 1e-3)
    pca = PCA(2).fit(x)
    assert abs(encoder.score(x) - pca.score(x)) < 0.05
    assert_close(encoder.free_energy_curve_[-1], -encoder.score(x), 2e-3)
    assert encoder.n_iter_ == len(encoder.free_energy_curve_)
    assert list(encoder.get_feature_names_out()) == ["freeenergyencoder0", "freeenergyencoder1"]


def test_nonlinear_encoder_finds_the_least_energy():
    """One cause: the code is the lowest point of E on a grid, F the Laplace value there; with holes too."""
    rng = np.random.default_rng(1)
    angle = rng.uniform(-2, 2, 64)
    x = np.stack([np.cos(2 * angle), np.sin(2 * angle), angle], 1) * 5 + rng.normal(size=(64, 3)) * 0.5
    x[::7, 1] = np.nan
    encoder = FreeEnergyEncoder(
        1, (8,), learning_rate=3e-2, batch_size=32, max_iter=60, random_state=0
    ).fit(x)
    layers = encoder.model_["x"].mean.layers
    w, b = ([np.asarray(l.weight, float) for l in layers], [np.asarray(l.bias, float) for l in layers])
    variance = float(np.exp(-encoder.model_["x"].noise.log_precision))
    grid = np.linspace(-5, 5, 20001)
    images = np.tanh(np.outer(grid, w[0][:, 0]) + b[0]) @ w[1].T + b[1]
    codes, scores = encoder.transform(x)[:, 0], encoder.score_samples(x)
    step = grid[1] - grid[0]
    right = 0
    for i in range(64):
        here = ~np.isnan(x[i])
        energy = 0.5 * grid**2 + 0.5 * np.log(2 * np.pi)
        energy += 0.5 * ((x[i] - images)[:, here] ** 2).sum(1) / variance
        energy += 0.5 * here.sum() * np.log(2 * np.pi * variance)
        best = energy[1:-1].argmin() + 1
        curvature = (energy[best - 1] - 2 * energy[best] + energy[best + 1]) / step**2
        wanted = energy[best] + 0.5 * np.log(curvature) - 0.5 * np.log(2 * np.pi)
        # The least F may lie in a wider minimum than the least E.
        if abs(codes[i] - grid[best]) < 5 * step:
            assert_close(-scores[i], wanted, 5e-3)
            right += 1
        else:
            assert -scores[i] < wanted + 5e-3
    assert right >= 60
    whole = np.isnan(x).any(1)
    assert_close(
        encoder.inverse_transform(codes[:, None])[whole][:, 1], encoder.impute(x)[whole][:, 1], 1e-6
    )


def test_units_do_not_matter():
    """Other units give the same codes, and F moves by ln of the unit for each feature."""
    x = features() @ np.diag([3.0, 1.0, 0.1])
    one, other = (
        FreeEnergyEncoder(1, (), batch_size=40, max_iter=20, random_state=0).fit(v)
        for v in (x, 50 + 1000 * x)
    )
    assert_close(other.transform(50 + 1000 * x), one.transform(x), 1e-3)
    assert_close(other.score(50 + 1000 * x), one.score(x) - 3 * np.log(1000), 1e-3)
    assert_close(other.free_energy_curve_, one.free_energy_curve_ + 3 * np.log(1000), 1e-4)


def test_rows_that_fill_a_batch_have_no_say():
    """30 rows in a batch of 30, or filled up to a batch of 48: the same network and the same curve."""
    x = features(30)
    labels = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)
    for estimator, y in (
        (PredictiveCodingClassifier((4,), random_state=0), labels),
        (PredictiveCodingRegressor((4,), random_state=0), x @ np.ones((3, 2)) + 7.0),
    ):
        estimator.set_params(max_iter=5, solver=vfe.Anderson(memory=1))
        one, other = (clone(estimator).set_params(batch_size=b).fit(x, y) for b in (30, 48))
        assert_close(one.free_energy_curve_, other.free_energy_curve_, 1e-5)
        for a, b in zip(jax.tree.leaves(one.model_), jax.tree.leaves(other.model_), strict=True):
            assert_close(a, b, 1e-4)


def test_rows_that_fill_a_batch_are_not_in_the_encoders_curve():
    """Until its belief is the prior, a row of which nothing is seen has KL(q ‖ p) = .34 nats per cause."""
    x = features(40)
    encoder = FreeEnergyEncoder(2, (4,), max_iter=3, tol=0.0, random_state=0)
    one, other = (clone(encoder).set_params(batch_size=b).fit(x) for b in (40, 512))
    # 472 rows would add 7.9 nats per observation to the first epoch; what is left is Monte Carlo noise.
    assert np.abs(one.free_energy_curve_ - other.free_energy_curve_).max() < 0.8


def test_free_energy_of_a_linear_network():
    """A linear network with Gaussian output: F of y given x is −ln N in closed form, in the units of y.

    Two layers: the hidden variance is 1 / (10 · 2).
    """
    x = features(30)
    y = 100 * x @ np.array([[1.0, 0.5], [0.0, 2.0], [1.0, 0.0]]) + 40
    options = {"output_scale": 0.5, "learning_rate": 1e-12, "perception_steps": 50, "random_state": 0}
    model = PredictiveCodingRegressor((4,), "identity", max_iter=1, **options).fit(x, y)
    z, out = model.model_["z1"], model.model_["y"]
    mean = x @ np.asarray(z.mean.weight).T + np.asarray(z.mean.bias)
    mean = mean @ np.asarray(out.mean.weight).T + np.asarray(out.mean.bias)
    assert_close(model.predict(x), mean, 1e-5)
    w = np.asarray(out.mean.weight, float)
    covariance = 0.05 * w @ w.T + np.diag((0.5 * y.std(0)) ** 2)
    wanted = [gaussian_energy(a, m, covariance) for a, m in zip(y, mean, strict=True)]
    assert_close(model.free_energy(x, y), wanted, 1e-4)
    # The energy at the mode: F without ½ ln|C|, with the hidden and the observed spreads instead.
    spread = np.concatenate([np.full(4, np.sqrt(0.05)), 0.5 * y.std(0)])
    change = np.log(spread).sum() + 2 * np.log(2 * np.pi) - 0.5 * np.linalg.slogdet(covariance)[1]
    assert_close(model.free_energy_curve_[0], np.mean(wanted) + change, 1e-4)
    with pytest.raises(ValueError, match="2 outputs"):
        model.free_energy(x, y[:, 0])


def test_digits():
    """At its defaults the classifier reads ≥ 96 % of held-out digits; labels may be words."""
    images, labels = load_digits(return_X_y=True)
    words = np.array(["nought", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
    words = words[labels]
    x, x_test, y, y_test = train_test_split(images, words, test_size=597, random_state=0)
    model = make_pipeline(StandardScaler(), PredictiveCodingClassifier(random_state=0)).fit(x, y)
    assert model.score(x_test, y_test) >= 0.96
    probabilities = model.predict_proba(x_test)
    assert_close(probabilities.sum(1), np.ones(597), 1e-12)
    classifier = model[-1]
    assert list(classifier.classes_) == sorted(set(words))
    # The surprise of the right label: close to −ln p where the hidden spread matters little.
    inputs = model[0].transform(x_test[:50])
    F = classifier.free_energy(inputs, y_test[:50])
    wrong = classifier.free_energy(inputs, np.roll(classifier.classes_, 1)[probabilities[:50].argmax(1)])
    assert np.mean(wrong > F) > 0.9
    with pytest.raises(ValueError, match="'ten'"):
        classifier.free_energy(inputs[:1], ["ten"])


def test_linear_generative_classifier_is_a_mixture_of_gaussians():
    """Weights given, everything affine: F, p(class | x) and what fills a gap are those of Gaussians with
    class means and one covariance, C (B (A Aᵀ + s₂²) Bᵀ + s₁²) Cᵀ + diag(σ_j²), in NumPy,
    missing features left out."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 4)) * [1.0, 10.0, 0.1, 3.0] + [0.0, 5.0, 0.0, -100.0]
    words = np.array(["a", "b", "c"])[np.r_[np.zeros(20, int), np.ones(12, int), np.full(8, 2)]]
    holes = x[::5].copy()
    holes[1, 2] = holes[2, 0] = holes[2, 3] = np.nan
    holes[3] = np.nan
    options = {"learning_rate": 1e-12, "max_iter": 1, "random_state": 0}
    with jax.enable_x64(True):
        model = GenerativeClassifier((3, 2), 2, "identity", **options).fit(x, words)
        levels = [model.model_[n] for n in ("z2", "z1", "x")]
        chances, scores, full = model.predict_proba(holes), model.score_samples(holes), model.impute(holes)
    dense = [levels[0].mean.inner, levels[1].mean, levels[2].mean]
    (top, first), (middle, second), (bottom, last) = (
        (np.asarray(layer.weight, float), np.asarray(layer.bias, float)) for layer in dense
    )
    precisions = [v.noise.log_precision for v in levels[:2]] + [levels[2].noise.log_precision.value]
    s_2, s_1, sigma = (np.exp(-0.5 * np.asarray(v, float)) for v in precisions)
    assert_close(sigma, x.std(0), 1e-9)
    means = ((np.sqrt(3) * top[:, :3].T + first) @ middle.T + second) @ bottom.T + last
    inner = middle @ (top[:, 3:] @ top[:, 3:].T + s_2**2 * np.eye(3)) @ middle.T + s_1**2 * np.eye(2)
    covariance = bottom @ inner @ bottom.T + np.diag(sigma**2)
    frequencies = np.array([20, 12, 8]) / 40
    for i, row in enumerate(holes):
        here = ~np.isnan(row)
        part = covariance[np.ix_(here, here)]
        joint = np.log(frequencies) - [gaussian_energy(row[here], m[here], part) for m in means]
        total = np.log(np.exp(joint - joint.max()).sum()) + joint.max()
        assert_close(scores[i], total, 1e-6)
        assert_close(chances[i], np.exp(joint - total), 1e-6)
        moved = (covariance[:, here] @ np.linalg.solve(part, (row - means)[:, here].T)).T
        assert_close(full[i], np.where(here, row, np.exp(joint - total) @ (means + moved)), 1e-6)
    assert_close(scores[3], 0.0, 1e-9)
    assert_close(chances[3], frequencies, 1e-9)


def test_units_do_not_matter_to_the_generative_classifier():
    """Other units, feature by feature: the same probabilities; −F and the curve move by ln of each unit."""
    x = features()
    y = (x[:, 0] > 0).astype(int)
    x[::9, 1] = np.nan
    units, offset = np.array([1000.0, 0.01, 7.0]), np.array([50.0, 0.0, -3.0])
    options = {"max_iter": 10, "batch_size": 40, "learning_rate": 1e-2, "random_state": 0}
    one, other = (GenerativeClassifier((4,), 1, **options).fit(v, y) for v in (x, offset + units * x))
    found = other.score_samples(offset + units * x)
    assert_close(found, one.score_samples(x) - (~np.isnan(x)) @ np.log(units), 1e-3)
    assert_close(other.predict_proba(offset + units * x), one.predict_proba(x), 1e-3)
    shift = (~np.isnan(x)).mean(0) @ np.log(units)
    assert_close(other.free_energy_curve_, one.free_energy_curve_ + shift, 1e-4)
    assert one.free_energy_curve_[-1] < one.free_energy_curve_[0]


def test_generative_classifier_reads_digits_with_holes():
    """In a pipeline, a third of the pixels missing: better than linear discriminants of images
    filled in by class-blind means, and its F tells digits from shuffled ones."""
    images, labels = load_digits(n_class=3, return_X_y=True)
    x, x_test, y, y_test = train_test_split(images, labels, train_size=192, test_size=60, random_state=0)
    options = {"standardise": "together", "learning_rate": 1e-2, "max_iter": 60, "random_state": 0}
    network = GenerativeClassifier((16,), 4, **options)
    pipeline = make_pipeline(MinMaxScaler(), network).fit(x, y)
    rng = np.random.default_rng(0)
    holes = np.where(rng.random(x_test.shape) < 1 / 3, np.nan, x_test)
    filled = np.where(np.isnan(holes), x.mean(0), holes)
    linear = LinearDiscriminantAnalysis().fit(x, y).score(filled, y_test)
    assert pipeline.score(holes, y_test) >= max(0.95, linear)
    shuffled = rng.permuted(x_test, axis=1)
    assert (pipeline.score_samples(x_test).min() > pipeline.score_samples(shuffled)).mean() > 0.9


def test_diabetes_in_a_grid_search():
    """Pipelines and grids work, and the regressor explains what linear regression explains."""
    x, y = load_diabetes(return_X_y=True)
    x, x_test, y, y_test = train_test_split(x, y, random_state=0)
    network = PredictiveCodingRegressor((16,), batch_size=32, random_state=0)
    grid = GridSearchCV(
        make_pipeline(StandardScaler(), network),
        {"predictivecodingregressor__max_iter": [20, 40]},
        cv=2,
    )
    assert grid.fit(x, y).score(x_test, y_test) > 0.3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda x, y: PredictiveCodingClassifier().fit(np.where(x > 2, np.nan, x), y), r"missing .*NaN"),
        (lambda x, y: PredictiveCodingClassifier().fit(x, 0 * y), "1 class"),
        (lambda x, y: PredictiveCodingClassifier((0,)).fit(x, y), "hidden_layer_sizes"),
        (lambda x, y: PredictiveCodingClassifier(()).fit(x, y), r"got \(\); wanted at least one hidden"),
        (lambda x, y: PredictiveCodingClassifier(activation="tan").fit(x, y), "'gelu'"),
        (lambda x, y: PredictiveCodingClassifier(learning_rate=0.0).fit(x, y), "learning_rate"),
        (lambda x, y: PredictiveCodingRegressor(output_scale=-1).fit(x, y), "output_scale"),
        (lambda x, y: PredictiveCodingRegressor(max_iter=2.5).fit(x, y), "max_iter"),
        (lambda x, y: PredictiveCodingRegressor().fit(1e200 * x, y), "beyond the range of float32"),
        (lambda x, y: GenerativeClassifier().fit(x, 0 * y), "1 class"),
        (lambda x, y: GenerativeClassifier(()).fit(x, y), r"got \(\); wanted at least one hidden"),
        (lambda x, y: GenerativeClassifier(latent_size=0).fit(x, y), "latent_size"),
        (lambda x, y: GenerativeClassifier(standardise="all").fit(x, y), "'all'; wanted \"each\""),
        (lambda x, y: GenerativeClassifier().fit(x * [1, 0, 1], y), r"features \[1\] do not vary"),
        (lambda x, y: GenerativeClassifier(standardise="together").fit(0 * x, y), "no feature varies"),
        (lambda x, y: GenerativeClassifier().fit(np.where([1, 0, 1], x, np.nan), y), r"features \[1\] are"),
        (lambda x, y: FreeEnergyEncoder(0).fit(x), "n_components"),
        (lambda x, y: FreeEnergyEncoder(restarts=-1).fit(x), "restarts"),
        (lambda x, y: FreeEnergyEncoder().fit(0 * x), "no feature varies"),
        (lambda x, y: FreeEnergyEncoder().fit(np.where([1, 0, 1], x, np.nan)), r"features \[1\]"),
    ],
)
def test_bad_settings_and_data(make, words):
    x = features()
    with pytest.raises(ValueError, match=words):
        make(x, (x[:, 0] > 0).astype(int))


def test_what_has_no_density_says_so():
    for estimator in (PredictiveCodingClassifier(), PredictiveCodingRegressor()):
        assert not hasattr(estimator, "score_samples")
        with pytest.raises(AttributeError) as error:
            estimator.score_samples(features())
        assert "no density" in f"{error.value} {error.value.__cause__}"


def test_learning_that_falls_apart_is_an_error():
    x = features()
    with pytest.raises(ValueError, match="Standardise the features"):
        PredictiveCodingRegressor((4,), learning_rate=1e30, max_iter=9).fit(x, x[:, 0])


def test_many_equal_levels():
    """Ten levels of one size, as wide as the output: the targets' units go back into the last layer."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 3))
    options = {"max_iter": 2, "batch_size": 24, "random_state": 0}
    found = PredictiveCodingRegressor((1,) * 9, **options).fit(x, 5 + x[:, 0])
    assert found.predict(x).shape == (24,)
    assert [n for n in found.model_.order if n.startswith("z")] == [f"z{i}" for i in range(9, 0, -1)]
