"""A run that is not finished yet: its working folder, and what was asked for."""

import dataclasses
import fcntl
import json
import shlex
import shutil
from pathlib import Path
from typing import IO, Any

from vfe.results.arrays import read_text
from vfe.results.folders import check_free, discard, written_whole


@dataclasses.dataclass(frozen=True)
class Request:
    """What was asked for. `settings`: key=value texts that differ from the defaults; `data`: a path;
    `hashes`: SHA-256 by array."""

    name: str
    seed: int
    settings: tuple[str, ...]
    data: str
    out: str
    hashes: dict[str, str]

    def command(self, here: bool = False) -> str:
        """The line that asks for the same: in a folder of its own, or `here`, in the same.

        **Example:** `Request("digits", 0, (), "", "runs/a", {}).command()` is
        `"vfe run digits --seed 0"`.
        """
        words = ["vfe", "run", self.name, "--seed", str(self.seed)]
        for change in self.settings:
            words += ["--set", change]
        words += ["--data", self.data] if self.data else []
        return shlex.join([*words, "--out", self.out] if here else words)

    def must_agree(self, before: "Request") -> None:
        """Refuse to go on with something else. **Raises:** `ValueError` that says what differs."""
        if self.seed != before.seed:
            raise ValueError(f"--resume: the interrupted run has --seed {before.seed}, not {self.seed}.")
        if sorted(self.settings) != sorted(before.settings):
            theirs = " ".join(before.settings) or "the defaults"
            raise ValueError(f"--resume: the interrupted run has other settings: {theirs}.")
        if self.hashes != before.hashes:
            raise ValueError("--resume: the data are not those of the interrupted run.")


class Pending:
    """The working folder OUT.partial, held by one process at a time.

    The lock is the kernel's, so it goes with the process, however that ends.
    """

    def __init__(self, path: Path, request: Request):
        self.path = path
        self.request = request
        self._lock: IO[Any] | None = None

    @classmethod
    def open(cls, out: str | Path, request: Request, resume: bool) -> "Pending":
        """Make the working folder of a run, or take up the one of an interrupted run.

        **Raises:** `FileExistsError` where there is one and `resume` is not asked for;
        `BlockingIOError` where another process holds it.
        """
        path = partial(out)
        if not resume:
            if path.exists():
                raise FileExistsError(
                    f"an interrupted run is in {path}; go on with it (--resume), remove it, or choose "
                    "another folder (--out)."
                )
            check_free(path)
            with written_whole(path) as temporary:
                text = json.dumps(dataclasses.asdict(request), indent=1)
                (temporary / "request.json").write_text(text, encoding="utf-8")
        pending = cls(path, request)
        pending._hold()
        return pending

    def _hold(self) -> None:
        self._lock = (self.path / "lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise BlockingIOError(f"another process is working in {self.path}.") from None

    def __enter__(self) -> "Pending":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._lock is not None:
            self._lock.close()
        if self.path.exists() and not self.has_checkpoint:
            shutil.rmtree(self.path, ignore_errors=True)

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is anything to go on from."""
        return any(self.path.rglob("checkpoint-*"))

    def finish(self) -> None:
        """Remove the working folder: the run folder is in place."""
        discard(self.path)


def find_pending(out: str | Path) -> Pending:
    """The interrupted run whose folder is to be `out`; nothing is locked.

    **Raises:** `FileNotFoundError` where there is none; `ValueError` where it is damaged.
    """
    path = partial(out)
    if not path.is_dir():
        raise FileNotFoundError(f"there is no interrupted run to resume in {path}.")
    try:
        found = json.loads(read_text(path / "request.json"))
        request = Request(**{**found, "settings": tuple(found["settings"])})
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove it and start anew.") from error
    return Pending(path, request)


def partial(out: str | Path) -> Path:
    """The working folder that goes with a run folder."""
    out = Path(out).expanduser()
    return out.with_name(out.name + ".partial")
