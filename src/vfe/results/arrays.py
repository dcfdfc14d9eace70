"""The arrays of a pytree, in a folder: no pickle, no code, and checked against what is expected.

`leaves.json` lists every leaf by its path (shape, dtype, plain numbers with their value); `arrays/`
is an Orbax checkpoint of the arrays. What a pytree is made of (classes, functions) is never stored:
reading needs a pytree of the same structure.
"""

import json
import re
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

LEAVES, ARRAYS = "leaves.json", "arrays"
MOST_TEXT = 64 * 2**20


def describe_leaves(tree: Any) -> list[dict[str, Any]]:
    """Path, shape and dtype of every array of a pytree, and path and value of every plain number.

    **Example:** `describe_leaves({"a": np.zeros(3)})` is
    `[{"path": "['a']", "shape": [3], "dtype": "float64"}]`.
    """
    found = []
    for path, leaf in _stored_leaves(tree):
        if _is_number(leaf):
            value = leaf if not isinstance(leaf, complex) else [leaf.real, leaf.imag]
            found.append({"path": path, "kind": type(leaf).__name__, "value": value})
        else:
            found.append({"path": path, "shape": list(leaf.shape), "dtype": str(leaf.dtype)})
    return found


def write_arrays(folder: Path, tree: Any) -> None:
    """Store the arrays and plain numbers of a pytree in a new folder.

    Typed random keys are stored as their data. Call it inside `folders.written_whole`.
    """
    folder.mkdir()
    (folder / LEAVES).write_text(json.dumps(describe_leaves(tree), indent=1))
    arrays = {}
    for index, (_, leaf) in enumerate(_stored_leaves(tree)):
        if not _is_number(leaf) and np.prod(leaf.shape, dtype=int):  # Orbax refuses empty arrays
            arrays[str(index)] = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
    if arrays:  # ... and empty trees
        checkpointer = _checkpointer()
        try:
            checkpointer.save((folder / ARRAYS).absolute(), arrays)
        finally:
            checkpointer.close()


def read_arrays(folder: Path, like: Any) -> Any:
    """`like` with its arrays and plain numbers replaced by the stored ones.

    **Arguments:** `like`: a pytree of the structure that was stored; its arrays may be
    `jax.ShapeDtypeStruct`s.

    **Raises:** `ValueError` that names the leaf where path, shape or dtype differ, or where the files
    are damaged.
    """
    stored = _listed(folder)
    wanted = _stored_leaves(like)
    expected = describe_leaves(like)
    for index in range(max(len(stored), len(expected))):
        _check(folder, *(x[index] if index < len(x) else None for x in (stored, expected)))
    targets = {}
    for index, (_, leaf) in enumerate(wanted):
        if not _is_number(leaf) and np.prod(leaf.shape, dtype=int):
            spec = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
            targets[str(index)] = np.broadcast_to(np.zeros((), spec.dtype), spec.shape)
    arrays = _restore(folder / ARRAYS, targets, [path for path, _ in wanted]) if targets else {}
    new = [
        _number(entry)
        if _is_number(leaf)
        else _as_array(arrays.get(str(index), np.zeros(leaf.shape, _plain(leaf))), leaf)
        for index, ((_, leaf), entry) in enumerate(zip(wanted, stored, strict=True))
    ]
    leaves, structure = jax.tree.flatten(like)
    values = iter(new)
    return jax.tree.unflatten(structure, [next(values) if _is_stored(leaf) else leaf for leaf in leaves])


def read_text(path: Path) -> str:
    """The text of a small file. **Raises:** `ValueError` where it is missing, too large or no text."""
    try:
        if path.stat().st_size > MOST_TEXT:
            raise ValueError(f"{path} is larger than {MOST_TEXT >> 20} MiB; it was not written by vfe.")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}).") from error


def _stored_leaves(tree: Any) -> list[tuple[str, Any]]:
    return [
        (jax.tree_util.keystr(path), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if _is_stored(leaf)
    ]


def _is_stored(leaf: Any) -> bool:
    return _is_number(leaf) or isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)


