"""The `vfe` command: run an experiment by name, list what there is, look at what came out.

Exit codes: 0 done, 1 failed while running, 2 asked for something that cannot be, 130 interrupted.
"""

import contextlib
import dataclasses
import os
import sys
import time
import traceback as tracebacks
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vfe.cli_filter import filter_file
from vfe.cli_gallery import write_gallery
from vfe.gallery import JOBS, Job
from vfe.gallery.job import JobResult, Workspace
from vfe.gallery.pending import Pending, Request, find_pending
from vfe.gallery.progress import Bars
from vfe.gallery.settings import as_arguments, as_text, parse_settings, type_name
from vfe.results.claims import COLUMNS, Claim, from_json
from vfe.results.folders import check_free
from vfe.results.numbers import duration
from vfe.results.run_folder import provenance, read_config, save_run, versions

RUNS = Path("runs")
LONGEST = 1500  # characters of an error; compiled code can say very much
DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    help="Variational free energy: run experiments by name and look at what came out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def main() -> None:
    """The entry point of the `vfe` command."""
    app(prog_name="vfe")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(versions()["vfe"])
        raise typer.Exit(DONE)


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version."),
    ] = False,
) -> None:
    """Variational free energy: run experiments by name and look at what came out."""


@app.command("list")
def list_jobs(
    name: Annotated[str | None, typer.Argument(help="An experiment, to see its settings.")] = None,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error arose.")] = False,
) -> None:
    """Print the experiments and the runs found in ./runs; or the settings of one. Writes nothing."""
    out = Console()
    with failing(USAGE, traceback):
        if name is None:
            _print_jobs(out)
            _print_runs(out)
        else:
            _print_settings(out, find_job(name))


@app.command()
def run(
    name: Annotated[str, typer.Argument(help="The experiment; `vfe list` names them.")],
    data: Annotated[
        Path | None,
        typer.Option(help="An .npz file with x_train, y_train, x_test, y_test.", metavar="FILE.npz"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of all randomness (default: 0).", min=0, max=2**32 - 1)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting; may be repeated.", metavar="KEY=VALUE"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder to write (default: runs/NAME-date-time).", metavar="FOLDER"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run (the newest, without --out).")
    ] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error arose.")] = False,
) -> None:
    """Run an experiment and write a run folder.

    It holds report.html (a page that opens offline), figures/*.png, result.nc (the numbers, NetCDF),
    model/ (the learned arrays) and config.json (settings, versions, and the command that runs it
    again). While it runs, checkpoints are kept in FOLDER.partial; Ctrl-C leaves them for --resume.
    """
    os.environ.setdefault("MPLBACKEND", "Agg")
    with failing(USAGE, traceback):
        job = find_job(name)
        folder, request, arrays, settings = prepare(job, data, seed, set_, out, resume)
        pending = Pending.open(folder, request, resume)
    with pending, failing(FAILED, traceback, lambda: _again(pending, request, folder)):
        start = time.monotonic()
        console = Console(stderr=True)
        with Bars(console) as progress:
            result: JobResult = job.load().run(
                settings,
                seed=request.seed,
                data=arrays,
                folder=Workspace(pending.path),
                progress=progress,
                resume=resume,
            )
        save_run(
            folder,
            name=job.name,
            model=result.model,
            dataset=result.dataset,
            figures=result.figures,
            report=dataclasses.replace(result.report, claims=result.claims),
            seed=request.seed,
            settings=dataclasses.asdict(settings),
            command=request.command(),
            data=provenance(result.data or arrays or {}),
            headline=result.headline,
            claims=result.claims,
        )
        pending.finish()
        seconds = time.monotonic() - start
    print_headline(Console(), job.name, result.headline)
    print_claims(Console(), result.claims)
    _say(Console(), f"\n{duration(seconds)}. The report: {folder / 'report.html'}")


