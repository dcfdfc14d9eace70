"""Arrays of what a user gave, or an error that says which argument it was."""

from typing import Any

import numpy as np


def numbers(word: str, name: str, value: Any) -> np.ndarray:
    """The value in double precision.

    **Raises:** `ValueError` that begins with `word` and names the argument: for text, complex numbers,
    masked arrays.

    **Example:** `numbers("Process", "states", [0.0, 1.0])`.
    """
    try:
        given = np.asanyarray(value)
        if given.dtype.kind not in "biuf" or isinstance(given, np.ma.MaskedArray):
            raise TypeError(f"an array of {given.dtype}, {type(given).__name__}")
        return np.asarray(given, float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{word}: got {name}={value!r}; wanted real numbers ({error}).") from error
