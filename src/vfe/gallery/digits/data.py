"""Images as densities want them: intensities in units of the grey scale, with one grey step of noise."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Images:
    """Training and held-out images, (N, pixels), intensities (grey + uniform noise) / levels.

    The noise makes a density of grey *steps* out of integers: without it, pixels that never vary would
    let any density on them grow without bound. `side`: (height, width); `levels`: grey steps.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    side: tuple[int, int]
    levels: int
    name: str

    @property
    def pixels(self) -> int:
        """Pixels per image."""
        return self.side[0] * self.side[1]

    @property
    def classes(self) -> int:
        """Labels are 0 … classes − 1."""
        return int(self.y_train.max()) + 1


def embedded() -> Images:
    """scikit-learn's 1797 digits of 8 × 8 pixels: 1347 to learn from, 450 held out (fixed split)."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits: Any = load_digits()
    grey, labels = digits.data, digits.target.astype(int)
    train, test = train_test_split(np.arange(len(labels)), test_size=450, random_state=0, stratify=labels)
    x = _dequantised(grey, 16)
    return Images(x[train], labels[train], x[test], labels[test], (8, 8), 16, "digits 8 × 8")


def from_arrays(arrays: Mapping[str, np.ndarray]) -> Images:
    """Images of a file (see `vfe run digits --data`): grey values 0 … 255, or 0 … 1.

    **Raises:** `ValueError` for a test label that no training image has.
    """
    x_train, x_test = arrays["x_train"], arrays["x_test"]
    y_train, y_test = arrays["y_train"].astype(int), arrays["y_test"].astype(int)
    unseen = sorted(set(np.unique(y_test)) - set(np.unique(y_train)))
    if unseen:
        raise ValueError(f"--data: the labels {unseen} are in y_test but not in y_train.")
    shape = x_train.shape[1:]
    if len(shape) == 1:
        root = round(shape[0] ** 0.5)
        shape = (root, root) if root * root == shape[0] else (1, shape[0])
    fractional = np.issubdtype(x_train.dtype, np.floating) and x_train.max() <= 1
    both = [np.round(a.reshape(len(a), -1) * (255 if fractional else 1)) for a in (x_train, x_test)]
    noise = np.random.default_rng(0)
    x, t = [((a + noise.random(a.shape)) / 256).astype(np.float32) for a in both]
    side = (int(shape[0]), int(shape[1]))
    return Images(x, y_train, t, y_test, side, 256, f"{len(x) + len(t)} images {side[0]} × {side[1]}")


def _dequantised(grey: np.ndarray, levels: int) -> np.ndarray:
    """(grey + U[0, 1)) / levels with a fixed seed."""
    noise = np.random.default_rng(0).random(grey.shape)
    return ((grey + noise) / levels).astype(np.float32)
