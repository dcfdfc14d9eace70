"""Small things that several test modules use; nothing here calls the code under test to get a number."""

import functools
from pathlib import Path

import numpy as np
import optax

REFERENCE = Path(__file__).parent / "reference"


@functools.cache
def load(name: str) -> dict[str, np.ndarray]:
    """The arrays of one reference file, by its path below tests/reference without the ending."""
    with np.load(REFERENCE / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def assert_close(got, want, tolerance: float, what: str = "") -> None:
    """The largest difference, relative to the largest element wanted (or to one, where that is less)."""
    got, want = np.asarray(got, dtype=np.float64), np.asarray(want, dtype=np.float64)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, wanted {want.shape}"
    scale = max(1.0, float(np.abs(want).max(initial=0.0)))
    worst = float(np.abs(got - want).max(initial=0.0))
    assert worst <= tolerance * scale, f"{what}: off by {worst:.3g}, allowed {tolerance * scale:.3g}"


def normal_energy(x, mean, variance) -> np.ndarray:
    """−ln N(x; mean, variance), elementwise."""
    return 0.5 * np.log(2 * np.pi * np.asarray(variance)) + 0.5 * (np.asarray(x) - mean) ** 2 / variance


def gaussian_energy(x, mean, covariance) -> float:
    """−ln N(x; mean, covariance) of one vector."""
    residual = np.atleast_1d(x) - np.atleast_1d(mean)
    covariance = np.atleast_2d(covariance)
    _, log_det = np.linalg.slogdet(covariance)
    n = residual.size
    return 0.5 * float(residual @ np.linalg.solve(covariance, residual) + log_det + n * np.log(2 * np.pi))


def cosine(rate, epochs, steps=1):
    """Adam with a rate that falls to zero over all steps."""
    return optax.adam(optax.cosine_decay_schedule(rate, epochs * steps))
