"""What networks of each direction do with images: recognise, infer the label, fill in a hidden half.

    python benchmarks/networks_on_images.py --data mnist.npz [--parts convolutional generative two_way]

convolutional: p(label | image), convolutions and max pooling; test accuracy, epoch by epoch.
generative:    p(image | label, latent); the label inferred from test images, their lower half filled in.
two_way:       image and label below a common latent; the same questions.

`--data`: arrays x_train, y_train, x_test, y_test of grey images (0 … 255); without it, scikit-learn's
digits of 8 × 8 pixels. Squared errors are per hidden pixel (between 0 and 1), beside those of the mean
image and of probabilistic PCA. Fixed seeds; progress as it comes.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vfe
from vfe.gallery.linear import filled_in, probabilistic_pca
from vfe.networks import convolutional, dense, generative, predict, supervised, two_way

KEY = jax.random.key(0)
# Hundreds of pixels below make the energy stiff: a few Newton steps, each solved by ten passes down and up,
# reach what hundreds of accelerated gradient steps do.
NEWTON = vfe.ErrorCoordinates(direct=0, iterations=10)


@dataclasses.dataclass(frozen=True)
class Images:
    """Intensities between 0 and 1, (N, height · width), and labels."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    side: tuple[int, int]

    @property
    def large(self) -> bool:
        """Whether these are many images (settings follow from it)."""
        return len(self.x_train) > 5000


def load(path: str | None, count: int | None) -> Images:
    """The images of a file, or scikit-learn's digits."""
    if path is None:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits: Any = load_digits()
        x = (digits.data / 16.0).astype(np.float32)
        parts = train_test_split(x, digits.target, test_size=450, random_state=0, stratify=digits.target)
        return Images(parts[0][:count], parts[2][:count], parts[1], parts[3], (8, 8))
    with np.load(path) as file:
        side = file["x_train"].shape[1:]
        x, t = [
            (file[n].reshape(-1, side[0] * side[1]) / 255.0).astype(np.float32)
            for n in ("x_train", "x_test")
        ]
        y, u = file["y_train"].astype(int), file["y_test"].astype(int)
    return Images(x[:count], y[:count], t, u, (int(side[0]), int(side[1])))


