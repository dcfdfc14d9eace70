"""A filtered record as a Dataset, a table, figures and a page."""

import csv
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from vfe.results.numbers import say
from vfe.results.report import Report, Section, Table, picture
from vfe.results.style import BLUE, COLOURS, INK, ORANGE, PALE, RED, style

if TYPE_CHECKING:
    import xarray as xr

    from vfe.dynamics.linear.fitted_components import FittedComponents
    from vfe.dynamics.linear.records import Record


def recording_to_xarray(record: "Record", fitted: "FittedComponents") -> "xr.Dataset":
    """Estimates by time: the series without noise, every state, what was expected, surprise and F.

    **Example:** `recording_to_xarray(record, fitted)["estimate"]`.
    """
    import xarray as xr

    smoothed = fitted.smoothed
    estimate, sd = clean(fitted)
    filtered = smoothed.filtered
    nats = {"units": "nats"}
    variables: dict[str, Any] = {
        "y": ("time", record.y),
        "estimate": ("time", estimate),
        "estimate_sd": ("time", sd),
        "state_mean": (("time", "state"), np.asarray(smoothed.mean)),
        "state_sd": (("time", "state"), np.asarray(smoothed.sd)),
        "expected": ("time", np.asarray(filtered.predicted_y.mean)[:, 0]),
        "expected_sd": ("time", np.asarray(filtered.predicted_y.sd)[:, 0]),
        "surprise": ("time", np.asarray(smoothed.surprise), nats),
        "free_energy_of_path": ("time", np.asarray(smoothed.free_energy.total), nats),
        "free_energy": ((), float(fitted.free_energy.total), nats),
    }
    coordinates = {"time": record.times, "state": list(fitted.model.states)}
    return xr.Dataset(variables, coordinates)


def clean(fitted: "FittedComponents") -> tuple[np.ndarray, np.ndarray]:
    """The series without observation noise and coloured noise, mean and standard deviation, by time."""
    seen = sum((np.asarray(w) for w in _weights(fitted, noise=False)), np.zeros(len(fitted.model.states)))
    return _seen(fitted, seen, float(fitted.model.offset))


def _weights(fitted: "FittedComponents", noise: bool) -> list[np.ndarray]:
    """How the series sees all states through each part that is noise, or is not: zero elsewhere."""
    whole = np.asarray(fitted.model.state_space(1.0).observation)[0]
    found, at = [], 0
    for part in fitted.model.parts:
        own = np.zeros_like(whole)
        own[at : at + len(part.states)] = whole[at : at + len(part.states)]
        at += len(part.states)
        if part.noise == noise:
            found.append(own)
    return found


