"""The generative model of the digits job: label → z2 → z1 → pixels."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

import vfe
from vfe.gallery.digits.data import Images
from vfe.gallery.digits.settings import Chosen


class Ink(eqx.Module):
    """The mean image: half a grey step + sigmoid(skip-connected MLP of z1), between paper and ink."""

    inner: vfe.MLP
    offset: float = eqx.field(static=True)

    def __call__(self, z1: Float[Array, " n"]) -> Float[Array, " pixels"]:
        return self.offset + jax.nn.sigmoid(self.inner(z1))


class Encoder(eqx.Module):
    """q(z2, z1 | image, label) as a diagonal Gaussian: z1 from the image, z2 from both."""

    trunk: vfe.MLP
    top: vfe.MLP
    z1: int = eqx.field(static=True)
    z2: int = eqx.field(static=True)
    classes: int = eqx.field(static=True)

    def __call__(self, x: Float[Array, " pixels"], label: Array) -> Float[Array, " m"]:
        seen = self.trunk(x)
        above = self.top(seen, jax.nn.one_hot(label, self.classes))
        mean1, log_scale1 = seen[: self.z1], seen[self.z1 :] - 2.0
        mean2, log_scale2 = above[: self.z2], above[self.z2 :] - 1.0
        return jnp.concatenate([mean2, mean1, log_scale2, log_scale1])


def build(settings: Chosen, images: Images, key: PRNGKeyArray) -> vfe.Model:
    """p(label) p(z2 | label) p(z1 | z2) p(x | z1), before learning.

    p(label) = 1/classes; z2 ~ N(table[label], diag exp(2 table'[label])); z1 ~ N(MLP(z2), diag s²);
    x ~ N(half a step + sigmoid(MLP(z1)), σ² I) with *one* variance σ² for all pixels and images.
    Every table, weight and precision is learned.
    """
    below, above, means = jax.random.split(key, 3)
    k = images.classes
    decoder = vfe.MLP(settings.z1, images.pixels, settings.decoder_width, 1, key=below, skip=True)
    offset = 0.5 / images.levels
    mean = np.clip(images.x_train.mean(0) - offset, 0.01, 0.99)
    assert decoder.shortcut is not None  # because of skip=True
    decoder = eqx.tree_at(
        lambda m: (m.weights[-1], m.shortcut, m.biases[-1]),
        decoder,
        (0.5 * decoder.weights[-1], 0.5 * decoder.shortcut, jnp.asarray(np.log(mean / (1 - mean)))),
    )
    upper = vfe.MLP(settings.z2, settings.z1, settings.upper_width, 1, key=above, skip=True)
    table = 3.0 * jax.random.normal(means, (k, settings.z2))
    return vfe.Model(
        label=vfe.categorical(jnp.full(k, 1.0 / k)),
        z2=vfe.gaussian(
            vfe.Table(table), scale=vfe.Exp(vfe.Table(jnp.zeros((k, settings.z2)))), parents="label"
        ),
        z1=vfe.gaussian(upper, scale=vfe.learnable(jnp.ones(settings.z1)), parents="z2"),
        x=vfe.gaussian(Ink(decoder, offset), scale=vfe.learnable(0.15), parents="z1"),
    )


def encoder(settings: Chosen, images: Images, key: PRNGKeyArray) -> vfe.Amortised:
    """Amortised beliefs q(z | image, label), before learning."""
    one, two = jax.random.split(key)
    k = images.classes
    trunk = vfe.MLP(
        images.pixels, 2 * settings.z1, settings.encoder_width, 1, key=one, activation=jax.nn.relu
    )
    top = vfe.MLP(2 * settings.z1 + k, 2 * settings.z2, 128, 1, key=two)
    return vfe.Amortised(
        Encoder(trunk, top, settings.z1, settings.z2, k), vfe.DiagonalGaussian, ("x", "label")
    )


def mean_images(model: vfe.Model, z1: Float[Array, "*batch n"]) -> Float[Array, "*batch pixels"]:
    """The mean of p(x | z1): what a cause looks like without pixel noise."""
    function = lambda z: model.density("x", {"z1": z}).mean  # noqa: E731
    for _ in z1.shape[:-1]:
        function = jax.vmap(function)
    return jax.jit(function)(z1)
