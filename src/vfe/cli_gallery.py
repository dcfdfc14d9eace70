"""`vfe gallery`: run folders, collected on one page."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text


def write_gallery(
    runs: Annotated[Path, typer.Argument(help="A folder that holds run folders.")] = Path("runs"),
    out: Annotated[
        Path, typer.Option(help="The page to write; figures go beside it.", metavar="PAGE.md")
    ] = Path("gallery.md"),
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error arose.")] = False,
) -> None:
    """Write a Markdown page about the newest run of every experiment in a folder.

    For each: what is claimed, figures, claims with their verdicts, key numbers, and the command. Figures
    are made smaller and put into a folder beside the page, named as the page is.
    """
    from vfe.cli import USAGE, failing
    from vfe.gallery.collected import collect, write

    with failing(USAGE, traceback):
        entries = collect(runs)
        files = write(entries, out)
        claims, failed = sum(len(e.claims) for e in entries), sum(e.failed for e in entries)
        said = (
            f"{len(entries)} experiments, {claims} claims, {failed} failed, {len(files) - 1} figures: {out}"
        )
        Console().print(Text(said), soft_wrap=True)
