"""The arrays of a pytree, in a folder: no pickle, no code, and checked against what is expected.

`leaves.json` lists every leaf by its path (shape, dtype, plain numbers with their value); `arrays/`
is an Orbax checkpoint of the arrays, and `checksums.json` the CRC-32 of each, since a flipped bit inside an
array would else be read as another number. What a pytree is made of (classes, functions) is never stored:
reading needs a pytree of the same structure.
"""

import json
import re
import zlib
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

LEAVES, ARRAYS, CHECKSUMS = "leaves.json", "arrays", "checksums.json"
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
    (folder / CHECKSUMS).write_text(json.dumps({n: _checksum(a) for n, a in arrays.items()}))
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

    **Raises:** `OtherStructureError` that names the leaves where path, shape or dtype differ; `ValueError`
    where the files are damaged.
    """
    stored = _listed(folder)
    wanted = _stored_leaves(like)
    expected = describe_leaves(like)
    differences = _differences(stored, expected)
    if differences:
        raise OtherStructureError(folder, differences)
    targets = {}
    for index, (_, leaf) in enumerate(wanted):
        if not _is_number(leaf) and np.prod(leaf.shape, dtype=int):
            spec = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
            targets[str(index)] = np.broadcast_to(np.zeros((), spec.dtype), spec.shape)
    arrays = _restore(folder / ARRAYS, targets, [path for path, _ in wanted]) if targets else {}
    sums = json.loads(read_text(folder / CHECKSUMS)) if targets else {}
    for number, array in arrays.items():
        if sums.get(number) != _checksum(array):
            raise ValueError(
                f"{folder} is damaged: {wanted[int(number)][0]} is not what was written (its checksum "
                "differs)."
            )
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


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data)


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


def _differences(stored: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> list[str]:
    """What is not as expected, leaf by leaf, in words. The value of a plain number is free."""
    there, here = {e["path"]: e for e in stored}, {e["path"]: e for e in wanted}
    found = [f"has one more leaf: {_say(e)}" for path, e in there.items() if path not in here]
    found += [f"lacks {_say(e)}" for path, e in here.items() if path not in there]
    for path in (p for p in there if p in here):
        if {**there[path], "value": 0} != {**here[path], "value": 0}:
            hint = ""
            if {there[path].get("dtype"), here[path].get("dtype")} == {"float32", "float64"}:
                hint = " (set jax_enable_x64 as the run had it: 'x64' in config.json)"
            found.append(f"holds {_say(there[path])}, wanted {_say(here[path])}{hint}")
    if not found and [e["path"] for e in stored] != [e["path"] for e in wanted]:
        found.append("lists the same leaves in another order")
    return found


class OtherStructureError(ValueError):
    """What is stored is not of the structure asked for; `differences`: how, leaf by leaf."""

    def __init__(self, folder: Path, differences: list[str]):
        shown = differences[:5] + ([f"and {len(differences) - 5} more"] if len(differences) > 5 else [])
        self.differences = shown
        super().__init__(
            f"{folder} {'; '.join(shown)}; build `like` with the settings that the run had (see its "
            "config.json)."
        )


def _say(entry: dict[str, Any] | None) -> str:
    assert entry is not None
    if "kind" in entry:
        return f"the {entry['kind']} {entry['path']}"
    return f"{entry['path']} of shape {tuple(entry.get('shape', ()))} and type {entry.get('dtype')}"


def _checkpointer() -> Any:
    """Orbax, without its asynchronous part: when `save` returns, everything is written.

    Of several processes only this one takes part; they may all read, but never wait for each other here.
    """
    import orbax.checkpoint as ocp

    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"vfe-{me}"
    )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


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
