"""Uncertainty of learned parameters against closed forms and second derivatives of the evidence."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close
from jax.flatten_util import ravel_pytree

import vfe
from vfe.learning import parameter_uncertainty

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.core
def test_mean_and_noise_of_a_gaussian():
    """Variance of the mean σ²/N, of the log-precision 2/N; no covariance between them."""
    x = 2.0 * np.random.default_rng(0).normal(size=(25, 1)) + 1.0
    model = vfe.Model(x=vfe.gaussian(vfe.learnable(x.mean(0)), scale=vfe.learnable(x.std())))
    found = parameter_uncertainty(model, {"x": x})
    assert_close(found.covariance, np.diag([x.var() / 25, 2 / 25]), 1e-10)
    assert_close(found.gradient, np.zeros(2), 1e-10)
    assert found.names == ("x.mean.value[0]", "x.noise.log_precision")
    assert_close(found.sd["x"].mean.value, [np.sqrt(x.var() / 25)], 1e-10)
    assert_close(found.sd["x"].noise.log_precision, np.sqrt(2 / 25), 1e-10)
    assert "x.mean.value[0]: " in repr(found)
    tight = parameter_uncertainty(model, {"x": x}, where=lambda m: m["x"].mean, prior_precision=3.0)
    assert_close(tight.covariance, [[1 / (25 / x.var() + 3)]], 1e-10)


@pytest.mark.core
def test_linear_regression():
    """σ² (XᵀX)⁻¹ for the weights, with the inputs given and the noise known."""
    rng = np.random.default_rng(0)
    u = rng.normal(size=(30, 3))
    y = u @ np.array([[1.0], [2.0], [-1.0]]) + 0.3 * rng.normal(size=(30, 1))
    weight = np.linalg.lstsq(u, y, rcond=None)[0].T
    mean = vfe.Affine(weight, vfe.Fixed(jnp.zeros(1)))
    model = vfe.Model(u=vfe.given(3), y=vfe.gaussian(mean, scale=0.3, parents="u"))
    found = parameter_uncertainty(model, {"u": u, "y": y})
    assert_close(found.covariance, 0.09 * np.linalg.inv(u.T @ u), 1e-9)
    assert found.names == tuple(f"y.mean.weight[0, {i}]" for i in range(3))


def latent(x):
    """One hidden cause of three numbers, learned to the optimum of the evidence."""
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    noise = values[:-1].mean()
    weight = vectors[:, -1:] * np.sqrt(values[-1] - noise)
    mean = vfe.Affine(weight, x.mean(0))
    return vfe.Model(
        z=vfe.gaussian(np.zeros(1)),
        x=vfe.gaussian(mean, scale=vfe.learnable(np.sqrt(noise)), parents="z"),
    )


@pytest.mark.parametrize("belief", [None, vfe.Laplace, vfe.JointGaussian])
def test_latent_model_against_the_evidence(belief):
    """The Hessian of −ln p(x) in closed form; beliefs that follow the parameters give the same."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 1)) @ [[1.0, -0.8, 0.5]] + 0.4 * rng.normal(size=(20, 3))
    model = latent(x)

    def picked(m):
        return (m["x"].mean.weight, m["x"].mean.bias, m["x"].noise.log_precision)

    start, unravel = ravel_pytree(picked(model))

    def surprise(vector):
        return -jnp.sum(vfe.exact.log_evidence(eqx.tree_at(picked, model, unravel(vector)), {"x": x}))

    wanted = np.linalg.inv(np.asarray(jax.hessian(surprise)(start)))
    found = parameter_uncertainty(model, {"x": x}, belief=belief)
    order = [found.names.index(n) for n in names(found.names)]
    assert_close(np.asarray(found.covariance)[np.ix_(order, order)], wanted, 1e-6)
    assert float(found.remaining) < 1e-10


def names(all_of):
    """Weights, then the bias, then the noise."""
    return [n for key in ("weight", "bias", "noise") for n in all_of if key in n]


def test_nonlinear_laplace_against_new_perceptions():
    """Second differences of the total F through `perceive`, in two parameters."""
    x = np.random.default_rng(0).normal(size=(8, 2))
    mean = vfe.MLP(1, 2, 3, 1, key=jax.random.key(1))
    model = vfe.Model(z=vfe.gaussian(np.zeros(1)), x=vfe.gaussian(mean, scale=0.7, parents="z"))

    def picked(m):
        return m["x"].mean.biases[1]

    def total(change):
        moved = eqx.tree_at(picked, model, picked(model) + jnp.asarray(change))
        return float(vfe.perceive(moved, {"x": x}, belief=vfe.Laplace).free_energy.sum().total)

    h, curvature = 1e-3, np.zeros((2, 2))
    for i, a in enumerate(np.eye(2) * h):
        for j, b in enumerate(np.eye(2) * h):
            four = total(a + b) - total(a - b) - total(b - a) + total(-a - b)
            curvature[i, j] = four / (4 * h * h)
    with pytest.warns(UserWarning, match="F would still fall"):
        found = parameter_uncertainty(model, {"x": x}, where=picked, belief=vfe.Laplace)
    assert_close(np.linalg.inv(found.covariance), curvature, 1e-4)


def test_directions_that_the_data_leave_free():
    """Two latents can be rotated: the error says so; named leaves or a prior help."""
    x = np.random.default_rng(0).normal(size=(12, 3))
    mean = vfe.Affine(np.random.default_rng(1).normal(size=(3, 2)))
    model = vfe.Model(z=vfe.gaussian(np.zeros(2)), x=vfe.gaussian(mean, parents="z"))
    with pytest.raises(ValueError, match="not positive definite"):
        parameter_uncertainty(model, {"x": x})
    with pytest.raises(ValueError, match="an entropy"):
        parameter_uncertainty(model, {"x": x}, belief=vfe.Point)
    with pytest.raises(TypeError, match=r"wanted a vfe\.Model"):
        parameter_uncertainty("model", {"x": x})


def test_what_learn_returns():
    x = np.random.default_rng(0).normal(size=(12, 3)) * [2.0, 1.0, 1.0]
    learned = vfe.learn(latent(x), {"x": x}, epochs=1)
    found = parameter_uncertainty(learned.model, {"x": x}, where=lambda m: m["x"].mean.bias)
    same = parameter_uncertainty(learned, {"x": x}, where=lambda m: m["x"].mean.bias)
    assert_close(found.covariance, same.covariance, 1e-12)
