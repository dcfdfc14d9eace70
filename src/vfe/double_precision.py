"""float64 for people who never switched it on."""

from typing import Any

import jax
import numpy as np
from jax.core import Tracer


def released(tree: Any) -> Any:
    """What was computed under `jax.enable_x64(True)`, fit to be used outside of it.

    Where x64 is off, arithmetic on a float64 array of JAX falls back to float32; there, concrete float64
    arrays become NumPy's. Inside a transformation, and where x64 is on, nothing changes.
    """
    if jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        return tree

    def one(leaf: Any) -> Any:
        wide = isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer) and leaf.dtype == np.float64
        return np.asarray(leaf) if wide else leaf

    return jax.tree.map(one, tree)