def _seen(
    fitted: "FittedComponents", seen: np.ndarray, offset: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    mean = np.asarray(fitted.smoothed.mean) @ seen + offset
    variance = np.einsum("i,tij,j->t", seen, np.asarray(fitted.smoothed.covariance), seen)
    return mean, np.sqrt(np.maximum(variance, 0.0))


def recording_table(record: "Record", fitted: "FittedComponents") -> str:
    """The estimates as comma-separated values, one row per sample.

    **Example:** `recording_table(record, fitted).splitlines()[0]`.
    """
    estimate, sd = clean(fitted)
    mean, deviation = np.asarray(fitted.smoothed.mean), np.asarray(fitted.smoothed.sd)
    noise = _weights(fitted, noise=True)
    # The states of coloured noise mean nothing one by one: its value stands in their place.
    kept = np.flatnonzero(np.concatenate([np.full(len(p.states), not p.noise) for p in fitted.model.parts]))
    columns = [(fitted.model.states[i].replace(" ", "_"), mean[:, i], deviation[:, i]) for i in kept]
    columns += [(f"noise_{k}" if k else "noise", *_seen(fitted, w)) for k, w in enumerate(noise)]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    states = [f"state_{n}{end}" for n, _, _ in columns for end in ("", "_sd")]
    writer.writerow(["time", "y", "estimate", "estimate_sd", "surprise_nats", *states])
    surprise = np.asarray(fitted.smoothed.surprise)
    for t, time in enumerate(record.times):
        seen = "" if np.isnan(record.y[t]) else repr(float(record.y[t]))
        pairs = [v for _, value, sds in columns for v in (value[t], sds[t])]
        numbers = [f"{v:.8g}" for v in (estimate[t], sd[t], surprise[t], *pairs)]
        writer.writerow([repr(float(time)), seen, *numbers])
    return buffer.getvalue()


def name_of(part: Any) -> str:
    """What a part shows of itself: its first state, or that it is noise."""
    return "noise" if part.noise else part.states[0]


def plot_recording(record: "Record", fitted: "FittedComponents", forecast: Any = None) -> Any:
    """The record with its estimate (and what comes next), the states, and the surprise: a figure.

    **Example:** `plot_recording(record, fitted).savefig("record.png")`.
    """
    import matplotlib.pyplot as plt

    estimate, sd = clean(fitted)
    # A dollar would begin mathematics, and a legend leaves out what begins with a line below.
    name = record.name.replace("$", r"\$").lstrip("_") or "y"
    with style():
        n = len(fitted.model.parts)
        figure, axes = plt.subplots(
            n + 2, 1, figsize=(9.0, 2.1 * (n + 2)), layout="constrained", sharex=True
        )
        axes[0].plot(record.times, record.y, ".", color=INK, ms=3, label=name)
        axes[0].fill_between(
            record.times,
            estimate - 1.96 * sd,
            estimate + 1.96 * sd,
            color=BLUE,
            alpha=0.25,
            lw=0,
            label="95 %",
        )
        axes[0].plot(record.times, estimate, color=BLUE, lw=1.2, label="estimate")
        if forecast is not None:
            times, mean, spread = forecast
            low, high = mean - 1.96 * spread, mean + 1.96 * spread
            axes[0].fill_between(times, low, high, color=RED, alpha=0.2, lw=0, label="next samples, 95 %")
            axes[0].plot(times, mean, color=RED, lw=1.2)
        axes[0].set(title="record and estimate", ylabel=name)
        at, noises = 0, _weights(fitted, noise=True)
        for i, part in enumerate(fitted.model.parts):
            axis, colour = axes[1 + i], COLOURS[(i + 2) % len(COLOURS)]
            value, spread = (np.asarray(a)[:, at] for a in (fitted.smoothed.mean, fitted.smoothed.sd))
            if part.noise:
                value, spread = _seen(fitted, noises.pop(0))
            low, high = value - 1.96 * spread, value + 1.96 * spread
            axis.fill_between(record.times, low, high, color=colour, alpha=0.25, lw=0)
            axis.plot(record.times, value, color=colour, lw=1.2, label=name_of(part))
            if len(part.states) == 2 and part.states[1] == "quadrature":
                other = np.asarray(fitted.smoothed.mean)[:, at + 1]
                axis.plot(record.times, np.hypot(value, other), color=PALE, lw=1, label="amplitude")
            axis.set(title=f"{i} {type(part).__name__}", ylabel=name_of(part))
            at += len(part.states)
        surprise = np.asarray(fitted.smoothed.surprise)
        axes[-1].plot(record.times, surprise, color=ORANGE, lw=1, label="surprise")
        axes[-1].set(title=f"surprise, {surprise.sum():.1f} nats in all", ylabel="nats", xlabel="time")
        for axis in axes:
            axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def recording_headline(record: "Record", fitted: "FittedComponents") -> list[tuple[str, str]]:
    """The numbers that matter most, as text."""
    rows = [
        ("samples", f"{len(record.y)}, {int(np.isnan(record.y).sum())} missing"),
        ("F (about −ln p of the record)", f"{float(fitted.free_energy.total):.2f} nats"),
    ]
    for name, (low, high) in fitted.interval().items():
        rows.append((name, f"{fitted.values[name]:.4g} (95 %: {low:.4g} to {high:.4g})"))
    return rows


def recording_report(record: "Record", fitted: "FittedComponents", figure: Any, system: str) -> Report:
    """A page about a filtered record."""
    rows = [
        [name, f"{fitted.values[name]:.5g}", f"{low:.5g}", f"{high:.5g}"]
        for name, (low, high) in fitted.interval().items()
    ]
    _, sd = clean(fitted)
    middle, most = (say(float(v), digits=3) for v in (np.median(sd), sd.max()))
    return Report(
        title=f"{record.name}: {system}",
        summary=(
            f"{len(record.y)} samples of {record.name} ({int(np.isnan(record.y).sum())} missing) as a "
            f"sum of {system}, seen with noise. F is {say(float(fitted.free_energy.total))} nats; another "
            "system with a lower F would explain the same record better."
        ),
        headline=recording_headline(record, fitted)[:2],
        sections=[
            Section(
                "Estimates",
                "The states given the whole record, by the exact smoother; gaps are filled with what the "
                f"system expects there. The estimate's standard deviation is {middle} in the median and at "
                f"most {most}. `estimates.csv` and `result.nc` hold all numbers.",
                [
                    picture(
                        figure,
                        "The record, its parts, and the surprise of each sample.",
                        "Lines over time.",
                    )
                ],
            ),
            Section(
                "What was fitted",
                "The numbers that make the record most probable, states integrated out, with 95 % "
                "intervals from the curvature there (Laplace's method).",
                table=Table(["number", "fitted", "lower", "upper"], rows),
            ),
        ],
    )
