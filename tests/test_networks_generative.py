"""Generative and two-way networks: closed forms, quadrature, and what they do with digits."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from helpers import assert_close, gaussian_energy

import vfe
from vfe.densities import energy
from vfe.networks import Dense, dense, generative, two_way

KEY = jax.random.key(0)


def linear(*shapes, seed=0):
    """Matrices, and the same as layers without bias."""
    rng = np.random.default_rng(seed)
    matrices = [rng.normal(size=s) / np.sqrt(s[1]) for s in shapes]
    return matrices, [Dense(jnp.asarray(m, float), jnp.zeros(len(m))) for m in matrices]


@pytest.mark.parametrize(
    ("options", "first", "nodes"),
    [
        ({"latent": 4}, 4, ["z3", "z2", "z1", "x"]),
        ({"labels": 3}, 3, ["label", "z2", "z1", "x"]),
        ({"labels": 3, "latent": (2, 2)}, 7, ["z3", "label", "z2", "z1", "x"]),
    ],
)
def test_nodes_and_shapes(options, first, nodes):
    """Label or latent or both above, levels between, the image below; two-way: both below the latent."""
    model = generative(dense([first, 5, 6, 8], key=KEY), **options)
    assert list(model.order) == nodes
    assert model.describe("x").shape == (8,)
    both = two_way(
        dense([6, 5, 8], key=KEY),
        dense([6, 4, 3], key=KEY),
        latent=4,
        common=dense([4, 6], key=KEY),
        output="bernoulli",
    )
    assert {n: both.describe(n).parents for n in ("z1", "y1", "label", "x")} == {
        "z1": ("z2",),
        "y1": ("z2",),
        "label": ("y1",),
        "x": ("z1",),
    }
    assert both.describe("label").states == 3
    assert both.sample(KEY, shape=(5,))["x"].shape == (5, 8)


def test_linear_network_is_a_mixture_of_gaussians():
    """With linear layers F of (label, Laplace) is −ln p(x), and q(label) the responsibilities, in NumPy.

    x | label ~ N(W1 W2 √K e_label, W1 (W2' W2'ᵀ + s² I) W1ᵀ + σ² I), W2 = [labels, latent].
    """
    with jax.enable_x64(True):
        (top, bottom), layers = linear((5, 3 + 2), (4, 5))
        model = generative(layers, labels=3, latent=2, scale=0.7, output_scale=0.4)
        x = np.random.default_rng(1).normal(size=(3, 4))
        percept = vfe.perceive(model, {"x": x})
        inner = top[:, 3:] @ top[:, 3:].T + 0.7**2 * np.eye(5)
        covariance = bottom @ inner @ bottom.T + 0.4**2 * np.eye(4)
        means = np.sqrt(3) * bottom @ top[:, :3]
        energies = np.asarray([[gaussian_energy(v, m, covariance) for m in means.T] for v in x]) + np.log(3)
        total = -np.log(np.exp(-energies).sum(-1))
        assert_close(percept.free_energy.total, total, 1e-8)
        wanted = np.exp(total[:, None] - energies)
        assert_close(percept.belief["label"].probabilities, wanted, 1e-8)


def test_supervising_and_imagining_with_a_linear_network():
    """The label clamped: F is −ln p(x, label); nothing else clamped: draws have the label's mean."""
    with jax.enable_x64(True):
        (top, bottom), layers = linear((4, 2), (3, 4))
        model = generative(layers, labels=2, scale=0.5, output_scale=0.3)
        x = np.random.default_rng(1).normal(size=3)
        covariance = 0.25 * bottom @ bottom.T + 0.09 * np.eye(3)
        mean = np.sqrt(2) * bottom @ top[:, 1]
        percept = vfe.perceive(model, {"x": x, "label": 1})
        wanted = gaussian_energy(x, mean, covariance) + np.log(2)
        assert_close(percept.free_energy.total, wanted, 1e-8)
        imagined = vfe.perceive(model, {"label": 1})
        draws = imagined.sample(KEY, (4000,))["x"]
        assert_close(draws.mean(0), mean, 0.05)
        assert_close(np.cov(np.asarray(draws).T), covariance, 0.05)
        assert_close(imagined.prediction("x", samples=2000), mean, 0.05)


def test_both_directions_against_quadrature():
    """One latent: p(label | x) and the mode given a label, by a grid; also where x is partly hidden."""
    with jax.enable_x64(True):
        (image, label), layers = linear((3, 1), (4, 1), seed=2)
        model = two_way(layers[:1], layers[1:], latent=1, output_scale=0.6)
        x = np.asarray([0.3, np.nan, -0.8])
        grid = np.linspace(-8, 8, 8001)[:, None]
        seen = ~np.isnan(x)
        log_p = -0.5 * grid[:, 0] ** 2
        log_p -= 0.5 * (((x - grid @ image.T) / 0.6) ** 2)[:, seen].sum(-1)
        weight = np.exp(log_p - log_p.max())
        logits = grid @ label.T
        chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        percept = vfe.perceive(model, {"x": x})
        wanted = (weight[:, None] * chances).sum(0) / weight.sum()
        assert_close(percept.prediction("label", samples=4000), wanted, 0.01)
        filled = (weight[:, None] * (grid @ image.T)).sum(0) / weight.sum()
        assert_close(percept.prediction("x", samples=4000), filled, 0.02)
        energy = 0.5 * grid[:, 0] ** 2 - np.log(chances[:, 2])
        imagined = vfe.perceive(model, {"label": 2}, belief=vfe.Point)
        mode = grid[energy.argmin()]
        assert_close(imagined.belief["z1"].mean, mode, 2e-3)
        assert_close(imagined.prediction("x", samples=1), image @ mode, 2e-3)
        both = vfe.perceive(model, {"x": x, "label": 2}, belief=vfe.Point)
        assert_close(both.belief["z1"].mean, grid[(-log_p - np.log(chances[:, 2])).argmin()], 2e-3)
        with pytest.raises(ValueError, match="has a belief"):
            both.prediction("z1")
        assert_close(both.prediction("label", samples=1).sum(), 1.0, 1e-12)


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = (images / 16.0).astype(np.float32)
    half = x[1600:1660].copy()
    half[:, 32:] = np.nan
    mean = np.square(x[:1000].mean(0) - x[1600:1660])[:, 32:].mean()
    return {"x": x[:1000], "label": labels[:1000]}, x[1600:1660], labels[1600:1660], half, mean


