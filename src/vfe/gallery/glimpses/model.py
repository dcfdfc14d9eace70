"""What the eye knows of digits: a mixture for every label, learned from whole images."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

import vfe
from vfe.gallery.digits.data import Images
from vfe.gallery.glimpses.settings import Chosen


class AtLeast(eqx.Module):
    """A scale that never falls below another: √(s² + least²). Without it components of few images are
    told apart by pixels that happen to agree in them."""

    scale: Callable[..., Array]
    least: float = eqx.field(static=True)

    def __call__(self, *parents: Array) -> Array:
        return jnp.sqrt(self.scale(*parents) ** 2 + self.least**2)


def mixture(settings: Chosen, images: Images, seed: int) -> vfe.Model:
    """p(y) p(k | y) p(x | y, k) before learning: components halfway between an image and its label's mean.

    Every component has a scale of its own for each pixel, at first that of its label.

    **Raises:** `ValueError` where a label has no training image.

    **Example:** `mixture(Settings().resolved(1000), embedded(), seed=0)`.
    """
    rng = np.random.default_rng(seed)
    x, y, k = images.x_train, images.y_train, settings.components
    empty = [label for label in range(images.classes) if not (y == label).any()]
    if empty:
        raise ValueError(f"glimpses: no training image has the labels {empty}; wanted 0 … {y.max()} all.")
    centres, spread = np.empty((2, images.classes, k, images.pixels))
    for label in range(images.classes):
        own = x[y == label].astype(float)
        near = own[rng.choice(len(own), k, replace=len(own) < k)]
        centres[label] = 0.5 * (near + own.mean(0))
        spread[label] = own.var(0)
    return vfe.Model(
        label=vfe.categorical(jnp.full(images.classes, 1 / images.classes)),
        component=vfe.categorical(logits=vfe.learnable(jnp.zeros((k, images.classes))), parents="label"),
        x=vfe.gaussian(
            vfe.Table(jnp.asarray(centres), parents=2),
            scale=AtLeast(
                vfe.Exp(vfe.Table(0.5 * jnp.log(spread + settings.grain**2), parents=2)), settings.grain
            ),
            parents=("label", "component"),
        ),
    )


def learn(settings: Chosen, images: Images, seed: int) -> vfe.Learned:
    """The mixture, learned from whole training images with their labels: EM with exact beliefs.

    **Example:** `learn(Settings().resolved(1347), embedded(), seed=0).model`.
    """
    kept = slice(settings.learned_from)
    x, y = images.x_train[kept], images.y_train[kept]
    return vfe.learn(
        mixture(settings, images, seed),
        {"x": x, "label": y},
        epochs=settings.epochs,
        batch_size=min(settings.batch_size, len(x)),
        optimiser=optax.adam(settings.learning_rate),
        key=jax.random.key(seed),
        keep_beliefs=False,  # exact ones, found at once
    )


class Components(NamedTuple):
    """The mixture's means and scales by patch, (patches, pixels of a patch, labels · components); `label`
    (labels · components, labels): one where the component is the label's."""

    mean: Float[Array, "patches pixels states"]
    scale: Float[Array, "patches pixels states"]
    label: Float[Array, "states labels"]

    def at(self, places: Array) -> "Components":
        """Those of some patches."""
        return self._replace(mean=self.mean[places], scale=self.scale[places])

    def log_likelihood(
        self, patches: Float[Array, "*n patches pixels"]
    ) -> Float[Array, "*n patches states"]:
        """ln p(x_patch | y, k) of every patch, without (2π)^(−½)."""
        # Squares multiplied out, so that the sum over pixels is a product of matrices.
        precision = self.scale**-2
        constant = (0.5 * self.mean**2 * precision + jnp.log(self.scale)).sum(-2)
        linear = jnp.einsum("...pd,pdc->...pc", patches, self.mean * precision)
        return linear - 0.5 * jnp.einsum("...pd,pdc->...pc", patches**2, precision) - constant


def components_of(model: vfe.Model, places: np.ndarray) -> Components:
    """Means and scales by patch, from the model's own density. `places`: (patches, pixels of a patch).

    **Example:** `components_of(model, patches((8, 8), 2)).mean.shape`.
    """
    labels, each = model.describe("label").states, model.describe("component").states
    assert labels is not None
    assert each is not None
    state = [index.ravel() for index in np.meshgrid(np.arange(labels), np.arange(each), indexing="ij")]

    def density(label: Array, component: Array) -> tuple[Array, Array]:
        found = model.density("x", {"label": label, "component": component})
        return found.mean, jnp.sqrt(found.variance)

    means, scales = jax.vmap(density)(*(jnp.asarray(index) for index in state))
    return Components(means.T[places], scales.T[places], jnp.eye(labels)[state[0]])


def patches(side: tuple[int, int], patch: int) -> np.ndarray:
    """(patches, patch²): the pixels of each place that the eye can look at; they tile the image in rows.

    **Raises:** `ValueError` where they do not fit.

    **Example:** `patches((8, 8), 2).shape` is `(16, 4)`.
    """
    height, width = side
    if height % patch or width % patch:
        raise ValueError(
            f"glimpses: got patch={patch} for images of {height} × {width} pixels; wanted a side that "
            "divides both."
        )
    pixels = np.arange(height * width).reshape(height // patch, patch, width // patch, patch)
    return pixels.swapaxes(1, 2).reshape(-1, patch * patch)
