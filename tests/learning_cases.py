"""Models, encoders and data that several tests of learning share."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import vfe


class Linear(eqx.Module):
    """A linear encoder of standardised data with one covariance for all observations."""

    weight: jax.Array
    bias: jax.Array
    spread: jax.Array
    centre: vfe.Fixed
    scale: vfe.Fixed

    def __call__(self, *inputs):
        x = jnp.concatenate([jnp.ravel(jnp.asarray(i, float)) for i in inputs])
        h = (x - self.centre.value) / self.scale.value
        return jnp.concatenate([self.weight @ h + self.bias, self.spread])


def linear_encoder(centre, scale, k, spread, seed=0):
    weight = 0.1 * np.random.default_rng(seed).normal(size=(k, len(centre)))
    fixed = vfe.Fixed(jnp.asarray(centre)), vfe.Fixed(jnp.asarray(scale))
    return Linear(jnp.asarray(weight), jnp.zeros(k), jnp.zeros(spread), *fixed)


def factor_model(x, k, seed=0):
    """Probabilistic PCA before learning: random loadings, the data's mean and half their spread."""
    size = x.std(0).mean()
    weight = 0.3 * size * np.random.default_rng(seed).normal(size=(x.shape[1], k))
    mean = vfe.Affine(weight, x.mean(0))
    return vfe.Model(
        z=vfe.gaussian(np.zeros(k)), x=vfe.gaussian(mean, scale=vfe.learnable(0.5 * size), parents="z")
    )


def surprise(model, data):
    return -float(np.mean(vfe.exact.log_evidence(model, data)))


def parameters(model):
    return np.asarray(ravel_pytree(eqx.filter(model, eqx.is_inexact_array))[0])


@functools.cache
def toy():
    """Forty observations of three numbers with one hidden cause, and the least surprise of any model."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 1)) @ np.array([[1.0, -0.8, 0.5]]) + 0.4 * rng.normal(size=(40, 3)) + 1.0
    values = np.linalg.eigvalsh(np.cov(x.T, bias=True))
    noise = values[:-1].mean()
    best = 0.5 * (3 * np.log(2 * np.pi) + np.log(values[-1]) + 2 * np.log(noise) + 3)
    return x, best


@functools.cache
def labelled():
    """The label moves the first number a little; the second varies much, whatever the label."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 120)
    x = np.stack([(2 * label - 1) + 0.5 * rng.normal(size=120), 3 * rng.normal(size=120)], 1)
    return x, label


def labelled_model():
    mean = vfe.Affine(np.array([[0.3], [1.0]]))
    return vfe.Model(
        label=vfe.categorical(np.full(2, 0.5)),
        z=vfe.gaussian(vfe.Table(vfe.Fixed(jnp.array([[-1.0], [1.0]]))), parents="label"),
        x=vfe.gaussian(mean, scale=vfe.learnable(1.0), parents="z"),
    )


def recognised(model, x, label):
    found = vfe.exact.posterior(model, {"x": x})["label"].probabilities
    return float(np.mean(np.argmax(found, -1) == label))
