"""Extra-classical receptive fields: what the surround predicts is not reported twice.

Error units tell what backward connections did not predict. Three modules of state units each explain one
patch of a picture, x_m = U_m z_m + noise, and one level above them all predicts the modules,

z_m = W_m z + noise,   ε_m = z_m − W_m z,

learned from neighbouring patches of photographs by descent of F, with nothing in it about lines. Edges
go on in photographs. Expected: error units of the middle module, |ε|², respond less to a bar that goes on
into the surround than to the same bar alone, and no less to one whose surround has bars across it: what
was called end-stopping, and surround suppression. Without backward connections, W = 0, the surround cannot
matter at all; and where the patches learned from were each of another place there is nothing to predict
from.

It would be refuted by error units that respond to the long bar as to the short one or more, by as much
suppression from bars across, or by suppression without backward connections or without what photographs
have in common.

**Source:** Rao and Ballard 1999, Predictive coding in the visual cortex.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vfe
from vfe.gallery.job import JobResult, Progress, Workspace

SIDE = 6  # pixels of a patch
MODULES = ("left", "middle", "right")
STIMULI = ("short", "long", "across")
LEARNERS = ("photographs", "patches of different places")
NOISE = 0.4  # of pixels, which have a standard deviation of one


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much is learned from, and how large the network is."""

    patches: int = dataclasses.field(default=2000, metadata={"help": "triples of them, from photographs"})
    epochs: int = dataclasses.field(default=15, metadata={"help": "of learning"})
    units: int = dataclasses.field(default=8, metadata={"help": "state units of every module"})
    above: int = dataclasses.field(default=6, metadata={"help": "state units of the level above"})
    networks: int = dataclasses.field(
        default=5, metadata={"help": "each from a start and patches of its own"}
    )

    def __post_init__(self) -> None:
        if self.patches < 200 or self.epochs < 1 or self.networks < 2:
            raise ValueError(
                f"receptive-fields: got patches={self.patches}, epochs={self.epochs} and "
                f"networks={self.networks}; wanted 200 patches, an epoch and two networks, or more."
            )
        if not 1 <= self.above <= self.units <= SIDE**2:
            raise ValueError(
                f"receptive-fields: got units={self.units} and above={self.above}; wanted 1 ≤ above ≤ "
                f"units ≤ {SIDE**2}."
            )


class Responses(NamedTuple):
    """|ε|² of the middle module, by stimulus and where its bar lies, (3, positions), and `cut`: the same
    without backward connections; `free_energy`: F per triple of patches by epoch, nats."""

    intact: np.ndarray
    cut: np.ndarray
    free_energy: np.ndarray

    def suppressed(self, name: str, cut: bool = False) -> float:
        """By what share the response to `name` is below that to the short bar, over all positions.

        **Example:** `responses.suppressed("long")`.
        """
        total = (self.cut if cut else self.intact).sum(1)
        return float(1 - total[STIMULI.index(name)] / total[0])


class Found(NamedTuple):
    """By learner (photographs, patches of different places), one each per network."""

    learners: tuple[tuple[Responses, ...], tuple[Responses, ...]]

    def suppressed(self, learner: int, name: str, cut: bool = False) -> np.ndarray:
        """By network. **Example:** `found.suppressed(0, "long").mean()`."""
        return np.array([each.suppressed(name, cut) for each in self.learners[learner]])


