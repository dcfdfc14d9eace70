"""Fixed scans: by rows, from the centre outwards, and the best that training images can choose."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import vfe
from vfe.gallery.digits.data import Images
from vfe.gallery.glimpses.model import Components

MOST = 4000  # training images that an order is chosen on


def by_rows(count: int) -> np.ndarray:
    """From the upper left to the lower right. **Example:** `by_rows(64)`."""
    return np.arange(count)


def centre_out(side: tuple[int, int], pixels: np.ndarray) -> np.ndarray:
    """From the centre outwards; of patches as far away, by rows.

    **Example:** `centre_out((8, 8), patches((8, 8), 1))`.
    """
    place = np.stack(np.unravel_index(pixels, side), -1).mean(1)
    away = np.linalg.norm(place - (np.array(side) - 1) / 2, axis=1)
    return np.argsort(np.round(away, 6), kind="stable")


def prior_of(model: vfe.Model) -> Float[Array, " states"]:
    """ln p(y, k), flat. **Example:** `prior_of(model)`."""
    label = jnp.arange(model.describe("label").states or 0)
    first = model.density("label", {}).log_prob(label)
    count = jnp.arange(model.describe("component").states or 0)
    second = jax.vmap(lambda y: model.density("component", {"label": y}).log_prob(count))(label)
    return (jnp.asarray(first)[:, None] + second).ravel()


def chosen_orders(
    model: vfe.Model, images: Images, components: Components, pixels: np.ndarray, glimpses: int
) -> dict[str, np.ndarray]:
    """Fixed orders built on training images, glimpse by glimpse: the next patch is the one after which most
    labels are right, or after which ln q(true label) is largest on average.

    **Example:** `chosen_orders(model, images, components, pixels, 8)["most right"]`.
    """
    x, truth = images.x_train[:MOST], jnp.asarray(images.y_train[:MOST])
    likelihoods = components.log_likelihood(jnp.asarray(x[:, pixels]))
    everyone = jnp.arange(len(x))

    @jax.jit
    def score(log_belief: Array) -> tuple[Array, Array]:
        def one(patch: Array) -> tuple[Array, Array]:
            log_joint = log_belief + likelihoods[:, patch]
            label = jax.nn.softmax(log_joint) @ components.label
            sure = label[everyone, truth]
            return (label.argmax(-1) == truth).mean(), jnp.log(jnp.maximum(sure, 1e-6)).mean()

        return jax.lax.map(one, jnp.arange(len(pixels)))

    orders = {}
    for which, name in enumerate(("most right", "most sure")):
        log_belief, order = jnp.broadcast_to(prior_of(model), (len(x), len(components.label))), []
        for _ in range(glimpses):
            gain = np.array(score(log_belief)[which])
            gain[order] = -np.inf
            order.append(int(gain.argmax()))
            log_belief = log_belief + likelihoods[:, order[-1]]
        orders[name] = np.array(order)
    return orders


def right_on_training(
    model: vfe.Model, images: Images, components: Components, pixels: np.ndarray, order: np.ndarray
) -> float:
    """The share of training images named rightly after the patches of `order`.

    **Example:** `right_on_training(model, images, components, pixels, order[:4])`.
    """
    x, truth = images.x_train[:MOST], images.y_train[:MOST]
    likelihoods = components.at(jnp.asarray(order)).log_likelihood(jnp.asarray(x[:, pixels[order]]))
    log_joint = prior_of(model) + likelihoods.sum(1)
    label = jax.nn.softmax(log_joint) @ components.label
    return float((np.asarray(label.argmax(-1)) == truth).mean())