@app.command()
def show(
    run: Annotated[Path, typer.Argument(help="A run folder, or the name of one in ./runs.")],
    open_: Annotated[bool, typer.Option("--open", help="Open the report in the browser.")] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error arose.")] = False,
) -> None:
    """Print the key numbers of a run, how it was made, and where its report is. Writes nothing."""
    with failing(USAGE, traceback):
        folder = run if run.exists() or not (RUNS / run).exists() else RUNS / run
        config = read_config(folder)
        out = Console()
        print_headline(out, str(config.get("name")), config.get("headline") or [])
        print_claims(out, [from_json(stored) for stored in config.get("claims") or []])
        rows = {
            "made": config.get("created"),
            "command": config.get("command"),
            "seed": config.get("seed"),
            "settings": ", ".join(f"{k}={_value(v)}" for k, v in (config.get("settings") or {}).items()),
            "data": ", ".join(
                f"{k} {'×'.join(map(str, v.get('shape', [])))} {v.get('dtype')}"
                for k, v in (config.get("data") or {}).items()
            ),
            "float64": "yes" if config.get("x64") else "no",
            "versions": ", ".join(f"{k} {v}" for k, v in (config.get("versions") or {}).items()),
            "report": folder / "report.html" if (folder / "report.html").is_file() else "none",
        }
        table = Table.grid(padding=(0, 2))
        for key, value in rows.items():
            table.add_row(Text(key, style="dim"), _text(value))
        out.print()
        out.print(table)
        if open_:
            import webbrowser

            webbrowser.open((folder / "report.html").absolute().as_uri())


app.command("filter")(filter_file)
app.command("gallery")(write_gallery)


def find_job(name: str) -> Job:
    """The job of this name. **Raises:** `ValueError` with the names there are."""
    if name not in JOBS:
        raise ValueError(f"there is no experiment {name!r}; there are: {', '.join(JOBS)}.")
    return JOBS[name]


def prepare(
    job: Job, data: Path | None, seed: int | None, changes: list[str] | None, out: Path | None, resume: bool
) -> tuple[Path, Request, dict[str, Any] | None, Any]:
    """What is asked for, checked before anything is computed: (folder, request, arrays, settings).

    With `resume`, what is not said is taken from the interrupted run.
    """
    folder = out if out is not None else _default_folder(job, resume)
    before = find_pending(folder).request if resume else None
    if before is not None:
        if before.name != job.name:
            raise ValueError(f"the interrupted run in {folder} is of {before.name}, not of {job.name}.")
        seed = before.seed if seed is None else seed
        changes = changes or list(before.settings)
        data = Path(before.data) if data is None and before.data else data
    arrays = None
    if data is not None:
        if not job.data:
            raise ValueError(f"{job.name} takes no --data.")
        from vfe.gallery.data import read_images

        arrays = read_images(data)
    settings = parse_settings(job.load().Settings, changes or [])
    hashes = {n: p["sha256"] for n, p in provenance(arrays or {}).items()}
    request = Request(
        job.name, seed or 0, tuple(as_arguments(settings)), str(data or ""), str(folder), hashes
    )
    if before is not None:
        request.must_agree(before)
    check_free(folder)
    return folder, request, arrays, settings


