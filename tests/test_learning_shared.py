"""Learning where latents are shared: closed forms and searches, whole data and minibatches."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from helpers import assert_close, cosine, gaussian_energy

import vfe

pytestmark = pytest.mark.usefixtures("float64")


def test_a_shared_latent():
    """x_n = t + noise: the best noise by a search over the joint density of all observations."""
    x = np.random.default_rng(0).normal(size=12) + 3.0
    model = vfe.Model(
        t=vfe.gaussian(0.0, shared=True),
        x=vfe.gaussian(lambda t: t, scale=vfe.learnable(1.0), parents="t"),
    )

    def joint(log_variance):
        return gaussian_energy(x, np.zeros(12), np.ones((12, 12)) + np.exp(log_variance) * np.eye(12))

    best = scipy.optimize.minimize_scalar(joint)
    learned = vfe.learn(model, {"x": x}, epochs=150, optimiser=cosine(0.2, 150))
    assert -float(learned.model["x"].noise.log_precision) == pytest.approx(best.x, abs=1e-3)
    assert float(learned.history["total"][-1]) * 12 == pytest.approx(best.fun, abs=1e-4)


@pytest.mark.parametrize(
    ("family", "solver"),
    [(vfe.JointGaussian, vfe.NaturalGradient()), (vfe.Laplace, None)],
)
def test_minibatches_of_a_regression_with_shared_weights(family, solver):
    """After every visit η ← (1 − ρ) η + ρ η̂, η̂ of the minibatch N/B times over: by hand, to 1e-8."""
    rng = np.random.default_rng(2)
    rows, noise = rng.normal(size=(30, 2)), 0.5
    x = rows @ np.array([1.0, -2.0]) + noise * rng.normal(size=30)
    model = vfe.Model(
        a=vfe.given((2,)),
        w=vfe.gaussian(jnp.zeros(2), shared=True),
        x=vfe.gaussian(lambda w, a: w @ a, scale=vfe.learnable(noise), parents=("w", "a")),
    )
    key = jax.random.key(5)
    options = {
        "batch_size": 10,
        "belief": family,
        "solver": solver,
        "optimiser": optax.sgd(0.0),
        "expectation": vfe.Taylor(),
        "rtol": 1e-12,
        "atol": 1e-10,
        "where": lambda m: m["x"].noise,
    }
    learned = vfe.learn(model, {"x": x, "a": rows}, epochs=4, key=key, **options)
    _, order_key, _ = jax.random.split(key, 3)
    precision, linear, visits = np.zeros((2, 2)), np.zeros(2), 0
    for epoch in range(4):
        order = np.asarray(jax.random.permutation(jax.random.fold_in(order_key, epoch), 30))
        for index in order.reshape(3, 10):
            rate = (1.0 + visits) ** -0.7
            one = np.eye(2) + 3.0 * rows[index].T @ rows[index] / noise**2
            two = 3.0 * rows[index].T @ x[index] / noise**2
            precision += rate * (one - precision)
            linear += rate * (two - linear)
            visits += 1
    assert_close(learned.belief.location, np.linalg.solve(precision, linear), 1e-8)
    assert_close(learned.belief.covariance(), np.linalg.inv(precision), 1e-8)
    # F of the whole data, the shared part once: by the closed form under this belief.
    mean, covariance = np.asarray(learned.belief.location), np.linalg.inv(precision)
    residual = x - rows @ mean
    spread = np.einsum("ni,ij,nj->n", rows, covariance, rows)
    by_hand = 0.5 * (np.log(2 * np.pi * noise**2) + (residual**2 + spread) / noise**2)
    last = learned.free_energy
    assert last.observed["x"].shape == (30,)
    # The last minibatch was measured under the last belief, the others under earlier ones.
    assert_close(np.asarray(last.observed["x"])[index], by_hand[index], 1e-8)
    assert learned.history["total"][-1] * 30 == pytest.approx(float(last.total), rel=1e-12)
    # From the exact posterior on, one more pass stays closer to it than one visit's worth of data would.
    exact = np.linalg.inv(np.eye(2) + rows.T @ rows / noise**2)
    centre = exact @ (rows.T @ x) / noise**2
    best = vfe.JointGaussian.from_moments(model, {"w": centre}, exact)
    on = vfe.learn(model, {"x": x, "a": rows}, epochs=1, key=key, **{**options, "belief": best})
    if family is vfe.JointGaussian:
        assert np.abs(on.belief.location - centre).max() < 2 * np.sqrt(np.diag(exact).max())


@pytest.mark.filterwarnings("ignore:learn. the precision of the observed node")
def test_minibatches_with_local_and_shared_latents():
    """x_n = t + z_n + noise: minibatches learn the noise and t that the whole data set would."""
    rng = np.random.default_rng(3)
    x = 2.0 + rng.normal(size=(120, 3)) + 0.5 * rng.normal(size=(120, 3))
    model = vfe.Model(
        t=vfe.gaussian(jnp.zeros(3), scale=4.0, shared=True),
        z=vfe.gaussian(jnp.zeros(3)),
        x=vfe.gaussian(lambda t, z: t + z, scale=vfe.learnable(1.0), parents=("t", "z")),
    )
    options = {"belief": vfe.DiagonalGaussian, "expectation": vfe.Taylor(), "perception_steps": 20}
    whole = vfe.learn(model, {"x": x}, epochs=150, optimiser=cosine(0.2, 150), **options)
    small = vfe.learn(model, {"x": x}, epochs=40, batch_size=20, optimiser=cosine(0.1, 240), **options)
    found, wanted = small.belief["t"], whole.belief["t"]
    assert np.all(np.abs(np.asarray(found.mean - wanted.mean)) < np.asarray(wanted.sd))
    assert_close(found.sd, wanted.sd, 0.05)
    one, two = (float(m.model["x"].noise.log_precision) for m in (small, whole))
    assert one == pytest.approx(two, abs=0.05)
    assert small.history["total"][-1] == pytest.approx(whole.history["total"][-1], abs=0.02)
    for changed, words in (
        ({"belief": vfe.JointGaussian}, "coupled with every other"),
        ({"belief": vfe.Point}, "no spread"),
        ({"solver": vfe.NaturalGradient()}, "at once"),
        ({"gradient": vfe.TotalDerivative()}, "no minimum for a single minibatch"),
        ({"augment": lambda key, batch: batch}, "on their own"),
    ):
        with pytest.raises(ValueError, match=words):
            vfe.learn(
                model, {"x": x}, batch_size=20, where=lambda m: m["x"].noise, **{**options, **changed}
            )


def test_discrete_nodes_beside_shared_latents():
    """A mixture with one shared offset, by mean field: F falls, and equals that of the belief kept."""
    rng = np.random.default_rng(4)
    means = np.array([[-2.0, 0.0], [2.0, 0.0]])
    x = means[rng.integers(0, 2, 20)] + 1.0 + 0.5 * rng.normal(size=(20, 2))
    eye = jnp.eye(2)
    model = vfe.Model(
        w=vfe.gaussian(jnp.zeros(2), shared=True),
        c=vfe.categorical(jnp.array([0.5, 0.5])),
        z=vfe.gaussian(vfe.Table(means), scale=0.3, parents="c"),
        x=vfe.gaussian(vfe.Affine((eye, eye)), scale=vfe.learnable(0.5), parents=("z", "w")),
    )
    learned = vfe.learn(model, {"x": x}, epochs=6, belief=vfe.MeanField)
    assert learned.history["total"][-1] < learned.history["total"][0]
    assert learned.free_energy.shared_part.shape == ()
    total = learned.free_energy.per_observation.sum() + learned.free_energy.shared_part
    assert float(total) == pytest.approx(20 * learned.history["total"][-1], rel=1e-12)
    with pytest.raises(ValueError, match="discrete and hidden beside shared"):
        vfe.learn(model, {"x": x}, epochs=1, batch_size=5, belief=vfe.MeanField)


def test_a_plate():
    """One latent per group: spread between groups and noise within, against a search."""
    rng = np.random.default_rng(1)
    group = np.arange(20) % 4
    x = 2.0 * rng.normal(size=4)[group] + 0.5 * rng.normal(size=20)
    model = vfe.Model(
        t=vfe.gaussian(0.0, scale=vfe.learnable(1.0), plate=vfe.plate("group", 4)),
        x=vfe.gaussian(lambda t: t, scale=vfe.learnable(1.0), parents="t"),
    )
    same = (group[:, None] == group).astype(float)

    def joint(logs):
        return gaussian_energy(x, np.zeros(20), np.exp(logs[0]) * same + np.exp(logs[1]) * np.eye(20))

    best = scipy.optimize.minimize(joint, np.zeros(2), method="BFGS")
    learned = vfe.learn(model, {"x": x, "group": group}, epochs=200, optimiser=cosine(0.2, 200))
    found = [-float(learned.model[n].noise.log_precision) for n in ("t", "x")]
    assert_close(found, best.x, 1e-3)
    assert float(learned.history["total"][-1]) * 20 == pytest.approx(best.fun, abs=1e-4)


def test_contrast_is_refused_beside_shared_latents():
    model = vfe.Model(
        w=vfe.gaussian(jnp.zeros(2), shared=True),
        c=vfe.categorical(vfe.learnable(jnp.full(3, 1 / 3))),
        x=vfe.gaussian(lambda w, c: w + c, parents=("w", "c")),
    )
    data = {"x": np.zeros((4, 2)), "c": np.zeros(4, int)}
    with pytest.raises(ValueError, match="on their own"):
        vfe.learn(model, data, contrast=vfe.Contrast("c", rivals=1))
