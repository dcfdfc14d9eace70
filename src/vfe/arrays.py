"""Arrays of what a user gave, or an error that says which argument it was."""

from typing import Any

import numpy as np


def real_numbers(name: str, value: Any) -> np.ndarray:
    """The value in double precision; masked elements become NaN, which is how missing ones are said.

    **Raises:** `ValueError` that begins with `name`, for text, complex numbers and ragged lists.

    **Example:** `real_numbers("Process: states", [0.0, 1.0])`.
    """
    try:
        given = np.asanyarray(value)
        if given.dtype.kind not in "biufO":
            raise TypeError(f"it holds {given.dtype}")
        if isinstance(given, np.ma.MaskedArray):
            given = np.ma.filled(given.astype(float), np.nan)
        return np.asarray(given, float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: got {_short(value)}, no array of real numbers ({error}).") from error


def _short(value: Any) -> str:
    text = repr(value).replace("\n", " ")
    return text if len(text) < 80 else f"{text[:70]}… ({type(value).__name__})"
