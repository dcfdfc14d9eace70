"""Images and labels from an .npz file that may come from anywhere: checked before it is read."""

import lzma
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

NAMES = ("x_train", "y_train", "x_test", "y_test")
MOST_BYTES = 4 * 2**30
MOST_CLASSES = 1000
# What zipfile and NumPy raise on broken archives; NotImplementedError: a compression they do not know.
_DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    MemoryError,
    zlib.error,
    lzma.LZMAError,
)


def read_images(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays x_train, y_train, x_test and y_test of an .npz file; nothing in it is executed.

    **Returns:** x: (N, height, width) or (N, d), uint8, or floats in [0, 255]; y: (N,) integers from
    0. Other arrays in the file are left alone.

    **Raises:** `ValueError` saying what is wrong: no such file, no .npz, an array missing, a wrong
    type or shape, lengths that differ, values that are not finite or out of range, or more than 4 GiB.

    **Example:** `read_images("mnist.npz")["x_train"].shape`.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"--data {path}: there is no such file.")
    try:
        with zipfile.ZipFile(path) as archive:
            found = _read(archive)
    except _Wrong as error:
        raise ValueError(f"--data {path}: {error}") from None
    except zipfile.BadZipFile:
        raise ValueError(f"--data {path}: no .npz file; make one with np.savez_compressed.") from None
    except _DAMAGED as e:
        raise ValueError(f"--data {path}: the file is damaged ({e}).") from e
    try:
        _check(found)
    except _Wrong as error:
        raise ValueError(f"--data {path}: {error}") from None
    return found


class _Wrong(Exception):
    """What is wrong with the file, in words."""


def _read(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    listed = [i for i in archive.infolist() if i.filename.endswith(".npy")]
    entries = {i.filename.removesuffix(".npy"): i for i in listed}
    missing = [n for n in NAMES if n not in entries]
    if missing:
        raise _Wrong(f"it lacks {', '.join(missing)}; wanted {', '.join(NAMES)}, found {_list(entries)}.")
    headers = {n: _header(archive, entries[n]) for n in NAMES}
    size = sum(h[0] for h in headers.values())
    if size > MOST_BYTES:
        raise _Wrong(f"its arrays take {size / 2**30:.1f} GiB; at most {MOST_BYTES >> 30} GiB are read.")
    found = {}
    for n in NAMES:
        with archive.open(entries[n]) as stream:
            # The header was read once with a limit; here it is known to be of that size.
            found[n] = np.lib.format.read_array(stream, allow_pickle=False)  # pyright: ignore[reportArgumentType]
    return found


def _header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[int, tuple[int, ...], np.dtype[Any]]:
    """(bytes, shape, type) that an array declares; the size in the archive must agree."""
    name = entry.filename.removesuffix(".npy")
    with archive.open(entry) as stream:
        version = np.lib.format.read_magic(stream)  # pyright: ignore[reportArgumentType]
        if version != (1, 0):  # a later one may declare a header of gigabytes; numbers never need it
            raise _Wrong(f"{name} is of .npy version {version}; save it again with np.savez_compressed.")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)  # pyright: ignore[reportArgumentType]
        start = stream.tell()
    if dtype.hasobject:
        raise _Wrong(f"{name} holds Python objects, which are never loaded; wanted numbers.")
    if dtype.kind not in "uif":
        raise _Wrong(f"{name} has type {dtype}; wanted {'integers' if name[0] == 'y' else 'numbers'}.")
    size = math.prod(shape) * dtype.itemsize
    if size != entry.file_size - start:
        raise _Wrong(f"{name} declares {size} bytes but holds {entry.file_size - start}; it is damaged.")
    return size, shape, dtype


def _check(found: dict[str, np.ndarray]) -> None:
    for part in ("train", "test"):
        _check_images(f"x_{part}", found[f"x_{part}"])
        _check_labels(f"y_{part}", found[f"y_{part}"])
        x, y = found[f"x_{part}"], found[f"y_{part}"]
        if len(x) != len(y):
            raise _Wrong(f"x_{part} has {len(x)} images but y_{part} has {len(y)} labels.")
    x, t = found["x_train"], found["x_test"]
    if x.shape[1:] != t.shape[1:]:
        raise _Wrong(f"the images of x_train have shape {x.shape[1:]} and those of x_test {t.shape[1:]}.")
    if x.dtype != t.dtype:
        raise _Wrong(f"x_train has type {x.dtype} and x_test {t.dtype}; they must have one scale.")
    most = int(found["y_train"].max())
    if int(found["y_test"].max()) > most:
        raise _Wrong(f"y_test has the label {int(found['y_test'].max())}; y_train goes to {most}.")


def _check_images(name: str, x: np.ndarray) -> None:
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise _Wrong(f"{name} has type {x.dtype}; wanted uint8, or floats in [0, 1] or [0, 255].")
    if x.ndim not in (2, 3) or not x.size:
        raise _Wrong(f"{name} has shape {x.shape}; wanted (N, height, width) or (N, d), not empty.")
    if x.dtype.kind == "f":
        low, high = x.min(), x.max()  # NaN is passed on by both
        if not (np.isfinite(low) and np.isfinite(high)):
            raise _Wrong(f"{name} has values that are not finite.")
        if low < 0 or high > 255:
            raise _Wrong(f"{name} has values from {low:g} to {high:g}; wanted [0, 1] or [0, 255].")


def _check_labels(name: str, y: np.ndarray) -> None:
    if y.dtype.kind not in "ui":
        raise _Wrong(f"{name} has type {y.dtype}; wanted integers.")
    if y.ndim != 1 or not y.size:
        raise _Wrong(f"{name} has shape {y.shape}; wanted (N,), not empty.")
    if y.min() < 0 or y.max() >= MOST_CLASSES:
        raise _Wrong(f"{name} has labels from {y.min()} to {y.max()}; wanted 0 to {MOST_CLASSES - 1}.")


def _list(entries: dict[str, Any]) -> str:
    names = sorted(entries)
    return (", ".join(names[:8]) + (", …" if len(names) > 8 else "")) or "no arrays"
