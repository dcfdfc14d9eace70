"""The page of the models of images."""

from typing import Any

import jax
import numpy as np

import vfe
from vfe.gallery.digits.data import Images
from vfe.gallery.job import JobResult
from vfe.gallery.recognition.vae import Grey, Measured, Settings, Stage
from vfe.results.claims import Claim
from vfe.results.report import Report, Section, Table, picture
from vfe.results.style import BLUE, ORANGE, style

PUBLISHED = (
    "Published for one level of this size on MNIST, binarised at every visit, with 5,000 draws and "
    "about 3,000 epochs (Burda et al. 2016): 86.76 nats with one draw in the bound, 85.54 with five, "
    "84.78 with fifty; for two levels 85.33, 83.89 and 82.90."
)


MANY = 10_000


def claims_of(found: dict[str, Measured], learned_from: int) -> list[Claim]:
    """What was checked; `learned_from`: the number of images.

    **Example:** `claims_of(found, 1347)[0].holds`.
    """
    plain, deep = found.values()
    claims = [
        Claim(
            f"{name}: nats that iteration takes off F of held-out images, in standard errors",
            _in_errors(result.gained),
            low=3.0,
        )
        for name, result in found.items()
    ]
    claims.append(
        Claim(
            "more draws tighten the bound: least fall of it from one number of draws to the next",
            float(np.min(-np.diff(list(plain.bounds.values())))),
            low=0.0,
            unit="nats",
            proved=True,
        )
    )
    if learned_from >= MANY:
        claims.append(
            Claim(
                "−ln p(x) of the iterated hierarchy less that of one level, in standard errors",
                _in_errors(deep.surprise - plain.surprise),
                high=-2.0,
            )
        )
        claims.append(
            Claim(
                "processor time of the hierarchy's learning, in units of that of one level",
                deep.processor_seconds / plain.processor_seconds,
                high=1.15,
            )
        )
    return claims


def _in_errors(values: np.ndarray) -> float:
    """A mean in units of its standard error; zero where nothing differs."""
    error = values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() / error) if error > 0 else 0.0


def write_up(
    settings: Settings,
    grey: Grey,
    found: dict[str, Measured],
    stages: dict[str, list[Stage]],
    images: Images,
) -> JobResult:
    """Figures, page and numbers. **Example:** see `vfe run vae`."""
    plain, deep = found.values()
    paired = deep.surprise - plain.surprise
    error = paired.std(ddof=1) / np.sqrt(len(paired))
    headline = [(f"−ln p(x), {name} (nats)", _mean(result.surprise)) for name, result in found.items()]
    ratio = deep.processor_seconds / plain.processor_seconds
    headline.append(("processor time of learning, hierarchy / one level", f"{ratio:.2f}"))
    headline.append(("difference (nats)", f"{paired.mean():.2f} ± {error:.2f}".replace("-", "−")))
    figures = {"learning": _learning(found), "imagined": _imagined(grey, found)}
    return JobResult(
        model={name: result.model for name, result in found.items()},
        dataset=_dataset(found),
        figures=figures,
        report=_report(settings, grey, found, stages, figures, headline),
        headline=headline,
        claims=claims_of(found, len(grey.train)),
        data={"x_train": images.x_train, "x_test": images.x_test},
    )


def _mean(values: np.ndarray) -> str:
    return f"{values.mean():.2f} ± {values.std(ddof=1) / np.sqrt(len(values)):.2f}".replace("-", "−")


def _dataset(found: dict[str, Measured]) -> Any:
    import xarray as xr

    nats = {"units": "nats"}
    variables: dict[str, Any] = {
        "free_energy": (("model", "image"), [r.free_energy for r in found.values()], nats),
        "surprise": (("model", "image"), [r.surprise for r in found.values()], nats),
        "surprise_error": (("model", "image"), [r.surprise_error for r in found.values()], nats),
        "processor_seconds": ("model", [r.processor_seconds for r in found.values()], {"units": "s"}),
        "bound": (("model", "draws"), [list(r.bounds.values()) for r in found.values()], nats),
    }
    for number, result in enumerate(found.values()):
        variables[f"history_{number}"] = (f"epoch_{number}", result.history, nats)
    first = next(iter(found.values()))
    return xr.Dataset(variables, coords={"model": list(found), "draws": list(first.bounds)})


