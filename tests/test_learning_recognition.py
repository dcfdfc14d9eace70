"""Learning to recognise labels: contrasted with their rivals, and hidden above continuous causes."""

import numpy as np
import optax
import pytest
from helpers import assert_close, cosine
from learning_cases import labelled, labelled_model, linear_encoder, recognised, surprise

import vfe

pytestmark = pytest.mark.usefixtures("float64")


def test_contrast_sharpens_recognition():
    """Without it, z follows the variance; with it, the label. The F reported has no such term."""
    x, label = labelled()
    options = {"epochs": 120, "solver": vfe.Exact(), "optimiser": cosine(0.1, 120)}
    held_out = {"x": x[100:], "label": label[100:]}
    train = {"x": x[:100], "label": label[:100]}
    plain = vfe.learn(labelled_model(), train, **options)
    sharp = vfe.learn(
        labelled_model(),
        train,
        contrast=vfe.Contrast("label", rivals=1),
        validation=held_out,
        **options,
    )
    before = recognised(plain.model, x[:100], label[:100])
    after = recognised(sharp.model, x[:100], label[:100])
    assert after > max(0.93, before + 0.1)
    assert float(sharp.history["total"][-1]) == pytest.approx(surprise(sharp.model, train), abs=0.01)
    assert sharp.history["total"][-1] > plain.history["total"][-1]
    watched = sharp.history["validation"]
    assert len(watched["total"]) == 120
    assert watched["total"][-1] == pytest.approx(surprise(sharp.model, held_out), abs=1e-9)


def test_contrast_with_an_encoder():
    """The encoder sees the data and a label, the true one or a rival."""
    x, label = labelled()
    encoder = linear_encoder(np.zeros(3), np.array([1.0, 3.0, 1.0]), 1, 1)
    learned = vfe.learn(
        labelled_model(),
        {"x": x, "label": label},
        epochs=200,
        belief=vfe.Amortised(encoder, vfe.DiagonalGaussian, inputs=("x", "label")),
        contrast=vfe.Contrast("label", rivals=1),
        optimiser=cosine(0.1, 200),
        validation={"x": x[:10], "label": label[:10]},
    )
    assert recognised(learned.model, x, label) > 0.9
    data = {"x": x, "label": label}
    found = vfe.free_energy(learned.model, learned.family, data).mean().total
    assert float(learned.history["total"][-1]) == pytest.approx(float(found), abs=0.01)
    assert len(learned.history["validation"]["total"]) == 200


def test_contrast_starts_after_its_delay():
    x, label = labelled()
    options = {"epochs": 4, "solver": vfe.Exact(), "optimiser": optax.sgd(0.01)}
    late = vfe.Contrast("label", rivals=1, delay=0.5)
    plain = vfe.learn(labelled_model(), {"x": x, "label": label}, **options)
    found = vfe.learn(labelled_model(), {"x": x, "label": label}, contrast=late, **options)
    assert_close(found.history["total"][:3], plain.history["total"][:3], 1e-9)
    assert abs(found.history["total"][3] - plain.history["total"][3]) > 1e-6


def clusters():
    rng = np.random.default_rng(2)
    label = rng.integers(0, 2, 80)
    x = np.where(label[:, None] == 0, [-2.0, 1.0], [2.0, -1.0]) + 0.5 * rng.normal(size=(80, 2))
    model = vfe.Model(
        label=vfe.categorical(vfe.learnable(np.full(2, 0.5))),
        z=vfe.gaussian(vfe.Table(np.array([[-0.3], [0.2]])), scale=0.3, parents="label"),
        x=vfe.gaussian(vfe.Affine(np.array([[1.0], [0.1]])), scale=vfe.learnable(1.0), parents="z"),
    )
    return x, label, model


@pytest.mark.parametrize("kind", ["enumerated", "amortised"])
def test_two_clusters_without_labels(kind):
    """A hidden label above a continuous cause: F is −ln p(x), or near it with an encoder."""
    x, label, model = clusters()
    belief = None
    if kind == "amortised":
        inner = vfe.Amortised(
            linear_encoder(np.zeros(3), np.ones(3), 1, 1), vfe.DiagonalGaussian, inputs=("x", "label")
        )
        belief = vfe.Enumerated("label", inner)
    learned = vfe.learn(model, {"x": x}, epochs=200, belief=belief, optimiser=cosine(0.1, 200))
    right = recognised(learned.model, x, label)
    assert max(right, 1 - right) > 0.97
    gap = float(learned.history["total"][-1]) - surprise(learned.model, {"x": x})
    assert -1e-3 < gap < 0.01


def test_resume_of_everything_done_under_contrast(tmp_path):
    x, label = labelled()
    options = {
        "epochs": 2,
        "solver": vfe.Exact(),
        "contrast": vfe.Contrast("label", rivals=1),
        "checkpoint": tmp_path,
    }
    data = {"x": x, "label": label}
    vfe.learn(labelled_model(), data, **options)
    done = vfe.learn(labelled_model(), data, resume=True, **options)
    wanted = -vfe.exact.log_evidence(done.model, data)
    assert_close(done.free_energy.mean().total, np.mean(wanted), 1e-2)


@pytest.mark.parametrize(
    "settings", [{"weight": -1.0}, {"temperature": 0.0}, {"rivals": 0}, {"delay": 2.0}]
)
def test_contrast_settings_that_do_not_fit(settings):
    with pytest.raises(ValueError, match="Contrast"):
        vfe.Contrast("label", **settings)
    x, label = labelled()
    with pytest.raises(ValueError, match="more than 2 states"):
        vfe.learn(labelled_model(), {"x": x, "label": label}, contrast=vfe.Contrast("label"))
