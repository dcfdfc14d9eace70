"""A run as a folder: what was asked, what came out, the model, and a page to look at.

config.json    what was asked for, versions, data provenance, the model's structure, key numbers
result.nc      the numbers, as an xarray Dataset in NetCDF
model/         the arrays of the model
report.html    a page that opens offline
figures/*.png  the figures of that page, and others
"""

import dataclasses
import hashlib
import json
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import jax
import numpy as np

from vfe.results.arrays import describe_leaves, read_arrays, read_text, structure_text, write_arrays
from vfe.results.folders import written_whole

if TYPE_CHECKING:
    import xarray as xr

    from vfe.results.claims import Claim
    from vfe.results.report import Report

SCHEMA_VERSION = 1
PACKAGES = ("vfe", "jax", "jaxlib", "numpy", "equinox", "numpyro", "optax")

T = TypeVar("T")


def save_run(
    folder: str | Path,
    *,
    name: str,
    model: Any,
    dataset: "xr.Dataset",
    figures: Mapping[str, Any] | None = None,
    tables: Mapping[str, str] | None = None,
    report: "Report | None" = None,
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
    command: str = "",
    data: Mapping[str, Any] | None = None,
    headline: Sequence[tuple[str, str]] = (),
    claims: "Sequence[Claim]" = (),
) -> Path:
    """Write a run folder, whole or not at all; an existing one is never touched.

    **Arguments:** `name`: what was run; `model`: any pytree; `dataset`: the numbers; `figures`:
    matplotlib figures by file name; `tables`: comma-separated values by file name; `report`: the page;
    `seed`, `settings`, `command` (the line that runs it again), `data` (see `provenance`) and
    `headline` ((label, value) pairs) and `claims`: for config.json.

    **Raises:** `FileExistsError`, `PermissionError`, … from `folders.check_free`; `ValueError` for a
    figure name that is no plain file name.

    **Example:** `save_run("runs/first", name="toy", model=model, dataset=percept.to_xarray())`.
    """
    figures, tables = figures or {}, tables or {}
    for key in (*figures, *tables):
        if not re.fullmatch(r"\w[\w.-]*", key):
            raise ValueError(f"figure or table {key!r}: a name is letters, digits, '_', '-' and '.'.")
    config = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "seed": seed,
        "settings": dict(settings or {}),
        "data": dict(data or {}),
        "headline": [[str(label), str(value)] for label, value in headline],
        "claims": [claim.to_json() for claim in claims],
        "x64": bool(jax.config.jax_enable_x64),  # pyright: ignore[reportAttributeAccessIssue]
        "versions": versions(),
        "model": {"structure": structure_text(model), "leaves": describe_leaves(model)},
    }
    with written_whole(folder) as temporary:
        (temporary / "config.json").write_text(
            json.dumps(config, indent=1, ensure_ascii=False, default=_plain), encoding="utf-8"
        )
        _named(dataset, name, seed).to_netcdf(temporary / "result.nc", engine="h5netcdf")
        write_arrays(temporary / "model", model)
        if figures:
            (temporary / "figures").mkdir()
        for key, figure in figures.items():
            figure.savefig(temporary / "figures" / f"{key.removesuffix('.png')}.png", dpi=160)
        for key, text in tables.items():
            (temporary / f"{key.removesuffix('.csv')}.csv").write_text(text, encoding="utf-8")
        if report is not None:
            from vfe.results.report import build_report

            filled = dataclasses.replace(
                report, command=report.command or command, versions=report.versions or versions()
            )
            (temporary / "report.html").write_text(build_report(filled), encoding="utf-8")
    return Path(folder)


@overload
def load(run: str | Path) -> "xr.Dataset": ...
@overload
def load(run: str | Path, *, like: T) -> T: ...
def load(run: str | Path, *, like: Any = None) -> Any:
    """The numbers of a run, or (with `like`) its model. Nothing stored is executed: no pickle.

    **Arguments:** `run`: a run folder; `like`: a model of the same structure, for instance built by
    the same function; its arrays are replaced by the stored ones.

    **Returns:** an `xarray.Dataset` in memory, or a pytree like `like`.

    **Raises:** `FileNotFoundError` for no run folder; `ValueError` for damaged files, or naming the
    leaf of `like` whose shape or dtype differs.

    **Example:** `vfe.load("runs/first")["free_energy"]`; `vfe.load("runs/first", like=model)`.
    """
    run = Path(run).expanduser()
    read_config(run)
    if like is not None:
        return read_arrays(run / "model", like)
    import xarray as xr

    try:
        with xr.open_dataset(run / "result.nc", engine="h5netcdf") as dataset:
            return dataset.load()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"{run / 'result.nc'} is missing or damaged ({error}).") from error


def read_config(run: str | Path) -> dict[str, Any]:
    """The config.json of a run: name, seed, settings, command, versions, data, headline, model.

    **Raises:** `FileNotFoundError` for no run folder; `ValueError` where it is damaged or newer than
    this library.

    **Example:** `read_config("runs/first")["settings"]`.
    """
    run = Path(run).expanduser()
    path = run / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{run} is not a run folder: it has no config.json.")
    try:
        config = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged ({error}).") from error
    version = config.get("schema_version") if isinstance(config, dict) else None
    if not isinstance(version, int):
        raise ValueError(f"{path} has no schema_version; it was not written by vfe.")
    if version > SCHEMA_VERSION:
        raise ValueError(f"{path} was written by a newer vfe (schema {version}); upgrade vfe to read it.")
    return config


def provenance(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Shape, dtype and SHA-256 (of the bytes in row-major order) of every array, by name.

    **Example:** `provenance({"x": np.zeros(3)})["x"]["shape"]` is `[3]`.
    """
    return {
        name: {
            "shape": list(np.shape(array)),
            "dtype": str(np.asarray(array).dtype),
            "sha256": hashlib.sha256(np.ascontiguousarray(array).data).hexdigest(),
        }
        for name, array in arrays.items()
    }


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _named(dataset: "xr.Dataset", name: str, seed: int | None) -> "xr.Dataset":
    marks = {"name": name, "vfe_version": versions()["vfe"]}
    return dataset.assign_attrs(marks if seed is None else {**marks, "seed": seed})


def _plain(value: Any) -> Any:
    """What JSON does not know: NumPy numbers, tuples inside dataclasses, paths."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)
