"""Folders that are written whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


def check_free(folder: str | Path) -> Path:
    """Refuse a folder that exists, or a place that cannot be written, before anything is computed.

    Parents are made where they are missing.

    **Raises:** `FileExistsError`, `NotADirectoryError` or `PermissionError`, saying what to do.

    **Example:** `check_free("runs/first")`.
    """
    folder = Path(folder).expanduser().absolute()
    if os.path.lexists(folder):
        raise FileExistsError(
            f"{folder} exists, and a run never overwrites another; choose another folder (--out) or "
            "remove this one."
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        Path(tempfile.mkdtemp(prefix=".vfe-", dir=folder.parent)).rmdir()
    except OSError as error:
        raise _unwritable(folder.parent, error) from error
    return folder


def _unwritable(place: Path, error: OSError) -> OSError:
    kind = next(
        (k for k in (PermissionError, NotADirectoryError, FileExistsError) if isinstance(error, k)), OSError
    )
    return kind(
        f"{place} cannot be written ({error.strerror or error}); choose another folder (--out) or "
        "change its permissions."
    )


@contextlib.contextmanager
def written_whole(folder: str | Path) -> Iterator[Path]:
    """A temporary sibling to write in; it is synced to disk and renamed to `folder` at the end.

    If the block raises, nothing is left; if the process is killed, only a hidden `.tmp` sibling is.

    **Example:** `with written_whole("runs/first") as f: (f / "a.txt").write_text("a")`.
    """
    folder = check_free(folder)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        temporary.chmod(0o755)
        yield temporary
        sync(temporary)
        if os.path.lexists(folder):  # another process was quicker
            check_free(folder)
        os.rename(temporary, folder)
        _sync_one(folder.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def discard(folder: Path) -> None:
    """Remove a folder so that a reader never meets half of it: rename first, then delete."""
    doomed = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    os.rename(folder, doomed / folder.name)
    shutil.rmtree(doomed, ignore_errors=True)


def sync(folder: Path) -> None:
    """Flush every file and folder below to disk."""
    for place, _, files in os.walk(folder):
        for name in files:
            _sync_one(Path(place) / name)
        _sync_one(Path(place))


def _sync_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
