"""Arrays of what a user gave, or an error that says which argument it was."""

from typing import Any

import numpy as np


def numbers(word: str, name: str, value: Any) -> np.ndarray:
    """The value in double precision.

    **Raises:** `ValueError` that begins with `word` and names the argument.

    **Example:** `numbers("Process", "states", [0.0, 1.0])`.
    """
    try:
        return np.asarray(value, float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{word}: got {name}={value!r}; wanted numbers.") from error
