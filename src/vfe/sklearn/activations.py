"""Nonlinearities by name, as functions of a module, so that fitted estimators can be pickled."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def gelu(z: Array) -> Array:
    """z Φ(z)."""
    return jax.nn.gelu(z)


def identity(z: Array) -> Array:
    """z itself."""
    return z


def logistic(z: Array) -> Array:
    """1 / (1 + exp(−z))."""
    return jax.nn.sigmoid(z)


def relu(z: Array) -> Array:
    """max(0, z)."""
    return jax.nn.relu(z)


def silu(z: Array) -> Array:
    """z / (1 + exp(−z))."""
    return jax.nn.silu(z)


def tanh(z: Array) -> Array:
    """tanh z."""
    return jnp.tanh(z)


ACTIVATIONS = {f.__name__: f for f in (gelu, identity, logistic, relu, silu, tanh)}


def activation_of(value: Any) -> Callable[..., Any]:
    """The function of this name, or the callable itself.

    **Raises:** `ValueError` for any other value, with the names.
    """
    if isinstance(value, str) and value in ACTIVATIONS:
        return ACTIVATIONS[value]
    if callable(value):
        return value
    raise ValueError(
        f"activation: got {value!r}; wanted one of {sorted(ACTIVATIONS)}, or a function of an array."
    )
