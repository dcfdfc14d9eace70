"""Data that do not come as arrays on the device: read some rows at a time, or batch after batch."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from vfe.conditioning import Masked


class Rows:
    """Arrays that stay in host memory or on disk; minibatches are read from them as they are needed.

    A mapping of arrays given to `vfe.learn` is put on the device whole, once, which is the fastest where it
    fits. Inside `vfe.Rows` the same arrays stay where they are.

    **Arguments:** `arrays`: node name → array with observations along its leading axis: NumPy arrays,
    `np.memmap`, or a `vfe.masked` pair of these.

    **Raises:** `ValueError` where the arrays differ in length.

    **Example:** `vfe.learn(model, vfe.Rows({"x": np.load("x.npy", mmap_mode="r")}), keep_beliefs=False)`.
    """

    def __init__(self, arrays: Mapping[str, Any]):
        if not isinstance(arrays, Mapping) or not arrays:
            raise ValueError(f'Rows: got {arrays!r}; wanted a dictionary of arrays, such as {{"x": x}}.')
        self.arrays = dict(arrays)
        for name, array in self.arrays.items():
            if not all(np.ndim(a) for a in _parts(array)):
                raise ValueError(f"Rows: {name!r} is a number; wanted an array with a row per observation.")
            if not all(hasattr(a, "dtype") and hasattr(a, "shape") for a in _parts(array)):
                raise ValueError(
                    f"Rows: {name!r} is a {type(array).__name__}; wanted an array; write np.asarray(...)."
                )
        counts = {name: len(_parts(array)[0]) for name, array in self.arrays.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"Rows: the arrays have {counts} rows; wanted equally many.")
        self.count = next(iter(counts.values()))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> dict[str, Any]:
        return {name: _each(lambda a: np.asarray(a[index]), array) for name, array in self.arrays.items()}


class Batches:
    """Minibatches from any iterable of mappings (node name → array), taken as they come.

    `vfe.learn` does this to an iterable by itself; write it out for a list of minibatches (a list by
    itself is an indexable source of single observations), or to say how long an epoch is.

    **Arguments:** `iterable`: a loader, a generator, a list, …; `per_epoch`: how many minibatches make an
    epoch (by default one pass; needed where the iterable has no end). A pass that ends within an epoch
    is followed by another one.

    **Example:** `vfe.learn(model, vfe.Batches(stream, per_epoch=1000), keep_beliefs=False)`.
    """

    def __init__(self, iterable: Iterable[Mapping[str, Any]], per_epoch: int | None = None):
        if isinstance(iterable, Mapping) or not isinstance(iterable, Iterable):
            raise TypeError(f"Batches: got a {type(iterable).__name__}; wanted an iterable of minibatches.")
        if per_epoch is not None and per_epoch < 1:
            raise ValueError(f"Batches: per_epoch={per_epoch}; wanted at least 1.")
        self.iterable = iterable
        self.per_epoch = per_epoch

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self.iterable)


def is_source(observed: Any) -> bool:
    """Whether data are indexable: they have a length, and items by number."""
    both = hasattr(observed, "__len__") and hasattr(observed, "__getitem__")
    return both and not isinstance(observed, Batches)


class Reader:
    """Rows of an indexable source, by index arrays, whichever way it wants to be asked.

    A source that answers an index array as it answers each of the numbers (compared once, on two items) is
    asked for a minibatch at once, any other one item after the other.
    """

    def __init__(self, source: Any):
        self.source = source
        self.count = len(source)
        if self.count == 0:
            raise ValueError("learn: the source is empty (its len() is 0); no observations.")
        self.first = self._item(0)
        self.shapes = {name: [np.shape(a) for a in _parts(v)] for name, v in self.first.items()}
        self.at_once = isinstance(source, Rows) or self._answers_arrays()

    def __call__(self, index: np.ndarray) -> dict[str, Any]:
        """The observations of an index array, with one leading axis."""
        if not self.at_once:
            return self._stacked(index)
        found = self._mapping(self.source[index], "an index array")
        for name, value in found.items():
            wanted = [(len(index), *s) for s in self.shapes[name]]
            got = [np.shape(a) for a in _parts(value)]
            if got != wanted:
                raise ValueError(
                    f"learn: asked for {len(index)} items, the source gave {name!r} of shape {got[0]}; "
                    f"wanted {wanted[0]}, as its first item says."
                )
        return found

    def _stacked(self, index: np.ndarray) -> dict[str, Any]:
        items = [self._item(int(i)) for i in index]
        for i, item in zip(index, items, strict=True):
            for name, value in item.items():
                got = [np.shape(a) for a in _parts(value)]
                if got != self.shapes[name]:
                    raise ValueError(
                        f"learn: item {i} of the source has {name!r} of shape {got[0]}, and item 0 of "
                        f"shape {self.shapes[name][0]}; wanted the same shape in every item."
                    )
        return {name: _each(lambda *a: np.stack(a), *[item[name] for item in items]) for name in self.first}

    def _item(self, i: int) -> dict[str, Any]:
        return self._mapping(self.source[i], f"item {i}")

    def _mapping(self, found: Any, what: str) -> dict[str, Any]:
        if not isinstance(found, Mapping):
            raise TypeError(
                f"learn: {what} of the source is a {type(found).__name__}; wanted a mapping from node "
                'names to arrays, such as {"x": x[i], "y": y[i]}.'
            )
        names = set(self.first) if hasattr(self, "first") else set(found)
        if set(found) != names:
            raise ValueError(
                f"learn: {what} of the source has {sorted(found)}, and item 0 {sorted(names)}; wanted the "
                "same nodes in every item."
            )
        return {name: _each(np.asarray, value) for name, value in found.items()}

    def _answers_arrays(self) -> bool:
        # Backwards, since some sources (HDF5) want rising indices and minibatches do not rise.
        index = np.asarray([min(1, self.count - 1), 0])
        try:
            found = self._mapping(self.source[index], "an index array")
        except Exception:  # whatever a source that knows no index arrays raises
            return False
        wanted = self._stacked(index)
        return all(
            a.shape == b.shape
            and a.dtype == b.dtype
            and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
            for name in wanted
            for a, b in zip(_parts(found[name]), _parts(wanted[name]), strict=True)
        )


def _each(function: Any, *values: Any) -> Any:
    """A function of arrays, on the values and on the masks of pairs made by `vfe.masked`."""
    if isinstance(values[0], Masked):
        both = [(v.values, v.present) for v in values]
        return Masked(*(function(*parts) for parts in zip(*both, strict=True)))
    return function(*values)


def _parts(value: Any) -> list[Any]:
    return [value.values, value.present] if isinstance(value, Masked) else [value]
