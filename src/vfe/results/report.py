"""A report as one HTML page that opens offline: no scripts, nothing fetched, everything escaped."""

import base64
import dataclasses
import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vfe.results.claims import COLUMNS, Claim


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture: `png` bytes, a caption to read, and what it shows in words for who cannot see it."""

    png: bytes
    caption: str
    alt: str


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells (text, or numbers already written out); `caption` stands below."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading and paragraphs (separated by an empty line; `code` between backticks)."""

    title: str
    text: str = ""
    figures: Sequence[Figure] = ()
    table: Table | None = None


@dataclasses.dataclass(frozen=True)
class Report:
    """A page. `summary`: a paragraph in plain language with the key numbers.

    `headline`: (label, value) pairs shown large below it; `command`: the line that runs it again;
    `versions`: by package (these two are filled in by `save_run` where empty); `claims`: what was checked.
    """

    title: str
    summary: str
    sections: Sequence[Section] = ()
    headline: Sequence[tuple[str, str]] = ()
    command: str = ""
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    claims: Sequence[Claim] = ()


def picture(figure: Any, caption: str, alt: str, dpi: int = 150) -> Figure:
    """A matplotlib figure as a picture for a report.

    **Example:** `picture(percept.plot()[0].figure, "F by level.", "Bars: F by level.")`.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return Figure(buffer.getvalue(), caption, alt)


def build_report(report: Report) -> str:
    """The page as HTML text.

    **Raises:** `ValueError` for a table whose rows and columns differ in length, or no PNG.

    **Example:** `Path("report.html").write_text(build_report(Report("Digits", "It works.")))`.
    """
    parts = [f"<h1>{_line(report.title)}</h1>", f'<div class="summary">{_paragraphs(report.summary)}</div>']
    if report.headline:
        cards = "".join(f"<div><dt>{_line(k)}</dt><dd>{_line(v)}</dd></div>" for k, v in report.headline)
        parts.append(f'<dl class="headline">{cards}</dl>')
    if report.claims:
        failed = sum(not claim.holds for claim in report.claims)
        count = len(report.claims)
        said = f"{failed} of {count} claims failed." if failed else "Every claim held."
        parts.append(f"<section><h2>Claims</h2><p>{said}</p>")
        parts.append(_table(Table(COLUMNS, [claim.row for claim in report.claims])))
        parts.append("</section>")
    number = 0
    for section in report.sections:
        parts.append(f"<section><h2>{_line(section.title)}</h2>{_paragraphs(section.text)}")
        for figure in section.figures:
            number += 1
            parts.append(_figure(figure, number))
        if section.table is not None:
            parts.append(_table(section.table))
        parts.append("</section>")
    parts.append(_again(report))
    return _PAGE.format(title=html.escape(report.title), style=_STYLE, body="\n".join(parts))


def _again(report: Report) -> str:
    if not report.command and not report.versions:
        return ""
    parts = ["<section><h2>Run it again</h2>"]
    if report.command:
        parts.append(f"<pre><code>{html.escape(report.command)}</code></pre>")
    if report.versions:
        listed = ", ".join(f"{html.escape(k)} {html.escape(v)}" for k, v in report.versions.items())
        parts.append(f'<p class="small">Made with {listed}.</p>')
    return "".join(parts) + "</section>"


def _line(text: str) -> str:
    """Escaped text; `code` between backticks."""
    return re.sub(r"`([^`\n]+)`", r"<code>\1</code>", html.escape(str(text)))


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_line(p.strip())}</p>" for p in re.split(r"\n\s*\n", text) if p.strip())


def _figure(figure: Figure, number: int) -> str:
    if not figure.png.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError(f"report: figure {number} is no PNG; make it with vfe.results.report.picture.")
    data = base64.b64encode(figure.png).decode("ascii")
    return (
        f'<figure><div class="scroll" tabindex="0"><img src="data:image/png;base64,{data}" '
        f'alt="{html.escape(figure.alt)}"></div>'
        f"<figcaption><b>Figure {number}.</b> {_line(figure.caption)}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    for row in table.rows:
        if len(row) != len(table.columns):
            raise ValueError(f"report: a row has {len(row)} cells for the columns {list(table.columns)}.")
    columns = [[str(row[i]) for row in table.rows] for i in range(len(table.columns))]
    kind = [' class="number"' if i and _numeric(c) else "" for i, c in enumerate(columns)]
    head = "".join(f'<th scope="col"{k}>{_line(c)}</th>' for c, k in zip(table.columns, kind, strict=True))
    body = ""
    for row in table.rows:
        first, *rest = [_line(str(cell)) for cell in row]
        cells = "".join(f"<td{k}>{c}</td>" for c, k in zip(rest, kind[1:], strict=True))
        body += f'<tr><th scope="row">{first}</th>{cells}</tr>'
    caption = f'<p class="small">{_line(table.caption)}</p>' if table.caption else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="table"><table><thead><tr>{head}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>{caption}"
    )


def _numeric(cells: list[str]) -> bool:
    """Whether every cell starts with a digit, perhaps signed, or is a dash or empty."""
    return all(re.match(r"\s*([-−+±<>≈~]?\s*[\d.∞]|[—–-]?\s*$)", cell) for cell in cells)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

_STYLE = """
:root { --ink: #1c1d20; --soft: #5c6066; --line: #dcdee2; --paper: #ffffff; --card: #f5f6f8;
  --mark: #0b5f9c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7e8ea; --soft: #a3a8af; --line: #3a3e45; --paper: #16181b; --card: #202329;
    --mark: #7fbdf0; }
  figure img { filter: brightness(.93); }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 17px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 820px; margin: 0 auto; padding: 3rem 1.25rem 4rem; }
