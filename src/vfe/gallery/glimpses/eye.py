"""The eye: what it believes after each glimpse, what it expects to learn, and where it looks next."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

import vfe
from vfe.gallery.glimpses.model import Components

FRESH = 128  # draws for a promise
Choice = Callable[[int, np.ndarray, np.ndarray], np.ndarray]


class Scan(NamedTuple):
    """What one eye saw of every image. `places` (images, glimpses): where it looked; `label`
    (images, glimpses + 1, labels): q(y), before the first glimpse and after each; `free_energy`
    (images, glimpses + 1) in nats; `promised` (images, glimpses): the information about the label, in nats,
    that was expected of each glimpse before it; NaN where nobody asked."""

    places: np.ndarray
    label: np.ndarray
    free_energy: np.ndarray
    promised: np.ndarray

    def hits(self, truth: np.ndarray) -> np.ndarray:
        """(images, glimpses + 1): whether the most probable label is the right one."""
        return self.label.argmax(-1) == truth[:, None]

    @property
    def uncertainty(self) -> np.ndarray:
        """(images, glimpses + 1): the entropy of q(y), in nats."""
        return np.asarray(entropy(jnp.asarray(self.label)))


def entropy(probabilities: Array) -> Array:
    """−Σ p ln p over the last axis. **Example:** `entropy(jnp.array([0.5, 0.5]))`."""
    return -jax.scipy.special.xlogy(probabilities, probabilities).sum(-1)


def information(
    key: PRNGKeyArray,
    log_belief: Float[Array, " states"],
    components: Components,
    draws: int,
) -> Float[Array, " patches"]:
    """I(y; x_patch | seen) = H[q(y)] − ⟨H[p(y | seen, x_patch)]⟩ of every patch, nats.

    Patches are drawn from p(x_patch | seen) = Σ q(y, k) N(x_patch; m_yk, s²): components evenly from q (one
    uniform number, then equal steps), with normal noise. `log_belief`: ln q(y, k), flat.

    **Example:** `information(key, log_belief, components, 32)`.
    """
    where, noise = jax.random.split(key)
    belief = jax.nn.softmax(log_belief)
    even = (jnp.arange(draws) + jax.random.uniform(where)) / draws
    drawn = jnp.minimum(jnp.searchsorted(jnp.cumsum(belief), even), len(belief) - 1)
    mean, scale = (jnp.moveaxis(part[..., drawn], -1, 0) for part in (components.mean, components.scale))
    seen = mean + scale * jax.random.normal(noise, mean.shape)
    posterior = jax.nn.softmax(log_belief + components.log_likelihood(seen)) @ components.label
    return entropy(belief @ components.label) - entropy(posterior).mean(0)


@jax.jit(static_argnames="draws")
def expected_information(
    key: PRNGKeyArray, log_belief: Float[Array, "images states"], components: Components, draws: int
) -> Float[Array, "images patches"]:
    """`information` of every patch for many images, with the same random numbers for all.

    **Example:** `expected_information(key, log_belief, components, draws=32)`.
    """

    def one(log_belief: Array) -> Array:
        return information(key, log_belief, components, draws)

    return jax.lax.map(one, log_belief, batch_size=8)


@jax.jit
def promised_information(
    key: PRNGKeyArray, log_belief: Array, components: Components, places: Array
) -> Float[Array, " images"]:
    """`information` of one patch for each image, with random numbers of its own: where the largest of
    many estimates was chosen, that estimate is too large."""

    def one(key: PRNGKeyArray, log_belief: Array, place: Array) -> Array:
        return information(key, log_belief, components.at(place[None]), FRESH)[0]

    return jax.vmap(one)(jax.random.split(key, len(places)), log_belief, places)


def look(
    model: vfe.Model,
    x: np.ndarray,
    pixels: np.ndarray,
    components: Components,
    glimpses: int,
    choose: Choice,
    key: PRNGKeyArray | None = None,
) -> Scan:
    """Look at every image `glimpses` times, where `choose(glimpse, ln q(y, k), looked)` says.

    `x`: (images, pixels); `pixels`: see `patches`; `choose` is given ln q (images, states), and
    `looked` (images, patches), what was looked at before, and returns the next patch of each image. With a
    `key` the information that each glimpse promises is estimated too.

    **Example:** `look(model, x, pixels, components, 8, along(np.arange(8)))`.
    """
    images = np.arange(len(x))
    looked = np.zeros((len(x), len(pixels)), bool)
    seen = np.full(x.shape, np.nan, np.float32)
    scan, places, promised = [], [], []
    for glimpse in range(glimpses + 1):
        percept = vfe.perceive(model, {"x": seen})
        belief: vfe.JointCategorical = percept.belief
        scan.append((belief["label"].probabilities, percept.free_energy.total))
        if glimpse == glimpses:
            break
        joint = belief.joint(("label", "component"))
        log_belief = jnp.log(joint.reshape(len(x), -1))
        place = choose(glimpse, np.asarray(log_belief), looked)
        if key is None:
            promised.append(np.full(len(x), np.nan))
        else:
            one = jax.random.fold_in(key, glimpse)
            promised.append(promised_information(one, log_belief, components, jnp.asarray(place)))
        places.append(place)
        looked[images, place] = True
        seen[images[:, None], pixels[place]] = x[images[:, None], pixels[place]]
    label, free_energy = (
        np.stack([np.asarray(part) for part in several], 1) for several in zip(*scan, strict=True)
    )
    return Scan(
        np.stack(places, 1), label, free_energy, np.stack([np.asarray(each) for each in promised], 1)
    )


def seeking(components: Components, draws: int, key: PRNGKeyArray, sign: float = 1.0) -> Choice:
    """Look where the expected information about the label is largest; with `sign=-1` where it is least.

    **Example:** `seeking(components, 32, jax.random.key(0))`.
    """

    def choose(glimpse: int, log_belief: np.ndarray, looked: np.ndarray) -> np.ndarray:
        # Before the first glimpse all images are alike.
        several = log_belief[:1] if glimpse == 0 else log_belief
        one = jax.random.fold_in(key, glimpse)
        gain = np.asarray(expected_information(one, jnp.asarray(several), components, draws))
        return np.where(looked, -np.inf, sign * gain).argmax(1)

    return choose


def along(path: np.ndarray) -> Choice:
    """Look along a path, one for all images (glimpses,), or one for each (images, glimpses).

    **Example:** `along(np.arange(8))`.
    """

    def choose(glimpse: int, log_belief: np.ndarray, looked: np.ndarray) -> np.ndarray:
        return np.broadcast_to(path, (len(looked), path.shape[-1]))[:, glimpse]

    return choose