@contextlib.contextmanager
def failing(code: int, traceback: bool, advice: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Turn an exception into one paragraph on stderr and an exit code."""
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt:
        _stop(INTERRUPTED, "Interrupted.", advice())
    except Exception as error:
        if traceback:
            tracebacks.print_exc()
        if "KeyboardInterrupt" in str(error):  # Ctrl-C inside a callback from compiled code
            _stop(INTERRUPTED, "Interrupted.", advice())
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        text = str(error).strip()[:LONGEST] or "no more is known"
        hint = "" if traceback or code == USAGE else " (--traceback shows where.)"
        _stop(code, f"Error: {kind}{text}{hint}", advice())


def _stop(code: int, *lines: str) -> NoReturn:
    for line in filter(None, lines):
        print(_clean(line), file=sys.stderr)
    raise typer.Exit(code)


def _again(pending: Pending, request: Request, folder: Path) -> str:
    """What is left of a run that did not end, and the line that goes on with it."""
    if os.path.lexists(folder):
        return f"The run folder {folder} is complete."
    if not pending.has_checkpoint:
        return f"No checkpoint was reached yet. To start anew: {request.command(here=True)}"
    return f"To go on from the last checkpoint: {request.command(here=True)} --resume"


def _default_folder(job: Job, resume: bool) -> Path:
    if not resume:
        return RUNS / f"{job.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    left = [p for p in RUNS.glob(f"{job.name}-*.partial") if p.is_dir()]
    if not left:
        raise ValueError(f"there is no interrupted run of {job.name} in ./{RUNS}; name one with --out.")
    return max(left, key=lambda p: p.stat().st_mtime).with_suffix("")


def _print_jobs(out: Console) -> None:
    _say(out, "Experiments: vfe run NAME [--seed N] [--set KEY=VALUE]")
    table = Table.grid(padding=(0, 2))
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column()
    for job in JOBS.values():
        table.add_row(_text(job.name, "bold"), _text(duration(job.seconds)), _text(job.summary))
    out.print(table)
    for job in JOBS.values():
        if job.data:
            _say(out, f"{job.name} takes --data FILE.npz: {job.data}.")
    _say(
        out,
        "\nEach writes a run folder: report.html, figures/, result.nc, model/, config.json. "
        "Settings: vfe list NAME.",
    )


def _print_runs(out: Console) -> None:
    rows = []
    for folder in sorted(RUNS.glob("[!.]*")):
        if folder.suffix == ".partial":
            rows.append((str(folder.with_suffix("")), "interrupted: --resume", ""))
            continue
        with contextlib.suppress(ValueError, OSError):
            config = read_config(folder)
            first = next(iter(config.get("headline") or []), ["", ""])
            rows.append((str(folder), str(config.get("created")), ": ".join(map(str, first)).strip(": ")))
    if rows:
        table = Table(title="\nRuns: vfe show FOLDER", title_justify="left", show_edge=False)
        for column in ("folder", "made", "first number"):
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*map(_text, row))
        out.print(table)


def _print_settings(out: Console, job: Job) -> None:
    table = Table(title=f"Settings of {job.name}: --set key=value", title_justify="left", show_edge=False)
    for column in ("key", "default", "wants", "what it is"):
        table.add_column(column)
    import typing

    kind = job.load().Settings
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        default = as_text(field.default) if field.default is not dataclasses.MISSING else ""
        table.add_row(
            _text(field.name, "bold"),
            _text(default),
            _text(type_name(hints[field.name])),
            _text(field.metadata.get("help", "")),
        )
    out.print(table)
    import inspect

    about = (inspect.getdoc(job.load().run) or "").split("\n\n")[0].replace("\n", " ").replace("`", "")
    _say(out, f"\n{about}" if about else "")


def print_headline(out: Console, name: str, headline: Any) -> None:
    """Print (label, value) pairs under a title."""
    table = Table(title=_text(name, "bold"), title_justify="left", show_header=False, show_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in headline:
        table.add_row(_text(label), _text(value))
    out.print(table)


def print_claims(out: Console, claims: Sequence[Claim]) -> None:
    """Print what was claimed, what was measured, what was wanted, and whether it held."""
    if not claims:
        return
    table = Table(title="\nclaims", title_justify="left", show_edge=False)
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for claim in claims:
        style = "" if claim.holds else "bold red"
        table.add_row(*(_text(cell, style) for cell in claim.row))
    out.print(table)


def _value(value: Any) -> str:
    return as_text(tuple(value) if isinstance(value, list) else value)


def _text(value: Any, style: str = "") -> Text:
    return Text(_clean(str(value)), style=style)


def _say(out: Console, text: str) -> None:
    out.print(Text(_clean(text)), soft_wrap=True)


def _clean(text: str) -> str:
    """Text that may come from a file, without the control characters a terminal would obey."""
    return "".join(c if c == "\n" or c.isprintable() or c == "\t" else "�" for c in text)
