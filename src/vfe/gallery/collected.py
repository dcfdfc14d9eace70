"""Run folders collected on one Markdown page: claim, figures, numbers, and the line that runs each again.

The folders may come from anywhere: sizes are checked before anything is read, nothing outside them is, and
every text that they hold is escaped.
"""

import dataclasses
import importlib
import inspect
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vfe.gallery import JOBS
from vfe.results.claims import Claim, from_json
from vfe.results.run_folder import read_config

MARK = "<!-- Written by `vfe gallery`; changes are lost when it is written again. -->"
WIDTH = 1000  # pixels of a figure on the page
MOST_BYTES, MOST_PIXELS, MOST_FIGURES = 2**24, 40_000_000, 12
MOST_ROWS, MOST_LETTERS = 60, 400
MOST_FOLDERS = 1000


@dataclasses.dataclass(frozen=True)
class Entry:
    """One run: `about`, paragraphs that say what its experiment claims (empty for an unknown experiment);
    `figures`: PNG files by name; `headline` and `claims` as the run stored them."""

    name: str
    about: str
    command: str
    created: str
    headline: tuple[tuple[str, str], ...]
    claims: tuple[Claim, ...]
    figures: Mapping[str, Path]

    @property
    def failed(self) -> int:
        """How many claims did not hold."""
        return sum(not claim.holds for claim in self.claims)


def collect(runs: Path) -> list[Entry]:
    """The newest run of every experiment among the folders in `runs`, in the order of `vfe list`.

    **Raises:** `ValueError` where there is no run, or one is damaged; it names the folder.

    **Example:** `[entry.name for entry in collect(Path("runs"))]`.
    """
    runs = Path(runs).expanduser()
    if not runs.is_dir():
        raise ValueError(f"{runs} is no folder; wanted one that holds run folders.")
    folders = [f for f in sorted(runs.iterdir()) if (f / "config.json").is_file()]
    if not folders:
        raise ValueError(f"{runs} holds no run folders; make one with vfe run NAME --out {runs}/NAME.")
    if len(folders) > MOST_FOLDERS:
        raise ValueError(f"{runs} holds {len(folders)} runs; at most {MOST_FOLDERS} are read.")
    newest: dict[str, Entry] = {}
    for folder in folders:
        entry = read(folder)
        before = newest.get(entry.name)
        if before is None or before.created <= entry.created:
            newest[entry.name] = entry
    order = {name: number for number, name in enumerate(JOBS)}
    return sorted(newest.values(), key=lambda entry: (order.get(entry.name, len(order)), entry.name))


def read(folder: Path) -> Entry:
    """One run folder. **Raises:** `ValueError` where it is damaged.

    **Example:** `read(Path("runs/first")).claims`.
    """
    config = read_config(folder)
    name, command, created = (_string(config, key, folder) for key in ("name", "command", "created"))
    if not re.fullmatch(r"\w[\w.-]{0,60}", name):
        raise ValueError(
            f"{folder}: the experiment's name is {name[:60]!r}; wanted letters, digits, '-', '_'."
        )
    pairs = _list(config, "headline", folder)
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise ValueError(f"{folder}: its headline is no list of pairs of a label and a value.")
    try:
        claims = tuple(from_json(stored) for stored in _list(config, "claims", folder))
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    headline = tuple((str(label), str(value)) for label, value in pairs)
    return Entry(name, about(name), command, created, headline, claims, _figures(folder))


def about(name: str) -> str:
    """What an experiment claims: the text at the head of its module, without its sources.

    **Example:** `about("digits")`.
    """
    if name not in JOBS:
        return ""
    # Of a package that is not installed the summary is known all the same.
    try:
        text = inspect.getdoc(importlib.import_module(JOBS[name].module)) or JOBS[name].summary
    except ModuleNotFoundError:
        text = JOBS[name].summary
    return text.split("**Source:**")[0].strip()


