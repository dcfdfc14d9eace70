"""What the makers of worlds are given, checked."""

import math
from typing import Any

import numpy as np


def check_probability(maker: str, **given: Any) -> None:
    """**Raises:** `ValueError` for no probability. **Example:** `check_probability("grid", slip=0.1)`."""
    for name, value in given.items():
        if not _is_number(value) or not 0 <= value <= 1:
            raise ValueError(f"{maker}: got {name}={value!r}; wanted a probability, 0 to 1.")


def check_finite(maker: str, **given: Any) -> None:
    """**Raises:** `ValueError` for no finite number. **Example:** `check_finite("grid", reward=3.0)`."""
    for name, value in given.items():
        if not _is_number(value) or not math.isfinite(value):
            raise ValueError(f"{maker}: got {name}={value!r}; wanted a log-preference in nats.")


def check_whole(maker: str, least: int, **given: Any) -> None:
    """**Raises:** `ValueError` for no whole number, or one below `least`.

    **Example:** `check_whole("grid", 1, rows=3)`.
    """
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{maker}: got {name}={value!r}; wanted a whole number, {least} or more.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
