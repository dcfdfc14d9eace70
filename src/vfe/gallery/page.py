"""What pages of experiments share: numbers to read, sections with a figure, the result."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vfe.gallery.job import JobResult
from vfe.results.claims import Claim
from vfe.results.report import Report, Section, Table, picture


def number(value: Any, form: str = ".4f") -> str:
    """A number to read, with a proper minus sign and no minus zero. **Example:** `number(-0.5)`."""
    text = format(float(value), form)
    if text.startswith("-") and not text.strip("-0.%"):
        text = text[1:]
    return text.replace("-", "−")


def refuted(text: str) -> Section:
    """What would have spoken against it. **Example:** `refuted("A gap below zero.")`."""
    return Section("What would have refuted it", text)


def shown(
    title: str, text: str, figure: Any, caption: str, alt: str, table: Table | None = None
) -> Section:
    """A section with one figure. **Example:** `shown("Readings", "…", figure, "F.", "Bars.")`."""
    return Section(title, text, [picture(figure, caption, alt)], table)


def finish(
    title: str,
    summary: str,
    sections: Sequence[Section],
    figures: Mapping[str, Any],
    headline: Sequence[tuple[str, str]],
    claims: Sequence[Claim],
    variables: Mapping[str, Any],
    model: Any,
    coordinates: Mapping[str, Any] | None = None,
) -> JobResult:
    """The result of an experiment. `variables`: as xarray.Dataset takes them.

    **Example:** `finish("Readings", "…", [], {}, [], claims, {"gap": ("draw", gap)}, {})`.
    """
    import xarray as xr

    return JobResult(
        model=model,
        dataset=xr.Dataset(dict(variables), coords=dict(coordinates or {})),
        figures=figures,
        report=Report(title, summary, sections, headline),
        headline=headline,
        claims=claims,
    )


def largest(*differences: Any) -> float:
    """The largest absolute value in some arrays; NaN where one holds NaN.

    **Example:** `largest(np.array([0.1, -0.3]), 0.2)` is 0.3.
    """
    return float(np.max([np.abs(np.asarray(part, float)).max() for part in differences]))