def learned(model, data, decay):
    """Equilibria under AdamW: its decay keeps the weights from outgrowing the prior of the latents."""
    rate = optax.cosine_decay_schedule(3e-3, 20 * 32)
    return vfe.learn(
        model,
        data,
        epochs=20,
        batch_size=32,
        belief=vfe.Point,
        solver=vfe.Anderson(),
        keep_beliefs=False,
        perception_steps=20,
        rtol=1e-2,
        optimiser=optax.adamw(rate, weight_decay=decay),
        key=KEY,
    ).model


def test_generative_network_reads_and_completes_digits(digits):
    """Learned with image and label: the label of new images, and the lower half from the upper."""
    data, x, labels, half, mean = digits
    layers = dense([10 + 8, 48, 64], key=KEY, activation=jnp.tanh)
    model = learned(generative(layers, labels=10, latent=8, scale=0.3), data, 3.0)
    options = {
        "belief": vfe.Enumerated("label", vfe.Laplace),
        "solver": vfe.Anderson(),
        "max_steps": 100,
        "rtol": 1e-3,
    }
    whole = vfe.perceive(model, {"x": x}, **options)
    assert (whole.belief["label"].probabilities.argmax(-1) == labels).mean() > 0.85
    guess = vfe.perceive(model, {"x": half}, **options).prediction("x", samples=8)
    assert np.square(guess - x)[:, 32:].mean() < 0.92 * mean


def test_two_way_network_reads_completes_and_imagines_digits(digits):
    """Either of image and label from the other, and the rest of an image from a part of it."""
    data, x, labels, half, mean = digits
    one, two = jax.random.split(KEY)
    image = dense([24, 48, 64], key=one, activation=jnp.tanh)
    model = learned(two_way(image, dense([24, 10], key=two), latent=24, scale=0.3), data, 1.0)
    options = {"belief": vfe.Point, "solver": vfe.Anderson(), "max_steps": 200, "rtol": 1e-3}
    whole = vfe.perceive(model, {"x": x}, **options)
    assert (whole.prediction("label", samples=1).argmax(-1) == labels).mean() > 0.8
    guess = vfe.perceive(model, {"x": half}, **options).prediction("x", samples=1)
    assert np.square(guess - x)[:, 32:].mean() < 0.9 * mean
    imagined = vfe.perceive(model, {"label": np.arange(10)}, **options).prediction("x", samples=16)
    centres = np.stack([data["x"][data["label"] == k].mean(0) for k in range(10)])
    nearest = np.square(imagined[:, None] - centres[None]).sum(-1).argmin(1)
    assert (nearest == np.arange(10)).mean() >= 0.9


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: generative(dense([3, 4, 5], key=KEY)), "neither labels nor latent"),
        (lambda: generative(dense([3, 5], key=KEY), labels=3), "hidden level below the label"),
        (lambda: generative([], latent=3), "at least 1"),
        (lambda: generative(dense([3, 4, 5], key=KEY), labels=1), "labels=1"),
        (lambda: generative(dense([3, 4, 5], key=KEY), latent=0), "latent=0"),
        (
            lambda: generative(dense([12, 4, 5], key=KEY), labels=10, latent=3),
            r"layer 0 \(Dense\) does not fit label and latent together of shape \(13,\)",
        ),
        (lambda: generative(dense([3, 4, 5], key=KEY), latent=3, output="poisson"), "'bernoulli'"),
        (
            lambda: generative(dense([3, 5], key=KEY), latent=3, output="bernoulli", output_scale=0.2),
            "output_scale=0.2 with output='bernoulli'",
        ),
        (lambda: two_way([], dense([3, 4], key=KEY), latent=3), "at least one each"),
        (lambda: two_way(dense([3, 4], key=KEY), dense([3, 1], key=KEY), latent=3), r"\(K,\)"),
        (lambda: two_way(dense([3, 4], key=KEY), dense([3, 4], key=KEY), latent=()), "a size, or a shape"),
    ],
)
def test_networks_that_do_not_fit(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_black_and_white_images_start_at_no_kink():
    """At logits of zero the derivative of Bernoulli energies is ½ − x, so perception leaves the start."""
    layers = dense([2, 6, 4], key=jax.random.key(0), activation=jnp.tanh)
    model = generative(layers, latent=2, output="bernoulli")
    x = np.array([[0, 0, 1, 0]])
    percept = vfe.perceive(model, {"x": x}, belief=vfe.Point)
    start = vfe.perceive(model, {"x": x}, belief=vfe.Point, max_steps=1).trace[0, 0]
    assert percept.status[0] == vfe.Status.converged
    assert float(percept.free_energy.total[0]) < float(start) - 1e-3
    for value, slope in ((0, 0.5), (1, -0.5)):
        found = jax.grad(lambda logit, x=value: energy(dist.BernoulliLogits(logit), jnp.asarray(x)))(0.0)
        assert float(found) == pytest.approx(slope)