def _is_number(leaf: Any) -> bool:
    return type(leaf) in (bool, int, float, complex)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: Any) -> Any:
    return np.uint32 if _is_key(leaf) else leaf.dtype


def _number(entry: dict[str, Any]) -> Any:
    kind, value = entry["kind"], entry["value"]
    return complex(*value) if kind == "complex" else {"bool": bool, "int": int, "float": float}[kind](value)


def _as_array(array: np.ndarray, leaf: Any) -> Any:
    if _is_key(leaf):
        if not array.size:
            return leaf
        impl = jax.random.key_impl(jnp.empty((), leaf.dtype))
        return jax.random.wrap_key_data(jnp.asarray(array), impl=impl)
    if isinstance(leaf, np.generic):
        return array[()]
    return array if isinstance(leaf, np.ndarray) else jnp.asarray(array)


def _listed(folder: Path) -> list[dict[str, Any]]:
    try:
        listed = json.loads(read_text(folder / LEAVES))
    except ValueError as error:
        raise ValueError(f"{folder} holds no stored arrays: {error}") from error
    if not isinstance(listed, list) or not all(isinstance(e, dict) and "path" in e for e in listed):
        raise ValueError(f"{folder / LEAVES} is not a list of leaves; the folder is damaged.")
    return listed


def _check(folder: Path, stored: dict[str, Any] | None, wanted: dict[str, Any] | None) -> None:
    """Refuse a leaf that is not what was stored. The value of a plain number is free."""
    if stored is None or wanted is None:
        side, entry = ("lacks", wanted) if stored is None else ("has one more leaf:", stored)
        raise ValueError(
            f"{folder} {side} {_say(entry)}; build `like` with the settings that the run had (see "
            "its config.json)."
        )
    if {**stored, "value": 0} != {**wanted, "value": 0}:
        same = stored["path"] == wanted["path"]
        hint = ""
        if same and {stored.get("dtype"), wanted.get("dtype")} == {"float32", "float64"}:
            hint = " Set jax_enable_x64 as the run had it ('x64' in config.json)."
        raise ValueError(
            f"{folder} holds {_say(stored)}, but `like` has {_say(wanted)}; build `like` with the "
            f"settings that the run had (see its config.json).{hint}"
        )


def _say(entry: dict[str, Any] | None) -> str:
    assert entry is not None
    if "kind" in entry:
        return f"the {entry['kind']} {entry['path']}"
    return f"{entry['path']} of shape {tuple(entry.get('shape', ()))} and type {entry.get('dtype')}"


def _checkpointer() -> Any:
    """Orbax, without its asynchronous part: when `save` returns, everything is written."""
    import orbax.checkpoint as ocp

    return ocp.Checkpointer(ocp.StandardCheckpointHandler())


def _restore(folder: Path, targets: dict[str, Any], paths: list[str]) -> dict[str, np.ndarray]:
    import orbax.checkpoint as ocp

    checkpointer = _checkpointer()
    try:
        # Orbax fits shape and type to the target without a word, so what is there is compared first.
        there = dict(checkpointer.metadata(folder.absolute()).item_metadata.tree)
        for key, target in targets.items():
            found = there.pop(key, None)
            if found is None or found.shape != target.shape or found.dtype != target.dtype:
                raise ValueError(f"{folder} does not agree with {LEAVES} about {paths[int(key)]}.")
        if there:
            raise ValueError(f"{folder} holds arrays that {LEAVES} does not list: {sorted(there)}.")
        return checkpointer.restore(folder.absolute(), args=ocp.args.StandardRestore(targets))
    except Exception as error:
        raise ValueError(f"{folder} is damaged or incomplete ({error}).") from error
    finally:
        checkpointer.close()


def structure_text(tree: Any) -> str:
    """A pytree as indented text, arrays by shape and type: for a person to read."""
    return re.sub(r" at 0x[0-9a-f]+", "", eqx.tree_pformat(tree, width=100))
