"""What a job of the gallery is, what it is given, and what it hands back."""

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vfe.results.checkpoint import load_checkpoint, save_checkpoint
from vfe.results.claims import Claim

if TYPE_CHECKING:
    import xarray as xr

    from vfe.results.report import Report


class Progress(Protocol):
    """How far a job has come. Phases follow one another; each is started and done."""

    def start(self, description: str, total: int | None = None) -> None:
        """A new phase of `total` steps (None: unknown)."""
        ...

    def step(self, n: int = 1, **numbers: float) -> None:
        """`n` more steps are done; `numbers` are shown, such as F in nats."""
        ...

    def done(self) -> None:
        """The phase is over."""
        ...


class Workspace:
    """The folder in which a job keeps its checkpoints until the run is finished.

    `path` may hold further checkpoint folders: `vfe.learn(..., checkpoint=folder.path / "learning")`.

    **Example:** `folder.save(step, {"model": arrays}, {"epoch": 3})`.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def save(self, step: int, arrays: Any, metadata: Mapping[str, Any] | None = None) -> None:
        """Store a checkpoint; see `vfe.results.checkpoint.save_checkpoint`."""
        save_checkpoint(self.path / "checkpoints", step, arrays, metadata or {})

    def load(self, like: Any) -> tuple[int, Any, dict[str, Any]] | None:
        """The newest checkpoint, or None; see `vfe.results.checkpoint.load_checkpoint`."""
        return load_checkpoint(self.path / "checkpoints", like)


@dataclasses.dataclass(frozen=True)
class JobResult:
    """What a job hands back, to be written into the run folder.

    `model`: any pytree; `dataset`: the numbers; `figures`: matplotlib figures by file name;
    `report`: the page; `headline`: (label, value) pairs that the command line prints; `claims`: what was
    checked, with measurements and bounds.
    """

    model: Any
    dataset: "xr.Dataset"
    figures: Mapping[str, Any]
    report: "Report"
    headline: Sequence[tuple[str, str]] = ()
    claims: Sequence[Claim] = ()
    data: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


class JobModule(Protocol):
    """The module of a job: settings with defaults, and what to do."""

    Settings: type

    def run(
        self,
        settings: Any,
        *,
        seed: int,
        data: dict[str, np.ndarray] | None,
        folder: Workspace,
        progress: Progress,
        resume: bool,
    ) -> JobResult:
        """Do it; with `resume`, go on from `folder.load(...)` where there is a checkpoint."""
        ...


@dataclasses.dataclass(frozen=True)
class Job:
    """A job by name. `seconds`: about how long it takes on two cores; `data`: what --data may hold
    (empty: it takes none)."""

    name: str
    summary: str
    module: str
    seconds: float
    data: str = ""

    def load(self) -> JobModule:
        """Import the job's module. **Raises:** `ValueError` where a package it needs is missing."""
        try:
            return importlib.import_module(self.module)  # pyright: ignore[reportReturnType]
        except ModuleNotFoundError as error:
            raise ValueError(
                f"{self.name} needs {error.name}, which is not installed; pip install 'vfe[all]'."
            ) from error
