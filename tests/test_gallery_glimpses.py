"""The glimpsing eye: beliefs and gains against plain NumPy, claims on a small run, and eyes that fail."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

from vfe.cli import app
from vfe.gallery.digits.data import embedded
from vfe.gallery.glimpses import eye as eyes
from vfe.gallery.glimpses import fixed, job, page
from vfe.gallery.glimpses.job import AVOIDS, BORROWED, SEEKS
from vfe.gallery.glimpses.model import Components, learn, patches
from vfe.gallery.glimpses.settings import Settings
from vfe.gallery.job import Workspace
from vfe.gallery.progress import Silent
from vfe.results.report import build_report

SMALL = Settings(components=6, epochs=12, folds=2, evaluated=700, glimpses=4, random_scans=2, draws=16)
CHOSEN = SMALL.resolved(1347)


@pytest.fixture(scope="module")
def folds():
    return job.held_out(embedded(), 2)


@pytest.fixture(scope="module")
def known(folds):
    """What an eye knows after learning one half of the digits, and what the other half taught another."""
    return [job.eye_of(learn(CHOSEN, fold, 0).model, CHOSEN, fold) for fold in folds]


@pytest.fixture(scope="module")
def found(folds, known):
    return job.together(
        [
            job.compare(one, CHOSEN, fold, seed)
            for seed, (one, fold) in enumerate(zip(known, folds, strict=True))
        ]
    )


def test_all_claims_hold_and_fail_for_an_eye_with_the_wrong_sign(found):
    assert all(claim.holds for claim in page.claims(found, CHOSEN))
    for broken in (AVOIDS, BORROWED):
        scans = {**found.scans, SEEKS: found.scans[broken]._replace(promised=found.scans[SEEKS].promised)}
        verdicts = [claim.holds for claim in page.claims(found._replace(scans=scans), CHOSEN)]
        assert not any(verdicts[2:4])
        if broken is AVOIDS:
            assert verdicts == [False, False, False, False, True, False]


def test_claims_fail_on_shuffled_images(found, folds, known):
    rng = np.random.default_rng(0)
    images = dataclasses.replace(folds[0], x_test=rng.permuted(folds[0].x_test, axis=1))
    shuffled = job.compare(known[0], CHOSEN, images, 0)
    verdicts = [claim.holds for claim in page.claims(shuffled, CHOSEN)]
    assert not any(verdicts[1:5])
    # 700 shuffled images: four glimpses of them are worth less than one of a digit.
    truth = found.truth[: len(shuffled.truth)]
    assert (
        shuffled.scans[SEEKS].hits(truth)[:, 4].mean() < found.scans[SEEKS].hits(found.truth)[:, 1].mean()
    )


def test_beliefs_and_free_energy_are_bayes_rule_pixel_by_pixel(found, folds, known):
    """ln p(seen, y) summed in plain NumPy, in double precision, glimpse by glimpse."""
    eye, scan = known[0], found.scans[SEEKS]
    states = jnp.meshgrid(jnp.arange(10), jnp.arange(6), indexing="ij")

    def density(y, k):
        found = eye.model.density("x", {"label": y, "component": k})
        return found.mean, found.variance

    mean, variance = (np.asarray(part, float) for part in jax.vmap(jax.vmap(density))(*states))
    weight = np.asarray(eye.model["component"].logits, float).T
    assert np.ptp(weight) > 0  # learned
    log_joint = np.log(0.1) + weight - np.log(np.exp(weight).sum(1, keepdims=True))
    log_joint = np.repeat(log_joint[None], 40, 0)
    x = folds[0].x_test[:40].astype(float)
    for glimpse in range(5):
        evidence = np.log(np.exp(log_joint).sum((1, 2)))
        np.testing.assert_allclose(scan.free_energy[:40, glimpse], -evidence, rtol=1e-4, atol=1e-4)
        label = np.exp(log_joint).sum(2) / np.exp(evidence)[:, None]
        np.testing.assert_allclose(scan.label[:40, glimpse], label, atol=2e-4)
        if glimpse < 4:
            pixel = scan.places[:40, glimpse]
            seen = x[np.arange(40), pixel][:, None, None]
            m, v = (np.moveaxis(part[..., pixel], -1, 0) for part in (mean, variance))
            log_joint = log_joint - 0.5 * ((seen - m) ** 2 / v + np.log(2 * np.pi * v))


def test_the_next_place_depends_on_what_was_seen_alone(found, folds, known):
    """All pixels that were not looked at are changed: the eye goes where it went."""
    places = found.scans[SEEKS].places[:700]
    changed = 1.0 - folds[0].x_test[:700]
    rows = np.arange(len(changed))[:, None]
    changed[rows, places[:, :3]] = folds[0].x_test[rows, places[:, :3]]
    choose = eyes.seeking(known[0].components, CHOSEN.draws, jax.random.key(1))
    again = eyes.look(known[0].model, changed, known[0].pixels, known[0].components, 4, choose)
    np.testing.assert_array_equal(again.places, places)
    assert np.isnan(again.promised).all()
    assert all(len(set(path)) == 4 for path in places)


def test_expected_information_by_quadrature():
    """Two labels of one and two components, one pixel: the integral on a grid."""
    mean, scale = np.array([-1.0, 0.5, 2.0]), np.array([0.7, 0.4, 1.0])
    belief, label = np.array([0.5, 0.2, 0.3]), np.array([[1.0, 0], [0, 1], [0, 1]])
    x = np.linspace(-9, 11, 20001)
    density = belief * np.exp(-0.5 * ((x[:, None] - mean) / scale) ** 2) / (scale * np.sqrt(2 * np.pi))
    joint = density @ label
    inside = joint > 0
    terms = np.where(
        inside, joint * np.log(np.where(inside, joint / joint.sum(1, keepdims=True), 1)), 0
    ).sum(1)
    wanted = -(belief @ label * np.log(belief @ label)).sum() + np.trapezoid(terms, x)
    components = Components(*(jnp.asarray(a, float)[None, None] for a in (mean, scale)), jnp.asarray(label))
    keys = jax.random.split(jax.random.key(0), 10)
    gain = jax.jit(jax.vmap(lambda key: eyes.information(key, jnp.log(belief), components, 2000)[0]))
    several = np.asarray(gain(keys))
    error = np.std(several, ddof=1) / np.sqrt(10)
    assert abs(np.mean(several) - wanted) < 4 * error
    assert error < 0.003


def test_an_image_of_the_model_keeps_its_promises(known, found):
    """If the model drew the images, entropy falls by what was promised, on average, glimpse by glimpse."""
    eye, count = known[0], len(found.truth) // 2
    x = np.asarray(eye.model.sample(jax.random.key(5), shape=(count,))["x"])
    choose = eyes.seeking(eye.components, CHOSEN.draws, jax.random.key(1))
    scan = eyes.look(eye.model, x, eye.pixels, eye.components, 4, choose, jax.random.key(2))
    over = -np.diff(scan.uncertainty, axis=1) - scan.promised
    error = over.std(0, ddof=1) / np.sqrt(count)
    assert np.all(np.abs(over.mean(0)) < 4 * error)


def test_fixed_orders(folds, known):
    pixels = patches((4, 6), 2)
    np.testing.assert_array_equal(pixels[:2], [[0, 1, 6, 7], [2, 3, 8, 9]])
    np.testing.assert_array_equal(np.sort(pixels.ravel()), np.arange(24))
    assert set(fixed.centre_out((8, 8), patches((8, 8), 1))[:4]) == {27, 28, 35, 36}
    eye = known[0]
    order = fixed.chosen_orders(eye.model, folds[0], eye.components, eye.pixels, 2)["most right"]
    every = [
        fixed.right_on_training(eye.model, folds[0], eye.components, eye.pixels, np.array([first]))
        for first in range(64)
    ]
    assert order[0] == int(np.argmax(every))


def test_the_page(tmp_path, monkeypatch, found, folds, known):
    halves = iter((found, found))
    monkeypatch.setattr(job, "compare", lambda *_: next(halves))
    monkeypatch.setattr(
        job,
        "learn",
        lambda *_: dataclasses.make_dataclass("Learned", ("model", "history"))(
            known[0].model, {"total": np.zeros(1)}
        ),
    )
    result = job.run(SMALL, seed=0, data=None, folder=Workspace(tmp_path), progress=Silent(), resume=False)
    text = build_report(result.report)
    assert text.count("<img") == len(result.figures) == 3
    assert "nan" not in "".join(value for _, value in result.headline)
    assert result.dataset.sizes == {"scan": 8, "image": 2800, "glimpse": 4, "seen": 5, "digit": 10}
    assert "accuracy.png" in CliRunner().invoke(app, ["list", "glimpses"]).output


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"judged": 9}, "judged"),
        ({"draws": 0}, "draws"),
        ({"grain": 0.0}, "grain"),
        ({"random_scans": 1}, "random"),
    ],
)
def test_settings_that_cannot_be(change, word):
    with pytest.raises(ValueError, match=f"glimpses: got .*{word}"):
        Settings(**change)


def test_patches_and_folds_that_do_not_fit(folds, known):
    with pytest.raises(ValueError, match="patch=3 for images of 8 × 8"):
        patches((8, 8), 3)
    with pytest.raises(ValueError, match="folds=900"):
        job.held_out(embedded(), 900)
    with pytest.raises(ValueError, match="for 4 places"):
        job.eye_of(known[0].model, dataclasses.replace(CHOSEN, patch=4), folds[0])