def _learning(found: dict[str, Measured]) -> Any:
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(9.0, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        for (name, result), colour in zip(found.items(), (ORANGE, BLUE), strict=True):
            share = np.arange(1, len(result.history) + 1) / len(result.history)
            left.plot(result.processor_seconds * share, result.history, color=colour, label=name)
            draws, bounds = list(result.bounds), list(result.bounds.values())
            right.plot(draws, bounds, "o-", color=colour, label=name)
        low = min(r.history.min() for r in found.values())
        high = max(np.quantile(r.history, 0.97) for r in found.values())
        left.set(ylim=(low - 0.05 * (high - low), high))
        left.set(xlabel="processor time of learning (s)", ylabel="F while learning (nats per image)")
        left.legend()
        right.set(xscale="log", xlabel="draws in the bound", ylabel="bound on −ln p(x), held out (nats)")
        right.legend()
    return figure


def _imagined(grey: Grey, found: dict[str, Measured]) -> Any:
    from matplotlib.figure import Figure

    columns = 10
    with style():
        figure = Figure(figsize=(8.4, 2.8), layout="constrained")
        axes = figure.subplots(len(found) + 1, columns)
        rows = [("held out", grey.held_out[:columns])]
        for name, result in found.items():
            values = result.model.sample(jax.random.key(1), shape=(columns,))
            above = result.model.describe("x").parents[0]
            rows.append((name.replace(", ", ",\n"), _probabilities(result.model, above, values[above])))
        for line, (name, pictures) in zip(axes, rows, strict=True):
            for i, (ax, image) in enumerate(zip(line, pictures, strict=True)):
                ax.imshow(image.reshape(grey.side), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
                ax.set(xticks=[], yticks=[])
                ax.grid(visible=False)
                if not i:
                    ax.set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


def _probabilities(model: vfe.Model, above: str, values: jax.Array) -> np.ndarray:
    """That a pixel is on, given draws of the node above it."""
    return np.asarray(jax.vmap(lambda z: model.density("x", {above: z}).mean)(values))


def _report(
    settings: Settings,
    grey: Grey,
    found: dict[str, Measured],
    stages: dict[str, list[Stage]],
    figures: dict[str, Any],
    headline: list[tuple[str, str]],
) -> Report:
    rows = []
    for name, result in found.items():
        epochs = " + ".join(f"{s.epochs}{' refined' if s.refined else ''}" for s in stages[name])
        rows.append(
            [
                name,
                epochs,
                f"{result.processor_seconds:.0f}",
                _mean(result.free_energy),
                _mean(result.gained),
                _mean(result.surprise),
                f"{100 * np.mean(result.surprise_error > 0.4):.0f} %",
            ]
        )
    columns = ["model", "epochs", "processor s", "F", "gained", "−ln p(x)", "unsure"]
    usual = grey.side == (28, 28)
    return Report(
        "Images, recognised in one pass and by iteration",
        f"{grey.name}; pixels are made binary at every visit, with the probability of their grey value, "
        "held-out images once. One level: a variational autoencoder. The hierarchy learns the prior of "
        "its lower level and, in the last part of learning, refines each belief from the encoder's "
        "guess before the model learns from it. Both are given the same processor time.",
        [
            Section(
                "Held-out images",
                f"−ln p(x) from {settings.importance_samples:,} draws of the encoder's belief; it is an "
                "upper estimate in expectation. "
                + (PUBLISHED if usual else "")
                + " Gained: what twenty iterations take off F of the first hundred images. Unsure: images "
                "whose estimate has a standard error above 0.4 nats.",
                [
                    picture(
                        figures["learning"],
                        "Left: F while learning against processor time. Right: the bound by draws.",
                        "Two curves that fall, and the bound, which falls with the draws.",
                    )
                ],
                Table(columns, rows, f"{len(grey.held_out)} held-out images, nats, ± standard error."),
            ),
            Section(
                "Imagined images",
                "Probabilities of pixels given draws from the prior.",
                [
                    picture(
                        figures["imagined"],
                        "Held-out images, and images imagined by each model.",
                        "Rows of small pictures.",
                    )
                ],
            ),
        ],
        headline=headline,
    )
