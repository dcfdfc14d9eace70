"""Tables of probabilities, checked."""

from typing import Any

import numpy as np

from vfe.arrays import real_numbers

TOLERANCE = 1e-6


def probabilities(name: str, value: Any) -> np.ndarray:
    """A table in double precision, whose first axis is what it is a distribution of.

    **Raises:** `ValueError` that names the table, and the column with its sum, for numbers that are
    negative, not finite, or do not sum to one over the first axis.

    **Example:** `probabilities("A[0]", [[0.9, 0.2], [0.1, 0.8]])`.
    """
    table = real_numbers(name, value)
    if table.ndim < 1 or not table.size:
        raise ValueError(f"{name}: got shape {table.shape}; wanted probabilities along the first axis.")
    if not np.isfinite(table).all() or (table < 0).any():
        where = tuple(int(i) for i in np.argwhere(~(np.isfinite(table) & (table >= 0)))[0])
        raise ValueError(f"{name}: got {table[where]} at {where}; wanted probabilities, zero or more.")
    sums = table.sum(0)
    if (np.abs(sums - 1) > TOLERANCE).any():
        where = tuple(int(i) for i in np.argwhere(np.abs(sums - 1) > TOLERANCE)[0])
        raise ValueError(
            f"{name}: column {where} sums to {sums[where]:.6g}; wanted 1 over the first axis (divide by "
            "table.sum(0))."
        )
    return table / sums
