"""Checkpoints of a computation in progress, safe against a kill at any moment."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vfe.results.arrays import OtherStructureError, read_arrays, read_text, write_arrays
from vfe.results.folders import discard, written_whole

KEPT = 2
_NAME = re.compile(r"checkpoint-(\d{8,})")


def save_checkpoint(folder: str | Path, step: int, arrays: Any, metadata: Mapping[str, Any]) -> Path:
    """Store a pytree as the newest checkpoint of a folder, and keep the one before.

    Each checkpoint is written under a temporary name, synced, and renamed, so that `kill -9` at any
    moment leaves the old or the new one complete. One process at a time may write in a folder.

    **Arguments:** `step`: how far the computation has come; `arrays`: a pytree of arrays, plain
    numbers and typed random keys; `metadata`: anything that JSON can hold.

    **Raises:** `TypeError` for metadata that JSON cannot hold.

    **Example:** `save_checkpoint("work", 10, {"w": jnp.zeros(3)}, {"epoch": 2})`.
    """
    folder = Path(folder)
    text = json.dumps({"step": int(step), "metadata": dict(metadata)})
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".checkpoint-*.tmp"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    before = _complete(folder)
    number = 1 + (int(before[-1].name.removeprefix("checkpoint-")) if before else 0)
    new = folder / f"checkpoint-{number:08d}"
    with written_whole(new) as temporary:
        write_arrays(temporary / "tree", arrays)
        (temporary / "checkpoint.json").write_text(text)
    for old in before[: len(before) + 1 - KEPT]:
        discard(old)
    return new


def load_checkpoint(folder: str | Path, like: Any) -> tuple[int, Any, dict[str, Any]] | None:
    """The newest complete checkpoint of a folder: (step, pytree, metadata); None where there is none.

    **Raises:** `ValueError` that names the leaves where `like` has another structure.

    **Example:** `load_checkpoint("work", like={"w": jnp.zeros(3)})`.
    """
    found = peek_checkpoint(folder)
    if found is None:
        return None
    newest = _complete(Path(folder))[-1]
    try:
        return found[0], read_arrays(newest / "tree", like), found[1]
    except OtherStructureError:
        raise
    except ValueError as error:
        raise ValueError(f"{newest} is damaged ({error}); remove it to use the one before.") from error


def peek_checkpoint(folder: str | Path) -> tuple[int, dict[str, Any]] | None:
    """Step and metadata of the newest complete checkpoint of a folder; None where there is none.

    **Raises:** `ValueError` where it is damaged.

    **Example:** `peek_checkpoint("work")`.
    """
    complete = _complete(Path(folder))
    if not complete:
        return None
    newest = complete[-1]
    try:
        found = json.loads(read_text(newest / "checkpoint.json"))
        return int(found["step"]), dict(found["metadata"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{newest} is damaged ({error}); remove it to use the one before.") from error


def _complete(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first: a name without `.tmp` is only given when complete."""
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if _NAME.fullmatch(p.name)), key=lambda p: int(p.name[11:]))
