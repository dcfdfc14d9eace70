"""A record from a file of comma-separated values: one column, when it was sampled, gaps as NaN."""

import csv
import dataclasses
from pathlib import Path

import numpy as np

# What is larger is no record that somebody meant to filter on one machine.
MOST_BYTES = 100_000_000
MISSING = {"", "na", "nan", "n/a", "null", "none", "-", "."}


@dataclasses.dataclass(frozen=True)
class Record:
    """`y` (time,), NaN where missing; `times` (time,), increasing; `name` of the column."""

    name: str
    y: np.ndarray
    times: np.ndarray

    @property
    def intervals(self) -> np.ndarray:
        """The time to each sample from the one before, one number where they are all equal."""
        steps = np.diff(self.times)
        # Times such as seconds since 1970 have few digits left for what lies between them.
        rounding = 4 * float(np.spacing(np.abs(self.times).max()))
        if np.allclose(steps, steps[0], rtol=1e-6, atol=rounding):
            return np.asarray(np.mean(steps))
        return np.concatenate([steps[:1], steps])


def read_record(
    path: str | Path, column: str | None = None, *, time: str | None = None, dt: float | None = None
) -> Record:
    """Read one column of a CSV file with a header; an empty line is a missing sample, at the end none.

    **Arguments:** `column`: its name, not needed where the file has one besides `time`; `time`: the column
    of sampling times, numbers that increase; `dt`: the time between samples instead (1 by default).
    Empty cells, NA and NaN are missing.

    **Raises:** `ValueError` for a column that is not there (those that are, are listed), cells that are no
    numbers (row and column named), times that do not increase, `dt` that is not positive, fewer than
    three samples, or none that is present; `OSError` for a file that cannot be read or is too large.

    **Example:** `read_record("nile.csv", "volume", time="year")`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; wanted comma-separated values with a header.")
    if path.stat().st_size > MOST_BYTES:
        raise OSError(f"{path} has {path.stat().st_size} bytes; wanted at most {MOST_BYTES}.")
    if dt is not None and not (np.isfinite(dt) and dt > 0):
        raise ValueError(f"got dt={dt}; wanted a positive time between samples.")
    if dt is not None and time is not None:
        raise ValueError(f"got both dt={dt} and the time column {time!r}; wanted one of them.")
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            rows = list(csv.reader(file))
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is no file of comma-separated values: {error}") from error
    if len(rows) < 2:
        raise ValueError(f"{path} has {len(rows)} rows; wanted a header and samples below it.")
    header = [name.strip() for name in rows[0]]
    if column is None:
        others = [name for name in header if name != time]
        if len(others) != 1:
            raise ValueError(f"{path} has the columns {_listed(header)}; say which one with --column.")
        column = others[0]
    if column == time:
        raise ValueError(f"{path}: {column!r} is both the column and the times; wanted two columns.")
    while len(rows) > 1 and not any(map(str.strip, rows[-1])):
        rows.pop()
    body = list(enumerate(rows[1:], start=2))
    for number, row in body:
        if len(row) > len(header):
            raise ValueError(
                f"{path}, row {number}: {len(row)} cells under a header of {len(header)}; wanted as many. "
                "Decimal commas and thousands separators are not read: write 1.5 and 1000."
            )
    y = _numbers(path, header, body, column, gaps=True)
    if time is None:
        times = (1.0 if dt is None else dt) * np.arange(len(y))
    else:
        times = _numbers(path, header, body, time, gaps=False)
        back = np.flatnonzero(np.diff(times) <= 0)
        if back.size:
            row = body[back[0] + 1][0]
            raise ValueError(
                f"{path}, row {row}: the time {times[back[0] + 1]:g} does not come after "
                f"{times[back[0]]:g}; wanted times that increase. Sort the rows, and keep one of those "
                "at the same time."
            )
    if np.isfinite(y).sum() < 3:
        present = int(np.isfinite(y).sum())
        raise ValueError(
            f"{path}: the column {column!r} has {len(y)} samples, {present} of them present; wanted "
            "at least three."
        )
    return Record(column, y, times)


def _numbers(
    path: Path, header: list[str], body: list[tuple[int, list[str]]], column: str, gaps: bool
) -> np.ndarray:
    if header.count(column) > 1:
        raise ValueError(f"{path} has {header.count(column)} columns {column!r}; wanted one of that name.")
    if column not in header:
        raise ValueError(f"{path} has no column {column!r}; it has {_listed(header)}.")
    place = header.index(column)
    found = np.full(len(body), np.nan)
    for i, (number, row) in enumerate(body):
        cell = row[place].strip() if place < len(row) else ""
        if cell.lower() in MISSING:
            if not gaps:
                raise ValueError(f"{path}, row {number}: the time (column {column!r}) is missing.")
            continue
        try:
            found[i] = np.inf if "_" in cell else float(cell)
        except ValueError:
            found[i] = np.inf
        if not np.isfinite(found[i]):
            raise ValueError(
                f"{path}, row {number}, column {column!r}: {cell[:40]!r} is no finite number; leave the "
                "cell empty where a sample is missing."
            )
    return found


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names))
