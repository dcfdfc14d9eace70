"""`vfe filter`: a record from a file, denoised, tracked, filled, forecast."""

import os
import shlex
import time as clock
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text


def filter_file(
    file: Annotated[
        Path | None,
        typer.Argument(help="A CSV file with a header; empty cells are missing.", metavar="FILE.csv"),
    ] = None,
    system: Annotated[
        str, typer.Option(help="What the record is made of, such as level+oscillator; list: what there is.")
    ] = "level",
    column: Annotated[str | None, typer.Option(help="The column to filter.")] = None,
    time: Annotated[str | None, typer.Option(help="The column of sampling times.")] = None,
    dt: Annotated[float | None, typer.Option(help="The time between samples (default: 1).")] = None,
    smoothness: Annotated[
        float | None,
        typer.Option(help="Add coloured noise whose smoothness, a time, is learned from here."),
    ] = None,
    forecast: Annotated[int, typer.Option(help="How many samples to look ahead.", min=0, max=100_000)] = 0,
    report: Annotated[bool, typer.Option("--report", help="Write report.html too.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder to write (default: runs/filter-date-time).", metavar="FOLDER"),
    ] = None,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error arose.")] = False,
) -> None:
    """Fit a system to a record, and estimate what is behind it.

    The folder holds estimates.csv (one row per sample), result.nc (NetCDF), figures/record.png, the
    model, config.json and, with --report, report.html.
    """
    from vfe.cli import FAILED, RUNS, USAGE, failing, print_headline
    from vfe.dynamics.linear.starting import SYSTEMS, starting

    console = Console()
    if system == "list":
        table = Table(
            title=Text("Systems: vfe filter FILE.csv --system NAME[+NAME…]"),
            title_justify="left",
            show_edge=False,
        )
        for word in ("name", "what it is"):
            table.add_column(word)
        for name, line in SYSTEMS.items():
            table.add_row(name, line)
        console.print(table)
        return
    os.environ.setdefault("MPLBACKEND", "Agg")
    with failing(USAGE, traceback):
        from vfe.dynamics.linear.records import read_record
        from vfe.results.folders import check_free

        if file is None:
            raise ValueError("filter: no file; wanted vfe filter FILE.csv, or --system list.")
        record = read_record(file, column, time=time, dt=dt)
        model = starting(system, record.y, record.intervals, smoothness)
        if forecast and record.intervals.ndim:
            raise ValueError("--forecast wants equal times between samples; those of this record vary.")
        model.state_space(record.intervals)
        options = {"time": time, "dt": dt, "smoothness": smoothness, "forecast": forecast or None}
        folder = out or RUNS / f"filter-{clock.strftime('%Y%m%d-%H%M%S')}"
        check_free(folder)
    with failing(FAILED, traceback):
        from vfe.dynamics import fit
        from vfe.results.recording import (
            plot_recording,
            recording_headline,
            recording_report,
            recording_table,
            recording_to_xarray,
        )
        from vfe.results.run_folder import provenance, save_run

        words = f"Fitting {system} to {len(record.y)} samples of {record.name} …"
        with Console(stderr=True).status(Text(words)):
            fitted = fit(model, record.y, intervals=record.intervals)
        ahead = None
        if forecast:
            coming = fitted.smoothed.forecast(forecast).y
            times = record.times[-1] + float(record.intervals) * np.arange(1, forecast + 1)
            ahead = (times, np.asarray(coming.mean)[:, 0], np.asarray(coming.sd)[:, 0])
        figure = plot_recording(record, fitted, ahead)
        dataset = recording_to_xarray(record, fitted)
        if ahead is not None:
            dataset = dataset.assign_coords(ahead=ahead[0])
            dataset = dataset.assign(forecast=("ahead", ahead[1]), forecast_sd=("ahead", ahead[2]))
        headline = recording_headline(record, fitted)
        made_of = system if smoothness is None else f"{system}+coloured noise"
        save_run(
            folder,
            name="filter",
            model=fitted.model,
            dataset=dataset,
            figures={"record": figure},
            tables={"estimates": recording_table(record, fitted)},
            report=recording_report(record, fitted, figure, made_of) if report else None,
            settings={"system": system, "column": record.name, **options},
            command=_again(file, system, {"column": column, **options}, report),
            data=provenance({"y": record.y, "time": record.times}),
            headline=headline,
        )
    print_headline(console, f"{record.name}: {made_of}", headline)
    page = folder / ("report.html" if report else "estimates.csv")
    console.print(f"\nWritten: {page}", highlight=False, soft_wrap=True)


def _again(file: Path, system: str, options: dict[str, Any], report: bool) -> str:
    words = ["vfe", "filter", str(file), "--system", system]
    for name, value in options.items():
        words += [] if value is None else [f"--{name}", str(value)]
    return shlex.join([*words, *(["--report"] if report else [])])
