"""The command line: what it writes, what it refuses, and that nothing is lost when it is stopped."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import toy_job
from typer.testing import CliRunner

import vfe.gallery
from vfe import cli
from vfe.gallery import Job
from vfe.gallery.data import read_images
from vfe.gallery.settings import as_arguments, parse_settings
from vfe.results import load, read_config
from vfe.results.run_folder import versions

TOY = Job("toy", "Learns a number.", "toy_job", 1, "x_train, y_train, x_test, y_test")
# A test run in the background inherits an ignored SIGINT, and would hand it on.
START = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from vfe.gallery import JOBS, Job; "
    "JOBS['toy'] = Job('toy', 'Learns a number.', 'toy_job', 1); "
    "from vfe.cli import main; main()"
)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    monkeypatch.setitem(vfe.gallery.JOBS, "toy", TOY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def call(*arguments, code=0):
    result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def images(**changes):
    x = np.zeros((6, 4, 4), np.uint8)
    arrays = {"x_train": x, "y_train": np.arange(6), "x_test": x, "y_test": np.arange(6)}
    return {**arrays, **changes}


def test_run_writes_a_whole_folder_and_show_prints_it(toy):
    said = call("run", "toy", "--seed", 3, "--set", "steps=2", "--out", "runs/a")
    assert "F at the end" in said
    assert "runs/a/report.html" in said
    folder = toy / "runs/a"
    names = {"config.json", "result.nc", "model", "report.html", "figures"}
    assert {p.name for p in folder.iterdir()} == names
    assert (folder / "figures/learning.png").stat().st_size > 1000
    config = read_config(folder)
    assert config["settings"]["steps"] == 2
    assert config["command"] == "vfe run toy --seed 3 --set steps=2"
    assert config["data"]["x_train"]["shape"] == [3]
    assert load(folder)["free_energy"].shape == (2,)
    assert [p.name for p in (toy / "runs").iterdir()] == ["a"], "no working folder may stay"
    for name in ("runs/a", "a"):
        said = call("show", name)
        assert config["headline"][0][1] in said
        assert "steps=2" in said
    assert "runs/a" in call("list")


def test_default_folder_has_the_name_and_the_time(toy):
    call("run", "toy", "--set", "steps=1")
    (folder,) = (toy / "runs").iterdir()
    assert folder.name.startswith("toy-20")


def test_list_and_help_say_what_is_taken_and_written(toy):
    said = call("list")
    for word in ("toy", "Learns a number.", "digits", "report.html"):
        assert word in said
    said = call("list", "toy")
    for word in ("how many steps", "3,2", "one of plain, fancy", "a number or none"):
        assert word in said
    assert "report.html" in call("run", "--help")
    assert call("--version") == versions()["vfe"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nothing"], ["'nothing'", "digits", "toy"]),
        (["run", "toy", "--set", "step=3"], ["'step'", "Did you mean steps?", "sizes"]),
        (["run", "toy", "--set", "steps"], ["key=value"]),
        (["run", "toy", "--set", "steps=a"], ["a whole number"]),
        (["run", "toy", "--set", "rate=nan"], ["finite"]),
        (["run", "toy", "--set", "kind=odd"], ["plain, fancy"]),
        (["run", "toy", "--set", "steps=1", "--set", "steps=2"], ["twice"]),
        (["run", "toy", "--seed", "-1"], ["--seed"]),
        (["run", "toy", "--data", "none.npz"], ["no such file"]),
        (["run", "toy", "--out", "file/a"], ["cannot be written", "--out"]),
        (["run", "toy", "--out", "old"], ["exists", "--out"]),
        (["run", "toy", "--resume"], ["no interrupted run"]),
        (["run", "toy", "--resume", "--out", "new"], ["no interrupted run"]),
        (["show", "nowhere"], ["not a run folder"]),
        (["list", "nothing"], ["'nothing'"]),
    ],
)
def test_what_cannot_be_is_refused_in_one_paragraph(toy, arguments, words):
    (toy / "file").write_text("")
    (toy / "old").mkdir()
    said = call(*arguments, code=2)
    for word in words:
        assert word in said
    assert {p.name for p in toy.iterdir()} == {"file", "old"}, "a refusal writes nothing"


def test_a_failure_is_told_shortly_and_leaves_nothing(toy):
    said = call("run", "toy", "--set", "fail=true", "--out", "a", code=1)
    assert "FloatingPointError: the objective is not finite" in said
    assert not list(toy.iterdir())


def test_interrupted_then_resumed_is_the_same_as_uninterrupted(toy, monkeypatch):
    monkeypatch.setenv("TOY_INTERRUPT", "2")
    said = call("run", "toy", "--seed", 7, "--set", "steps=4", "--out", "a", code=130)
    assert "vfe run toy --seed 7 --set steps=4 --out a --resume" in said
    assert not (toy / "a").exists()
    monkeypatch.delenv("TOY_INTERRUPT")
    assert "--resume" in call("run", "toy", "--out", "a", code=2), "work is never thrown away unasked"
    assert "--seed 7" in call("run", "toy", "--out", "a", "--seed", 1, "--resume", code=2)
    assert "steps=4" in call("run", "toy", "--out", "a", "--set", "steps=5", "--resume", code=2)
    call("run", "toy", "--out", "a", "--resume")
    call("run", "toy", "--seed", 7, "--set", "steps=4", "--out", "b")
    a, b = load("a")["free_energy"].values, load("b")["free_energy"].values
    assert (a == b).all()
    assert {p.name for p in toy.iterdir()} == {"a", "b"}


def start(*arguments):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(toy_job.__file__).parent), *sys.path])}
    command = [sys.executable, "-c", START, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True)


def wait_for_checkpoint(folder, process):
    deadline = time.monotonic() + 120
    while not list(folder.rglob("checkpoint-*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_process_can_be_resumed(toy, how):
    process = start("run", "toy", "--set", "steps=30", "--set", "pause=0.3", "--out", "runs/a")
    wait_for_checkpoint(toy, process)
    said = call("run", "toy", "--out", "runs/a", "--resume", code=2)
    assert "another process" in said
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    if how is signal.SIGINT:
        assert process.returncode == 130
        assert "--resume" in errors
        assert "Traceback" not in errors
    assert not (toy / "runs/a").exists()
    assert "--resume" in call("list")
    request = toy / "runs/a.partial/request.json"
    hurried = json.loads(request.read_text()) | {"settings": ["steps=4"]}
    request.write_text(json.dumps(hurried))
    call("run", "toy", "--resume", "--out", "runs/a")
    assert load("runs/a")["free_energy"].size >= 4


def test_data_are_read_and_their_hash_is_kept(toy):
    np.savez_compressed(toy / "d.npz", **images(extra=np.zeros(2)))
    call("run", "toy", "--set", "steps=1", "--data", "d.npz", "--out", "a")
    assert read_config("a")["data"]["y_test"]["shape"] == [6]
    assert "--data d.npz" in read_config("a")["command"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x_train": None}, "lacks x_train"),
        ({"x_train": np.array([{}] * 6)}, "Python objects"),
        ({"x_train": np.zeros((6, 4, 4), np.int64)}, "uint8, or floats"),
        ({"x_train": np.zeros((6, 4, 4, 3), np.uint8)}, "(N, height, width)"),
        ({"x_train": np.zeros((0, 4, 4), np.uint8), "y_train": np.zeros(0, int)}, "not empty"),
        ({"x_train": np.zeros((5, 4, 4), np.uint8)}, "5 images"),
        ({"x_test": np.zeros((6, 5, 5), np.uint8)}, "shape"),
        ({"x_test": np.zeros((6, 4, 4))}, "one scale"),
        ({"x_train": np.full((6, 4, 4), np.nan), "x_test": np.zeros((6, 4, 4))}, "not finite"),
        ({"x_train": np.full((6, 4, 4), 300.0), "x_test": np.zeros((6, 4, 4))}, "[0, 255]"),
        ({"y_train": np.arange(6.0)}, "integers"),
        ({"y_train": np.arange(6) - 1}, "from -1"),
        ({"y_train": np.arange(6) + 10**12}, "wanted 0 to 999"),
        ({"y_test": np.arange(6) + 1}, "y_train goes to 5"),
        ({"y_train": np.array(list("abcdef"))}, "type <U1"),
    ],
)
def test_malformed_arrays_are_named(tmp_path, changes, words):
    arrays = {k: v for k, v in images(**changes).items() if v is not None}
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(ValueError) as error:
        read_images(tmp_path / "d.npz")
    assert words in str(error.value)
    assert "d.npz" in str(error.value)


def npy(header_shape, body, version=(1, 0)):
    stream = io.BytesIO()
    description = {"descr": "|u1", "fortran_order": False, "shape": header_shape}
    np.lib.format.write_array_header_1_0(stream, description)
    raw = bytearray(stream.getvalue() + body)
    raw[6:8] = bytes(version)
    return bytes(raw)


def test_malformed_files_are_refused(tmp_path):
    path = tmp_path / "d.npz"
    path.write_bytes(b"not a zip file")
    with pytest.raises(ValueError, match=r"no \.npz"):
        read_images(path)
    np.savez_compressed(path, **images())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"no \.npz|damaged"):
        read_images(path)
    broken = bytearray(whole)
    for i in range(120, 150):
        broken[i] ^= 255
    path.write_bytes(bytes(broken))
    with pytest.raises(ValueError, match=r"d\.npz"):
        read_images(path)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (npy((10**6, 10**6), b""), "declares"),  # a header that promises a terabyte
        (npy((2, 2), b"1234", (3, 0)), "version"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "damaged"),
        (b"", "damaged"),
    ],
)
def test_headers_that_lie_are_refused_before_memory_is_taken(tmp_path, entry, words):
    path = tmp_path / "d.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(f"{name}.npy", entry)
    with pytest.raises(ValueError, match=words):
        read_images(path)


def test_a_zip_bomb_is_refused_by_its_declared_size(tmp_path, monkeypatch):
    monkeypatch.setattr("vfe.gallery.data.MOST_BYTES", 50)
    np.savez_compressed(tmp_path / "d.npz", **images())
    with pytest.raises(ValueError, match="GiB"):
        read_images(tmp_path / "d.npz")


def test_settings_go_to_text_and_back():
    given = ["steps=3", "rate=0.25", "sizes=8,4,2", "noisy=true", "kind=fancy", "limit=2.5"]
    settings = parse_settings(toy_job.Settings, given)
    assert settings == toy_job.Settings(3, 0.25, (8, 4, 2), True, "fancy", 2.5)
    assert as_arguments(settings) == given
    assert parse_settings(toy_job.Settings, ["limit=none"]) == toy_job.Settings()


def test_control_characters_of_a_foreign_run_are_not_obeyed(toy):
    call("run", "toy", "--set", "steps=1", "--out", "a")
    path = toy / "a/config.json"
    config = json.loads(path.read_text())
    config["headline"] = [["F\u001b]0;title\u0007", "[bold]1[/bold]"]]
    path.write_text(json.dumps(config))
    result = CliRunner().invoke(cli.app, ["show", "a"])
    assert "\u001b" not in result.output
    assert "[bold]1[/bold]" in result.output