def photographs() -> list[np.ndarray]:
    """The two that come with scikit-learn, grey, at half their size, without slow changes of light.

    **Example:** `photographs()[0].shape`.
    """
    from scipy import ndimage
    from sklearn import datasets

    found = []
    for name in ("china.jpg", "flower.jpg"):
        grey = np.asarray(datasets.load_sample_image(name), float).mean(-1)
        height, width = (n // 2 for n in grey.shape)
        grey = grey[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean((1, 3))
        band = ndimage.gaussian_filter(grey, 0.7) - ndimage.gaussian_filter(grey, 2.5)
        found.append(band / band.std())
    return found


def triples(count: int, seed: Any, together: bool = True) -> dict[str, np.ndarray]:
    """Three patches side by side, with some contrast, turned and mirrored at random; not `together`: each
    from another place.

    **Returns:** (count, 36) for every module, each triple of standard deviation one.

    **Example:** `triples(10, 0)["x_left"].shape`.
    """
    random, pictures = np.random.default_rng(seed), photographs()
    kept: list[np.ndarray] = []
    while len(kept) < count:
        picture = pictures[random.integers(len(pictures))]
        picture = picture.T if random.random() < 0.5 else picture
        top = random.integers(picture.shape[0] - SIDE)
        left = random.integers(picture.shape[1] - 3 * SIDE)
        part = picture[top : top + SIDE, left : left + 3 * SIDE]
        part = part[:, ::-1] if random.random() < 0.5 else part
        part = part[::-1] if random.random() < 0.5 else part
        # Without contrast there is nothing but the noise of the camera.
        if part.std() > 0.3:
            kept.append(part / part.std())
    found = modules(np.array(kept))
    if together:
        return found
    return {name: values[random.permutation(count)] for name, values in found.items()}


def modules(pictures: np.ndarray) -> dict[str, np.ndarray]:
    """(n, 6, 18) pixels as what each module sees. **Example:** `modules(np.zeros((1, 6, 18)))`."""
    parts = np.split(pictures, 3, axis=2)
    flat = [part.reshape(len(part), -1) for part in parts]
    return {f"x_{name}": part for name, part in zip(MODULES, flat, strict=True)}


def bars() -> dict[str, np.ndarray]:
    """Bars at nine heights of the middle patch: alone, going on, and with bars across it on both sides; of
    no mean light.

    **Example:** `bars()["long"].shape` is (9, 6, 18).
    """
    heights = np.arange(0.5, SIDE - 1 + 0.1, 0.5)[: 2 * SIDE - 3]
    profile = np.exp(-0.5 * ((np.arange(SIDE) - heights[:, None]) / 0.7) ** 2)
    profile = 2 * (profile - profile.mean(1, keepdims=True))
    along = np.repeat(profile[:, :, None], 3 * SIDE, 2)
    middle = slice(SIDE, 2 * SIDE)
    short = np.zeros_like(along)
    short[:, :, middle] = along[:, :, middle]
    across = np.repeat(np.tile(profile, (1, 3))[:, None], SIDE, 1)
    across[:, :, middle] = along[:, :, middle]
    return {"short": short, "long": along, "across": across}


def network(settings: Settings, key: Any) -> vfe.Model:
    """One level above three modules, weights small and random.

    **Example:** `network(Settings(), jax.random.key(0)).order`.
    """
    keys = iter(jax.random.split(key, 6))
    nodes: dict[str, Any] = {"z": vfe.gaussian(jnp.zeros(settings.above))}
    for name in MODULES:
        backward = 0.1 * jax.random.normal(next(keys), (settings.units, settings.above))
        fields = 0.1 * jax.random.normal(next(keys), (SIDE**2, settings.units))
        nodes[f"z_{name}"] = vfe.gaussian(vfe.Affine(backward), parents="z")
        nodes[f"x_{name}"] = vfe.gaussian(vfe.Affine(fields), scale=NOISE, parents=f"z_{name}")
    return vfe.Model(**nodes)


def errors(model: vfe.Model, cut: bool = False) -> np.ndarray:
    """|ε|² of the middle module at rest, by stimulus and position; `cut`: no predictions from above.

    **Example:** `errors(network(Settings(), jax.random.key(0))).shape` is (3, 9).
    """
    import equinox as eqx

    if cut:
        weights: Any = lambda m: [m.nodes[f"z_{name}"].mean.weight for name in MODULES]  # noqa: E731
        model = eqx.tree_at(weights, model, jax.tree.map(jnp.zeros_like, weights(model)))
    shown = bars()
    data = modules(np.concatenate([shown[name] for name in STIMULI]))
    belief: Any = vfe.perceive(model, data, solver=vfe.Exact()).belief
    above = belief["z"].mean
    predicted = jax.vmap(lambda z: model.density("z_middle", {"z": z}).mean)(above)
    error = np.asarray(belief["z_middle"].mean - predicted)
    return (error**2).sum(-1).reshape(len(STIMULI), -1)


def learn(settings: Settings, seed: int, number: int, together: bool = True) -> Responses:
    """One network, from patches of its own. **Example:** `learn(Settings(), 0, 0).suppressed("long")`."""
    import optax

    learned = vfe.learn(
        network(settings, jax.random.key(seed + 1000 * number)),
        triples(settings.patches, [seed, number], together),
        epochs=settings.epochs,
        batch_size=100,
        solver=vfe.Exact(),
        keep_beliefs=False,  # exact ones, found at once
        optimiser=optax.adam(0.02),
        key=jax.random.key(seed + 1000 * number + 1),
    )
    free = np.asarray(learned.history["total"])
    return Responses(errors(learned.model), errors(learned.model, cut=True), free)


def run(
    settings: Settings,
    *,
    seed: int,
    data: dict[str, np.ndarray] | None,
    folder: Workspace,
    progress: Progress,
    resume: bool,
) -> JobResult:
    """Networks that learn from photographs and from shuffled patches: figure receptive_fields.png.

    **Example:** `vfe run receptive-fields`.
    """
    from vfe.gallery.recognition.receptive_fields_page import write_up

    progress.start("networks", 2 * settings.networks)
    learners: list[tuple[Responses, ...]] = []
    for together in (True, False):
        each = []
        for number in range(settings.networks):
            each.append(learn(settings, seed, number, together))
            progress.step(F=float(each[-1].free_energy[-1]))
        learners.append(tuple(each))
    progress.done()
    return write_up(settings, Found((learners[0], learners[1])))
