"""`vfe filter`: records from files, what is written about them, and what is refused."""

import csv

import numpy as np
import pytest
from typer.testing import CliRunner

import vfe
from vfe.cli import app
from vfe.dynamics.linear.records import read_record
from vfe.dynamics.linear.starting import starting

RUN = CliRunner()


def write(path, header, rows):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A rhythm of 0.1 cycles per minute in noise, with a gap, filtered from a file with its command."""
    folder = tmp_path_factory.mktemp("record")
    t = 2.0 * np.arange(150)
    clean = np.cos(2 * np.pi * 0.1 * t)
    y = clean + 0.3 * np.random.default_rng(0).normal(size=150)
    cells = ["" if 60 <= i < 66 else f"{v:.6f}" for i, v in enumerate(y)]
    rows = [f"{a},{b}" for a, b in zip(t, cells, strict=True)]
    file = write(folder / "rhythm.csv", "minute,value", rows)
    words = f"filter {file} --system oscillator --time minute --forecast 5 --report".split()
    result = RUN.invoke(app, [*words, "--out", str(folder / "out")])
    assert result.exit_code == 0, result.output
    return folder, t, y, clean, result.output


def test_the_rhythm_is_found_the_noise_taken_off_and_the_gap_filled(done):
    folder, t, y, clean, output = done
    with (folder / "out" / "estimates.csv").open() as file:
        rows = list(csv.DictReader(file))
    estimate = np.array([float(r["estimate"]) for r in rows])
    sd = np.array([float(r["estimate_sd"]) for r in rows])
    assert [float(r["time"]) for r in rows] == list(t)
    assert np.sqrt(np.mean((estimate - clean) ** 2)) < 0.6 * np.sqrt(np.mean((y - clean) ** 2))
    gap = slice(60, 66)
    assert all(r["y"] == "" for r in rows[gap])
    assert np.abs(estimate[gap] - clean[gap]).max() < 0.5
    # A mean squared standardised error of 150 correlated samples, the truth being a rhythm without damping.
    assert 0.2 < np.mean(((estimate - clean) / sd) ** 2) < 3.0
    assert "oscillator" in output
    assert "nats" in output


def test_what_is_written_can_be_loaded_and_shown(done):
    folder = done[0]
    data = vfe.load(folder / "out")
    assert float(data["surprise"].sum()) < float(data["free_energy"]) < float(data["surprise"].sum()) + 20
    assert data["forecast"].size == 5
    assert list(data["ahead"].values) == [300.0, 302.0, 304.0, 306.0, 308.0]
    assert {p.name for p in (folder / "out").iterdir()} >= {"report.html", "estimates.csv", "figures"}
    shown = RUN.invoke(app, ["show", str(folder / "out")])
    assert shown.exit_code == 0
    assert "--forecast 5" in " ".join(shown.output.split())


def test_systems_are_listed():
    result = RUN.invoke(app, ["filter", "--system", "list"])
    assert result.exit_code == 0
    assert all(name in result.output for name in ("level", "trend", "oscillator", "autoregression"))


def test_a_fit_starts_at_the_peaks_of_the_periodogram():
    t = np.arange(400.0)
    y = 5 + np.sin(2 * np.pi * 0.05 * t) + 0.5 * np.sin(2 * np.pi * 0.12 * t)
    parts = starting("oscillator+oscillator", y, np.asarray(1.0)).parts
    assert [float(p.frequency) for p in parts] == pytest.approx([0.05, 0.12], abs=0.003)


@pytest.mark.parametrize(
    ("header", "rows", "options", "words"),
    [
        ("t,y", ["0,1", "1,2", "2,x3"], ["--column", "y"], "row 4, column 'y': 'x3'"),
        ("t,y", ["0,1", "1,inf", "2,3"], ["--column", "y"], "row 3, column 'y': 'inf'"),
        ("t,y", ["0,1", "2,2", "1,3"], ["--time", "t"], "row 4: the time 1 does not come after 2"),
        ("t,y", ["0,1", ",2", "2,3"], ["--time", "t"], "row 3: the time (column 't') is missing"),
        ("t,y", ["0,1", "1,2", "2,3"], ["--column", "z"], "no column 'z'; it has 't', 'y'"),
        ("t,y", ["0,1", "1,2", "2,3"], [], "say which one with --column"),
        ("y", ["1"], [], "1 samples, 1 of them present"),
        ("y", ["1,5", "2,5", "3,7"], [], "row 2: 2 cells under a header of 1"),
        ("y", ["1", "1_000", "3"], [], "'1_000'"),
        ("y,y", ["1,2", "2,3", "3,4"], ["--column", "y"], "2 columns 'y'"),
        ("t,y", ["0,1", "1,2", "2,3"], ["--column", "t", "--time", "t"], "both the column and the times"),
        ("t,y", ["0,1", "1,2", "3,3", "7,4"], ["--time", "t", "--system", "autoregression"], "vary"),
        ("y", ["1", "2", "4", "3"], ["--system", "oscillator+oscillator+oscillator"], "fewer"),
        ("y,z", [",1", ",2", "NA,3"], ["--column", "y"], "3 samples, 0 of them present"),
        ("y", ["1", "2", "3"], ["--dt", "0"], "dt=0.0; wanted a positive"),
        ("y", ["1", "2", "3"], ["--dt", "nan"], "dt=nan; wanted a positive"),
        ("t,y", ["0,1", "1,2", "2,3"], ["--dt", "1", "--time", "t"], "both dt"),
        ("t,y", ["0,1", "1,2", "3,3"], ["--time", "t", "--forecast", "2"], "vary"),
        ("y", ["1", "2", "3"], ["--system", "wave"], "no system 'wave'"),
        ("", [], [], "wanted a header"),
    ],
)
def test_bad_files_and_options_are_refused_in_one_sentence(tmp_path, header, rows, options, words):
    file = write(tmp_path / "bad.csv", header, rows)
    result = RUN.invoke(app, ["filter", str(file), *options, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


def test_a_folder_that_exists_is_never_touched(tmp_path):
    file = write(tmp_path / "y.csv", "y", ["1", "2", "3"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    result = RUN.invoke(app, ["filter", str(file), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert (tmp_path / "out" / "mine").read_text() == "kept"


def test_empty_lines_are_gaps_and_epoch_times_are_equal(tmp_path):
    gaps = read_record(write(tmp_path / "gaps.csv", "y", ["1", "", "3", "4", "", ""]), "y")
    np.testing.assert_array_equal(gaps.y, [1.0, np.nan, 3.0, 4.0])
    rows = [f"{1.7e9 + 0.01 * k:.2f},{k}" for k in range(50)]
    epoch = read_record(write(tmp_path / "epoch.csv", "t,y", rows), "y", time="t")
    assert epoch.intervals.ndim == 0
    assert float(epoch.intervals) == pytest.approx(0.01, rel=1e-3)


def test_two_slow_parts_count_the_place_of_the_series_once():
    y = 315.0 + np.cumsum(np.random.default_rng(0).normal(size=50))
    level, trend = starting("level+trend", y, np.asarray(1.0)).parts
    assert float(level.initial_mean) + float(trend.initial_mean[0]) == pytest.approx(y[0])


def test_odd_names_of_columns_are_drawn(tmp_path):
    rows = [f"{v:.3f}" for v in np.random.default_rng(0).normal(size=12)]
    file = write(tmp_path / "odd.csv", r"cost ($) \foo ($) [/b] [m/s]", rows)
    result = RUN.invoke(app, ["filter", str(file), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output


def test_times_that_vary_become_intervals(tmp_path):
    file = write(tmp_path / "t.csv", "t,y", ["0,1", "1,2", "3,3"])
    record = read_record(file, "y", time="t")
    assert list(record.intervals) == [1.0, 1.0, 2.0]
    assert read_record(file, "y", dt=0.5).intervals == 0.5


def test_coloured_noise_is_taken_off(tmp_path):
    """A rhythm in smooth noise: its smoothness is learned, and the estimate is nearer to the rhythm."""
    rng, t = np.random.default_rng(3), np.arange(200.0)
    h = t[:, None] - t
    smooth = np.linalg.cholesky(np.exp(-(h**2) / (4 * 1.5**2)) + 1e-9 * np.eye(200)) @ rng.normal(size=200)
    clean = np.cos(2 * np.pi * 0.05 * t)
    y = clean + 0.5 * smooth + 0.1 * rng.normal(size=200)
    file = write(tmp_path / "r.csv", "y", [f"{v:.6f}" for v in y])
    out = tmp_path / "out"
    words = ["filter", str(file), "--system", "oscillator", "--smoothness", "1.0", "--report"]
    result = RUN.invoke(app, [*words, "--out", str(out)])
    assert result.exit_code == 0, result.output
    with (out / "estimates.csv").open() as table:
        rows = list(csv.DictReader(table))
    error = np.std([float(r["estimate"]) for r in rows] - clean)
    assert error < 0.4 * np.std(y - clean)
    assert [name for name in rows[0] if name.startswith("state_") and not name.endswith("_sd")] == [
        "state_0_rhythm",
        "state_0_quadrature",
        "state_noise",
    ]
    assert np.corrcoef([float(r["state_noise"]) for r in rows], smooth)[0, 1] > 0.7
    assert "--smoothness 1.0" in (out / "config.json").read_text(encoding="utf-8")
    assert "ColouredNoise.smoothness" in (out / "report.html").read_text(encoding="utf-8")
    result = RUN.invoke(app, ["filter", str(file), "--smoothness", "-1"])
    assert result.exit_code == 2
    assert "above zero" in result.output


def test_coloured_noise_has_its_autocovariance():
    """At irregular times: the series has the covariance a² exp(−h² / 4s²), within what the order gives."""
    t = np.array([0.0, 0.3, 1.0, 1.1, 2.5, 4.0])
    part = vfe.dynamics.ColouredNoise(2.0, 0.7, order=10)
    model = vfe.dynamics.Components([part], observation_sd=0.5)
    y = np.random.default_rng(0).normal(size=6)
    covariance = 4 * np.exp(-((t[:, None] - t) ** 2) / (4 * 0.7**2)) + 0.25 * np.eye(6)
    wanted = -0.5 * y @ np.linalg.solve(covariance, y) - 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
    space = model.state_space(np.diff(t, prepend=t[0]))
    assert float(vfe.filter(space, y[:, None]).log_evidence) == pytest.approx(wanted, abs=5e-3)
    with pytest.raises(ValueError, match="order=0"):
        vfe.dynamics.ColouredNoise(1.0, 1.0, order=0)
