"""Run the digits job from data to report."""

import time
from typing import Any

import numpy as np

from vfe.gallery.digits.data import Images, embedded, from_arrays
from vfe.gallery.digits.evaluation import Evaluation, evaluate
from vfe.gallery.digits.figures import draw
from vfe.gallery.digits.page import claims, compose, headline
from vfe.gallery.digits.settings import Chosen, Settings
from vfe.gallery.digits.training import train
from vfe.gallery.job import JobResult, Progress, Workspace
from vfe.learning import Learned


def run(
    settings: Settings,
    *,
    seed: int,
    data: dict[str, np.ndarray] | None,
    folder: Workspace,
    progress: Progress,
    resume: bool,
) -> JobResult:
    """Learn the digits (or the images of `data`), ask the model everything, and write it up.

    **Returns:** the model, the numbers as an xarray Dataset, the figures and the report.

    **Example:** `vfe run digits`, or `vfe run digits --data mnist.npz`.
    """
    images = embedded() if data is None else from_arrays(data)
    chosen = settings.resolved(len(images.x_train))
    began = time.perf_counter()
    learned = train(
        chosen,
        images,
        seed=seed,
        folder=folder.path / "learning",
        progress=progress,
        resume=resume,
    )
    between = time.perf_counter()
    found = evaluate(learned, images, chosen, progress, seed)
    seconds = {"learning": between - began, "asking the model": time.perf_counter() - between}
    figures = draw(learned, images, found)
    report = compose(learned, images, chosen, found, figures, seconds)
    arrays = {
        "x_train": images.x_train,
        "y_train": images.y_train,
        "x_test": images.x_test,
        "y_test": images.y_test,
    }
    return JobResult(
        model=learned.model,
        dataset=_dataset(learned, images, found, chosen),
        figures=figures,
        report=report,
        headline=headline(found),
        claims=claims(found, images),
        data=arrays,
    )


def _dataset(learned: Learned, images: Images, found: Evaluation, settings: Chosen) -> Any:
    """The history of learning, and what was measured on held-out images."""
    import xarray as xr

    history = learned.to_xarray()
    total = found.recognised.free_energy
    numbers = {
        "F": found.total,
        "surprise_estimate": found.surprise.value,
        "pca_surprise": found.linear,
        "F_minus_pca": found.difference,
        "laplace": found.laplace.value,
    }
    measured = xr.Dataset(
        {
            "held_out_F": ("image", total, {"units": "nats"}),
            "held_out_F_by_label": (
                ("image", "label"),
                found.recognised.by_label,
                {"units": "nats"},
            ),
            "held_out_label": ("image", found.truth),
            "summary": (
                ("number", "part"),
                [[n.value, n.error, n.monte_carlo] for n in numbers.values()],
                {"units": "nats per image"},
            ),
            "squared_error": (
                ("hidden", "filled_by"),
                [[e.value for e in f.errors.values()] for f in found.filled],
            ),
            "auroc": ("foil", list(found.auroc.values())),
            "imagined": (
                ("digit", "draw", "pixel"),
                found.dreams_by_label,
                {"height": images.side[0], "width": images.side[1]},
            ),
        },
        coords={
            "number": list(numbers),
            "part": ["value", "standard_error", "monte_carlo_error"],
            "hidden": [f.name for f in found.filled],
            "filled_by": list(found.filled[0].errors),
            "foil": list(found.auroc),
        },
        attrs={"accuracy": found.accuracy, "chosen": str(settings)},
    )
    return xr.merge([history, measured], combine_attrs="no_conflicts")
