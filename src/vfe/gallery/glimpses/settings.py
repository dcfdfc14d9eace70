"""What can be set about the glimpsing eye; what is none is chosen by the size of the data."""

import dataclasses
from typing import Any

from vfe.gallery.settings import about

LARGEST_SMALL = 5000
SMALL: dict[str, Any] = {
    "components": 10,
    "patch": 1,
    "epochs": 20,
    "batch_size": 128,
    "learned_from": LARGEST_SMALL,
    "evaluated": 450,
    "folds": 4,
}
LARGE: dict[str, Any] = {
    "components": 15,
    "patch": 4,
    "epochs": 8,
    "batch_size": 256,
    "learned_from": 20_000,
    "evaluated": 1000,
    "folds": 1,
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The model, the eye, and how scans are compared."""

    components: int | None = about("components of the mixture of each label")
    patch: int | None = about("side of a glimpse, in pixels")
    epochs: int | None = about("passes over the training images")
    batch_size: int | None = about("images per step of learning")
    learned_from: int | None = about("training images at most")
    evaluated: int | None = about("held-out images at most, of each fold")
    folds: int | None = about("parts of all images, each held out once (1: the test images alone)")
    grain: float = about("least spread of a pixel within a component, of the grey scale", 0.125)
    learning_rate: float = about("of Adam", 0.02)
    glimpses: int = about("how often the eye looks", 8)
    judged: int = about("glimpses after which scans are compared", 4)
    random_scans: int = about("seeds of the scan at random", 4)
    draws: int = about("draws of each patch for the expected gain", 32)

    def __post_init__(self) -> None:
        for name in (*SMALL, "glimpses", "judged", "draws"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"glimpses: got {name}={value}; wanted 1 or more.")
        if self.judged > self.glimpses:
            raise ValueError(
                f"glimpses: got judged={self.judged} of glimpses={self.glimpses}; wanted no more than that."
            )
        if self.random_scans < 2:
            raise ValueError(
                f"glimpses: got random_scans={self.random_scans}; wanted two or more, for an interval."
            )
        for name in ("learning_rate", "grain"):
            if not getattr(self, name) > 0:
                raise ValueError(f"glimpses: got {name}={getattr(self, name)}; wanted more than zero.")

    def resolved(self, images: int) -> "Chosen":
        """The same with every `none` filled in for this many training images."""
        preset = SMALL if images <= LARGEST_SMALL else LARGE
        chosen = {name: value for name, value in preset.items() if getattr(self, name) is None}
        return Chosen(**dataclasses.asdict(dataclasses.replace(self, **chosen)))


@dataclasses.dataclass(frozen=True)
class Chosen:
    """`Settings` with nothing left open, for one set of images; see there for what each one means."""

    components: int
    patch: int
    epochs: int
    batch_size: int
    learned_from: int
    evaluated: int
    folds: int
    grain: float
    learning_rate: float
    glimpses: int
    judged: int
    random_scans: int
    draws: int
