"""Settings of learning in words that are the same in every process: what a checkpoint says of its run."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np

MOST_SHOWN = 8


def described(setting: Any) -> str:
    """A solver, a family of beliefs, an expectation or any other setting, with what it is made of.

    Functions are told apart by their names, and large arrays by their shapes.
    """
    if setting is None or isinstance(setting, str | bool | int | float):
        return repr(setting)
    if isinstance(setting, type):
        return setting.__qualname__
    if eqx.is_array(setting) or isinstance(setting, np.ndarray | np.generic):
        return _array(setting)
    if isinstance(setting, functools.partial):
        return (
            f"partial({described(setting.func)}, {described(setting.args)}, {described(setting.keywords)})"
        )
    if dataclasses.is_dataclass(setting):
        fields = ((f.name, getattr(setting, f.name)) for f in dataclasses.fields(setting))
        return f"{type(setting).__qualname__}({', '.join(f'{n}={described(v)}' for n, v in fields)})"
    if isinstance(setting, tuple | list):
        inside = ", ".join(described(s) for s in setting)
        name = type(setting).__qualname__
        return f"({inside})" if name in ("tuple", "list") else f"{name}({inside})"
    if isinstance(setting, Mapping):
        return f"{{{', '.join(f'{k}: {described(v)}' for k, v in setting.items())}}}"
    return getattr(setting, "__qualname__", type(setting).__qualname__)


def described_state(state: Any) -> str:
    """The structure of an optimiser's state: which transformations it is made of, not their numbers."""
    if isinstance(state, Mapping):
        return f"{{{', '.join(f'{k}: {described_state(v)}' for k, v in state.items())}}}"
    fields = getattr(state, "_fields", None)
    if fields is not None:
        inside = (f"{n}={described_state(v)}" for n, v in zip(fields, state, strict=True))
        return f"{type(state).__name__}({', '.join(inside)})"
    if isinstance(state, tuple | list):
        return f"({', '.join(described_state(s) for s in state)})"
    return "…"


def _array(array: Any) -> str:
    if isinstance(array, jax.Array) and jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    found = np.asarray(array)
    return repr(found.tolist()) if found.size <= MOST_SHOWN else f"{found.dtype}{list(found.shape)}"
