"""What the pages of these experiments share: where F went, and the numbers to keep."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vfe.action import Acted
from vfe.gallery.job import JobResult
from vfe.results.claims import Claim
from vfe.results.report import Figure, Report, Section, Table, picture


def free_energy_section(courses: Mapping[str, Acted], after: float = 0.0) -> Section:
    """F of every course from a time on, by level and in its readings, in nats per sample."""
    rows = []
    for name, course in courses.items():
        free = course.percept.free_energy
        counted = course.time >= after
        readings = (free.by_time, *free.energies.values(), free.entropy, free.complexity, free.accuracy)
        cells = [f"{float(part[counted].mean()):.2f}".replace("-", "−") for part in readings]
        rows.append([name, *cells])
    first = next(iter(courses.values())).percept.free_energy
    noises = [f"energy of {name}" for name in first.by_level]
    return Section(
        "Free energy",
        "F = energy − entropy = complexity − accuracy, in nats per sample"
        + (f", from {after:g} s on" if after else "")
        + ". Perception lowers it by moving beliefs, action by moving sensations; what they cannot "
        "lower is left as error.",
        table=Table(["course", "F", *noises, "entropy", "complexity", "accuracy"], rows),
    )


def finish(
    title: str,
    summary: str,
    headline: Sequence[tuple[str, str]],
    courses: Mapping[str, Acted],
    figures: Mapping[str, Any],
    captions: Mapping[str, tuple[str, str, str]],
    arrays: Mapping[str, np.ndarray],
    after: float = 0.0,
    claims: Sequence[Claim] = (),
) -> JobResult:
    """The result of an experiment.

    `captions`: section title, caption and words for each figure; `after`: when F is counted from; `claims`:
    what was checked.
    """
    import xarray as xr

    sections = []
    for name, figure in figures.items():
        heading, caption, alt = captions[name]
        shown: list[Figure] = [picture(figure, caption, alt)]
        sections.append(Section(heading, "", shown))
    sections.append(free_energy_section(courses, after))
    data: Any = xr.concat(
        [course.to_xarray() for course in courses.values()],
        dim=xr.DataArray(list(courses), dims="course", name="course"),
    )
    return JobResult(
        model={name: np.asarray(array) for name, array in arrays.items()},
        dataset=data,
        figures=figures,
        report=Report(title, summary, sections, headline),
        headline=headline,
        claims=claims,
    )
