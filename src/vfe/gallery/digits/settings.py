"""What can be set about the digits job; defaults chosen on a validation split of the training digits."""

import dataclasses
from typing import Any, Literal

from vfe.gallery.settings import about

LARGEST_KEPT = 5000

SMALL: dict[str, Any] = {
    "beliefs": "kept",
    "z1": 18,
    "z2": 6,
    "decoder_width": 96,
    "upper_width": 64,
    "epochs": 80,
    "batch_size": 128,
    "learning_rate": 1e-2,
    "weight_decay": 1.0,
    "evaluated": 450,
}
LARGE: dict[str, Any] = {
    "beliefs": "encoded",
    "z1": 36,
    "z2": 12,
    "decoder_width": 256,
    "upper_width": 128,
    "epochs": 10,
    "batch_size": 256,
    "learning_rate": 2e-3,
    "weight_decay": 0.05,
    "evaluated": 2000,
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes, epochs and weights. What is none is chosen by the size of the data.

    Where beliefs are *kept*, every training image has a belief of its own from epoch to epoch (EM);
    where they are *encoded*, an encoder gives them (for data too many to keep beliefs about).
    """

    beliefs: Literal["kept", "encoded"] | None = about("how training images get their beliefs")
    z1: int | None = about("elements of the lower hidden level")
    z2: int | None = about("elements of the upper hidden level")
    decoder_width: int | None = about("hidden units between z1 and the pixels")
    upper_width: int | None = about("hidden units between z2 and z1")
    epochs: int | None = about("passes over the training images")
    batch_size: int | None = about("images per step")
    learning_rate: float | None = about("peak rate of AdamW")
    weight_decay: float | None = about("AdamW's decay of the weights (a Gaussian prior on them)")
    evaluated: int | None = about("held-out images at most in the evaluation")
    encoder_width: int = about("hidden units of the encoder, where beliefs are encoded", 512)
    contrast: float = about("weight of the label's term (0 switches it off)", 50.0)
    temperature: float = about("margin in nats that still counts between labels", 10.0)
    rivals: int = about("wrong labels compared at each visit", 2)
    steps: int = about("natural-gradient steps of perception per image and label", 12)
    samples: int = about("Monte Carlo samples for the F that is reported", 128)

    def __post_init__(self) -> None:
        whole = (
            "z1",
            "z2",
            "decoder_width",
            "upper_width",
            "encoder_width",
            "epochs",
            "steps",
            "batch_size",
            "evaluated",
            "rivals",
        )
        for name in whole:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}.")
        for name in ("learning_rate", "temperature"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive; got {value}.")
        for name in ("weight_decay", "contrast"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} must not be negative; got {value}.")
        if self.samples < 4 or self.samples % 2:
            raise ValueError(f"samples must be an even number of at least 4; got {self.samples}.")

    def resolved(self, images: int) -> "Chosen":
        """The same with every `none` filled in for this many training images."""
        small = self.beliefs == "kept" or (self.beliefs is None and images <= LARGEST_KEPT)
        preset = SMALL if small else LARGE
        chosen = {n: v for n, v in preset.items() if getattr(self, n) is None}
        chosen["batch_size"] = min(images, self.batch_size or preset["batch_size"])
        return Chosen(**dataclasses.asdict(dataclasses.replace(self, **chosen)))


@dataclasses.dataclass(frozen=True)
class Chosen:
    """`Settings` with nothing left open, for one set of images; see there for what each one means."""

    beliefs: Literal["kept", "encoded"]
    z1: int
    z2: int
    decoder_width: int
    upper_width: int
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    evaluated: int
    encoder_width: int
    contrast: float
    temperature: float
    rivals: int
    steps: int
    samples: int
