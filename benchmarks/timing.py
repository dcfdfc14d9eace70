"""Times that can be compared on a busy machine: interleaved blocks, and ratios within each block."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def interleaved(functions: dict[str, Callable[[], Any]], blocks: int) -> dict[str, list[float]]:
    """Seconds of every function in every block, each block in another order."""
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        jax.block_until_ready(function())
    for _ in range(blocks):
        for name in rng.permutation(list(functions)):
            start = time.perf_counter()
            jax.block_until_ready(functions[name]())
            found[name].append(time.perf_counter() - start)
    return found


def ratio(seconds: list[float], base: list[float]) -> tuple[float, float, float]:
    """The quartiles, from the lowest to the highest, of the ratio of two functions' times by block."""
    low, middle, high = np.quantile(np.divide(seconds, base), [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)