h1 { font-size: 2.1rem; line-height: 1.2; letter-spacing: -.015em; margin: 0 0 1rem; text-wrap: balance; }
h2 { font-size: 1.35rem; line-height: 1.3; margin: 3rem 0 .6rem; padding-top: 1.2rem;
  border-top: 1px solid var(--line); }
p { margin: 0 0 1rem; max-width: 70ch; text-wrap: pretty; }
.summary { font-size: 1.12rem; }
.headline { display: flex; flex-wrap: wrap; gap: .7rem; margin: 1.8rem 0 0; }
.headline div { background: var(--card); border-radius: 10px; padding: .8rem .95rem;
  display: flex; flex: 1 1 10.7rem; flex-direction: column; justify-content: space-between; gap: .35rem; }
.headline dt { color: var(--soft); font-size: .85rem; line-height: 1.35; }
.headline dd { margin: 0; font-size: 1rem; font-weight: 600; font-variant-numeric: tabular-nums; }
figure { margin: 1.6rem 0 2rem; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; background: #fff;
  border: 1px solid var(--line); border-radius: 8px; padding: 8px; }
figcaption, .small { color: var(--soft); font-size: .9rem; line-height: 1.5; margin-top: .6rem; }
.scroll { overflow-x: auto; margin: 1.2rem 0 .6rem; }
figure .scroll { margin: 0; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; line-height: 1.4;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .5rem .9rem .5rem 0;
  border-bottom: 1px solid var(--line); }
td:last-child, th:last-child { padding-right: 0; }
thead th { color: var(--soft); font-weight: 600; border-bottom-width: 2px; vertical-align: bottom; }
tbody th { font-weight: 500; }
.number { text-align: right; white-space: nowrap; }
code { font: .9em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background: var(--card);
  border-radius: 4px; padding: .1em .3em; }
pre { background: var(--card); border-radius: 8px; padding: .9rem 1rem; overflow-x: auto; }
pre code { background: none; padding: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
a { color: var(--mark); }
@media (max-width: 520px) { figure img { max-width: none; width: 620px; }
  body { font-size: 16px; } main { padding-top: 1.8rem; }
  h1 { font-size: 1.7rem; } }
@media print { main { max-width: none; } figure, tr { break-inside: avoid; } }
"""