def write(entries: Sequence[Entry], page: Path) -> list[Path]:
    """Write the page, and its figures into a folder beside it, named as the page is. Returns the files.

    A page of before is replaced; figures that it showed and that are not shown any more are removed.

    **Raises:** `FileExistsError` where `page` is there and was not written by `vfe gallery`; `ValueError`
    for a figure that is no PNG or too large.

    **Example:** `write(collect(Path("runs")), Path("docs/gallery.md"))`.
    """
    page = Path(page).expanduser().absolute()
    folder = page.with_suffix("")
    if folder == page:
        raise ValueError(f"{page} has no suffix; wanted a Markdown file, such as docs/gallery.md.")
    before = _before(page)
    pictures = {
        f"{entry.name}-{name}.png": shrunk(path)
        for entry in entries
        for name, path in entry.figures.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        _replace(folder / name, picture)
    _replace(page, markdown(entries, folder.name).encode("utf-8"))
    for name in before - set(pictures):
        (folder / name).unlink(missing_ok=True)
    return [page, *(folder / name for name in pictures)]


def markdown(entries: Sequence[Entry], folder: str) -> str:
    """The page as Markdown; figures are looked for in `folder`.

    **Example:** `markdown(collect(Path("runs")), "gallery")`.
    """
    claims = sum(len(entry.claims) for entry in entries)
    failed = sum(entry.failed for entry in entries)
    said = "all held" if not failed else f"**{failed} failed**"
    proved = sum(claim.is_proved for entry in entries for claim in entry.claims)
    parts = [
        MARK,
        "# Gallery",
        f"{len(entries)} experiments, {claims} claims; {said}. The line at the end of each runs it again; "
        "`vfe list` names them all.",
        f"{proved} of the claims are proved: two numbers are equal, a bound bounds. There only the code "
        "could fail. The others could have come out otherwise.",
        "\n".join(
            f"- [{entry.name}](#{entry.name}){_mark(entry)}"
            + (f": {escaped(JOBS[entry.name].summary)}" if entry.name in JOBS else "")
            for entry in entries
        ),
    ]
    for entry in entries:
        parts += [f'<a id="{entry.name}"></a>', f"## {entry.name}"]
        parts += [entry.about] if entry.about else []
        parts += [f"![{entry.name}: {name}]({folder}/{entry.name}-{name}.png)" for name in entry.figures]
        if entry.claims:
            shown = [(*claim.row[:3], _verdict(claim)) for claim in entry.claims[:MOST_ROWS]]
            parts.append(_table(("claim", "measured", "wanted", ""), shown, bold=3))
        if entry.headline:
            parts.append(_table(("number", "value"), entry.headline[:MOST_ROWS]))
        parts.append("    " + cleaned(entry.command))
    return "\n\n".join(parts) + "\n"


def _verdict(claim: Claim) -> str:
    proved = " (proved)" if claim.is_proved else ""
    return f"{claim.verdict}{proved}" if claim.holds else f"**{claim.verdict}**{proved}"


def _mark(entry: Entry) -> str:
    return f" (**{entry.failed} failed**)" if entry.failed else ""


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], bold: int | None = None) -> str:
    """`bold`: the column that is written as it is."""
    lines = [columns, ["---"] * len(columns)]
    lines += [[c if i == bold else escaped(c) for i, c in enumerate(row)] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cleaned(text: str) -> str:
    """Text on one line, without control characters, and not longer than is read.

    **Example:** `cleaned("a\\nb")`.
    """
    line = " ".join(str(text)[: 4 * MOST_LETTERS].split())
    line = "".join(c if c.isprintable() else "�" for c in line)
    return line if len(line) <= MOST_LETTERS else line[: MOST_LETTERS - 1] + "…"


def escaped(text: str) -> str:
    """Text for a page: what Markdown or HTML would take for marks shows as it is.

    **Example:** `escaped("<b> *not bold* | [no link](x)")`.
    """
    # As numbers of characters, which no reader of Markdown takes for marks; a word with an underscore
    # inside is none, an address is made a link by some.
    marks = r"[&<>\\`*_{}\[\]#|~!$@]|(?<=:)//|(?<=www)\."
    return re.sub(marks, lambda found: "".join(f"&#{ord(c)};" for c in found[0]), cleaned(text))


def shrunk(path: Path) -> bytes:
    """A PNG of at most `WIDTH` pixels across, in few colours. **Raises:** `ValueError` for anything else.

    **Example:** `shrunk(Path("runs/first/figures/learning.png"))`.
    """
    import io

    from PIL import Image

    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{path} has {size / 2**20:.0f} MiB; at most {MOST_BYTES >> 20} are read.")
    try:
        with Image.open(path, formats=["PNG"]) as picture:  # the header alone, so far
            if picture.width * picture.height > MOST_PIXELS:
                raise ValueError(f"{picture.width} × {picture.height} pixels are too many")
            whole = picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is no PNG that can be shown ({error}).") from error
    if whole.width > WIDTH:
        whole = whole.resize(
            (WIDTH, max(1, round(whole.height * WIDTH / whole.width))), Image.Resampling.LANCZOS
        )
    buffer = io.BytesIO()
    # Thin lines keep their colours: the usual choice of a palette goes by how many pixels have each.
    few = whole.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _figures(folder: Path) -> dict[str, Path]:
    place = folder / "figures"
    if not place.is_dir():
        return {}
    inside = folder.resolve()
    found = {}
    for path in sorted(place.glob("*.png"))[: MOST_FIGURES + 1]:
        if not re.fullmatch(r"\w[\w.-]{0,60}", path.stem):
            raise ValueError(
                f"{folder}: a figure is called {path.name[:60]!r}; wanted letters, digits, '-', '_'."
            )
        if not path.resolve().is_relative_to(inside) or not path.is_file():
            raise ValueError(f"{path} leads out of its run folder; it is not read.")
        found[path.stem] = path
    if len(found) > MOST_FIGURES:
        raise ValueError(f"{folder} has more than {MOST_FIGURES} figures; it was not written by vfe run.")
    return found


def _string(config: Mapping[str, Any], key: str, folder: Path) -> str:
    value = config.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{folder}: {key} in its config.json is {value!r:.60}; wanted a text.")
    return value


def _list(config: Mapping[str, Any], key: str, folder: Path) -> list[Any]:
    value = config.get(key) or []
    if not isinstance(value, list):
        raise ValueError(f"{folder}: {key} in its config.json is {value!r:.60}; wanted a list.")
    return value


def _before(page: Path) -> set[str]:
    """The names of the figures that the page of before shows."""
    if not page.exists():
        return set()
    text = page.read_text(encoding="utf-8", errors="replace")
    if not text.startswith(MARK):
        raise FileExistsError(
            f"{page} exists and was not written by vfe gallery; choose another file (--out) or remove it."
        )
    shown = re.escape(page.stem)
    return set(re.findall(rf"\]\({shown}/(\w[\w.-]*\.png)\)", text))


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    handle, temporary = tempfile.mkstemp(prefix=".vfe-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
