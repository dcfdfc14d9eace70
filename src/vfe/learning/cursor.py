"""Where an iterable is: what it says of its own state, as text that a checkpoint can hold."""

import base64
import json
from typing import Any

import numpy as np

NEW_PASS = json.dumps("a new pass")
UNKNOWN = (
    "learn: resume=True wants to know where the data were, and the iterable does not say; wanted "
    "state_dict() and load_state_dict(state) on the iterable, or get_state() and set_state(state) on its "
    "iterator. An indexable source (vfe.Rows, or anything with len() and items by number) can always be "
    "resumed."
)


class Cursor:
    """The state of a pass through an iterable, in the ways loaders expose it.

    `state_dict()` and `load_state_dict(state)` on the iterable, or `get_state()` and `set_state(state)` on
    the iterator that `iter` makes of it.
    """

    def __init__(self, iterable: Any):
        self.iterable = iterable
        self.by_iterable = _has(iterable, "state_dict", "load_state_dict")

    def open(self, text: str | None = None) -> Any:
        """An iterator, at the place a text tells, or at the start of a pass.

        **Raises:** `ValueError` where there is a place to go to and the iterable cannot.
        """
        if text is None:
            return iter(self.iterable)
        if self.by_iterable:
            self.iterable.load_state_dict(decoded(text))
            return iter(self.iterable)
        found = iter(self.iterable)
        if not _has(found, "get_state", "set_state"):
            raise ValueError(UNKNOWN)
        if text != NEW_PASS:
            found.set_state(decoded(text))
        return found

    def tell(self, iterator: Any) -> str | None:
        """Where a pass is, None where the iterable does not say; `iterator` None: between two passes."""
        if self.by_iterable:
            return encoded(self.iterable.state_dict())
        if hasattr(self.iterable, "__next__"):
            iterator = self.iterable
        if iterator is None:
            return NEW_PASS
        return encoded(iterator.get_state()) if _has(iterator, "get_state", "set_state") else None


def _has(thing: Any, *names: str) -> bool:
    return all(callable(getattr(thing, name, None)) for name in names)


def encoded(state: Any) -> str:
    """A state as text: what JSON holds, and tuples, bytes and NumPy arrays.

    **Raises:** `TypeError` that names what cannot be stored.
    """
    return json.dumps(_marked(state))


def decoded(text: str) -> Any:
    """The state that `encoded` made a text of."""
    return _unmarked(json.loads(text))


def _marked(state: Any) -> Any:
    if state is None or isinstance(state, str | bool | int | float):
        return state
    if isinstance(state, list):
        return [_marked(s) for s in state]
    if isinstance(state, tuple):
        return {"tuple": [_marked(s) for s in state]}
    if isinstance(state, bytes):
        return {"bytes": base64.b64encode(state).decode()}
    if isinstance(state, dict):
        return {"dict": [[_marked(k), _marked(v)] for k, v in state.items()]}
    if hasattr(state, "__array__"):  # torch's tensors too; they come back as NumPy arrays
        array = np.asarray(state)
        if array.dtype.kind in "biufc":
            data = base64.b64encode(array.tobytes()).decode()
            return {"array": [data, array.dtype.str, list(array.shape)]}
    raise TypeError(
        f"learn: the state of the iterable holds a {type(state).__name__}; a checkpoint holds numbers, "
        "text, bytes, arrays, and lists, tuples and dictionaries of them."
    )


def _unmarked(state: Any) -> Any:
    if isinstance(state, list):
        return [_unmarked(s) for s in state]
    if not isinstance(state, dict):
        return state
    ((kind, value),) = state.items()
    if kind == "tuple":
        return tuple(_unmarked(v) for v in value)
    if kind == "bytes":
        return base64.b64decode(value)
    if kind == "array":
        data, dtype, shape = value
        return np.frombuffer(base64.b64decode(data), dtype).reshape(shape).copy()
    return {_unmarked(k): _unmarked(v) for k, v in value}
