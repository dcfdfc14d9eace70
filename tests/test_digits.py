"""The main job: data, the linear model it is held against, and a small run from end to end."""

import numpy as np
import pytest

import vfe
from vfe.gallery.digits import Settings, run
from vfe.gallery.digits.data import embedded, from_arrays
from vfe.gallery.job import Workspace
from vfe.gallery.linear import filled_in, probabilistic_pca
from vfe.gallery.progress import Silent
from vfe.results.report import build_report


@pytest.fixture(scope="module")
def images():
    return embedded()


def test_split_is_fixed_and_disjoint(images):
    """Held-out images must not be learned from: no row of one set is in the other."""
    assert images.x_train.shape == (1347, 64)
    assert images.x_test.shape == (450, 64)
    train = {row.tobytes() for row in images.x_train}
    assert not any(row.tobytes() in train for row in images.x_test)
    again = embedded()
    assert np.array_equal(images.x_test, again.x_test)


def test_noise_is_one_grey_step(images):
    """floor(16 x) gives the original grey values back: the noise stays within its step."""
    from sklearn.datasets import load_digits

    greys = np.sort(np.floor(np.concatenate([images.x_train, images.x_test]) * 16).sum(-1))
    assert np.array_equal(greys, np.sort(load_digits().data.sum(-1)))


def test_probabilistic_pca_matches_scikit_learn(images):
    """The linear yardstick: ln p(x) of the maximum-likelihood model, against an outside implementation.

    scikit-learn divides by N − 1 where maximum likelihood divides by N, so its eigenvalues are scaled back.
    """
    from sklearn.decomposition import PCA

    x, held_out = images.x_train.astype(np.float64), images.x_test.astype(np.float64)
    outside = PCA(24).fit(x)
    scale = (len(x) - 1) / len(x)
    outside.explained_variance_ *= scale
    outside.noise_variance_ *= scale
    model = probabilistic_pca(images.x_train, 24)
    ours = np.asarray(vfe.exact.log_evidence(model, {"x": images.x_test}))
    assert np.allclose(ours, outside.score_samples(held_out), rtol=2e-4, atol=2e-2)
    assert abs(-ours.mean() - -27.8) < 0.1


def test_filled_in_is_the_conditional_mean(images):
    """Missing pixels of the linear model: Gaussian conditioning written out in NumPy."""
    model = probabilistic_pca(images.x_train, 5)
    x = images.x_test[:3].copy()
    x[:, 32:] = np.nan
    weight, bias = np.asarray(model["x"].mean.weight, float), np.asarray(model["x"].mean.bias, float)
    variance = float(np.exp(-np.asarray(model["x"].noise.log_precision.value)))
    covariance = weight @ weight.T + variance * np.eye(64)
    gain = covariance[32:, :32] @ np.linalg.inv(covariance[:32, :32])
    wanted = bias[32:] + (images.x_test[:3, :32] - bias[:32]) @ gain.T
    assert np.allclose(filled_in(model, x)[:, 32:], wanted, atol=2e-3)


def test_small_run_from_end_to_end(tmp_path):
    """Two epochs on few images: every part of the report is made, and F is a finite bound of its kind."""
    rng = np.random.default_rng(0)
    digits = embedded()
    grey = np.clip(np.floor(digits.x_train * 16) * 15, 0, 255).astype(np.uint8).reshape(-1, 8, 8)
    pick = rng.permutation(len(grey))[:200]
    data = {
        "x_train": grey[pick[:120]],
        "y_train": digits.y_train[pick[:120]],
        "x_test": grey[pick[120:160]],
        "y_test": digits.y_train[pick[120:160]],
    }
    settings = Settings(
        z1=4, z2=2, decoder_width=8, upper_width=8, epochs=2, batch_size=32, steps=2, samples=4
    )
    found = run(settings, seed=0, data=data, folder=Workspace(tmp_path), progress=Silent(), resume=False)
    dataset = found.dataset
    assert np.isfinite(dataset["held_out_F"]).all()
    assert dataset["free_energy"].sizes["step"] == 2
    # Learning lowers F even in two epochs, from a start that is far off.
    assert dataset["free_energy"][-1] < dataset["free_energy"][0]
    by_label = np.asarray(dataset["held_out_F_by_label"])
    weight = np.exp(by_label.min(-1)[:, None] - by_label).sum(-1)
    assert np.all(by_label.min(-1) - np.log(weight) <= by_label.min(-1) + 1e-5)
    page = build_report(found.report)
    assert "held-out" in page
    assert page.count("<img") == len(found.figures)
    assert next(name for name, _ in found.headline) == "F per held-out image"
    # Two epochs teach too little: what is claimed of the whole run fails, though F is a bound all the same.
    verdicts = {claim.statement: claim.holds for claim in found.claims}
    assert not any(holds for statement, holds in verdicts.items() if "linear model" in statement)
    assert not verdicts["labels right, more than by the nearest mean image, low end of the interval"]
    assert verdicts["F less −ln p(x), which it bounds"]


def test_labels_unseen_in_training_are_refused():
    x = np.zeros((4, 2, 2), np.uint8)
    arrays = {
        "x_train": x,
        "y_train": np.asarray([0, 1, 0, 1]),
        "x_test": x,
        "y_test": np.asarray([0, 1, 2, 1]),
    }
    with pytest.raises(ValueError, match="in y_test but not in y_train"):
        from_arrays(arrays)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"epochs": 0}, "epochs"), ({"samples": 5}, "samples"), ({"learning_rate": -1.0}, "learning_rate")],
)
def test_settings_out_of_range(change, message):
    with pytest.raises(ValueError, match=message):
        Settings(**change)