def learn(
    model: vfe.Model,
    data: dict[str, np.ndarray],
    watch: Callable[[vfe.Model], str],
    *,
    epochs: int,
    batch: int,
    solver: Any,
    steps: int,
    rate: float,
    decay: float,
) -> vfe.Model:
    """Points at equilibrium, AdamW with a rate that falls to zero; one line per epoch."""
    count = len(next(iter(data.values())))
    began = time.perf_counter()
    schedule = optax.cosine_decay_schedule(rate, epochs * -(-count // batch))

    def report(epoch: int, numbers: dict[str, Any], model: vfe.Model) -> None:
        seconds = time.perf_counter() - began
        line = f"  epoch {epoch:>2} of {epochs}  energy {float(numbers['total']):9.2f}  {seconds:6.0f} s"
        print(f"{line}  {watch(model)}", flush=True)

    learned = vfe.learn(
        model,
        data,
        epochs=epochs,
        batch_size=batch,
        belief=vfe.Point,
        solver=solver,
        keep_beliefs=False,
        perception_steps=steps,
        rtol=1e-2,
        optimiser=optax.adamw(schedule, weight_decay=decay),
        callback=report,
        key=KEY,
    )
    return learned.model


def in_blocks(function: Callable[[np.ndarray], Any], x: np.ndarray, block: int) -> np.ndarray:
    """The function of blocks of one size, so that it is compiled once."""
    found = []
    for start in range(0, len(x), block):
        part = x[start : start + block]
        padded = np.concatenate([part, np.repeat(part[-1:], block - len(part), 0)])
        found.append(np.asarray(function(padded))[: len(part)])
    return np.concatenate(found)


def run_convolutional(images: Images, epochs: int | None, asked: int) -> None:
    """A small convolutional network, the image given above and the label observed below."""
    shape = (1, *images.side)
    layers = convolutional(shape, (16, 32, 64) if images.large else (16, 32), outputs=10, key=KEY)
    model = supervised(layers, inputs=shape)
    x = images.x_test.reshape(-1, *shape)

    def accuracy(model: vfe.Model) -> str:
        guess = in_blocks(lambda b: predict(model, {"x": b}).argmax(-1), x, 500)
        return f"test accuracy {100 * (guess == images.y_test).mean():.2f} %"

    learn(
        model,
        {"x": images.x_train.reshape(-1, *shape), "y": images.y_train},
        accuracy,
        epochs=epochs or (5 if images.large else 20),
        batch=64 if images.large else 32,
        solver=vfe.Anderson(),
        steps=4,
        rate=2e-3 if images.large else 5e-3,
        decay=1e-3,
    )


def hidden_half(images: Images, asked: int) -> tuple[np.ndarray, np.ndarray]:
    """Test images, and the same with their lower half missing."""
    x = images.x_test[:asked]
    seen = x.copy()
    seen[:, x.shape[1] // 2 :] = np.nan
    return x, seen


def squared_error(guess: np.ndarray, x: np.ndarray) -> float:
    """Per pixel of the lower half."""
    half = x.shape[1] // 2
    return float(np.square(np.clip(guess, 0, 1) - x)[:, half:].mean())


def baselines(images: Images, dimensions: int, asked: int) -> None:
    """What needs no network."""
    x, seen = hidden_half(images, asked)
    mean = np.broadcast_to(images.x_train.mean(0), x.shape)
    linear = np.asarray(filled_in(probabilistic_pca(images.x_train, dimensions), seen))
    print(f"  squared error on the hidden half: mean image {squared_error(mean, x):.4f}, ", end="")
    print(f"probabilistic PCA with {dimensions} dimensions {squared_error(linear, x):.4f}", flush=True)


def ask(
    name: str, images: Images, answer: Callable[[np.ndarray], np.ndarray], asked: int, block: int
) -> None:
    """Labels of whole and half images, and what fills the half; `answer` gives probabilities and pixels."""
    x, seen = hidden_half(images, asked)
    truth = images.y_test[:asked]
    for word, given in (("whole image", x), ("upper half", seen)):
        began = time.perf_counter()
        found = in_blocks(answer, given, block)
        fine = np.isfinite(found).all(-1)
        label = 100 * (fine & (found[:, :10].argmax(-1) == truth)).mean()
        error = squared_error(found[fine, 10:], x[fine])
        tail = "" if word == "whole image" else f", squared error on the hidden half {error:.4f}"
        silent = int((~fine).sum())
        tail += f", {silent} without an answer" if silent else ""
        seconds = time.perf_counter() - began
        print(f"  {name}, {word}: label {label:.1f} % right{tail}  ({seconds:.0f} s)", flush=True)


def learn_jointly(model: vfe.Model, images: Images, epochs: int | None, decay: float) -> vfe.Model:
    """Learn p(x, label) from images with their labels, at equilibrium and with a decay of the weights."""
    return learn(
        model,
        {"x": images.x_train, "label": images.y_train},
        lambda model: "",
        epochs=epochs or (8 if images.large else 30),
        batch=128 if images.large else 32,
        solver=NEWTON,
        steps=4,
        rate=3e-3,
        decay=decay,
    )


def run_generative(images: Images, epochs: int | None, asked: int) -> None:
    """A label and a latent above, the image below; the label is summed over with Laplace beliefs."""
    pixels = images.x_train.shape[1]
    latent, widths, scale = (8, [128, 128], 0.05) if images.large else (12, [64], 0.3)
    layers = dense([10 + latent, *widths, pixels], key=KEY, activation=jnp.tanh)
    model = generative(layers, labels=10, latent=latent, scale=scale)
    baselines(images, 18 if images.large else 22, asked)
    model = learn_jointly(model, images, epochs, decay=1.0 if images.large else 3.0)

    def answer(x: np.ndarray) -> np.ndarray:
        percept = vfe.perceive(
            model,
            {"x": x},
            belief=vfe.Enumerated("label", vfe.GaussNewtonLaplace),
            solver=NEWTON,
            max_steps=15,
            rtol=1e-3,
            throw=False,
            chunk=10,
        )
        pixels = percept.prediction("x", samples=16)
        return np.concatenate([percept.belief["label"].probabilities, pixels], -1)

    ask("generative", images, answer, asked, 50)


def run_two_way(images: Images, epochs: int | None, asked: int) -> None:
    """Image and label below a common latent."""
    pixels = images.x_train.shape[1]
    latent, width, scale = (64, 128, 0.2) if images.large else (32, 64, 0.3)
    one, two = jax.random.split(KEY)
    model = two_way(
        dense([latent, width, pixels], key=one, activation=jnp.tanh),
        dense([latent, 64, 10] if images.large else [latent, 10], key=two, activation=jnp.tanh),
        latent=latent,
        scale=scale,
    )
    baselines(images, latent if images.large else 24, asked)
    model = learn_jointly(model, images, epochs, decay=3.0)

    def answer(x: np.ndarray) -> np.ndarray:
        percept = vfe.perceive(
            model, {"x": x}, belief=vfe.Point, solver=NEWTON, max_steps=15, rtol=1e-3, throw=False
        )
        return np.concatenate([percept.prediction(n, samples=1) for n in ("label", "x")], -1)

    ask("two-way", images, answer, asked, 250)


PARTS = {"convolutional": run_convolutional, "generative": run_generative, "two_way": run_two_way}


def main() -> None:
    """Learn, ask, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", help="an .npz file; scikit-learn's digits without it")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--epochs", type=int, help="for every part, instead of its own number")
    parser.add_argument("--train", type=int, help="learn from so many images only")
    parser.add_argument("--asked", type=int, default=500, help="test images that generative networks see")
    options = parser.parse_args()
    images = load(options.data, options.train)
    count = f"{len(images.x_train)} images to learn from, {len(images.x_test)} to test"
    print(f"{count}; {jax.devices()[0].platform}, jax {jax.__version__}")
    for name in options.parts:
        print(name, flush=True)
        PARTS[name](images, options.epochs, options.asked)


if __name__ == "__main__":
    main()
